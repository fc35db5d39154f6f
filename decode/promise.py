r"""Thresholds that promise to miss few of the tokens that steering would shift, from densely steered replies.

    python -m decode.generate --policy DIR --value DIR --threshold=-inf --prompts validation.jsonl \
        --out dense.jsonl
    python -m decode.promise --replies dense.jsonl --miss-rates 0.05 0.1 0.2 --out promise.json

    # And whether other prompts bear it out:
    python -m decode.promise --replies dense.jsonl --miss-rates 0.1 --check dense-of-others.jsonl

A token is missed that dense steering shifts and whose entropy is below the threshold. The promise: of a new
prompt's shifted tokens at most --miss-rates are missed on average, with --confidence over the prompts that
were calibrated on (`sia_jax.evaluation.risk` has the test); --on-average promises it on average over
calibrations too, which is less and lets a higher threshold pass. It is about prefixes that dense steering
wrote: a gate writes others, which may be measured by replies of its own, but are not promised.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sia_jax.evaluation.promises import promises, read_dense_replies
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs, check_suffix
from sia_jax.files.writing import write_text
from sia_jax.reports.markdown import table
from sia_jax.runs.cli import File, Flag, check_used, named_as_options, program, read_options
from sia_jax.runs.console import Terminal

FORMAT = "sia_jax promise 1"
"""Stands in the file."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Find thresholds with a promise."""

    replies: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Replies of decode.generate --threshold=-inf; not to the prompts that will be evaluated on."""
    miss_rates: tuple[float, ...] = (0.05, 0.1, 0.2)
    """Shares of the shifted tokens that may be missed."""
    confidence: float = 0.95
    """Of each promise by itself."""
    on_average: Flag = False
    """Promise it on average over calibrations, not with a confidence."""
    check: File = None
    """Such replies to other prompts, on which the thresholds are measured."""
    out: File = None
    """A .json file for the thresholds."""


def main(args: Args) -> None:
    """Print the table; exits with 1 if something is wrong with options or files."""
    with program("decode.promise"):
        check_suffix("--out", args.out, ".json")
        check_outputs(inputs={"--replies": args.replies, "--check": args.check}, files={"--out": args.out})
        if args.on_average:
            check_used(args, ("confidence",), "a promise without --on-average")
        if not args.miss_rates or len(set(args.miss_rates)) < len(args.miss_rates):
            raise ValueError(f"--miss-rates must be different shares, at least one, got {args.miss_rates}")
        replies = read_dense_replies(Path(args.replies))
        elsewhere = [] if args.check is None else read_dense_replies(Path(args.check))
        with named_as_options(args):
            confidence = None if args.on_average else args.confidence
            found = promises(replies, sorted(args.miss_rates), confidence, elsewhere)
        rows = []
        for one in found:
            own, missed = one.found, one.missed_elsewhere
            row = [f"{own.alpha:.4g}", f"{own.threshold:.4f}", f"{own.steered:.1%}", f"{own.missed:.3f}"]
            if missed is not None and one.steered_elsewhere is not None:
                row += [f"{one.steered_elsewhere:.1%}", missed.text(digits=3)]
            rows.append(row)
        columns = ["miss rate", "H ≥, nats", "steered", "missed"]
        columns += ["steered, others", "missed, others"] if elsewhere else []
        if args.out is not None:
            content = {"format": FORMAT, "replies": Path(args.replies).name, "prompts": len(replies)}
            whole = content | {"promises": [one.to_json() for one in found]}
            with locked(files=(Path(args.out),)):
                write_text(Path(args.out), json.dumps(whole, indent=1, allow_nan=False) + "\n")
        how = "on average" if confidence is None else f"with a confidence of {confidence:g}"
        Terminal().say(f"{table(columns, rows)}\nPromised {how} by {len(replies):,} prompts.")


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
