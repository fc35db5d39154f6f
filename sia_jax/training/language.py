"""Training a policy: the next-token objective on replies, in one jitted step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sia_jax.extras import installed_with
from sia_jax.models.config import ModelConfig
from sia_jax.models.heads import lm_head
from sia_jax.models.passes import hidden_states
from sia_jax.training.batch import PackedBatch, PackedRows, micro_batch
from sia_jax.training.config import OptimizerConfig
from sia_jax.training.optimizer import make_optimizer
from sia_jax.training.step import TrainState
from sia_jax.types import Params

with installed_with("train"):
    import optax


@functools.partial(jax.jit, static_argnames="optimizer")
def init_full_state(params: Params, rng_key: Array, *, optimizer: OptimizerConfig) -> TrainState:
    """The state before the first step of a run that trains every parameter.

    Args:
      params: the whole tree, float32; it is copied.
      rng_key: a threefry2x32 key.
      optimizer: static.
    """
    return TrainState(
        trained=params,
        optimizer=make_optimizer(optimizer).init(params),
        step=jnp.zeros((), jnp.int32),
        rng_key=jax.random.key_data(rng_key),
    )


def update(state: TrainState, gradient: Params, optimizer: OptimizerConfig) -> TrainState:
    """The state after one step of AdamW along a gradient."""
    updates, optimizer_state = make_optimizer(optimizer).update(gradient, state.optimizer, state.trained)
    trained = optax.apply_updates(state.trained, updates)
    return TrainState(trained, optimizer_state, state.step + 1, state.rng_key)


@functools.partial(jax.jit, static_argnames=("config", "optimizer"), donate_argnames="state")
def language_step(
    state: TrainState, batch: PackedBatch, *, config: ModelConfig, optimizer: OptimizerConfig
) -> tuple[TrainState, Float[Array, ""]]:
    """One update of a policy: the gradient of -sum log pi(y_t | x, y_<t) / n over a batch's n reply tokens.

    Args:
      state: of the policy's whole tree; donated.
      batch: packed trajectories; their rewards mean nothing here.
      config: static.
      optimizer: static.

    Returns:
      (the state after the step, the loss in nats a token).
    """
    count = jnp.maximum(jnp.sum(batch.is_reply), 1).astype(jnp.float32)

    def loss_of(params: Params, rows: PackedRows) -> Array:
        return -jnp.sum(reply_logprobs(params, rows, config)) / count

    def add(index: Array, carry: tuple[Array, Params]) -> tuple[Array, Params]:
        loss, gradient = carry
        more, g = jax.value_and_grad(loss_of)(state.trained, micro_batch(batch, index))
        return loss + more, jax.tree.map(jnp.add, gradient, g)

    zeros: Any = jax.tree.map(jnp.zeros_like, state.trained)
    loss, gradient = jax.lax.fori_loop(0, batch.micro_batches, add, (jnp.zeros(()), zeros))
    return update(state, gradient, optimizer), loss


def reply_logprobs(params: Params, rows: PackedRows, config: ModelConfig) -> Float[Array, "R L"]:
    """log pi(y_t | x, y_<t) at the reply's tokens, its stop token included; 0 elsewhere.

    Args:
      params: the policy's tree.
      rows: one micro-batch; every reply follows a prompt of a token or more.
      config: static.
    """
    hidden = hidden_states(
        params["model"],
        rows.tokens,
        config=config,
        segment_ids=rows.segment_ids,
        positions=rows.positions,
    )
    logprobs = jax.nn.log_softmax(lm_head(params, hidden[:, :-1]), axis=-1)
    asked = jnp.take_along_axis(logprobs, rows.tokens[:, 1:, None], axis=-1)[..., 0]
    return jnp.pad(jnp.where(rows.is_reply[:, 1:], asked, 0), ((0, 0), (1, 0)))
