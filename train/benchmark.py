"""How fast a value model trains: packed, padded, and by torch and PEFT, against the floor.

    make bench-training
    python -m train.benchmark --shape tiny --steps 1      # that everything runs

Random weights of the given shape in float32, the paper's recipe (LoRA of rank 16 on q, k, v, o, dropout 0.1,
batches of 16 trajectories). Lengths are drawn as those of chat data are: lognormal, prompts of 60 tokens and
replies of 200 in the middle, cut off at the row's 1024. Tokens are counted without padding. The systems take
turns on the same batches; the median is reported. The floor is FLOPs over the measured peak: forward, and
backward to the activations, of the tokens that there are.

The record goes to docs/benchmarks/, and docs/benchmarks.md is made again.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.markdown import Markdown
from rich.progress import track

from sia_jax.benchmarks import torch_baseline
from sia_jax.benchmarks.training import make_batch, training_baselines, training_systems, training_targets
from sia_jax.costs.roofline import measure_device, training_flops
from sia_jax.costs.shapes import SHAPES, Models
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.writing import write_text
from sia_jax.reports.benchmarks import section, write_page
from sia_jax.runs.cli import program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.provenance import record_header


@dataclass(frozen=True)
class Args:
    """Time the training of a value model."""

    shape: Literal["mini", "tiny"] = "mini"
    """Shape of the backbone; "tiny" only shows that everything runs."""
    steps: int = 4
    """Batches that are timed, after one that is not."""
    row_length: int = 1024
    """Tokens of a packed row; longer trajectories are drawn anew."""
    out: Path = Path("docs/benchmarks")
    """Folder of the JSON files; the page is written beside it."""


def main(args: Args) -> None:
    """Measure, record, and draw the page."""
    console = Terminal()
    with program("train.benchmark", keeps_compiled=False):
        check_outputs(inputs={}, files={"--out's page": args.out.with_suffix(".md")})
        with locked(folders=(args.out,), files=(args.out.with_suffix(".md"),)):
            run(args, console)


def run(args: Args, console: Terminal) -> None:
    """`main`, once the options are checked."""
    models = Models.random(SHAPES[args.shape])
    device_rates = measure_device()
    batches = [make_batch(seed, args.row_length, models.config.vocab_size) for seed in range(args.steps + 1)]
    systems = training_systems(models, args.row_length)
    versions: dict[str, str] = {}
    if jax.default_backend() != "cpu":
        console.say("the baselines run on the CPU: they are left out beside another device", "yellow")
    elif torch_baseline.is_available():
        systems |= training_baselines(models, args.row_length)
        versions = torch_baseline.versions()
    else:
        console.say("torch is not installed here: no baselines", "yellow")
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for number, batch in enumerate(track(batches, "timing", console=console)):
        for name, system in systems.items():
            once = system(batch)
            if number:
                seconds[name].append(once)
    device_rates = device_rates.best_of(measure_device())
    tokens = [sum(t.length for t in batch) for batch in batches[1:]]
    columns = float(np.mean([t.length for batch in batches[1:] for t in batch])) / 2
    rows: list[dict[str, Any]] = []
    for name, took in seconds.items():
        rates = [n / s for n, s in zip(tokens, took, strict=True)]
        flops = training_flops(models.config, sum(tokens), columns, weights=False)
        rows.append(
            {
                "system": name,
                "tokens_per_second": statistics.median(rates),
                "best_tokens_per_second": max(rates),
                "of_floor": flops / device_rates.flops_per_second / sum(took),
            }
        )
    record: dict[str, Any] = record_header(args.shape, models.config, device_rates, args.out) | {
        "kind": "training",
        "rows": rows,
        "targets": training_targets({row["system"]: row["tokens_per_second"] for row in rows}),
        "baseline_versions": versions,
        "steps": args.steps,
        "row_length": args.row_length,
        "mean_tokens": float(np.mean([t.length for batch in batches for t in batch])),
    }
    path = args.out / f"{record['time'].replace(':', '')}-training.json"
    write_text(path, json.dumps(record, indent=1) + "\n")
    write_page(args.out, args.out.with_suffix(".md"))
    console.print(Markdown(section(record)))


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
