"""The systems that train a value model to be timed: packed rows, padded ones, and those of torch and PEFT."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import sia_jax
from sia_jax.benchmarks import torch_baseline
from sia_jax.costs.roofline import usable_cores
from sia_jax.costs.shapes import Models
from sia_jax.data.trajectories import Trajectory
from sia_jax.models.config import ValueConfig
from sia_jax.models.lora import LoraConfig, init_lora
from sia_jax.training.config import TrainConfig
from sia_jax.training.packing import pack
from sia_jax.training.step import TrainState, init_state, train_step

BATCH = 16
LORA = LoraConfig()
System = Callable[[Sequence[Trajectory]], float]
"""A step on a batch, and its seconds."""


def make_batch(seed: int, longest: int, vocab: int) -> list[Trajectory]:
    """Sixteen trajectories of ragged lengths."""
    rng = np.random.default_rng(seed)
    batch: list[Trajectory] = []
    while len(batch) < BATCH:
        prompt, reply = (int(n) + 1 for n in np.exp(rng.normal(np.log([60, 200]), [0.8, 0.9])))
        if prompt + reply <= longest:
            ids = rng.integers(0, vocab, prompt + reply).astype(np.int32)
            batch.append(Trajectory(ids[:prompt], ids[prompt:], float(rng.normal()), len(batch)))
    return batch


def training_systems(models: Models, row_length: int) -> dict[str, System]:
    """Ours, by name: each takes a step on a batch, and returns the seconds.

    Args:
      models: of random weights.
      row_length: tokens of a packed row.
    """
    config = TrainConfig(ValueConfig(models.config, lora=LORA))
    frozen = {"model": models.value_model}

    def system(length: int, rows: int, segments: int) -> System:
        state = [_fresh(models, config)]

        def step(batch: Sequence[Trajectory]) -> float:
            begin = time.perf_counter()
            packed = pack(batch, length=length, rows=rows, batch_size=BATCH, segments=segments)
            state[0], metrics = train_step(frozen, state[0], packed, config=config)
            jax.block_until_ready((state[0], metrics))
            return time.perf_counter() - begin

        return step

    return {
        "packed rows, one at a time": system(row_length, 1, BATCH),
        "packed rows, two at a time": system(row_length, 2, BATCH),
        "every trajectory padded to a row": system(row_length, 8, 1),
    }


def _fresh(models: Models, config: TrainConfig) -> TrainState:
    key = jax.random.key(0, impl="threefry2x32")
    trained = {"lora": init_lora(models.value_model, LORA, key), "value_head": models.heads["scalar"]}
    return init_state(trained, key, config=config)


def training_baselines(models: Models, width: int) -> dict[str, System]:
    """Those of torch and PEFT; `width` is what trajectories are padded to."""
    with tempfile.TemporaryDirectory() as folder:
        params = {"model": models.value_model, "lm_head": models.policy["lm_head"]}
        sia_jax.save_policy(sia_jax.Policy(models.config, params), folder)
        trainer = torch_baseline.TorchTrainer(Path(folder), LORA, usable_cores())
    return {
        "torch + PEFT, every trajectory padded to a row": lambda batch: trainer.step(batch, 8, width),
        "torch + PEFT, the official way: 8 in order, padded to the longest": lambda batch: trainer.step(
            batch, 8
        ),
    }


def training_targets(speeds: dict[str, float]) -> list[dict[str, Any]]:
    """What the design asks for, and what was measured, of the tokens a second of each system."""
    asked = (
        (
            "padded / torch + PEFT at equal padding",
            "every trajectory padded to a row",
            "torch + PEFT, every trajectory padded to a row",
            0.9,
        ),
        (
            "packed / torch + PEFT the official way",
            "packed rows, one at a time",
            "torch + PEFT, the official way: 8 in order, padded to the longest",
            1.5,
        ),
    )
    return [
        {
            "name": name,
            "value": speeds[ours] / speeds[theirs],
            "target": target,
            "met": speeds[ours] >= target * speeds[theirs],
        }
        for name, ours, theirs, target in asked
        if theirs in speeds
    ]
