"""How a GPU is timed: systems and shapes, a row a time, what is asked for, and the time left."""

import functools
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

import sia_jax
from sia_jax.benchmarks import huggingface_baseline
from sia_jax.benchmarks.contention import BOUND, with_contenders
from sia_jax.benchmarks.kernels import record_kernels
from sia_jax.benchmarks.parts import time_parts
from sia_jax.benchmarks.projections import time_projections
from sia_jax.benchmarks.systems import BareLoop, KnownSteps, SamplerSystem, System
from sia_jax.costs.roofline import DeviceRates, decode_step_cost, usable_cores
from sia_jax.costs.shapes import REAL_SHAPES, AdaptedModels, Models, Weights
from sia_jax.decoding.schedule import Burst, Shared
from sia_jax.steering.tilts import Advantage, Clipped

Shape = Literal["1.7B", "0.6B", "8B", "14B+4B", "tiny", "tiny+tiny"]
"""Of Qwen3 models; of two, the second is the value model's, which else is an adapter. The tiny ones only show
that everything runs."""
TARGETS = {1: 0.5, 16: 0.65, 64: 0.5}
"""Batch -> the share of the floor that an unsteered call of the 1.7B shape is to reach."""
UNSTEERED, SPARSE, _BARE = "unsteered, full record", "20% steered", "bare greedy loop"
FIRST_SECONDS = 30.0
"""Taken for a first row, before any has been timed."""


SUITE: tuple[tuple[Shape, tuple[int, ...]], ...] = (
    ("1.7B", (16,)),
    ("1.7B", (1, 64)),
    ("8B", (16,)),
    ("14B+4B", (16,)),
)
"""Shapes and batches of `run_suite`: what tells most comes first."""
REHEARSAL: tuple[tuple[Shape, tuple[int, ...]], ...] = (
    ("tiny", (2,)),
    ("tiny", (1, 4)),
    ("tiny+tiny", (2,)),
)
"""The same for a CPU, to see that everything runs."""


@dataclass(frozen=True)
class Load:
    """What each system is given to do."""

    batches: tuple[int, ...]
    prompt_tokens: int
    new_tokens: int
    tries: int


class Clock:
    """Says whether the time left holds another piece of work, by the dearest one so far."""

    def __init__(self, minutes: float):
        self._end = time.monotonic() + 60 * minutes
        self._dearest = 0.0

    def allows(self, pieces: int = 1) -> bool:
        """Whether there is time for that many more."""
        return time.monotonic() + 1.3 * pieces * (self._dearest or FIRST_SECONDS) < self._end

    def spent(self, seconds: float) -> None:
        """Tell what a piece took."""
        self._dearest = max(self._dearest, seconds)


def models_of(shape: Shape, dtype: Any) -> AdaptedModels | Models:
    """Random weights of a shape, whose logits are scaled so that as many contend as of a real model's.

    Args:
      shape: which.
      dtype: of the networks; adapter and heads are float32.
    """
    policy, plus, value = shape.partition("+")
    if plus:
        return with_contenders(Models.random(REAL_SHAPES[policy], REAL_SHAPES[value], dtype))
    return with_contenders(AdaptedModels.random(REAL_SHAPES[shape], dtype))


@contextmanager
def baselines(models: AdaptedModels | Models, dtype: jnp.dtype, clock: Clock) -> Iterator[dict[str, System]]:
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
        yield {f"Hugging Face, {cache} cache": baseline.system(cache) for cache in ("dynamic", "static")}


def jobs(models: AdaptedModels | Models, load: Load) -> list[tuple[str, System, int]]:
    """The name of each system, the system, and a batch; what the targets are set for comes first."""
    unsteered, sparse = SamplerSystem(models, None), SamplerSystem(models, 0.2)
    dense = SamplerSystem(models, 1.0, expected_ratio=1.0)
    bounded = Clipped(BOUND, Advantage())
    systems: dict[str, System] = {UNSTEERED: unsteered, SPARSE: sparse}
    shared = (
        ("one pass for both", Shared()),
        ("one pass for both, looking ahead", Shared(look_ahead=True)),
    )
    for what, schedule in shared if isinstance(models, AdaptedModels) else ():
        systems[f"{SPARSE}, {what}"] = replace(sparse, fields=(("schedule", schedule),))
        systems[f"{SPARSE}, contenders, {what}"] = replace(
            sparse, tilt=bounded, fields=(("schedule", schedule),)
        )
    systems |= {
        f"{SPARSE}, contenders": replace(sparse, tilt=bounded),
        "dense, contenders": replace(dense, tilt=bounded),
        "dense": dense,
        f"{SPARSE}, policy's states": SamplerSystem(models, 0.2, "states"),
        f"{SPARSE}, half of the batch waiting": replace(
            sparse, knobs=(("schedule", Burst(max(1, load.batches[0] // 2), 8)),)
        ),
        **_trials(models, unsteered, sparse),
        _BARE: BareLoop(models),
    }
    return [(name, system, batch) for name, system in systems.items() for batch in load.batches]


def _trials(
    models: AdaptedModels | Models, unsteered: SamplerSystem, sparse: SamplerSystem
) -> dict[str, System]:
    """What is off by default until it has been measured; without a GPU, or in float32, by JAX for cuDNN."""
    half = dtype_of(models) == jnp.bfloat16
    kernel = "cudnn" if half and jax.default_backend() == "gpu" else "xla"
    what = {"cudnn": "cuDNN attention", "xla": "JAX's attention"}[kernel]
    fields = (("attention", kernel),)
    return {
        f"{UNSTEERED}, {what}": replace(unsteered, fields=fields),
        f"{SPARSE}, {what}": replace(sparse, fields=fields),
        f"{UNSTEERED}, known number of steps": KnownSteps(models),
    }


def dtype_of(models: Weights) -> jnp.dtype:
    """Of the policy's weights."""
    return models.policy["model"]["embed_tokens"]["weight"].dtype


def time_row(
    name: str,
    system: System,
    batch: int,
    models: AdaptedModels | Models,
    rates: DeviceRates,
    load: Load,
    clock: Clock,
) -> dict[str, Any]:
    """Time one system at one batch."""
    began = time.monotonic()
    prompts = _prompts(models, batch, load.prompt_tokens)
    first, *timings = [system(prompts, load.new_tokens) for _ in range(load.tries + 1)]
    clock.spent(time.monotonic() - began)
    seconds = statistics.median(timing.seconds for timing in timings)
    itemsize = dtype_of(models).itemsize
    columns = load.prompt_tokens + load.new_tokens / 2
    floor = rates.floor_seconds(decode_step_cost(models.config, batch, columns, itemsize))
    return {
        "system": name,
        "batch": batch,
        "tokens_per_second": first.tokens / seconds,
        "best_tokens_per_second": first.tokens / min(timing.seconds for timing in timings),
        "ms_per_token_of_each_row": 1e3 * seconds / load.new_tokens,
        "policy_floor_ms": 1e3 * floor,
        "of_floor": floor / (seconds / load.new_tokens),
        "first_call_seconds": first.seconds,
        "counts": first.counts,
    }


def compare(rows: list[dict[str, Any]]) -> None:
    """Add to each row its speed over that of the unsteered sampler at its batch."""
    plain = {row["batch"]: row["tokens_per_second"] for row in rows if row["system"] == UNSTEERED}
    for row in rows:
        if row["batch"] in plain:
            row["of_unsteered"] = row["tokens_per_second"] / plain[row["batch"]]


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the design asks of the 1.7B shape, and what was measured."""
    found = {row["batch"]: row["of_floor"] for row in rows if row["system"] == UNSTEERED}
    return [
        {
            "name": f"floor / time, unsteered, batch {batch}",
            "value": found.get(batch),
            "target": target,
            "met": found.get(batch, 0.0) >= target,
        }
        for batch, target in TARGETS.items()
    ]


def kernels_of(
    name: str, system: System, batch: int, models: Weights, load: Load, kept: Path | None
) -> dict[str, dict[str, Any]]:
    """What the device's profiler sees of a call; nothing where it sees nothing.

    Args:
      name: of the system.
      system: is called once.
      batch: prompts.
      models: the weights.
      load: prompts and lengths.
      kept: what the profiler's own file's name begins with; None: it is not kept.
    """
    call = functools.partial(system, _prompts(models, batch, load.prompt_tokens), load.new_tokens)
    label = f"{name}, batch {batch}"
    file = kept and kept.with_name(f"{kept.name} {label}.xplane.pb".replace(" ", "_"))
    kernels = record_kernels(call, file)
    return {} if kernels is None else {label: asdict(kernels)}


def parts_of(
    models: AdaptedModels | Models, rates: DeviceRates, load: Load
) -> dict[str, list[dict[str, Any]]]:
    """Where the time of a steered call goes, at the first of the batches, and where else it might go."""
    sparse = SamplerSystem(models, 0.2)
    prompts = _prompts(models, load.batches[0], load.prompt_tokens)
    timings = [sparse(prompts, load.new_tokens) for _ in range(load.tries)]
    best = min(timings, key=lambda timing: timing.seconds)
    products = time_projections(
        models.policy["model"], (len(prompts), 1), int(best.counts["policy_steps"]), best.seconds, rates
    )
    return {
        SPARSE: time_parts(sparse, best, prompts, load.new_tokens, rates),
        f"{SPARSE}, the policy's products that share their input": products,
    }


def _prompts(models: Weights, batch: int, length: int) -> list[list[int]]:
    ids = jax.random.randint(jax.random.key(1), (batch, length), 0, models.config.vocab_size)
    return ids.tolist()
