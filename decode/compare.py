r"""Several evaluations on one page: other value models, tilts or strengths, prompt for prompt.

    python -m decode.evaluate ... --methods base dense entropy --out out/additive
    python -m decode.evaluate ... --methods dense --tilt "clipped(1, advantage)" --out out/bounded
    python -m decode.compare --folders out/additive out/bounded --against additive/entropy-0.2 \
        --page out/bounds.md

The evaluations must have replied to the same prompts under the same seeds, and have been scored by the same
rewards; in what else they differ, the table says. A method is named by its folder and its key:
additive/entropy-0.2. Each is held against those of --against: by paired differences with 95% intervals, by
whether it keeps nine tenths of what they gain over the base (of the first folder that has one), and by
tokens/s. --pairs ONE:OTHER adds single differences. Nothing is corrected for how many comparisons there are.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import tyro

from sia_jax.evaluation.side_by_side import Entry, SideBySide
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs, check_suffix
from sia_jax.files.writing import write_text
from sia_jax.reports.evaluation import read_markdown
from sia_jax.reports.side_by_side import draw, page_text
from sia_jax.runs.cli import Count, File, command, program, read_options
from sia_jax.runs.progress import waiting
from sia_jax.runs.provenance import head_commit


@dataclass(frozen=True, kw_only=True)
class Args:
    """Compare evaluations."""

    folders: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR")]
    """What decode.evaluate was given as --out; runs that have ended."""
    against: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ()
    """Methods that all are held against, as FOLDER/KEY."""
    pairs: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ONE:OTHER")] = ()
    """Single differences."""
    resamples: Count = 10_000
    """Of the bootstrap."""
    page: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """A .md file; its picture goes beside it."""
    title: str = "Evaluations compared"
    """Of the page."""
    introduction: File = None
    """A file of Markdown that the page begins with."""


def main(args: Args) -> None:
    """Compare, and write the page; exits with 1 if something is wrong with options or files."""
    with program("decode.compare") as console:
        if args.resamples < 1:
            raise ValueError(f"--resamples must be 1 or more, got {args.resamples}")
        page = Path(args.page)
        picture = page.with_suffix(".png")
        check_suffix("--page", args.page, ".md")
        check_outputs(
            inputs={
                "--introduction": args.introduction,
                **{
                    f"{folder}'s {name}": Path(folder) / name
                    for folder in args.folders
                    for name in ("results.json", "replies.jsonl")
                },
            },
            files={"--page": page, "--page's picture": picture},
        )
        introduction = "" if args.introduction is None else read_markdown(Path(args.introduction))
        with locked(files=(page,)), waiting(console, "comparing"):
            found = SideBySide([Path(folder) for folder in args.folders], resamples=args.resamples)
            rivals = [found.find(key) for key in args.against]
            pairs = [_pair(found, text) for text in args.pairs]
            draw(found, picture)
            made = {
                "command": command("decode.compare", args),
                "commit": head_commit(ignored=(page.absolute().parent,)),
                "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            }
            titles = {"title": args.title, "introduction": introduction, "picture": picture.name}
            write_text(page, page_text(found, rivals, pairs, **titles, **made))
        console.say(f"{len(found.entries)} methods of {len(args.folders)} evaluations: {page}")


def _pair(found: SideBySide, text: str) -> tuple[Entry, Entry]:
    one, colon, other = text.partition(":")
    if not colon:
        raise ValueError(f"--pairs must be ONE:OTHER, each a FOLDER/KEY, got {text!r}")
    return found.find(one), found.find(other)


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
