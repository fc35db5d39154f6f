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

What the targets are set for is measured first, and the record is written after each row, so that a run may
be cut short. Beside the rows it holds the kernels of a call, as the device's profiler records them, and the
parts of a steered one. The record goes to docs/benchmarks/, and docs/benchmarks.md is made again.
"""

import functools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from rich.markdown import Markdown

import sia_jax
from sia_jax.benchmarks import huggingface_baseline
from sia_jax.benchmarks.contention import BOUND, with_contenders
from sia_jax.benchmarks.kernels import record_kernels
from sia_jax.benchmarks.parts import time_parts
from sia_jax.benchmarks.systems import BareLoop, SamplerSystem, System, Timing
from sia_jax.costs.roofline import DeviceRates, decode_step_cost, measure_device, usable_cores
from sia_jax.costs.shapes import REAL_SHAPES, AdaptedModels, Models, Weights
from sia_jax.decoding.schedule import Burst, Shared
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.writing import write_text
from sia_jax.reports.benchmarks import section, write_page
from sia_jax.runs.cli import program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.provenance import record_header
from sia_jax.steering.tilts import Advantage, Clipped

TARGETS = {1: 0.5, 16: 0.65, 64: 0.5}
"""Batch -> the share of the floor that an unsteered call of the 1.7B shape is to reach."""
_UNSTEERED, _SPARSE, _BARE = "unsteered, full record", "20% steered", "bare greedy loop"
_FIRST_SECONDS = 30.0
"""Taken for a first row, before any has been timed."""


@dataclass(frozen=True)
class Args:
    """Time the sampler on a GPU."""

    shape: Literal["1.7B", "0.6B", "8B", "14B+4B", "tiny", "tiny+tiny"] = "1.7B"
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


class Clock:
    """Says whether the time left holds another piece of work, by the dearest one so far."""

    def __init__(self, minutes: float):
        self._end = time.monotonic() + 60 * minutes
        self._dearest = 0.0

    def allows(self, pieces: int = 1) -> bool:
        """Whether there is time for that many more."""
        return time.monotonic() + 1.3 * pieces * (self._dearest or _FIRST_SECONDS) < self._end

    def spent(self, seconds: float) -> None:
        """Tell what a piece took."""
        self._dearest = max(self._dearest, seconds)


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
    clock = Clock(args.minutes)
    tiny = args.shape.startswith("tiny")
    dtype = jnp.dtype(jnp.float32 if tiny else jnp.bfloat16)
    console.print("measuring the machine's bandwidth and peak ...")
    rates = measure_device(64, 512) if tiny else measure_device(4096, 8192, dtype)
    models = _models(args.shape, dtype)
    record = record_header(args.shape, models.config, rates, args.out) | {
        "kind": "gpu",
        "dtype": dtype.name,
        "prompt_tokens": args.prompt_tokens,
        "new_tokens": args.new_tokens,
        "tries": args.tries,
        "rows": [],
        "targets": [],
        "left_out": [],
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
        row = _row(name, system, batch, models, rates, args, clock)
        record["rows"].append(row)
        _compare(record["rows"])
        record["targets"] = _targets(record["rows"]) if args.shape == "1.7B" else []
        save()
        console.print_json(data=row, indent=None)
        if name == _UNSTEERED or (name, batch) == (_SPARSE, args.batches[0]):
            record["kernels"] |= _kernels(name, system, batch, models, args)
            save()

    for name, system, batch in _jobs(models, args):
        measure(name, system, batch)
    with _baselines(models, dtype, clock) as baselines:
        for name, system in baselines.items():
            measure(name, system, args.batches[0])
    done = {(row["system"], row["batch"]) for row in record["rows"]}
    if (_SPARSE, args.batches[0]) in done and clock.allows(2):
        record["parts"] = _parts(models, rates, args)
    save()
    console.print(Markdown(section(record)))
    console.print(f"wrote {path} and {args.out.with_suffix('.md')}")


SUITE: tuple[tuple[Literal["1.7B", "8B", "14B+4B"], tuple[int, ...]], ...] = (
    ("1.7B", (16,)),
    ("1.7B", (1, 64)),
    ("8B", (16,)),
    ("14B+4B", (16,)),
)
"""Shapes and batches of `run_suite`: what tells most comes first."""
REHEARSAL: tuple[tuple[Literal["tiny", "tiny+tiny"], tuple[int, ...]], ...] = (
    ("tiny", (2,)),
    ("tiny", (1, 4)),
    ("tiny+tiny", (2,)),
)
"""The same for a CPU, to see that everything runs."""


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
    for shape, batches in REHEARSAL if rehearse else SUITE:
        left = (end - time.monotonic()) / 60
        if left * 60 < _FIRST_SECONDS:
            console.say(f"no time is left for {shape} at batch {', '.join(map(str, batches))}", "yellow")
            continue
        args = Args(shape=shape, batches=batches, tries=tries, minutes=left, out=out)
        run(replace(args, prompt_tokens=4, new_tokens=4) if rehearse else args, console)
        jax.clear_caches()  # the weights of one shape make room for those of the next


def _models(shape: str, dtype: Any) -> AdaptedModels | Models:
    policy, plus, value = shape.partition("+")
    if plus:
        return with_contenders(Models.random(REAL_SHAPES[policy], REAL_SHAPES[value], dtype))
    return with_contenders(AdaptedModels.random(REAL_SHAPES[shape], dtype))


@contextmanager
def _baselines(models: AdaptedModels | Models, dtype: jnp.dtype, clock: Clock) -> Iterator[dict[str, System]]:
    """Hugging Face on the policy's weights, where torch is there and sees the device that JAX runs on."""
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    if not (clock.allows(2) and huggingface_baseline.is_available(device)):
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        sia_jax.save_policy(sia_jax.Policy(models.config, models.policy), folder)
        baseline = huggingface_baseline.HuggingFaceBaseline(
            Path(folder), threads=usable_cores(), device=device, dtype=dtype.name
        )

        def generate(cache: str) -> System:
            def call(prompts: list[list[int]], new_tokens: int) -> Timing:
                return Timing(baseline.sample(prompts, new_tokens, cache), len(prompts) * new_tokens)

            return call

        yield {f"Hugging Face, {cache} cache": generate(cache) for cache in ("dynamic", "static")}


def _jobs(models: AdaptedModels | Models, args: Args) -> list[tuple[str, System, int]]:
    unsteered, sparse = SamplerSystem(models, None), SamplerSystem(models, 0.2)
    dense = SamplerSystem(models, 1.0, expected_ratio=1.0)
    bounded = Clipped(BOUND, Advantage())
    systems: dict[str, System] = {_UNSTEERED: unsteered, _SPARSE: sparse}
    shared = (
        ("one pass for both", Shared()),
        ("one pass for both, looking ahead", Shared(look_ahead=True)),
    )
    for what, schedule in shared if isinstance(models, AdaptedModels) else ():
        systems[f"{_SPARSE}, {what}"] = replace(sparse, fields=(("schedule", schedule),))
        systems[f"{_SPARSE}, contenders, {what}"] = replace(
            sparse, tilt=bounded, fields=(("schedule", schedule),)
        )
    systems |= {
        f"{_SPARSE}, contenders": replace(sparse, tilt=bounded),
        "dense, contenders": replace(dense, tilt=bounded),
        "dense": dense,
        f"{_SPARSE}, policy's states": SamplerSystem(models, 0.2, "states"),
        f"{_SPARSE}, half of the batch waiting": replace(
            sparse, knobs=(("schedule", Burst(max(1, args.batches[0] // 2), 8)),)
        ),
        _BARE: BareLoop(models),
    }
    return [(name, system, batch) for name, system in systems.items() for batch in args.batches]


def _row(
    name: str,
    system: System,
    batch: int,
    models: AdaptedModels | Models,
    rates: DeviceRates,
    args: Args,
    clock: Clock,
) -> dict[str, Any]:
    """Time one system at one batch."""
    began = time.monotonic()
    prompts = _prompts(models, batch, args.prompt_tokens)
    first, *timings = [system(prompts, args.new_tokens) for _ in range(args.tries + 1)]
    clock.spent(time.monotonic() - began)
    seconds = statistics.median(timing.seconds for timing in timings)
    itemsize = models.policy["model"]["embed_tokens"]["weight"].dtype.itemsize
    columns = args.prompt_tokens + args.new_tokens / 2
    floor = rates.floor_seconds(decode_step_cost(models.config, batch, columns, itemsize))
    return {
        "system": name,
        "batch": batch,
        "tokens_per_second": first.tokens / seconds,
        "best_tokens_per_second": first.tokens / min(timing.seconds for timing in timings),
        "ms_per_token_of_each_row": 1e3 * seconds / args.new_tokens,
        "policy_floor_ms": 1e3 * floor,
        "of_floor": floor / (seconds / args.new_tokens),
        "first_call_seconds": first.seconds,
        "counts": first.counts,
    }


def _compare(rows: list[dict[str, Any]]) -> None:
    """Add to each row its speed over that of the unsteered sampler at its batch."""
    plain = {row["batch"]: row["tokens_per_second"] for row in rows if row["system"] == _UNSTEERED}
    for row in rows:
        if row["batch"] in plain:
            row["of_unsteered"] = row["tokens_per_second"] / plain[row["batch"]]


def _targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = {row["batch"]: row["of_floor"] for row in rows if row["system"] == _UNSTEERED}
    return [
        {
            "name": f"floor / time, unsteered, batch {batch}",
            "value": found.get(batch),
            "target": target,
            "met": found.get(batch, 0.0) >= target,
        }
        for batch, target in TARGETS.items()
    ]


def _kernels(
    name: str, system: System, batch: int, models: AdaptedModels | Models, args: Args
) -> dict[str, dict[str, Any]]:
    """What the device's profiler sees of a call; nothing where it sees nothing."""
    call = functools.partial(system, _prompts(models, batch, args.prompt_tokens), args.new_tokens)
    label = f"{name}, batch {batch}"
    kept = args.traces and args.traces / f"{args.shape} {label}.xplane.pb".replace(" ", "_")
    kernels = record_kernels(call, kept)
    return {} if kernels is None else {label: asdict(kernels)}


def _parts(models: AdaptedModels | Models, rates: DeviceRates, args: Args) -> dict[str, list[dict[str, Any]]]:
    """Where the time of a steered call goes, at the first of the batches."""
    sparse = SamplerSystem(models, 0.2)
    prompts = _prompts(models, args.batches[0], args.prompt_tokens)
    timings = [sparse(prompts, args.new_tokens) for _ in range(args.tries)]
    best = min(timings, key=lambda timing: timing.seconds)
    return {_SPARSE: time_parts(sparse, best, prompts, args.new_tokens, rates)}


def _prompts(models: Weights, batch: int, length: int) -> list[list[int]]:
    ids = jax.random.randint(jax.random.key(1), (batch, length), 0, models.config.vocab_size)
    return ids.tolist()


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
