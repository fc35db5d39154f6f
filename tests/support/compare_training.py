"""Our training steps on the batches of `tests.support.reference_training`; without torch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

import sia_jax
from sia_jax.checkpoints.huggingface import load_backbone
from sia_jax.data.trajectories import Trajectory
from sia_jax.training.config import OptimizerConfig, TrainConfig
from sia_jax.training.packing import pack
from sia_jax.training.step import init_state, train_step
from sia_jax.types import flatten_names
from tests.support.recipe import RECIPE


def train(
    folder: Path, base_folder: Path, arrays: Mapping[str, np.ndarray], out: Path | None = None
) -> dict[str, np.ndarray]:
    """The same as `reference_training.train`: packed, several rows a micro-batch."""
    config, model = load_backbone(base_folder)
    policy = sia_jax.Policy(config, {"model": model}, None, base_folder.name)
    value = sia_jax.load_value_model(folder, policy)
    assert value.config.lora is not None
    lora = replace(value.config.lora, dropout=0.0)
    training = TrainConfig(replace(value.config, lora=lora), optimizer=OptimizerConfig(**RECIPE))
    before = jax.tree.map(np.array, value.params)
    state = init_state(value.params, jax.random.key(0, impl="threefry2x32"), config=training)
    losses = []
    for step in range(len(arrays["train_tokens"])):
        batch = pack(trajectories(arrays, step), length=48, rows=2, batch_size=16)
        state, metrics = train_step({"model": model}, state, batch, config=training)
        losses.append(float(metrics.loss))
    if out is not None:
        trained = replace(value, params=state.trained)
        sia_jax.save_value_model(trained, out, base_model=str(base_folder), layout="official")
    after = flatten_names(state.trained)
    updates = {f"update.{name}": np.asarray(after[name]) - x for name, x in flatten_names(before).items()}
    return updates | {"train_losses": np.array(losses, np.float32)}


def trajectories(arrays: Mapping[str, np.ndarray], step: int) -> list[Trajectory]:
    """The trajectories of one batch."""
    fields = (arrays[f"train_{name}"][step] for name in ("tokens", "starts", "ends", "rewards"))
    return [
        Trajectory(tokens[:start], tokens[start:end], float(reward), row)
        for row, (tokens, start, end, reward) in enumerate(zip(*fields, strict=True))
    ]


def assert_same_training(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> None:
    """Every tensor moved alike: |ours - theirs| <= 1e-4 |theirs|, in norm; and so did the losses."""
    updates = {name: x for name, x in theirs.items() if name.startswith("update.")}
    assert updates.keys() == {name for name in ours if name.startswith("update.")}
    for name, expected in updates.items():
        assert np.linalg.norm(expected) > 1e-3, f"{name} hardly moved"
        error = np.linalg.norm(ours[name] - expected) / np.linalg.norm(expected)
        assert error < 1e-4, (name, error)
    np.testing.assert_allclose(ours["train_losses"], theirs["train_losses"], rtol=1e-4)
