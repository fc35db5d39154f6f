"""How the engine is timed: against `sample` in lock step, with steered neighbours, and to the first token."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import jax
import numpy as np

import sia_jax
from sia_jax.benchmarks.contention import BOUND
from sia_jax.steering.gates import Bernoulli
from sia_jax.steering.tilts import Additive, Advantage, Clipped, Tilt

SHORTEST = 16
"""Tokens of the shortest reply."""
ADDITIVE, BOUNDED = Additive(), Clipped(BOUND, Advantage())
STREAMS = (1, 4, 16)
"""How many are handed in at once, for the time to a first token."""


@dataclass(frozen=True)
class Load:
    """What an engine is given to do."""

    rows: int
    """Of the engine, and prompts of a batch in lock step."""
    requests: int
    """In the comparison with lock step."""
    prompt_tokens: int
    new_tokens: int
    """Of the longest reply."""
    tries: int
    """Of each side; the median counts."""
    vocab_size: int


def _requests(load: Load, count: int, lengths: Sequence[int] | None = None) -> list[sia_jax.Request]:
    rng = np.random.default_rng(0)
    drawn = rng.integers(SHORTEST, load.new_tokens + 1, count).tolist() if lengths is None else lengths
    vocab = load.vocab_size
    return [
        sia_jax.Request(
            prompt_ids=rng.integers(0, vocab, load.prompt_tokens).tolist(),
            max_new_tokens=length,
            ignore_eos=True,
            seed=seed,
        )
        for seed, length in enumerate(drawn)
    ]


def _engine(
    load: Load,
    policy: sia_jax.Policy,
    value: sia_jax.ValueModel | None = None,
    tilt: Tilt = ADDITIVE,
) -> sia_jax.Engine:
    return sia_jax.Engine(
        policy,
        value,
        rows=load.rows,
        lengths=[load.prompt_tokens + load.new_tokens],
        steering=sia_jax.SteeringConfig(gate=Bernoulli(0.2), tilt=tilt) if value is not None else None,
    )


def against_lock_step(load: Load, policy: sia_jax.Policy) -> dict[str, Any]:
    """Unsteered requests on the engine, and by `sample`, a batch of rows at a time; in turns."""
    requests = _requests(load, load.requests)
    tokens = sum(request.max_new_tokens or 0 for request in requests)
    config = sia_jax.SamplerConfig.auto(load.rows, policy=policy.config, max_new_tokens=load.new_tokens)
    params = sia_jax.SteeringParams(policy.params, None)

    def lock_step(batch: Sequence[sia_jax.Request]) -> None:
        filled = [*batch, *[batch[-1]] * (load.rows - len(batch))]
        prompt = sia_jax.Prompt.pack([request.prompt_ids or [] for request in filled])
        most = np.array([request.max_new_tokens for request in filled], np.int32)
        knobs = sia_jax.Knobs(max_new_tokens=most, stop_ids=np.zeros(0, np.int32))
        key = jax.random.key(0, impl="threefry2x32")
        jax.block_until_ready(
            sia_jax.sample(params, prompt, math.inf, rng_key=key, config=config, knobs=knobs)
        )

    lock_step(requests[: load.rows])
    seconds: dict[str, list[float]] = {"engine": [], "lock step": []}
    with _engine(load, policy) as engine:
        began = time.perf_counter()
        engine.warmup(requests[:1])
        warming = time.perf_counter() - began
        for _ in range(load.tries):
            began = time.perf_counter()
            engine.generate(requests)
            seconds["engine"].append(time.perf_counter() - began)
            began = time.perf_counter()
            for start in range(0, len(requests), load.rows):
                lock_step(requests[start : start + load.rows])
            seconds["lock step"].append(time.perf_counter() - began)
        totals = engine.statistics()
    ideal = sum(
        load.rows * max(request.max_new_tokens or 0 for request in requests[start : start + load.rows])
        for start in range(0, len(requests), load.rows)
    )
    return {
        "systems": [
            {
                "system": name,
                "tokens_per_second": tokens / median(s),
                "best_tokens_per_second": tokens / min(s),
            }
            for name, s in seconds.items()
        ],
        "ideal": ideal / tokens,
        "rows_in_use": totals.rows_in_use,
        "windows": totals.windows,
        "policy_steps": totals.policy_steps,
        "host_seconds": totals.seconds,
        "warmup_seconds": warming,
    }


def with_neighbours(
    load: Load, policy: sia_jax.Policy, value: sia_jax.ValueModel, tilt: Tilt = ADDITIVE
) -> dict[str, Any]:
    """All streams unsteered, and half of them steered; and the time to a first token.

    Under a bounded tilt contenders alone are read.
    """
    length = load.new_tokens - SHORTEST
    requests = _requests(load, load.rows, [length] * load.rows)
    half = load.rows // 2
    cases = {
        "all unsteered": [0.0] * load.rows,
        "half steered at 20%": [0.0] * half + [0.2] * (load.rows - half),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    first: dict[int, list[float]] = {streams: [] for streams in STREAMS if streams <= load.rows}
    between: dict[int, list[float]] = {streams: [] for streams in first}
    with _engine(load, policy, value, tilt) as engine:
        engine.warmup(requests[:1])
        for _ in range(load.tries):
            for name, rates in cases.items():
                asked = [
                    request.override(gate=Bernoulli(rate))
                    for request, rate in zip(requests, rates, strict=True)
                ]
                replies = engine.generate(asked)[:half]
                ends = [reply.timing.ended for reply in replies if reply.timing is not None]
                found[name].append(half * length / max(ends))
            for streams in first:
                asked = [request.override(gate=Bernoulli(0.0)) for request in requests[:streams]]
                handles = [engine.submit(request) for request in asked]
                replies = [handle.result() for handle in handles]
                times = [reply.timing for reply in replies if reply.timing is not None]
                first[streams].append(mean(timing.first_token for timing in times))
                between[streams].append(mean(timing.between_tokens(length) for timing in times))
    return {
        "neighbours": [
            {"streams": name, "tokens_per_second": median(speeds)} for name, speeds in found.items()
        ],
        "first_tokens": [
            {
                "streams": streams,
                "first_token_ms": 1e3 * median(first[streams]),
                "between_tokens_ms": 1e3 * median(between[streams]),
            }
            for streams in first
        ],
    }


def engine_targets(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What the design asks for, and what was measured."""
    engine, lock_step = (row["tokens_per_second"] for row in record["lock_step"]["systems"])
    alone, beside = (row["tokens_per_second"] for row in record["neighbours"])
    alone_bounded, beside_bounded = (row["tokens_per_second"] for row in record["bounded_neighbours"])
    asked = (
        ("unsteered engine / sample in lock step", engine / lock_step, 1.4),
        ("unsteered half beside a half steered at 20% / all unsteered", beside / alone, 0.68),
        ("the same, contenders alone read", beside_bounded / alone_bounded, 0.75),
    )
    return [
        {"name": name, "value": value, "target": target, "met": value >= target}
        for name, value, target in asked
    ]
