"""What processes do in lock step: the calls of `tests.support.processes`, and the same in one alone."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

import sia_jax
from sia_jax.models.lora import LoraConfig
from sia_jax.parallel.mesh import make_mesh, shard_params
from sia_jax.rewards.labelling import Labeller
from sia_jax.training.checkpoint import Checkpoints
from sia_jax.training.config import OptimizerConfig, TrainConfig
from sia_jax.training.loop import LoopConfig, run
from sia_jax.training.step import init_state
from tests.support.checkpoints import tiny_policy, tiny_reward_model, tiny_value_model
from tests.support.labelling import lines_of, usual_args
from tests.support.trajectories import random_trajectories
from train import label

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 40, "num_heads": 4, "num_kv_heads": 2}
MESH = (2, 2, 2)


def sampled(
    mesh: bool, prompts: list[list[int]], threshold: float = 1.9, seed: int = 1, new_tokens: int = 12
) -> dict[str, Any]:
    """Replies to some prompts, steered by a head on the policy's own states."""
    policy = tiny_policy(num_layers=1, **SIZES)
    value = tiny_value_model(policy, head="states")
    config = sia_jax.SamplerConfig(policy.config, value.config, max_new_tokens=new_tokens, branches=2)
    params = sia_jax.SteeringParams(policy.params, value.params)
    if mesh:
        config = replace(config, mesh=make_mesh(*MESH))
        params = jax.tree.map(lambda tree: shard_params(tree, config.mesh), params, is_leaf=_is_tree)
    key = jax.random.key(seed, impl="threefry2x32")
    samples = sia_jax.sample(params, sia_jax.Prompt.pack(prompts), threshold, rng_key=key, config=config)
    names = ("tokens", "lengths", "junction", "shifted", "logprob", "finish_reason")
    return {name: np.asarray(getattr(samples, name)).tolist() for name in names}


def _is_tree(x: Any) -> bool:
    return isinstance(x, dict)


def labelled(mesh: bool, conversations: list[list[int]]) -> list[Any]:
    """[index, reward] as they come."""
    model = tiny_reward_model(num_layers=1, **SIZES)
    if mesh:
        model = replace(model, params=shard_params(model.params, make_mesh(*MESH)))
    labeller = Labeller(model, batch_tokens=64)
    found = [labeller.add_ids(index, ids) for index, ids in enumerate(conversations)]
    found += labeller.finish()
    return [[outcome.index, outcome.reward] for batch in found for outcome in batch]


LOOP = LoopConfig(epochs=3, row_length=32, rows=8, evaluate_every=5, checkpoint_every=3)


def trained(
    folder: str, mesh: tuple[int, int, int] | None, max_steps: int, damage: float = 0.0
) -> dict[str, Any]:
    """Steps of a run in `folder`, from where that stands: what is told of each, and where it went on from.

    Args:
      folder: of the checkpoints.
      mesh: of the devices; None: one.
      max_steps: where to stop.
      damage: added to the first reward, so that the data are others.
    """
    policy = tiny_policy(num_layers=1)
    value = tiny_value_model(policy, lora=LoraConfig(rank=4, alpha=8.0, dropout=0.1))
    config = TrainConfig(value.config, optimizer=OptimizerConfig(learning_rate=1e-2), batch_size=8)
    trajectories = random_trajectories(30, policy.config.vocab_size)
    data, held_out = trajectories[:26], trajectories[26:]
    data[0] = replace(data[0], reward=data[0].reward + damage)
    frozen, learnt = {"model": policy.params["model"]}, value.params
    devices = None if mesh is None else make_mesh(*mesh)
    if devices is not None:
        frozen, learnt = shard_params(frozen, devices), shard_params(learnt, devices)
    state = init_state(learnt, jax.random.key(5, impl="threefry2x32"), config=config, mesh=devices)
    told: dict[str, Any] = {"begin": [], "steps": [], "evaluations": []}
    checkpoints = Checkpoints(Path(folder))
    finished = run(
        frozen,
        state,
        data,
        held_out,
        config,
        replace(LOOP, max_steps=max_steps),
        mesh=devices,
        checkpoints=checkpoints,
        on_start=told["begin"].append,
        on_step=lambda report: told["steps"].append([report.step, report.loss, report.trajectories]),
        on_evaluation=lambda step, loss, found: told["evaluations"].append([step, loss]),
    )
    checkpoints.close()
    leaves = [_whole(leaf) for leaf in jax.tree.leaves(finished.state)]
    return told | {"state": [hashlib.sha256(leaf.tobytes()).hexdigest() for leaf in leaves]}


def _whole(leaf: jax.Array) -> np.ndarray:
    if leaf.is_fully_addressable:
        return np.asarray(leaf)
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def labelled_file(folder: str, out: str, mesh: bool, **options: Any) -> dict[str, Any]:
    """train.label on the usual input of its tests."""
    args = replace(usual_args(Path(folder)), out=out, **options)
    if mesh:
        args = replace(args, mesh=(4, 1, 2), distributed=True)
    label.main(args)
    return {}


def rewards_in(path: Path) -> list[tuple[float, dict[str, Any]]]:
    """Of each line its reward, and its other fields."""
    return [(line.pop("reward"), line) for line in lines_of(path)]


def engine_refused() -> None:
    """An engine on the mesh of all processes."""
    policy = tiny_policy(num_layers=1, **SIZES)
    params = {
        name: shard_params({name: tree}, make_mesh(*MESH))[name] for name, tree in policy.params.items()
    }
    sia_jax.Engine(replace(policy, params=params), rows=4)
