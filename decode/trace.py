"""Make a page of replies to look into: entropies, junctions, and what stood to choice at each token.

    python -m decode.generate --policy DIR --value DIR --prompt "..." --compare --record --out out/r.jsonl
    python -m decode.trace out/r.jsonl --out out/trace.html

The page is one file, which asks the network for nothing: open it in a browser, or send it to somebody. The
replies to one prompt stand side by side. Every token is shaded by its entropy; junctions are underlined, and
shifted tokens set off. Pointing at a token, or tapping it, shows its candidates: their probability under the
policy, their values, and the probability that they were drawn with.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs, check_suffix
from sia_jax.files.reading import check_file
from sia_jax.files.strict_json import parse_object, stream_lines
from sia_jax.files.writing import make_folder, write_text
from sia_jax.reports.trace import trace_page
from sia_jax.reports.trace_record import check_record
from sia_jax.runs.cli import program, read_options


@dataclass(frozen=True, kw_only=True)
class Args:
    """Make a page of replies."""

    replies: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """What decode.generate wrote with --record."""
    output: Annotated[Path, tyro.conf.arg(aliases=["--out"], metavar="FILE")] = Path("out/trace.html")
    """The page, a .html file."""
    title: str | None = None
    """Of the page; without: the file's name."""
    prompts: Annotated[int, tyro.conf.arg(metavar="N")] = 50
    """Prompts shown, the first ones; a page of thousands is slow to open."""


def main(args: Args) -> None:
    """Write the page; exits with 1 if something is wrong with the file."""
    with program("decode.trace") as console:
        if args.prompts < 1:
            raise ValueError(f"--prompts must be at least 1, got {args.prompts}")
        check_outputs(inputs={"FILE": args.replies}, files={"--out": args.output})
        check_suffix("--out", args.output, ".html")
        with locked(files=(args.output,)):
            console.say(run(args))


def run(args: Args) -> str:
    """Write the page; what is to be said of it.

    Raises:
      FileNotFoundError, ValueError: what is wrong with the file.
    """
    records = read(args.replies)
    indices = sorted({record["index"] for record in records})
    shown = set(indices[: args.prompts])
    page = trace_page(
        [record for record in records if record["index"] in shown], args.title or args.replies.stem
    )
    make_folder(args.output.parent)
    write_text(args.output, page)
    left = f" of {len(indices):,}" if len(shown) < len(indices) else ""
    return f"wrote {args.output}: {len(shown):,}{left} prompts"


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file.

    Raises:
      FileNotFoundError: there is none.
      ValueError: a line that is no such record, and which.
    """
    check_file(path, "file of replies", "decode.generate --record --out writes one")
    records = []
    with path.open("rb") as file:
        for number, line in stream_lines(file, str(path)):
            record = parse_object(line, f"{path}, line {number}", is_line=True)
            if not {"index", "tokens", "steering", "settings"} <= set(record):
                raise ValueError(f"{path}, line {number}: this is no record of decode.generate")
            try:
                check_record(record)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            records.append(record)
    if not records:
        raise ValueError(f"{path}: there are no replies in it")
    return records


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
