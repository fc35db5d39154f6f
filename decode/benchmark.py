"""How fast the sampler is: against Hugging Face, the official loop, its own unsteered speed, and the floor.

    make bench                                        # speed and sweep at shape "mini", with the baselines
    python -m decode.benchmark --parts speed --tries 9
    python -m decode.benchmark --shape smollm2-135m --parts speed --new-tokens 64 --tries 2
    python -m decode.benchmark --suite accelerator    # on a GPU, in eight minutes
    python -m decode.benchmark --shape tiny --tries 1 # a minute: that everything runs

Random weights of the given shape in float32, prompts of 16 tokens, stop ids ignored, temperature 1; policy
and value model have one shape and separate weights, but for smollm2-135m. The share of junctions is pinned by
the Bernoulli gate, and the logits are scaled so that 3.0 candidates contend under a bound of 1 nat, as a real
model's do.
A call's time is that of the whole call, prefill included. The systems take turns; the median is reported.

"speed" is the table that targets are set for, with where the time of a steered call goes. "sweep" varies the
batch, the share of junctions, slots and rows that wait, candidates and the length of replies, one at a time.
The floor of a part is the larger of bytes over bandwidth and FLOPs over peak, both measured in the same run.
Each run writes JSON files to docs/benchmarks/, and docs/benchmarks.md is made again from all of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from rich.markdown import Markdown

from decode.benchmark_gpu import run_suite
from sia_jax.benchmarks import huggingface_baseline
from sia_jax.benchmarks.contention import with_contenders
from sia_jax.benchmarks.parts import time_network, time_parts
from sia_jax.benchmarks.sampler import (
    Job,
    baseline_jobs,
    job_row,
    random_prompts,
    sampler_targets,
    speed_jobs,
    sweep_jobs,
    take_turns,
)
from sia_jax.benchmarks.systems import SamplerSystem, Timing
from sia_jax.costs.roofline import DeviceRates, measure_device
from sia_jax.costs.shapes import ADAPTED_SHAPES, SHAPES, AdaptedModels, Models, Weights
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.writing import write_text
from sia_jax.reports.benchmarks import section, write_page
from sia_jax.runs.cli import check_used, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.provenance import record_header

PROFILED = (
    "unsteered, full record",
    "20% steered",
    "dense",
    "20% steered, contenders",
    "dense, contenders",
    "20% steered, vocab head",
)
"""Whose time is taken apart, at batch 16."""

PROFILED_ALONE = ("unsteered, full record", "20% steered")
"""Of these also at batch 1."""


@dataclass(frozen=True)
class Args:
    """Time the sampler."""

    shape: Literal["mini", "smollm2-135m", "tiny"] = "mini"
    """Of the models. smollm2-135m: that of a real policy, and a value model that is an adapter over its
    weights; tiny only shows that everything runs."""
    suite: Literal["sampler", "accelerator"] = "sampler"
    """accelerator: that of decode.benchmark_gpu, for Qwen3-1.7B, 8B and 14B with a 4B, what tells most first;
    with --shape tiny a rehearsal on a CPU."""
    minutes: float = 8.0
    """For the accelerator's suite: nothing is begun that the time left would not hold."""
    parts: tuple[Literal["speed", "sweep"], ...] = ("speed", "sweep")
    """What to measure."""
    prompt_tokens: int = 16
    """Ids a prompt."""
    new_tokens: int = 128
    """Ids a reply."""
    tries: int = 5
    """Timings of each system in "speed"; "sweep" takes two."""
    out: Path = Path("docs/benchmarks")
    """Folder of the JSON files; the page is written beside it."""


def main(args: Args) -> None:
    """Measure, record, and draw the page."""
    console = Terminal()
    with program("decode.benchmark", keeps_compiled=False):
        if args.tries < 1 or args.prompt_tokens < 1 or args.new_tokens < 4:
            raise ValueError(
                "--tries and --prompt-tokens must be 1 or more and --new-tokens 4 or more, got "
                f"{args.tries}, {args.prompt_tokens} and {args.new_tokens}"
            )
        if args.suite == "sampler":
            check_used(args, ("minutes",), "--suite accelerator")
        else:
            check_used(args, ("parts", "prompt_tokens", "new_tokens"), "--suite sampler")
            if args.shape == "smollm2-135m":
                raise ValueError("--suite accelerator has shapes of its own; leave --shape out, or take tiny")
        check_outputs(inputs={}, files={"--out's page": args.out.with_suffix(".md")})
        with locked(folders=(args.out,), files=(args.out.with_suffix(".md"),)):
            if args.suite == "accelerator":
                run_suite(args.minutes, args.out, args.tries, console, rehearse=args.shape == "tiny")
            else:
                run(args, console)


def run(args: Args, console: Terminal) -> None:
    """`main`, once the options are checked."""
    if args.shape in ADAPTED_SHAPES and "sweep" in args.parts:
        raise ValueError(
            f"the sweep is of models with weights of their own, got --shape {args.shape}; take --parts speed"
        )
    models: Models | AdaptedModels
    if args.shape in ADAPTED_SHAPES:
        models = with_contenders(AdaptedModels.random(ADAPTED_SHAPES[args.shape], jnp.float32))
    else:
        models = with_contenders(Models.random(SHAPES[args.shape]))
    console.print("measuring the machine's bandwidth and peak ...")
    rates = measure_device()
    for part in args.parts:
        if part == "speed":
            body, rates = _speed(args, models, rates, console)
        else:
            body, rates = _sweep(args, models, rates, console)
        sizes = {"prompt_tokens": args.prompt_tokens, "new_tokens": args.new_tokens}
        record = record_header(args.shape, models.config, rates, args.out) | sizes | body
        path = args.out / f"{record['time'].replace(':', '')}-{record['kind']}.json"
        write_text(path, json.dumps(record, indent=1) + "\n")
        write_page(args.out, args.out.with_suffix(".md"))
        console.print(Markdown(section(record)))
        console.print(f"wrote {path} and {args.out.with_suffix('.md')}")


def _speed(
    args: Args, models: Weights, rates: DeviceRates, console: Terminal
) -> tuple[dict[str, Any], DeviceRates]:
    """The systems that targets are set for, at batch 16 and 1."""
    own = args.shape not in ADAPTED_SHAPES
    jobs = speed_jobs(models, args.new_tokens, long=own)
    versions: dict[str, str] = {}
    if jax.default_backend() != "cpu":
        console.say("the baselines run on the CPU: they are left out beside another device", "yellow")
    elif huggingface_baseline.is_available():
        jobs += baseline_jobs(models, args.new_tokens, official_loop=own)
        versions = huggingface_baseline.versions()
    else:
        console.say("torch is not installed here: no baselines; `make bench` installs it", "yellow")
    timings = take_turns(jobs, models, args.prompt_tokens, args.tries, console)
    rates = rates.best_of(measure_device())
    rows = [job_row(job, timings[job], models, rates, args.prompt_tokens) for job in jobs]
    parts = _profiles(jobs, timings, models, args.prompt_tokens, rates, console)
    body = {
        "kind": "sampler",
        "rows": rows,
        "targets": sampler_targets(rows, args.new_tokens, args.shape),
        "parts": parts,
    }
    return body | {"baseline_versions": versions, "tries": args.tries}, rates


def _profiles(
    jobs: Sequence[Job],
    timings: Mapping[Job, list[Timing]],
    models: Weights,
    prompt_tokens: int,
    rates: DeviceRates,
    console: Terminal,
) -> dict[str, list[dict[str, Any]]]:
    """Where the time goes, of all that a target is set for."""
    found = {}
    networks: dict[tuple[int, int], dict[str, float]] = {}
    for job in jobs:
        size = job.batch, job.new_tokens
        title = f"{job.name}, batch {job.batch}, {job.new_tokens} new tokens"
        if job.name not in PROFILED or (job.batch == 1 and job.name not in PROFILED_ALONE):
            continue
        assert isinstance(job.system, SamplerSystem)
        console.say(f"where the time goes: {title}")
        prompts = random_prompts(models, job.batch, prompt_tokens)
        if size not in networks:
            networks[size] = time_network(job.system, prompts, job.new_tokens)
        timing = sorted(timings[job], key=lambda timing: timing.seconds)[len(timings[job]) // 2]
        found[title] = time_parts(job.system, timing, prompts, job.new_tokens, rates, networks[size])
    return found


def _sweep(
    args: Args, models: Weights, rates: DeviceRates, console: Terminal
) -> tuple[dict[str, Any], DeviceRates]:
    """One thing varied at a time, around batch 16 at 20%."""
    assert isinstance(models, Models)  # `run` refuses the others
    jobs = sweep_jobs(models, args.new_tokens)
    timings = take_turns(jobs, models, args.prompt_tokens, 2, console)
    rates = rates.best_of(measure_device())
    rows = [job_row(job, timings[job], models, rates, args.prompt_tokens) for job in jobs]
    speeds = [row["tokens_per_second"] for row in rows if row["system"].startswith("slots")]
    auto = max(row["tokens_per_second"] for row in rows if row["system"] in ("batch 16, 20%", "20% steered"))
    body = {"kind": "sampler_sweep", "rows": rows, "auto_of_best": auto / max([*speeds, auto])}
    return body | {"baseline_versions": {}, "tries": 2}, rates


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
