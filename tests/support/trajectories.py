"""Random trajectories, and the objective computed sequence by sequence in float64, sharing no code."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sia_jax.data.trajectories import Trajectory
from tests.support.oracle_network import NumpyModel


def random_trajectories(
    count: int, vocab: int, seed: int = 0, longest: int = 20, prompts: tuple[int, int] = (1, 6)
) -> list[Trajectory]:
    """Of ragged lengths; the first reply has one token, the second is the longest."""
    rng = np.random.default_rng(seed)
    replies = rng.integers(2, longest, count)
    replies[:2] = [1, longest][:count]
    return [
        Trajectory(
            prompt_ids=rng.integers(0, vocab, rng.integers(*prompts)).astype(np.int32),
            reply_ids=rng.integers(0, vocab, int(replies[i])).astype(np.int32),
            reward=float(rng.normal(0, 2)),
            number=i,
            group=str(i // 2),
        )
        for i in range(count)
    ]


def reply_values(model: NumpyModel, trajectory: Trajectory) -> np.ndarray:
    """V at every token of the reply, of this one sequence alone."""
    ids = np.concatenate([trajectory.prompt_ids, trajectory.reply_ids])
    hidden = model.hidden(ids)
    start = len(trajectory.prompt_ids)
    if model.head_kind == "scalar":
        return hidden[start:] @ model.head["weight"][0] + model.head["bias"][0]
    before = hidden[start - 1 : -1] @ model.head["down.weight"].T
    return np.array(
        [
            before[t] @ model.head["up.weight"][token] + model.head["up.bias"][token]
            for t, token in enumerate(trajectory.reply_ids)
        ]
    )


def batch_loss(
    params: Any,
    config: Any,
    trajectories: Sequence[Trajectory],
    objective: str = "mean",
    base: Any = None,
    teacher: NumpyModel | None = None,
) -> float:
    """The mean over trajectories of the objective's loss, in float64."""
    model = NumpyModel(params, config, base)
    losses = []
    for trajectory in trajectories:
        values = reply_values(model, trajectory)
        if objective == "mean":
            losses.append((values.mean() - trajectory.reward) ** 2)
        else:
            target = trajectory.reward if teacher is None else reply_values(teacher, trajectory)
            losses.append(np.mean((values - target) ** 2))
    return float(np.mean(losses))
