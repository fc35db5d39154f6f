"""What a million prompts take of GPUs and TPUs: hours, files and memory, counted from bytes and FLOPs.

    python -m decode.expected_hours
    python -m decode.expected_hours --prompt 1024 --reply 1024 --reward 14B
    python -m decode.expected_hours --measured docs/benchmarks/2026-11-27T022328Z-gpu.json

A pass takes the larger of its bytes over the bandwidth and its FLOPs over the peak of the data sheet, as in
decode.expected_speed. Nothing is run, and no device is needed. --measured adds what benchmarks of this
project found, and which share of the same count that is.
"""

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from rich.markdown import Markdown

from sia_jax.costs.shapes import REAL_SHAPES
from sia_jax.costs.work import CHIPS, Lengths
from sia_jax.files.outputs import check_outputs
from sia_jax.reports.expected_hours import (
    Asked,
    Measured,
    driver_bytes,
    hours_table,
    measured_line,
    rates_table,
    record_bytes,
    stages,
)
from sia_jax.reports.markdown import put_section, with_section
from sia_jax.runs.cli import Count, program, read_options
from sia_jax.runs.console import Terminal

HEADING = "## What a million prompts take"
_POSITIONS = REAL_SHAPES["1.7B"].max_position_embeddings
"""Of all shapes alike."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Reckon what very many prompts take."""

    prompts: Count = 1_000_000
    """Prompts, with a reply each."""
    prompt: Count = 256
    """Ids of a prompt."""
    reply: Count = 512
    """Ids of a reply."""
    reward: Literal["0.6B", "1.7B", "4B", "8B", "14B"] = "8B"
    """Shape of the reward model, of Qwen3's."""
    memory: float = 0.9
    """Share of a chip's memory for weights, caches and ids; the rest is for activations and logits."""
    rows: Count = 512
    """Rows of a copy of the models at most, where more would fit."""
    measured: tuple[Path, ...] = ()
    """Records of benchmarks of sampling, to be told beside."""
    page: Path | None = None
    """A Markdown file whose section of this name is made anew."""


def main(args: Args) -> None:
    """Print the section, and put it into the page."""
    console = Terminal(width=max(Terminal().width, 150))
    with program("decode.expected_hours", keeps_compiled=False):
        _check(args)
        check_outputs(
            inputs={f"--measured {path}": path for path in args.measured}, files={"--page": args.page}
        )
        if args.page is not None:
            with_section(args.page.read_text(encoding="utf-8"), HEADING)
        text = section(args)
        if args.page is not None:
            put_section(args.page, text)
    console.print(Markdown(text))
    if args.page is not None:
        console.print(f"wrote {args.page}")


def section(args: Args) -> str:
    """The section of the page, with its heading.

    Raises:
      OSError, ValueError: a record that cannot be read, or models that do not fit a host.
    """
    measured = [Measured.read(path) for path in args.measured]
    asked = Asked(args.prompts, Lengths(args.prompt, args.reply), args.reward, args.memory, args.rows)
    found = stages(asked)
    devices = " and ".join(
        f"{chip.name} ({chip.memory / 1e9:.0f} GB, {chip.rates.bytes_per_second / 1e12:.2f} TB/s, "
        f"{chip.rates.flops_per_second / 1e12:.0f} TFLOP/s)"
        for chip in CHIPS
    )
    size, held = record_bytes(asked.lengths), driver_bytes(asked.lengths)
    counted = (
        f"Counted by `{_command(args)}` and not measured, as in "
        "[decoding.md](decoding.md#what-speed-to-expect): a pass takes its bytes over the bandwidth, or its "
        f"FLOPs over the bfloat16 peak if that is longer, by the makers' data sheets of {devices}. "
        f"{args.prompts:,} prompts of {args.prompt} ids, a reply of {args.reply} to each, Qwen3 shapes: a "
        "policy of 1.7B with an adapter of rank 16 as its value model, and one of 14B with a separate 4B. "
        "Ten candidates are read at each steered token, with slots, tokens and schedule by the rule of "
        f"`auto`. Labels are the FLOPs of reading prompt and reply with a reward model of {args.reward}; "
        "training is one epoch of an adapter on all of them, its layers computed again, by FLOPs alone. "
        "Whether batches of these two fit is not looked at."
    )
    fits = (
        f"Rows are those that fit {args.memory:.0%} of the memory, at most {args.rows}, beside the weights: "
        "caches and ids by `sia_jax.costs.sampler.sampler_memory`, the rest left for logits and "
        "activations. On v5e caches count twice, as the compiled window holds them "
        "([decoding.md](decoding.md#on-a-mesh)); on an H100 once, which has not been looked at. Where a "
        "chip does not hold the models they are split over the fewest of a host's eight that do, whose "
        "bandwidths and peaks are taken to add up: what they send each other is left out. All rows are "
        "taken to be in use at all times."
    )
    half = (
        f"Hours for {args.prompts:,} prompts, at the limit / at half of it. Half is about what another "
        "engine reaches on an H100 at 64 rows: vLLM said 5,147 tokens/s with Llama-3.1-8B, 4,315 with "
        "Qwen3-8B and 3,140 with Qwen3-14B (ML.ENERGY leaderboard v3.0, lm-arena-chat), which we reckon to "
        "be 47%, 42% and 52% of the bandwidth's limit. With more rows its share was lower: at most 5,760 "
        "tokens/s with Qwen3-14B, at 253 rows, is about a third by the same arithmetic."
    )
    scales = (
        "Sampling and labelling go as the number of copies, for units of work share nothing: a record is "
        "the same wherever it is made, and nothing is sent between shards. What does not: every shard reads "
        f"and checks the whole input, loads its models and compiles{_first_calls(measured)}; shards end with "
        "their last rows, when fewer are in use; and training sends gradients at every step, which is left "
        "out above. Reading and loading have not been timed at this size."
    )
    sizes = (
        f"A line of JSONL of `sia generate` is {size:,} bytes here, {size / args.reply:.0f} a token of the "
        "reply (a made-up record at 20%, text at 4 bytes an id; the run's settings come on top): "
        f"{_bytes(args.prompts * size)} in all, and `--record` writes more. The program that is started "
        f"with `--ray` holds the input: {held:,} bytes a prompt, {_bytes(args.prompts * held)} in all, which "
        "are its ids, its text and some two kilobytes of names. A shard reads all of the input too; files of "
        "fewer prompts, one run each, take less."
    )
    parts = [HEADING, _filled(counted), _filled(fits), rates_table(found), _filled(half)]
    parts += [hours_table(found, asked), *_measured(measured, asked), _filled(scales), _filled(sizes)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _check(args: Args) -> None:
    for name in ("prompts", "prompt", "reply", "rows"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be 1 or more, got {getattr(args, name)}")
    if args.prompt + args.reply > _POSITIONS:
        raise ValueError(
            f"--prompt and --reply must fit the models' {_POSITIONS:,} positions together, got "
            f"{args.prompt + args.reply:,}"
        )
    if not 0 < args.memory <= 1:
        raise ValueError(f"--memory must be a share above 0 and at most 1, got {args.memory}")


def _command(args: Args) -> str:
    words = ["python -m decode.expected_hours"]
    for field in fields(args):
        given = getattr(args, field.name)
        if field.name != "page" and given != field.default:
            values = given if isinstance(given, tuple) else (given,)
            words += [f"--{field.name}", *(shlex.quote(str(value)) for value in values)]
    return " ".join(words)


def _measured(measured: Sequence[Measured], asked: Asked) -> list[str]:
    if not measured:
        return []
    lines = [
        textwrap.fill(measured_line(one, asked), 118, subsequent_indent="  ", break_on_hyphens=False)
        for one in measured
    ]
    heading = (
        "Measured by this project, at other lengths and fewer rows than above. Where it stands below one "
        "half, expect more hours than the table says:"
    )
    return [_filled(heading), "\n".join(lines)]


def _first_calls(measured: Sequence[Measured]) -> str:
    """Of the first record that tells them."""
    for one in measured:
        if one.first_seconds:
            told = ", ".join(f"{seconds:.0f}" for seconds in one.first_seconds)
            device = one.device.partition(",")[0]
            return f" (first calls took {told} s unsteered, at 20% and dense on an {device})"
    return ""


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _filled(text: str) -> str:
    return textwrap.fill(text, 118, break_on_hyphens=False, break_long_words=False)


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
