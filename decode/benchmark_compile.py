"""How long the first call of the sampler takes: tracing, lowering, compiling, or loading what was compiled.

    python -m decode.benchmark_compile              # 28 narrow layers; some five minutes
    python -m decode.benchmark_compile --layers 2   # a minute: that everything runs

Random weights in float32, batch 8; the value model is an adapter over the policy's weights. Each system runs
in two processes, one after the other, which share a new folder for what is compiled: the first finds it
empty, the second full. In the first, a call with prompts of another length of the same bucket follows. What
a call takes beyond a second call of its process is what compiling costs.
The record goes to docs/benchmarks/, and docs/benchmarks.md is made again.
"""

import json
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.markdown import Markdown

from sia_jax.benchmarks.systems import SamplerSystem
from sia_jax.costs.roofline import measure_device
from sia_jax.costs.shapes import NARROW, AdaptedModels
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.writing import write_text
from sia_jax.models.config import ModelConfig
from sia_jax.models.passes import bucket_length
from sia_jax.reports.benchmarks import section, write_page
from sia_jax.runs.cli import program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.provenance import record_header

SYSTEMS = {"unsteered": None, "20% steered": 0.2}
"""Name -> the share of junctions."""
EMPTY, FULL, OTHER = "new process", "new process, compiled before", "another prompt length of the bucket"
_BATCH = 8
_STEPS = {
    "jaxpr_trace_duration": "trace",
    "jaxpr_to_mlir_module_duration": "lower",
    "backend_compile_duration": "compile",
}


@dataclass(frozen=True)
class Args:
    """Time the first call of the sampler."""

    layers: int = 28
    """Of the policy."""
    prompt_tokens: int = 120
    """Ids a prompt."""
    new_tokens: int = 128
    """Ids a reply."""
    out: Path = Path("docs/benchmarks")
    """Folder of the JSON files; the page is written beside it."""


def main(args: Args) -> None:
    """Measure, record, and draw the page."""
    console = Terminal()
    with program("decode.benchmark_compile", keeps_compiled=False):
        if min(args.layers, args.prompt_tokens - 1) < 1 or args.new_tokens < 4:
            raise ValueError(
                "--layers must be 1 or more, --prompt-tokens 2 or more and --new-tokens 4 or more, got "
                f"{args.layers}, {args.prompt_tokens} and {args.new_tokens}"
            )
        if bucket_length(args.prompt_tokens - 1) != bucket_length(args.prompt_tokens):
            raise ValueError(
                f"--prompt-tokens {args.prompt_tokens} is the shortest of its bucket: take another"
            )
        check_outputs(inputs={}, files={"--out's page": args.out.with_suffix(".md")})
        with locked(folders=(args.out,), files=(args.out.with_suffix(".md"),)):
            run(args, console)


def run(args: Args, console: Terminal) -> None:
    """`main`, once the options are checked."""
    config = replace(NARROW, num_layers=args.layers)
    console.print("measuring the machine's bandwidth and peak ...")
    record = record_header("narrow", config, measure_device(), args.out)
    rows = []
    for name in SYSTEMS:
        with tempfile.TemporaryDirectory() as folder:
            for case in (EMPTY, FULL):
                console.say(f"{name}: {case} ...")
                found = in_new_process(name, config, args.prompt_tokens, args.new_tokens, folder)
                calls = {case: found[0], **({OTHER: found[2]} if case == EMPTY else {})}
                rows += [_row(name, label, call, found[1]) for label, call in calls.items()]
    record |= {"kind": "compile", "prompt_tokens": args.prompt_tokens, "new_tokens": args.new_tokens}
    record |= {"rows": rows, "targets": _targets(rows) if args.layers == NARROW.num_layers else []}
    path = args.out / f"{record['time'].replace(':', '')}-compile.json"
    write_text(path, json.dumps(record, indent=1) + "\n")
    write_page(args.out, args.out.with_suffix(".md"))
    console.print(Markdown(section(record)))
    console.print(f"wrote {path} and {args.out.with_suffix('.md')}")


def in_new_process(*what: Any) -> list[dict[str, float]]:
    """`time_calls` in a process of its own, whose JAX has compiled nothing."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(time_calls, *what).result()


def time_calls(
    name: str, config: ModelConfig, prompt_tokens: int, new_tokens: int, folder: str
) -> list[dict[str, float]]:
    """Seconds of a call, of the same again, and of one with shorter prompts; in each the compiler's, by step.

    Args:
      name: one of `SYSTEMS`.
      config: of the policy.
      prompt_tokens: ids a prompt; the last call has one fewer.
      new_tokens: ids a reply.
      folder: of compiled programs, which this process writes and reads.
    """
    jax.config.update("jax_compilation_cache_dir", folder)
    ratio, models = SYSTEMS[name], AdaptedModels.random(config, jnp.float32)
    system = SamplerSystem(models, ratio)
    steps: dict[str, float] = defaultdict(float)

    def heard(event: str, duration_secs: float, **_: Any) -> None:
        step = _STEPS.get(event.rpartition("/")[2])
        if step == "trace":  # of functions within functions, of which the outermost takes longest
            steps[step] = max(steps[step], duration_secs)
        elif step is not None:
            steps[step] += duration_secs
            steps["programs"] += step == "compile"

    jax.monitoring.register_event_duration_secs_listener(heard)
    calls = []
    for length in (prompt_tokens, prompt_tokens, prompt_tokens - 1):
        prompts = jax.random.randint(jax.random.key(1), (_BATCH, length), 0, config.vocab_size).tolist()
        steps.clear()
        start = time.perf_counter()
        system(prompts, new_tokens)
        seconds = time.perf_counter() - start
        calls.append({"seconds": seconds} | {step: steps[step] for step in (*_STEPS.values(), "programs")})
    return calls


def _row(name: str, case: str, call: dict[str, float], second: dict[str, float]) -> dict[str, Any]:
    return call | {"system": name, "case": case, "beyond_second": call["seconds"] - second["seconds"]}


def _targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the design asks for with a value model, and what was measured."""
    found = {row["case"]: row for row in rows if row["system"] == "20% steered"}
    asked = (
        (f"seconds, {EMPTY}", found[EMPTY]["beyond_second"], 40),
        (f"seconds, {FULL}", found[FULL]["beyond_second"], 12),
        (f"programs compiled, {OTHER}", found[OTHER]["programs"], 0),
    )
    return [
        {"name": name, "value": value, "target": target, "met": value <= target}
        for name, value, target in asked
    ]


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
