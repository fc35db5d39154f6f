"""What speed a GPU's or a TPU's bandwidth and peak let one expect of steering, counted and not measured.

    python -m decode.expected_speed
    python -m decode.expected_speed --shape 0.6B --columns 2048
    python -m decode.expected_speed --page docs/decoding.md

Bytes and FLOPs of each pass come from the shapes, and its time is the larger of bytes over bandwidth and
FLOPs over peak; how often passes run comes from a Markov chain of the rows that wait. Nothing is run, and no
device is needed. What a device takes to begin a pass, and what it does between passes, is left out: both
weigh most at small batches. Whether all fits into its memory is not looked at.
"""

import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.markdown import Markdown

from sia_jax.costs.passes import DEVICES
from sia_jax.costs.shapes import REAL_SHAPES
from sia_jax.files.outputs import check_outputs
from sia_jax.reports.expected_speed import expected_speed
from sia_jax.reports.markdown import put_section
from sia_jax.runs.cli import program, read_options
from sia_jax.runs.console import Terminal

HEADING = "## What speed to expect"


@dataclass(frozen=True)
class Args:
    """Reckon the speed of steering."""

    shape: Literal["1.7B", "0.6B"] = "1.7B"
    """Of the policy, a Qwen3 model, and of the value model."""
    columns: int = 512
    """Ids of prompt and reply that a row holds, on average of its steps."""
    contenders: float = 3.0
    """Candidates that contend at a junction on average, where contenders alone are read."""
    page: Path | None = None
    """A Markdown file whose section of this name is made anew."""


def main(args: Args) -> None:
    """Print the tables, and put them into the page."""
    console = Terminal(width=max(Terminal().width, 130))
    with program("decode.expected_speed", keeps_compiled=False):
        if args.columns < 1:
            raise ValueError(f"--columns must be 1 or more, got {args.columns}")
        text = section(args)
        if args.page is not None:
            check_outputs(inputs={}, files={"--page": args.page})
            put_section(args.page, text)
    console.print(Markdown(text))
    if args.page is not None:
        console.print(f"wrote {args.page}")


def section(args: Args) -> str:
    """The section of the page, with its heading."""
    options = [
        f"--{name} {shlex.quote(str(getattr(args, name)))}"
        for name in ("shape", "columns", "contenders")
        if getattr(args, name) != getattr(Args(), name)
    ]
    devices = " and ".join(
        f"{name} ({rates.bytes_per_second / 1e12:.2f} TB/s, {rates.flops_per_second / 1e12:.0f} TFLOP/s)"
        for name, rates in DEVICES.items()
    )
    command = " ".join(["python -m decode.expected_speed", *options])
    text = (
        f"Counted by `{command}` and not measured: a pass takes its bytes over the device's bandwidth, or "
        "its FLOPs over the bfloat16 peak if that is longer, by the makers' data sheets of "
        f"{devices}. Qwen3-{args.shape} in bfloat16, rows that hold {args.columns} ids; the value model is "
        "an adapter of rank 16 over its weights, or a separate model of the same shape; ten candidates, and "
        "slots, tokens and schedule by the rule of `auto`. How often passes run comes from a Markov chain of "
        "the rows that wait. In each step `Shared` reads the caches of all its slots, filled or not, which "
        "weighs most at large batches. What a device takes to begin a pass is left out, so small batches "
        "will fall short of this, and whether all fits into its memory is not looked at."
    )
    tables = expected_speed(REAL_SHAPES[args.shape], args.columns, args.contenders)
    return f"{HEADING}\n\n{textwrap.fill(text, 118)}\n\n{tables}"


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
