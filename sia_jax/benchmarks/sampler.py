"""How the sampler is timed: settings and baselines as jobs, what is written down, and what is asked for."""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
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
from sia_jax.benchmarks.contention import BOUND
from sia_jax.benchmarks.systems import BareLoop, SamplerSystem, System, Timing
from sia_jax.costs.roofline import DeviceRates, decode_step_cost, usable_cores
from sia_jax.costs.shapes import ADAPTED_SHAPES, AdaptedModels, Models, Weights
from sia_jax.steering.tilts import Advantage, Clipped


@dataclass(frozen=True, eq=False)
class Job:
    """One system at one size, to be timed."""

    name: str
    system: System
    batch: int
    new_tokens: int
    once: bool = False
    """A slow baseline: timed once, without a warm-up."""


def speed_jobs(models: Weights, tokens: int, *, long: bool = True) -> list[Job]:
    """The systems that targets are set for, at batch 16 and 1.

    Args:
      models: the weights.
      tokens: of a reply.
      long: whether two of them are timed for replies of four times as many, too.
    """
    unsteered = SamplerSystem(models, None)
    sparse = SamplerSystem(models, 0.2)
    dense = SamplerSystem(models, 1.0, expected_ratio=1.0)
    bounded = Clipped(BOUND, Advantage())
    jobs = []
    for batch in (16, 1):
        jobs += [
            Job("unsteered, full record", unsteered, batch, tokens),
            Job("steered, but no junction is met", SamplerSystem(models, 0.0), batch, tokens),
            Job("20% steered", sparse, batch, tokens),
            Job("dense", dense, batch, tokens),
            Job("20% steered, contenders", replace(sparse, tilt=bounded), batch, tokens),
            Job("dense, contenders", replace(dense, tilt=bounded), batch, tokens),
            Job("20% steered, vocab head", SamplerSystem(models, 0.2, "vocab"), batch, tokens),
            Job("20% steered, policy's states", SamplerSystem(models, 0.2, "states"), batch, tokens),
            Job("bare greedy loop", BareLoop(models), batch, tokens),
        ]
    if long:
        jobs.append(Job("unsteered, full record", unsteered, 16, 4 * tokens))
        jobs.append(Job("20% steered", sparse, 16, 4 * tokens))
    return jobs


def sweep_jobs(models: Models, new_tokens: int) -> list[Job]:
    """One thing varied at a time, around batch 16 at 20%."""
    t = new_tokens
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
    adapted = AdaptedModels.random(replace(models.config, tie_word_embeddings=True), jnp.float32)
    for ratio in (0.2, 1.0):
        for name, of in (
            ("a pass of its own", sia_jax.Burst()),
            ("one pass for both", sia_jax.Shared()),
            ("one pass for both, looking ahead", sia_jax.Shared(look_ahead=True)),
        ):
            system = SamplerSystem(adapted, ratio, expected_ratio=ratio, fields=(("schedule", of),))
            jobs.append(Job(f"adapter, {ratio:.0%}, {name}", system, 16, t))
    for count in (2, 5, 10, 20):
        jobs.append(Job(f"C = {count}", SamplerSystem(models, 0.2, num_candidates=count), 16, t))
    for length in (t // 4, t, 4 * t):
        jobs.append(Job(f"{length} new tokens, unsteered", SamplerSystem(models, None), 16, length))
        jobs.append(Job(f"{length} new tokens, 20%", SamplerSystem(models, 0.2), 16, length))
    return jobs


def baseline_jobs(models: Weights, tokens: int, *, official_loop: bool = True) -> Iterator[Job]:
    """Hugging Face with both of its caches, and the official loop's pattern if it is asked for."""
    with tempfile.TemporaryDirectory() as folder:
        sia_jax.save_policy(sia_jax.Policy(models.config, models.policy), folder)
        baseline = huggingface_baseline.HuggingFaceBaseline(Path(folder), threads=usable_cores())

    def official(ratio: float) -> System:
        def call(prompts: list[list[int]], new_tokens: int) -> Timing:
            return Timing(baseline.official_pattern(prompts[0], new_tokens, ratio), new_tokens)

        return call

    for batch in (16, 1):
        for cache in ("dynamic", "static"):
            yield Job(f"Hugging Face, {cache} cache", baseline.system(cache), batch, tokens)
    for ratio in (0.0, 0.2, 1.0) if official_loop else ():
        yield Job(f"official pattern, {ratio:.0%} steered", official(ratio), 1, tokens, once=True)


def sampler_targets(rows: list[dict[str, Any]], tokens: int, shape: str) -> list[dict[str, Any]]:
    """What the design asks for, and what was measured.

    Args:
      rows: as `job_row` makes them.
      tokens: of a reply.
      shape: of the models: what is asked of an adapter over a real model's weights is another number.
    """

    def speed(name: str, batch: int, new_tokens: int = tokens) -> float | None:
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

    adapted = shape in ADAPTED_SHAPES
    ours = {batch: speed("unsteered, full record", batch) for batch in (1, 16)}
    sparse = {batch: ratio(speed("20% steered", batch), ours[batch]) for batch in (1, 16)}
    long = speed("unsteered, full record", 16, 4 * tokens)
    asked: list[tuple[str, float | None, float, bool]] = [
        ("unsteered / Hugging Face, batch 16", ratio(ours[16], speed("Hugging Face", 16)), 2.0, True),
        ("unsteered / Hugging Face, batch 1", ratio(ours[1], speed("Hugging Face", 1)), 1.5, True),
        ("20% steered / unsteered, batch 16", sparse[16], 0.50 if adapted else 0.55, True),
        (
            "20% with a head on the policy's states / unsteered, batch 16",
            ratio(speed("20% steered, policy's states", 16), ours[16]),
            0.93,
            True,
        ),
        (
            "20% steered, contenders alone read / unsteered, batch 16",
            ratio(speed("20% steered, contenders", 16), ours[16]),
            0.58,
            True,
        ),
        (
            "dense, contenders alone read / unsteered, batch 16",
            ratio(speed("dense, contenders", 16), ours[16]),
            0.42,
            True,
        ),
        ("20% steered / unsteered, batch 1", sparse[1], 0.75, True),
        (
            "20% steered, batch 16 / official pattern at 20%",
            ratio(speed("20% steered", 16), speed("official pattern, 20% steered", 1)),
            50,
            True,
        ),
        ("dense / unsteered, batch 16", ratio(speed("dense", 16), ours[16]), 0.28 if adapted else 0.30, True),
        (
            "20% with a vocab head / unsteered, batch 16",
            ratio(speed("20% steered, vocab head", 16), ours[16]),
            0.60,
            True,
        ),
        (
            f"time a token, {4 * tokens} / {tokens} new tokens, batch 16",
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


def take_turns(
    jobs: Sequence[Job], models: Weights, prompt_tokens: int, tries: int, console: Console
) -> dict[Job, list[Timing]]:
    """Time every job, the jobs taking turns; the first turn compiles and warms up, and is not counted.

    Args:
      jobs: what is timed.
      models: their weights.
      prompt_tokens: ids a prompt.
      tries: turns that count.
      console: shows how far it is.
    """
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
                timing = job.system(random_prompts(models, job.batch, prompt_tokens), job.new_tokens)
                if attempt or job.once:
                    timings[job].append(timing)
                progress.advance(task)
    return timings


def job_row(
    job: Job, timings: list[Timing], models: Weights, rates: DeviceRates, prompt_tokens: int
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


def random_prompts(models: Weights, batch: int, length: int) -> list[list[int]]:
    """Ids, the same each time."""
    ids = jax.random.randint(jax.random.key(1), (batch, length), 0, models.config.vocab_size)
    return ids.tolist()
