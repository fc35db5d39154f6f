"""Training policies and reward models: losses and gradients are those of the equations, token by token."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.data.trajectories import Trajectory
from sia_jax.pretrained import Policy
from sia_jax.training.batch import micro_batch
from sia_jax.training.config import OptimizerConfig
from sia_jax.training.language import init_full_state, language_step, reply_logprobs
from sia_jax.training.packing import pack
from sia_jax.training.preference import preference_step
from sia_jax.types import Params, flatten_names
from tests.support.checkpoints import tiny_policy, tiny_reward_model
from tests.support.oracle_network import NumpyModel
from tests.support.trajectories import random_trajectories

KEY = jax.random.key(0, impl="threefry2x32")
RATE = OptimizerConfig(learning_rate=1e-3, weight_decay=0.0, clip_norm=1e9)


@functools.cache
def policy() -> Policy:
    return tiny_policy(num_layers=1)


@functools.cache
def trajectories() -> list[Trajectory]:
    return random_trajectories(5, 64)


def batch_of(rows: int) -> Any:
    return pack(trajectories(), length=32, rows=rows, batch_size=5)


def oracle_logprobs(params: Params, trajectory: Trajectory) -> np.ndarray:
    """log pi of each reply token, one sequence at a time, float64."""
    model = NumpyModel(params, policy().config)
    ids, start = np.concatenate([trajectory.prompt_ids, trajectory.reply_ids]), len(trajectory.prompt_ids)
    logits = model.hidden(ids[:-1]) @ model.head["weight"].T
    logprobs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return logprobs[np.arange(start - 1, len(ids) - 1), ids[start:]]


def test_log_probabilities_are_those_of_each_sequence_alone_however_it_is_packed() -> None:
    model = policy()
    expected = {t.number: oracle_logprobs(model.params, t) for t in trajectories()}
    compiled = jax.jit(reply_logprobs, static_argnames="config")
    for rows in (1, 2):
        batch = jax.tree.map(jnp.asarray, batch_of(rows))
        seen = set()
        for index in range(int(batch.micro_batches)):
            micro = micro_batch(batch, jnp.int32(index))
            found = np.asarray(compiled(model.params, micro, config=model.config))
            assert not found[~np.asarray(micro.is_reply)].any()
            for row, segment in np.argwhere(np.asarray(micro.numbers) >= 0):
                own = (np.asarray(micro.segment_ids[row]) == segment + 1) & np.asarray(micro.is_reply[row])
                number = int(micro.numbers[row, segment])
                np.testing.assert_allclose(found[row][own], expected[number], rtol=1e-4, atol=1e-5)
                seen.add(number)
        assert seen == set(expected)


def test_the_language_loss_is_nats_a_reply_token_and_its_gradient_descends_it() -> None:
    model = policy()
    logprobs = np.concatenate([oracle_logprobs(model.params, t) for t in trajectories()])
    updates = []
    for rows in (1, 5):
        state = init_full_state(model.params, KEY, optimizer=RATE)
        state, loss = language_step(state, batch_of(rows), config=model.config, optimizer=RATE)
        assert float(loss) == pytest.approx(-logprobs.mean(), rel=1e-5)
        assert int(state.step) == 1
        updates.append(flatten_names(jax.tree.map(np.asarray, state.optimizer[1][0].mu)))
    for name, first in updates[0].items():
        np.testing.assert_allclose(updates[1][name], first, rtol=1e-3, atol=1e-7, err_msg=name)
    # AdamW's first moment is (1 - b1) times the gradient: held against differences along one direction.
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), model.params)
    slope = sum(
        float((g / 0.1 * d).sum())
        for g, d in zip(jax.tree.leaves(updates[0]), jax.tree.leaves(flatten_names(direction)), strict=True)
    )
    step = 1e-4

    def loss_at(distance: float) -> float:
        moved = jax.tree.map(lambda x, d: np.asarray(x, np.float64) + distance * d, model.params, direction)
        return -np.concatenate([oracle_logprobs(moved, t) for t in trajectories()]).mean()

    assert slope == pytest.approx((loss_at(step) - loss_at(-step)) / (2 * step), rel=1e-3)


def test_training_on_a_few_replies_makes_them_likely() -> None:
    model = policy()
    fast = OptimizerConfig(learning_rate=1e-2)
    state = init_full_state(model.params, KEY, optimizer=fast)
    losses = []
    for _ in range(40):
        state, loss = language_step(state, batch_of(5), config=model.config, optimizer=fast)
        losses.append(float(loss))
    assert losses[-1] < 0.1 * losses[0]


def test_the_preference_loss_is_that_of_bradley_and_terry_and_training_puts_pairs_in_order() -> None:
    reward = tiny_reward_model(num_layers=1)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, reward.config.vocab_size, (8, 12)).astype(np.int32)
    lengths = rng.integers(3, 13, 8).astype(np.int32)
    scores = np.asarray(reward.score(tokens, lengths), np.float64)
    difference = scores[:4] - scores[4:]
    fast = OptimizerConfig(learning_rate=1e-2)
    state = init_full_state(reward.params, KEY, optimizer=fast)
    state, (loss, agreement) = preference_step(state, tokens, lengths, config=reward.config, optimizer=fast)
    assert float(loss) == pytest.approx(np.log1p(np.exp(-difference)).mean(), rel=1e-5)
    assert float(agreement) == (difference > 0).mean()
    for _ in range(40):
        state, (loss, agreement) = preference_step(
            state, tokens, lengths, config=reward.config, optimizer=fast
        )
    assert float(agreement) == 1
    assert float(loss) < 0.1
