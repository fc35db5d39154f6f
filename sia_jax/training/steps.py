"""A run of numbered steps that can be stopped at any moment: what a policy's and a reward model's share."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sia_jax.training.checkpoint import Checkpoints
from sia_jax.training.step import TrainState


def run_steps(
    state: TrainState,
    take_step: Callable[[TrainState, int], tuple[TrainState, Any]],
    steps: int,
    *,
    checkpoints: Checkpoints,
    checkpoint_every: int = 200,
    should_stop: Callable[[], bool] = lambda: False,
    on_start: Callable[[int], None] = lambda step: None,
    on_step: Callable[[int, Any], None] = lambda step, metrics: None,
) -> TrainState:
    """Take the steps 0 .. steps - 1, from the newest whole checkpoint if there is one.

    A step's data must be a function of its number, so that a run that was stopped goes on to the same
    weights.

    Args:
      state: of step 0; its buffers are used up.
      take_step: (state, number) -> (the state after it, metrics).
      steps: of the whole run.
      checkpoints: where they are kept.
      checkpoint_every: steps.
      should_stop: asked after each step; if it says so, the step is checkpointed and the run ends there.
      on_start: told the steps that were done before.
      on_step: told (steps done, metrics), one step late, so that the device never waits for it; of a step
        that is checkpointed, before that.

    Returns:
      The state, after `steps` steps unless it was stopped.

    Raises:
      FloatingPointError: a step's metrics are not finite; it is not checkpointed.
      OSError: a checkpoint could not be written.
    """
    if (restored := checkpoints.restore(state)) is not None:
        jax.tree.map(lambda leaf: leaf.delete(), state)
        state, _ = restored
    done, pending, stopped = int(state.step), None, False
    on_start(done)

    def tell(step: int, metrics: Any) -> None:
        found = jax.device_get(metrics)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)):
            raise FloatingPointError(f"step {step} has {found}, not finite; lower the learning rate")
        on_step(step, found)

    while done < steps and not stopped:
        state, metrics = take_step(state, done)
        if pending is not None:
            tell(done, pending)
        done, pending, stopped = done + 1, metrics, should_stop()
        if stopped or done == steps or done % checkpoint_every == 0:
            tell(done, pending)
            pending = None
            checkpoints.save(state, {})
    checkpoints.wait()
    return state
