"""How fast the engine is: against `sample` in lock step, with steered neighbours, and to the first token.

    python -m decode.benchmark_engine                   # shape "mini"; some ten minutes on two cores
    python -m decode.benchmark_engine --shape tiny --requests 40     # that everything runs

Random weights; policy and value model are alike, with weights of their own. Replies end at lengths of their
own, drawn from 16 .. 256, for stop ids are ignored; the share of junctions is pinned by the Bernoulli gate,
and the logits are scaled so that as many candidates contend as of a real model's.
Both sides of a comparison run in turns. The record goes to docs/benchmarks/, and docs/benchmarks.md is made
again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.markdown import Markdown

import sia_jax
from sia_jax.benchmarks.contention import with_contenders
from sia_jax.benchmarks.engine import (
    BOUNDED,
    SHORTEST,
    Load,
    against_lock_step,
    engine_targets,
    with_neighbours,
)
from sia_jax.costs.roofline import measure_device
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
    """Time the engine."""

    shape: Literal["mini", "tiny"] = "mini"
    """Of both models."""
    requests: int = 200
    """In the comparison with lock step."""
    rows: int = 16
    """Of the engine, and prompts of a batch in lock step."""
    prompt_tokens: int = 16
    """Ids a prompt."""
    new_tokens: int = 256
    """Tokens of the longest reply."""
    tries: int = 3
    """Of each side; the median counts."""
    out: Path = Path("docs/benchmarks")
    """Folder of the JSON files; the page is written beside it."""


def main(args: Args) -> None:
    """Measure, record, and draw the page."""
    console = Terminal()
    with program("decode.benchmark_engine"):
        if args.rows < 2 or args.requests < args.rows or args.new_tokens <= SHORTEST or args.tries < 1:
            raise ValueError(
                f"--rows must be 2 or more, --requests at least as many, --new-tokens over {SHORTEST} and "
                f"--tries 1 or more, got {args.rows}, {args.requests}, {args.new_tokens} and {args.tries}"
            )
        check_outputs(inputs={}, files={"--out's page": args.out.with_suffix(".md")})
        with locked(folders=(args.out,), files=(args.out.with_suffix(".md"),)):
            run(args, console)


def run(args: Args, console: Terminal) -> None:
    """`main`, once the options are checked."""
    config = SHAPES[args.shape]
    console.print("measuring the machine's bandwidth and peak ...")
    record = record_header(args.shape, config, measure_device(), args.out)
    record |= {"kind": "engine", "prompt_tokens": args.prompt_tokens, "new_tokens": args.new_tokens}
    record |= {"tries": args.tries, "rows": args.rows, "requests": args.requests}
    models = with_contenders(Models.random(config))
    policy = sia_jax.Policy(config, models.policy)
    value_config = models.value_config("scalar")
    value = sia_jax.ValueModel(
        value_config, {"model": models.value_model, "value_head": models.heads["scalar"]}
    )
    load = Load(args.rows, args.requests, args.prompt_tokens, args.new_tokens, args.tries, config.vocab_size)
    console.print("unsteered, against sample in lock step ...")
    record["lock_step"] = against_lock_step(load, policy)
    console.print("steered neighbours ...")
    record |= with_neighbours(load, policy, value)
    console.print("and under a bounded tilt ...")
    record["bounded_neighbours"] = with_neighbours(load, policy, value, BOUNDED)["neighbours"]
    record["targets"] = engine_targets(record) if args.shape == "mini" else []
    path = args.out / f"{record['time'].replace(':', '')}-engine.json"
    write_text(path, json.dumps(record, indent=1) + "\n")
    write_page(args.out, args.out.with_suffix(".md"))
    console.print(Markdown(section(record)))
    console.print(f"wrote {path} and {args.out.with_suffix('.md')}")


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
