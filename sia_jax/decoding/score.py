"""Log-probabilities of given tokens, such as a prompt's: what an API's `echo` shows."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sia_jax.decoding.config import SamplerConfig
from sia_jax.models.heads import lm_head
from sia_jax.models.passes import hidden_states
from sia_jax.steering import filters
from sia_jax.steering.arrays import pick
from sia_jax.steering.processors import mask_ids
from sia_jax.steering.types import TopLogprobs
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
    return _read(policy, tokens, lengths, config, 0)[0]


@functools.partial(jax.jit, static_argnames=("config", "top"))
def score_with_top(
    policy: Params, tokens: Int[Array, "B L"], lengths: Int[Array, " B"], *, config: SamplerConfig, top: int
) -> tuple[Float[Array, "B L"], TopLogprobs | None]:
    """What `score` gives, and the likeliest ids at every place: [B, L, K], in one reading.

    Args:
      policy: the policy's tree.
      tokens: [B, L] as of `score`.
      lengths: [B].
      config: as of `score`.
      top: K, static, at most V; 0: none.

    Returns:
      ([B, L], what might have stood in each token's place; -1 and NaN at the first and in the padding).

    Source: `Samples.top` of generated tokens is the same.
    """
    return _read(policy, tokens, lengths, config, top)


def _read(
    policy: Params, tokens: Array, lengths: Array, config: SamplerConfig, top: int
) -> tuple[Array, TopLogprobs | None]:
    batch, length = tokens.shape
    hidden = hidden_states(policy["model"], tokens, config=config.policy, mesh=None)
    blocks = max(1, -(-(length - 1) // POSITIONS))
    room = ((0, 0), (0, blocks * POSITIONS - (length - 1)))
    before = jnp.pad(hidden[:, :-1], (*room, (0, 0))).reshape(batch, blocks, POSITIONS, -1)
    after = jnp.pad(tokens[:, 1:], room).reshape(batch, blocks, POSITIONS)

    def of_block(block: tuple[Array, Array]) -> tuple[Array, TopLogprobs | None]:
        hidden, ids = (x.reshape(batch * POSITIONS, *x.shape[2:]) for x in block)
        nothing = jnp.zeros((ids.shape[0], 0), jnp.int32)
        m = mask_ids(lm_head(policy, hidden), config.real_tokens, nothing, config.unused_ids)
        log_normaliser = jax.nn.logsumexp(m, axis=-1)
        likeliest = None
        if top:
            logits, best = filters.likeliest(m, top)
            likeliest = TopLogprobs(best, logits - log_normaliser[:, None])
        found = pick(m, ids) - log_normaliser, likeliest
        parted: tuple[Array, TopLogprobs | None] = jax.tree.map(
            lambda x: x.reshape(batch, POSITIONS, *x.shape[1:]), found
        )
        return parted

    def of_rows(found: Array) -> Array:
        """[blocks, B, 32, ...] of tokens 1 .. L-1 as [B, L, ...]; nothing where none is asked for."""
        found = found.swapaxes(0, 1).reshape(batch, -1, *found.shape[3:])[:, : length - 1]
        nothing = jnp.nan if jnp.issubdtype(found.dtype, jnp.floating) else -1
        axes = [(0, 0)] * (found.ndim - 2)
        found = jnp.pad(found, ((0, 0), (1, 0), *axes), constant_values=nothing)
        real = jnp.arange(length) < lengths[:, None]
        return jnp.where(real.reshape(*real.shape, *[1] * len(axes)), found, nothing)

    blockwise = jax.lax.map(of_block, (before.swapaxes(0, 1), after.swapaxes(0, 1)))
    whole: tuple[Array, TopLogprobs | None] = jax.tree.map(of_rows, blockwise)
    return whole
