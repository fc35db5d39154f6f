"""How fast the sampler is: against Hugging Face, the official loop, its own unsteered speed, and the floor.

    make bench                                        # speed and sweep at shape "mini", with the baselines
    python -m decode.benchmark --parts speed --tries 9
    python -m decode.benchmark --shape tiny --tries 1 # a minute: that everything runs

Random weights of the given shape in float32, prompts of 16 tokens, stop ids ignored, temperature 1; policy
and value model have one shape and separate weights. The share of junctions is pinned by the Bernoulli gate.
A call's time is that of the whole call, prefill included. The systems take turns; the median is reported.

"speed" is the table that targets are set for, with where the time of a steered call goes. "sweep" varies the
batch, the share of junctions, slots and rows that wait, candidates and the length of replies, one at a time.
The floor of a part is the larger of bytes over bandwidth and FLOPs over peak, both measured in the same run.
Each run writes JSON files to docs/benchmarks/, and docs/benchmarks.md is made again from all of them.
"""

import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
from rich.markdown import Markdown
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

import sia_jax
from sia_jax.benchmarks import huggingface_baseline
from sia_jax.benchmarks.parts import time_parts
from sia_jax.benchmarks.systems import BareLoop, SamplerSystem, System, Timing
from sia_jax.costs.roofline import DeviceRates, decode_step_cost, measure_device, usable_cores
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
    """Time the sampler."""

    shape: Literal["mini", "tiny"] = "mini"
    """Shape of both models; "tiny" only shows that everything runs."""
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


@dataclass(frozen=True, eq=False)
class Job:
    """One system at one size, to be timed."""

    name: str
    system: System
    batch: int
    new_tokens: int
    once: bool = False
    """A slow baseline: timed once, without a warm-up."""


def main(args: Args) -> None:
    """Measure, record, and draw the page."""
    console = Terminal()
    with program("decode.benchmark", keeps_compiled=False):
        if args.tries < 1 or args.prompt_tokens < 1 or args.new_tokens < 4:
            raise ValueError(
                "--tries and --prompt-tokens must be 1 or more and --new-tokens 4 or more, got "
                f"{args.tries}, {args.prompt_tokens} and {args.new_tokens}"
            )
        check_outputs(inputs={}, files={"--out's page": args.out.with_suffix(".md")})
        with locked(folders=(args.out,), files=(args.out.with_suffix(".md"),)):
            run(args, console)


def run(args: Args, console: Terminal) -> None:
    """`main`, once the options are checked."""
    models = Models.random(SHAPES[args.shape])
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
    args: Args, models: Models, rates: DeviceRates, console: Terminal
) -> tuple[dict[str, Any], DeviceRates]:
    """The systems that targets are set for, at batch 16 and 1."""
    long = 4 * args.new_tokens
    unsteered = SamplerSystem(models, None)
    sparse = SamplerSystem(models, 0.2)
    dense = SamplerSystem(models, 1.0, expected_ratio=1.0)
    jobs = []
    for batch in (16, 1):
        jobs += [
            Job("unsteered, full record", unsteered, batch, args.new_tokens),
            Job("steered, but no junction is met", SamplerSystem(models, 0.0), batch, args.new_tokens),
            Job("20% steered", sparse, batch, args.new_tokens),
            Job("dense", dense, batch, args.new_tokens),
            Job("20% steered, vocab head", SamplerSystem(models, 0.2, "vocab"), batch, args.new_tokens),
            Job("bare greedy loop", BareLoop(models), batch, args.new_tokens),
        ]
    jobs += [Job("unsteered, full record", unsteered, 16, long), Job("20% steered", sparse, 16, long)]
    versions: dict[str, str] = {}
    if jax.default_backend() != "cpu":
        console.say("the baselines run on the CPU: they are left out beside another device", "yellow")
    elif huggingface_baseline.is_available():
        jobs += _baseline_jobs(args, models)
        versions = huggingface_baseline.versions()
    else:
        console.say("torch is not installed here: no baselines; `make bench` installs it", "yellow")
    timings = _run(jobs, args, models, console)
    rates = rates.best_of(measure_device())
    rows = [_row(job, timings[job], models, rates, args.prompt_tokens) for job in jobs]
    parts = {}
    for name, system in (("20% steered", sparse), ("dense", dense)):
        job = next(job for job in jobs if job.name == name and job.batch == 16)
        timing = min(timings[job], key=lambda timing: timing.seconds)
        prompts = _prompts(models, 16, args.prompt_tokens)
        parts[name] = time_parts(system, timing, prompts, args.new_tokens, rates)
    body = {"kind": "sampler", "rows": rows, "targets": _targets(rows, args), "parts": parts}
    return body | {"baseline_versions": versions, "tries": args.tries}, rates


def _baseline_jobs(args: Args, models: Models) -> Iterator[Job]:
    """Hugging Face with both of its caches, and the official loop's pattern."""
    with tempfile.TemporaryDirectory() as folder:
        sia_jax.save_policy(sia_jax.Policy(models.config, models.policy), folder)
        baseline = huggingface_baseline.HuggingFaceBaseline(Path(folder), threads=usable_cores())

    def generate(cache: str) -> System:
        def call(prompts: list[list[int]], new_tokens: int) -> Timing:
            return Timing(baseline.sample(prompts, new_tokens, cache), len(prompts) * new_tokens)

        return call

    def official(ratio: float) -> System:
        def call(prompts: list[list[int]], new_tokens: int) -> Timing:
            return Timing(baseline.official_pattern(prompts[0], new_tokens, ratio), new_tokens)

        return call

    for batch in (16, 1):
        for cache in ("dynamic", "static"):
            yield Job(f"Hugging Face, {cache} cache", generate(cache), batch, args.new_tokens)
    for ratio in (0.0, 0.2, 1.0):
        yield Job(f"official pattern, {ratio:.0%} steered", official(ratio), 1, args.new_tokens, once=True)


def _targets(rows: list[dict[str, Any]], args: Args) -> list[dict[str, Any]]:
    """What the design asks for, and what was measured."""

    def speed(name: str, batch: int, new_tokens: int = args.new_tokens) -> float | None:
        found = [
            row["tokens_per_second"]
            for row in rows
            if row["system"] in (name, f"{name}, dynamic cache", f"{name}, static cache")
            and row["batch"] == batch
            and row["new_tokens"] == new_tokens
        ]
        return max(found, default=None)

    def ratio(one: float | None, other: float | None) -> float | None:
        return one / other if one and other else None

    ours = {batch: speed("unsteered, full record", batch) for batch in (1, 16)}
    sparse = {batch: ratio(speed("20% steered", batch), ours[batch]) for batch in (1, 16)}
    long = speed("unsteered, full record", 16, 4 * args.new_tokens)
    asked: list[tuple[str, float | None, float, bool]] = [
        ("unsteered / Hugging Face, batch 16", ratio(ours[16], speed("Hugging Face", 16)), 1.5, True),
        ("unsteered / Hugging Face, batch 1", ratio(ours[1], speed("Hugging Face", 1)), 1.5, True),
        ("20% steered / unsteered, batch 16", sparse[16], 0.55, True),
        ("20% steered / unsteered, batch 1", sparse[1], 0.70, True),
        (
            "20% steered, batch 16 / official pattern at 20%",
            ratio(speed("20% steered", 16), speed("official pattern, 20% steered", 1)),
            50,
            True,
        ),
        ("dense / unsteered, batch 16", ratio(speed("dense", 16), ours[16]), 0.30, True),
        (
            "20% with a vocab head / unsteered, batch 16",
            ratio(speed("20% steered, vocab head", 16), ours[16]),
            0.60,
            True,
        ),
        (
            f"time a token, {4 * args.new_tokens} / {args.new_tokens} new tokens, batch 16",
            ratio(ours[16], long),
            1.3,
            False,
        ),
        (
            "steered without junctions / unsteered, batch 16",
            ratio(speed("steered, but no junction is met", 16), ours[16]),
            0.95,
            True,
        ),
    ]
    return [
        {"name": name, "value": value, "target": target, "met": (value >= target) == at_least}
        for name, value, target, at_least in asked
        if value is not None
    ]


def _sweep(
    args: Args, models: Models, rates: DeviceRates, console: Terminal
) -> tuple[dict[str, Any], DeviceRates]:
    """One thing varied at a time, around batch 16 at 20%."""
    t = args.new_tokens
    ratios = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    jobs = []
    for batch in (1, 2, 4, 8, 16, 32, 64):
        jobs.append(Job(f"batch {batch}, unsteered", SamplerSystem(models, None), batch, t))
        jobs.append(Job(f"batch {batch}, 20%", SamplerSystem(models, 0.2), batch, t))
    for ratio in ratios:
        told = max(ratio, 0.05)
        jobs.append(Job(f"{ratio:.0%} steered", SamplerSystem(models, ratio, expected_ratio=told), 16, t))
    for slots, tokens in ((3, 42), (5, 70), (8, 56), (8, 70), (16, 112)):
        for waiting in (1, 2, 3, 4, 6):
            if waiting <= slots:
                shape = (("slots", slots), ("pass_tokens", tokens))
                schedule = (("schedule", sia_jax.Burst(waiting)),)
                system = SamplerSystem(models, 0.2, fields=shape, knobs=schedule)
                jobs.append(Job(f"slots {slots}, {tokens} tokens, {waiting} waiting", system, 16, t))
    for count in (2, 5, 10, 20):
        jobs.append(Job(f"C = {count}", SamplerSystem(models, 0.2, num_candidates=count), 16, t))
    for length in (t // 4, t, 4 * t):
        jobs.append(Job(f"{length} new tokens, unsteered", SamplerSystem(models, None), 16, length))
        jobs.append(Job(f"{length} new tokens, 20%", SamplerSystem(models, 0.2), 16, length))
    timings = _run(jobs, args, models, console, tries=2)
    rates = rates.best_of(measure_device())
    rows = [_row(job, timings[job], models, rates, args.prompt_tokens) for job in jobs]
    speeds = [row["tokens_per_second"] for row in rows if row["system"].startswith("slots")]
    auto = max(row["tokens_per_second"] for row in rows if row["system"] in ("batch 16, 20%", "20% steered"))
    body = {"kind": "sampler_sweep", "rows": rows, "auto_of_best": auto / max([*speeds, auto])}
    return body | {"baseline_versions": {}, "tries": 2}, rates


def _run(
    jobs: list[Job], args: Args, models: Models, console: Terminal, tries: int | None = None
) -> dict[Job, list[Timing]]:
    """Time every job, the jobs taking turns; the first turn compiles and warms up, and is not counted."""
    tries = tries or args.tries
    timings: dict[Job, list[Timing]] = {job: [] for job in jobs}
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("timing", total=sum(1 if job.once else tries + 1 for job in jobs))
        for attempt in range(tries + 1):
            for job in jobs:
                if job.once and attempt:
                    continue
                progress.update(task, description=f"batch {job.batch}: {job.name}"[:48].ljust(48))
                timing = job.system(_prompts(models, job.batch, args.prompt_tokens), job.new_tokens)
                if attempt or job.once:
                    timings[job].append(timing)
                progress.advance(task)
    return timings


def _row(
    job: Job, timings: list[Timing], models: Models, rates: DeviceRates, prompt_tokens: int
) -> dict[str, Any]:
    """What is written down of one system at one size."""
    seconds = statistics.median(timing.seconds for timing in timings)
    cost = decode_step_cost(models.config, job.batch, prompt_tokens + job.new_tokens / 2)
    return {
        "system": job.name,
        "batch": job.batch,
        "new_tokens": job.new_tokens,
        "tokens_per_second": timings[0].tokens / seconds,
        "best_tokens_per_second": timings[0].tokens / min(timing.seconds for timing in timings),
        "ms_per_token_of_each_row": 1e3 * seconds / job.new_tokens,
        "policy_floor_ms": 1e3 * rates.floor_seconds(cost),
        "counts": timings[0].counts,
    }


def _prompts(models: Models, batch: int, length: int) -> list[list[int]]:
    ids = jax.random.randint(jax.random.key(1), (batch, length), 0, models.config.vocab_size)
    return ids.tolist()


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
