"""Training a reward model on pairs of replies, of which one was preferred."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sia_jax.models.config import ModelConfig
from sia_jax.models.passes import batch_rewards
from sia_jax.training.config import OptimizerConfig
from sia_jax.training.language import update
from sia_jax.training.step import TrainState
from sia_jax.types import Params


@functools.partial(jax.jit, static_argnames=("config", "optimizer"), donate_argnames="state")
def preference_step(
    state: TrainState,
    tokens: Int[Array, "N L"],
    lengths: Int[Array, " N"],
    *,
    config: ModelConfig,
    optimizer: OptimizerConfig,
) -> tuple[TrainState, tuple[Float[Array, ""], Float[Array, ""]]]:
    """One update of a reward model: the gradient of the mean of -log sigmoid(r(chosen) - r(rejected)).

    Args:
      state: of the reward model's whole tree, {"model", "score"}; donated.
      tokens: [2 P, L] conversations padded on the right: P that were preferred, then what each was
        preferred to.
      lengths: [2 P] tokens of each.
      config: static.
      optimizer: static.

    Returns:
      (the state after the step, (loss in nats a pair, share of the pairs in order)).

    Source: the Bradley-Terry model, as in Ouyang et al. 2022, equation 1.
    """

    def loss_of(params: Params) -> tuple[Array, Array]:
        margin = margins(batch_rewards(params, tokens, lengths, config=config))
        return jnp.mean(jax.nn.softplus(-margin)), jnp.mean(margin > 0)

    (loss, agreement), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.trained)
    return update(state, gradient, optimizer), (loss, agreement)


def margins(rewards: Float[Array, " N"]) -> Float[Array, " P"]:
    """r(chosen) - r(rejected), from the rewards of the chosen ones and then of the rejected ones."""
    chosen, rejected = jnp.split(rewards, 2)
    return chosen - rejected
