"""How fast a decoding step is, against the machine's floor and against Hugging Face in the same run.

    make bench                                    # shape "mini", batch 1 and 16, with the baseline
    python -m decode.benchmark --batches 1 4 16 64 --tries 9

Random weights of the given shape, float32, prompts of 16 tokens, greedy. A step's time is the difference
between a long and a one-token reply over the difference in tokens, so that the prefill is not in it. The
systems take turns; the median of all tries is reported, and the best.

The floor of a step is the larger of bytes over bandwidth and FLOPs over peak, both measured in the same
run. Each run writes one JSON file to docs/benchmarks/, and docs/benchmarks.md is made again from all of them.
"""

import functools
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import sia_jax
from decode import huggingface_baseline
from sia_jax.evaluation.roofline import Machine, decode_pass_cost, measure_machine, usable_cores
from sia_jax.models import run
from sia_jax.models.cache import KVCache, Layout
from sia_jax.models.config import ModelConfig, RopeConfig
from sia_jax.models.heads import lm_head
from sia_jax.models.transformer import init_model
from sia_jax.reports.benchmarks import write_page
from sia_jax.types import Params

SHAPES = {
    "mini": ModelConfig(
        family="qwen3",
        vocab_size=32000,
        hidden_size=512,
        intermediate_size=1536,
        num_layers=8,
        num_heads=8,
        num_kv_heads=4,
        head_dim=64,
        rope=RopeConfig(1e6),
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        max_position_embeddings=4096,
    ),
    "tiny": ModelConfig(
        family="qwen3",
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        rope=RopeConfig(1e6),
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        max_position_embeddings=4096,
    ),
}
"""The shapes that figures are quoted for; "tiny" only shows that the program runs."""


@dataclass(frozen=True)
class Args:
    """Time decoding steps."""

    shape: str = "mini"
    """Name of the shape: mini or tiny."""
    batches: tuple[int, ...] = (1, 16)
    """Batch sizes."""
    prompt_tokens: int = 16
    new_tokens: int = 128
    """Length of the long reply."""
    tries: int = 7
    """Timings of each system at each batch size."""
    out: Path = Path("docs/benchmarks")
    """Folder of the JSON files; the page is written beside it."""


@functools.partial(jax.jit, static_argnames=("config", "new_tokens", "layout"))
def greedy(
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    *,
    config: ModelConfig,
    new_tokens: int,
    layout: Layout | None = None,
) -> jax.Array:
    """Prefill and greedy decoding in one program: the bare loop around a decoding step.

    Args:
      params: the policy's tree.
      tokens: [B, P] prompts padded on the right.
      lengths: [B].
      config: static.
      new_tokens: T, static.
      layout: of the cache; None: the backend's.

    Returns:
      [B, T] ids.
    """
    batch, width = tokens.shape
    dtype = params["model"]["embed_tokens"]["weight"].dtype
    cache = KVCache.zeros(config, batch, width + new_tokens, dtype, layout)
    hidden, cache = run.prefill(params["model"], tokens, lengths, cache, config=config)

    def body(state: tuple[Any, ...]) -> tuple[Any, ...]:
        t, hidden, lengths, cache, replies = state
        token = jnp.argmax(lm_head(params, hidden), axis=-1).astype(jnp.int32)
        replies = replies.at[:, t].set(token)
        hidden, cache = run.decode_step(params["model"], token, lengths, cache, config=config)
        return t + 1, hidden, lengths + 1, cache, replies

    # The last token needs no further pass, so the loop makes T - 1 steps.
    state = (0, hidden, lengths, cache, jnp.zeros((batch, new_tokens), jnp.int32))
    t, hidden, _, _, replies = jax.lax.while_loop(lambda state: state[0] < new_tokens - 1, body, state)
    return replies.at[:, t].set(jnp.argmax(lm_head(params, hidden), axis=-1).astype(jnp.int32))


def main(args: Args) -> None:
    """Measure, record, and draw the page."""
    console = Console()
    config = SHAPES[args.shape]
    model_key, head_key = jax.random.split(jax.random.key(0))
    head = jax.random.normal(head_key, (config.vocab_size, config.hidden_size)) * config.initializer_range
    params = {"model": init_model(config, model_key), "lm_head": {"weight": head}}
    console.print("measuring the machine's bandwidth and peak ...")
    machine = measure_machine()

    systems: dict[str, Any] = {"sia_jax": _sia_jax(params, config)}
    baseline_versions: dict[str, str] = {}
    if huggingface_baseline.is_available():
        with tempfile.TemporaryDirectory() as folder:
            sia_jax.save_policy(sia_jax.Policy(config, params), folder)
            baseline = huggingface_baseline.HuggingFaceBaseline(Path(folder), threads=usable_cores())
        for cache in ("dynamic", "static"):
            systems[f"Hugging Face, {cache} cache"] = functools.partial(_timed_baseline, baseline, cache)
        baseline_versions = huggingface_baseline.versions()
    else:
        console.print("[yellow]torch is not installed here: no baseline; `make bench` installs it[/yellow]")

    measured: list[tuple[int, dict[str, list[float]], dict[str, float]]] = []
    with Progress(console=console) as progress:
        task = progress.add_task("timing", total=len(args.batches) * len(systems) * (args.tries + 1))
        for batch in args.batches:
            prompts = _prompts(config, batch, args.prompt_tokens)
            steps: dict[str, list[float]] = {name: [] for name in systems}
            replies = {}
            for attempt in range(args.tries + 1):
                for name, generate in systems.items():
                    replies[name], long = generate(prompts, args.new_tokens)
                    _, short = generate(prompts, 1)
                    if attempt:  # the first try compiles and warms up
                        steps[name].append((long - short) / (args.new_tokens - 1))
                    progress.advance(task)
            agreements = {name: _agreement(reply, replies["sia_jax"]) for name, reply in replies.items()}
            measured.append((batch, steps, agreements))
            machine = machine.best_of(measure_machine())
    rows = [
        row
        for batch, steps, agreements in measured
        for row in _rows(args, config, machine, batch, steps, agreements)
    ]
    now = datetime.now(UTC)
    record = {
        "kind": "decode_step",
        "time": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _commit(),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax")} | baseline_versions,
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "device": f"{jax.devices()[0].device_kind}, {usable_cores()} cores",
        "bandwidth_gb_per_s": machine.bytes_per_second / 1e9,
        "peak_gflop_per_s": machine.flops_per_second / 1e9,
        "shape": args.shape,
        "config": asdict(config),
        "prompt_tokens": args.prompt_tokens,
        "new_tokens": args.new_tokens,
        "tries": args.tries,
        "rows": rows,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{now:%Y-%m-%dT%H%M%SZ}-decode_step.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    write_page(args.out, args.out.with_suffix(".md"))
    _show(console, record)
    console.print(f"wrote {path} and {args.out.with_suffix('.md')}")


def _rows(
    args: Args,
    config: ModelConfig,
    machine: Machine,
    batch: int,
    steps: dict[str, list[float]],
    agreements: dict[str, float],
) -> Iterator[dict[str, Any]]:
    """One row a system: its times beside the floor of a step in the middle of the reply."""
    cost = decode_pass_cost(config, batch, columns=args.prompt_tokens + args.new_tokens // 2)
    floor = machine.floor_seconds(cost)
    for name, seconds in steps.items():
        median = statistics.median(seconds)
        yield {
            "system": name,
            "batch": batch,
            "ms_per_step": 1e3 * median,
            "best_ms_per_step": 1e3 * min(seconds),
            "tokens_per_second": batch / median,
            "floor_ms": 1e3 * floor,
            "floor_bound": "bandwidth" if cost.bytes / machine.bytes_per_second == floor else "compute",
            "of_floor": floor / median,
            "same_tokens_as_sia_jax": agreements[name],
        }


def _sia_jax(params: Params, config: ModelConfig) -> Any:
    def generate(prompts: list[list[int]], new_tokens: int) -> tuple[list[list[int]], float]:
        tokens = jnp.asarray(prompts, jnp.int32)
        lengths = jnp.full((len(prompts),), tokens.shape[1], jnp.int32)
        start = time.perf_counter()
        replies = jax.block_until_ready(greedy(params, tokens, lengths, config=config, new_tokens=new_tokens))
        return replies.tolist(), time.perf_counter() - start

    return generate


def _timed_baseline(
    baseline: huggingface_baseline.HuggingFaceBaseline, cache: str, prompts: list[list[int]], new_tokens: int
) -> tuple[list[list[int]], float]:
    return baseline.greedy(prompts, new_tokens, cache)


def _prompts(config: ModelConfig, batch: int, length: int) -> list[list[int]]:
    ids = jax.random.randint(jax.random.key(1), (batch, length), 0, config.vocab_size)
    return ids.tolist()


def _agreement(replies: list[list[int]], reference: list[list[int]]) -> float:
    """Share of ids that are equal up to each reply's first difference."""
    equal = 0
    for reply, other in zip(replies, reference, strict=True):
        differs = [a != b for a, b in zip(reply, other, strict=True)]
        equal += differs.index(True) if True in differs else len(reply)
    return equal / sum(len(reply) for reply in reference)


def _commit() -> str:
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def _show(console: Console, record: dict[str, Any]) -> None:
    table = Table(title=f"one decoding step, shape {record['shape']}, {record['device']}")
    for column in ("batch", "system", "ms/step", "tokens/s", "floor ms", "of the floor"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for row in record["rows"]:
        table.add_row(
            str(row["batch"]),
            row["system"],
            f"{row['ms_per_step']:.2f}",
            f"{row['tokens_per_second']:.0f}",
            f"{row['floor_ms']:.2f} ({row['floor_bound']})",
            f"{row['of_floor']:.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
