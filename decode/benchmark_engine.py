"""How fast the engine is: against `sample` in lock step, with steered neighbours, and to the first token.

    python -m decode.benchmark_engine                   # shape "mini"; some ten minutes on two cores
    python -m decode.benchmark_engine --shape tiny --requests 40     # that everything runs

Random weights; policy and value model are alike, with weights of their own. Replies end at lengths of their
own, drawn from 16 .. 256, for stop ids are ignored; the share of junctions is pinned by the Bernoulli gate.
Both sides of a comparison run in turns. The record goes to docs/benchmarks/, and docs/benchmarks.md is made
again.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, Literal

import jax
import numpy as np
from rich.markdown import Markdown

import sia_jax
from sia_jax.costs.roofline import measure_device
from sia_jax.costs.shapes import SHAPES, Models
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.writing import write_text
from sia_jax.reports.benchmarks import section, write_page
from sia_jax.runs.cli import program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.provenance import record_header
from sia_jax.steering.gates import Bernoulli

SHORTEST = 16
"""Tokens of the shortest reply."""
STREAMS = (1, 4, 16)
"""How many are handed in at once, for the time to a first token."""


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
    models = Models.random(config)
    policy = sia_jax.Policy(config, models.policy)
    value_config = models.value_config("scalar")
    value = sia_jax.ValueModel(
        value_config, {"model": models.value_model, "value_head": models.heads["scalar"]}
    )
    console.print("unsteered, against sample in lock step ...")
    record["lock_step"] = _against_lock_step(args, policy)
    console.print("steered neighbours ...")
    record |= _with_neighbours(args, policy, value)
    record["targets"] = _targets(record) if args.shape == "mini" else []
    path = args.out / f"{record['time'].replace(':', '')}-engine.json"
    write_text(path, json.dumps(record, indent=1) + "\n")
    write_page(args.out, args.out.with_suffix(".md"))
    console.print(Markdown(section(record)))
    console.print(f"wrote {path} and {args.out.with_suffix('.md')}")


def _requests(args: Args, count: int, lengths: Sequence[int] | None = None) -> list[sia_jax.Request]:
    rng = np.random.default_rng(0)
    drawn = rng.integers(SHORTEST, args.new_tokens + 1, count).tolist() if lengths is None else lengths
    vocab = SHAPES[args.shape].vocab_size
    return [
        sia_jax.Request(
            prompt_ids=rng.integers(0, vocab, args.prompt_tokens).tolist(),
            max_new_tokens=length,
            ignore_eos=True,
            seed=seed,
        )
        for seed, length in enumerate(drawn)
    ]


def _engine(args: Args, policy: sia_jax.Policy, value: sia_jax.ValueModel | None = None) -> sia_jax.Engine:
    return sia_jax.Engine(
        policy,
        value,
        rows=args.rows,
        lengths=[args.prompt_tokens + args.new_tokens],
        steering=sia_jax.SteeringConfig(gate=Bernoulli(0.2)) if value is not None else None,
    )


def _against_lock_step(args: Args, policy: sia_jax.Policy) -> dict[str, Any]:
    requests = _requests(args, args.requests)
    tokens = sum(request.max_new_tokens or 0 for request in requests)
    config = sia_jax.SamplerConfig.auto(args.rows, policy=policy.config, max_new_tokens=args.new_tokens)
    params = sia_jax.SteeringParams(policy.params, None)

    def lock_step(batch: Sequence[sia_jax.Request]) -> None:
        filled = [*batch, *[batch[-1]] * (args.rows - len(batch))]
        prompt = sia_jax.Prompt.pack([request.prompt_ids or [] for request in filled])
        most = np.array([request.max_new_tokens for request in filled], np.int32)
        knobs = sia_jax.Knobs(max_new_tokens=most, stop_ids=np.zeros(0, np.int32))
        key = jax.random.key(0, impl="threefry2x32")
        jax.block_until_ready(
            sia_jax.sample(params, prompt, math.inf, rng_key=key, config=config, knobs=knobs)
        )

    lock_step(requests[: args.rows])
    seconds: dict[str, list[float]] = {"engine": [], "lock step": []}
    with _engine(args, policy) as engine:
        began = time.perf_counter()
        engine.warmup(requests[:1])
        warming = time.perf_counter() - began
        for _ in range(args.tries):
            began = time.perf_counter()
            engine.generate(requests)
            seconds["engine"].append(time.perf_counter() - began)
            began = time.perf_counter()
            for start in range(0, len(requests), args.rows):
                lock_step(requests[start : start + args.rows])
            seconds["lock step"].append(time.perf_counter() - began)
        totals = engine.statistics()
    ideal = sum(
        args.rows * max(request.max_new_tokens or 0 for request in requests[start : start + args.rows])
        for start in range(0, len(requests), args.rows)
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


def _with_neighbours(args: Args, policy: sia_jax.Policy, value: sia_jax.ValueModel) -> dict[str, Any]:
    """All streams unsteered, and half of them steered; and the time to a first token."""
    length = args.new_tokens - SHORTEST
    requests = _requests(args, args.rows, [length] * args.rows)
    half = args.rows // 2
    cases = {
        "all unsteered": [0.0] * args.rows,
        "half steered at 20%": [0.0] * half + [0.2] * (args.rows - half),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    first: dict[int, list[float]] = {streams: [] for streams in STREAMS if streams <= args.rows}
    between: dict[int, list[float]] = {streams: [] for streams in first}
    with _engine(args, policy, value) as engine:
        engine.warmup(requests[:1])
        for _ in range(args.tries):
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


def _targets(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What the design asks for, and what was measured."""
    engine, lock_step = (row["tokens_per_second"] for row in record["lock_step"]["systems"])
    alone, beside = (row["tokens_per_second"] for row in record["neighbours"])
    asked = (
        ("unsteered engine / sample in lock step", engine / lock_step, 1.4),
        ("unsteered half beside a half steered at 20% / all unsteered", beside / alone, 0.68),
    )
    return [
        {"name": name, "value": value, "target": target, "met": value >= target}
        for name, value, target in asked
    ]


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
