"""Numbered steps: a run that was stopped, however often, ends in the weights of one that was not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.training.checkpoint import Checkpoints
from sia_jax.training.config import OptimizerConfig
from sia_jax.training.language import init_full_state, update
from sia_jax.training.step import TrainState
from sia_jax.training.steps import run_steps

OPTIMIZER = OptimizerConfig(0.1, 0.0, 1.0)
STEPS = 7


def first_state() -> TrainState:
    key = jax.random.key(0, impl="threefry2x32")
    return init_full_state({"w": jnp.ones(3)}, key, optimizer=OPTIMIZER)


def take_step(state: TrainState, number: int) -> tuple[TrainState, jax.Array]:
    """Towards a target of the step's own number."""
    gradient = {"w": state.trained["w"] - number * jnp.arange(3.0)}
    return update(state, gradient, OPTIMIZER), jnp.sum(gradient["w"])


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_that_is_stopped_after_each_step_ends_in_the_same_weights(tmp_path, every):
    told: list[int] = []
    alone = run_steps(first_state(), take_step, STEPS, checkpoints=Checkpoints(tmp_path / "alone"))
    starts: list[int] = []
    for _ in range(STEPS):
        checkpoints = Checkpoints(tmp_path / "stopped", keep=1)
        state = run_steps(
            first_state(),
            take_step,
            STEPS,
            checkpoints=checkpoints,
            checkpoint_every=every,
            should_stop=lambda: True,
            on_start=starts.append,
            on_step=lambda step, metrics: told.append(step),
        )
        checkpoints.close()
    assert int(state.step) == STEPS
    assert starts == list(range(STEPS))
    assert told == list(range(1, STEPS + 1))
    np.testing.assert_array_equal(state.trained["w"], alone.trained["w"])


def test_numbers_that_are_not_finite_are_never_checkpointed(tmp_path):
    """A run that goes on from there would have to fail again for ever."""

    def diverging(state: TrainState, number: int) -> tuple[TrainState, jax.Array]:
        state, total = take_step(state, number)
        return state, jnp.where(number == 4, jnp.nan, total)

    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(FloatingPointError, match="step 5 has nan, not finite; lower the learning rate"):
        run_steps(first_state(), diverging, STEPS, checkpoints=checkpoints, checkpoint_every=1)
    checkpoints.close()
    assert sorted(int(path.name) for path in (tmp_path / "last").iterdir()) == [2, 3, 4]


def test_a_run_that_is_over_takes_no_further_step(tmp_path):
    finished = run_steps(first_state(), take_step, STEPS, checkpoints=Checkpoints(tmp_path))

    def forbidden(state: TrainState, number: int) -> tuple[TrainState, jax.Array]:
        raise AssertionError

    again = run_steps(first_state(), forbidden, STEPS, checkpoints=Checkpoints(tmp_path))
    np.testing.assert_array_equal(again.trained["w"], finished.trained["w"])
