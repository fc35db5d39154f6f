r"""How often the intervals of decode.evaluate hold the true mean: simulated, as a table.

    python -m decode.demo --prompts 300 --out out/demo300
    python -m decode.coverage --replies out/demo300/replies.jsonl --out docs/intervals.md

A trial draws n differences, one a prompt, from a law whose mean is known: the normal and the exponential one,
and the differences between methods in a file of replies (of decode.demo or decode.evaluate), each of them
equally likely. The table has the share of trials whose interval holds the mean, for the intervals that are
used and for others that are not.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sia_jax.data.prompts import check_seed
from sia_jax.evaluation.coverage import EXPONENTIAL, NORMAL, Cover, Law, cover
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs, check_suffix
from sia_jax.files.writing import write_text
from sia_jax.reports.coverage import laws_of, page_text
from sia_jax.runs.cli import Count, check_used, command, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.progress import waiting


@dataclass(frozen=True, kw_only=True)
class Args:
    """Simulate the cover of intervals."""

    replies: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Replies with gold rewards under several methods: replies.jsonl of decode.demo or decode.evaluate."""
    pairs: tuple[str, ...] = ("sparse 20%:base", "dense:base", "sparse 10%:sparse 20%", "sparse 20%:dense")
    """Methods of the file whose differences are drawn from, as ONE:OTHER."""
    prompts: tuple[int, ...] = (3, 5, 10, 20, 30, 100, 300)
    """Differences of a trial."""
    trials: Count = 2000
    """Of each law and size."""
    resamples: Count = 2000
    """Of each bootstrap."""
    seed: Count = 0
    """Of everything random."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("out/intervals.md")
    """The page, a .md file."""


def main(args: Args) -> None:
    """Simulate, and write the page; exits with 1 if something is wrong with options or files."""
    with program("decode.coverage") as console:
        check_seed(args.seed, "--seed")
        if args.trials < 1 or args.resamples < 1 or not args.prompts or min(args.prompts) < 2:
            raise ValueError("--trials and --resamples must be 1 or more, and --prompts 2 or more each")
        if args.replies is None:
            check_used(args, ("pairs",), "--replies FILE")
        check_outputs(inputs={"--replies": args.replies}, files={"--out": args.out})
        check_suffix("--out", args.out, ".md")
        with locked(files=(args.out,)):
            laws = [NORMAL, EXPONENTIAL, *(laws_of(args.replies, args.pairs) if args.replies else [])]
            rows = []
            for law in laws:
                for prompts in args.prompts:
                    with waiting(console, f"{law.name}, {prompts} prompts: {args.trials:,} trials"):
                        rows.append((law, prompts, _cover(law, prompts, args)))
            page = page_text(rows, args.trials, command("decode.coverage", args))
            write_text(args.out, page)
            Terminal().say(page)


def _cover(law: Law, prompts: int, args: Args) -> Cover:
    return cover(law, prompts, trials=args.trials, resamples=args.resamples, seed=args.seed)


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
