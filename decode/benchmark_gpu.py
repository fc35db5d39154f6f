"""How near a GPU's decoding comes to its memory's bandwidth, at the shapes of real models in bfloat16.

    python -m decode.benchmark_gpu                          # Qwen3-1.7B; first calls take half a minute each
    python -m decode.benchmark_gpu --shape 0.6B --minutes 2
    python -m decode.benchmark --suite accelerator          # this for several shapes, within eight minutes
    python -m decode.benchmark_gpu --shape tiny --tries 1   # on a CPU: that everything runs

Random weights, made on the device; the value model is an adapter over the policy's, but of 14B+4B, where it
has weights of its own. Stop ids are ignored, the share of junctions is pinned by the Bernoulli gate, and the
logits are scaled so that as many candidates contend as of a real model's. A time is that of the whole call,
prefill included; the median of some calls after the first, whose seconds are given too, for it compiles. The
floor is that of the policy's step alone: its bytes over the bandwidth, or its FLOPs over the peak, both
measured in the same run. Where torch is installed and sees the device, Hugging Face runs last, on the same
weights.

What the targets are set for is measured first, and what is off until it has been measured after it: attention
by cuDNN, and a loop whose number of steps is known. The record is written after each row, so that a run may
be cut short; a row that fails on the device is named, and the others go on. Beside the rows it holds the
kernels of a call, as the device's profiler records them, the parts of a steered one, and what products that
share their input would take as one. The record goes to docs/benchmarks/, and docs/benchmarks.md is made
again.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.markdown import Markdown

from sia_jax.benchmarks import gpu
from sia_jax.benchmarks.systems import System
from sia_jax.costs.roofline import measure_device
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.writing import write_text
from sia_jax.reports.benchmarks import section, write_page
from sia_jax.runs.cli import program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.provenance import record_header


@dataclass(frozen=True)
class Args:
    """Time the sampler on a GPU."""

    shape: gpu.Shape = "1.7B"
    """Of Qwen3 models; the tiny ones only show that everything runs, in float32."""
    batches: tuple[int, ...] = (16, 1, 64)
    """In this order."""
    prompt_tokens: int = 64
    """Ids a prompt."""
    new_tokens: int = 128
    """Ids a reply."""
    tries: int = 3
    """Timings of each system, after the first call."""
    minutes: float = float("inf")
    """Nothing is begun that the time left would not hold."""
    commit: str | None = None
    """To be recorded where the files are not a git checkout."""
    traces: Path | None = None
    """Folder for the profiler's own files, which XProf opens."""
    out: Path = Path("docs/benchmarks")
    """Folder of the JSON files; the page is written beside it."""


def main(args: Args) -> None:
    """Measure, record, and draw the page."""
    console = Terminal()
    with program("decode.benchmark_gpu", keeps_compiled=False):
        least = min(args.tries, args.prompt_tokens, *args.batches)
        if least < 1 or args.new_tokens < 4:
            raise ValueError(
                "--tries, --prompt-tokens and --batches must be 1 or more and --new-tokens 4 or more, got "
                f"{args.tries}, {args.prompt_tokens}, {args.batches} and {args.new_tokens}"
            )
        check_outputs(inputs={}, files={"--out's page": args.out.with_suffix(".md")})
        with locked(folders=(args.out,), files=(args.out.with_suffix(".md"),)):
            run(args, console)


def run(args: Args, console: Terminal) -> None:
    """`main`, once the options are checked."""
    clock = gpu.Clock(args.minutes)
    load = gpu.Load(args.batches, args.prompt_tokens, args.new_tokens, args.tries)
    kept = args.traces and args.traces / args.shape
    tiny = args.shape.startswith("tiny")
    dtype = jnp.dtype(jnp.float32 if tiny else jnp.bfloat16)
    console.print("measuring the machine's bandwidth and peak ...")
    rates = measure_device(64, 512) if tiny else measure_device(4096, 8192, dtype)
    models = gpu.models_of(args.shape, dtype)
    record = record_header(args.shape, models.config, rates, args.out) | {
        "kind": "gpu",
        "dtype": dtype.name,
        "prompt_tokens": args.prompt_tokens,
        "new_tokens": args.new_tokens,
        "tries": args.tries,
        "rows": [],
        "targets": [],
        "left_out": [],
        "failed": [],
        "kernels": {},
        "parts": {},
        "parts_batch": args.batches[0],
    }
    if args.commit:
        record["commit"] = args.commit
    path = args.out / f"{record['time'].replace(':', '')}-gpu.json"

    def save() -> None:
        write_text(path, json.dumps(record, indent=1) + "\n")
        write_page(args.out, args.out.with_suffix(".md"))

    def measure(name: str, system: System, batch: int) -> None:
        if not clock.allows():
            console.say(f"no time is left for batch {batch}: {name}", "yellow")
            record["left_out"].append({"system": name, "batch": batch})
            return
        try:
            row = gpu.time_row(name, system, batch, models, rates, load, clock)
        except RuntimeError as error:  # of the device or its compiler: the other rows are worth having
            console.say(f"batch {batch}: {name} failed: {error}", "yellow")
            record["failed"].append({"system": name, "batch": batch, "error": str(error)})
            save()
            return
        record["rows"].append(row)
        gpu.compare(record["rows"])
        record["targets"] = gpu.targets(record["rows"]) if args.shape == "1.7B" else []
        save()
        console.print_json(data=row, indent=None)
        if name == gpu.UNSTEERED or (name, batch) == (gpu.SPARSE, args.batches[0]):
            record["kernels"] |= gpu.kernels_of(name, system, batch, models, load, kept)
            save()

    for name, system, batch in gpu.jobs(models, load):
        measure(name, system, batch)
    with gpu.baselines(models, dtype, clock) as baselines:
        for name, system in baselines.items():
            measure(name, system, args.batches[0])
    done = {(row["system"], row["batch"]) for row in record["rows"]}
    if (gpu.SPARSE, args.batches[0]) in done and clock.allows(2):
        record["parts"] = gpu.parts_of(models, rates, load)
    save()
    console.print(Markdown(section(record)))
    console.print(f"wrote {path} and {args.out.with_suffix('.md')}")


def run_suite(minutes: float, out: Path, tries: int, console: Terminal, *, rehearse: bool = False) -> None:
    """One record after the other, each written row by row; what the time left does not hold is left out.

    Args:
      minutes: for all of it.
      out: folder of the records.
      tries: timings of each system.
      console: told how it goes.
      rehearse: tiny shapes.
    """
    end = time.monotonic() + 60 * minutes
    for shape, batches in gpu.REHEARSAL if rehearse else gpu.SUITE:
        left = (end - time.monotonic()) / 60
        if left * 60 < gpu.FIRST_SECONDS:
            console.say(f"no time is left for {shape} at batch {', '.join(map(str, batches))}", "yellow")
            continue
        args = Args(shape=shape, batches=batches, tries=tries, minutes=left, out=out)
        run(replace(args, prompt_tokens=4, new_tokens=4) if rehearse else args, console)
        jax.clear_caches()  # the weights of one shape make room for those of the next


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
