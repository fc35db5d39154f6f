"""Log-probabilities of given tokens, such as a prompt's: what an API's `echo` shows."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sia_jax.decoding.config import SamplerConfig
from sia_jax.models.heads import lm_head
from sia_jax.models.passes import hidden_states
from sia_jax.steering.arrays import pick
from sia_jax.steering.processors import mask_ids
from sia_jax.types import Params

POSITIONS = 32
"""Positions whose logits are held at once."""


@functools.partial(jax.jit, static_argnames="config")
def score(
    policy: Params, tokens: Int[Array, "B L"], lengths: Int[Array, " B"], *, config: SamplerConfig
) -> Float[Array, "B L"]:
    """log softmax(m)_{y_t} of every token given those before it, at temperature 1.

    The policy reads each row once; its logits are made for 32 positions of all rows at a time.

    Args:
      policy: the policy's tree.
      tokens: [B, L] ids, padded on the right.
      lengths: [B] tokens of each row.
      config: says which ids have a token; the others have no part in the distribution.

    Returns:
      [B, L] float32, nats; NaN at the first token, which nothing precedes, and in the padding.

    Source: `Samples.policy_logprob` of generated tokens is the same number.
    """
    batch, length = tokens.shape
    hidden = hidden_states(policy["model"], tokens, config=config.policy, mesh=None)
    blocks = max(1, -(-(length - 1) // POSITIONS))
    room = ((0, 0), (0, blocks * POSITIONS - (length - 1)))
    before = jnp.pad(hidden[:, :-1], (*room, (0, 0))).reshape(batch, blocks, POSITIONS, -1)
    after = jnp.pad(tokens[:, 1:], room).reshape(batch, blocks, POSITIONS)

    def of_block(block: tuple[Array, Array]) -> Array:
        hidden, ids = (x.reshape(batch * POSITIONS, *x.shape[2:]) for x in block)
        nothing = jnp.zeros((ids.shape[0], 0), jnp.int32)
        m = mask_ids(lm_head(policy, hidden), config.real_tokens, nothing, config.unused_ids)
        return (pick(m, ids) - jax.nn.logsumexp(m, axis=-1)).reshape(batch, POSITIONS)

    found = jax.lax.map(of_block, (before.swapaxes(0, 1), after.swapaxes(0, 1)))
    found = found.swapaxes(0, 1).reshape(batch, -1)[:, : length - 1]
    found = jnp.pad(found, ((0, 0), (1, 0)), constant_values=jnp.nan)
    return jnp.where(jnp.arange(length) < lengths[:, None], found, jnp.nan)
