"""Whole passes: prefill and decoding steps, to be traced; logits, values and rewards of batches, jitted."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from sia_jax.models.attention import CachedAttention, CausalAttention, PrefillAttention, block_length
from sia_jax.models.block_attention import find_first_blocks
from sia_jax.models.cache import KVCache
from sia_jax.models.config import ModelConfig
from sia_jax.models.heads import lm_head, reward_head
from sia_jax.models.lora import Adapter
from sia_jax.models.transformer import forward
from sia_jax.models.value_model import ValueNet
from sia_jax.steering.arrays import pick
from sia_jax.types import Params


def hidden_states(
    model: Params,
    tokens: Int[Array, "B L"],
    *,
    config: ModelConfig,
    adapter: Adapter | None = None,
    segment_ids: Int[Array, "B L"] | None = None,
    positions: Int[Array, "B L"] | None = None,
    remat: bool = False,
    mesh: Mesh | None = None,
) -> Float[Array, "B L D"]:
    """Hidden states of a full causal pass, without a cache.

    Rows are padded on the right: a token sees only what is before it, so padding changes nothing.

    Args:
      model: the backbone's tree.
      tokens: [B, L] ids.
      config: static.
      adapter: a LoRA to apply on the way.
      segment_ids: [B, L] of packed sequences, from 1: a token sees its own segment only. 0: padding, for
        which what comes out means nothing.
      positions: [B, L], of packed sequences; default 0 .. L-1.
      remat: a backward pass computes each layer again rather than keeping what is inside it.
      mesh: for training, see `forward`.

    Returns:
      [B, L, D] after the final norm.
    """
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    block = block_length(mesh)
    first = None if segment_ids is None else find_first_blocks(segment_ids, block)
    hidden, _ = forward(
        model,
        tokens,
        positions,
        None,
        CausalAttention(segment_ids, first, block),
        config=config,
        adapter=adapter,
        remat=remat,
        mesh=mesh,
    )
    return hidden


def prefill(
    model: Params,
    tokens: Int[Array, "B P"],
    lengths: Int[Array, " B"],
    cache: KVCache,
    *,
    config: ModelConfig,
    adapter: Adapter | None = None,
) -> tuple[Float[Array, "B D"], KVCache]:
    """The prompts' keys and values into columns [0, P), and the hidden state at each one's last token.

    Args:
      model: the backbone's tree.
      tokens: [B, P] prompts padded on the right, to a bucket (`bucket_length`).
      lengths: [B] tokens of each prompt, at least 1.
      cache: an empty cache of at least P columns.
      config: static.
      adapter: a LoRA to apply on the way.

    Returns:
      ([B, D] hidden state after the last prompt token, the cache).
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden, filled = forward(
        model, tokens, positions, cache, PrefillAttention(), config=config, adapter=adapter
    )
    assert filled is not None
    last = pick(hidden, lengths - 1)
    return last, filled


def decode_step(
    model: Params,
    tokens: Int[Array, " B"],
    lengths: Int[Array, " B"],
    cache: KVCache,
    *,
    config: ModelConfig,
    adapter: Adapter | None = None,
) -> tuple[Float[Array, "B D"], KVCache]:
    """One more token a row, each at its row's own position.

    Args:
      model: the backbone's tree.
      tokens: [B] the new ids.
      lengths: [B] tokens that each row's cache holds: the new token's position and column.
      cache: keys and values so far. Inside a loop it is updated in place.
      config: static.
      adapter: a LoRA to apply on the way.

    Returns:
      ([B, D] hidden state at the new token, the cache with `lengths + 1` tokens a row).
    """
    mask = jnp.arange(cache.columns) <= lengths[:, None]
    places = lengths[:, None]
    hidden, cache = decode_block(
        model, tokens[:, None], places, places, mask[:, None], cache, config=config, adapter=adapter
    )
    return hidden[:, 0], cache


def decode_block(
    model: Params,
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    columns: Int[Array, "B T"],
    mask: Bool[Array, "B T S"],
    cache: KVCache,
    *,
    config: ModelConfig,
    adapter: Adapter | None = None,
) -> tuple[Float[Array, "B T D"], KVCache]:
    """Several new tokens a row, at any positions and columns, under any mask over the cache.

    Args:
      model: the backbone's tree.
      tokens: [B, T] the new ids.
      positions: [B, T] for the rotary embedding; candidates for one place share theirs.
      columns: [B, T] where keys and values go; S or more: nowhere (a padding token).
      mask: [B, T, S] the columns that each token sees, its own included.
      cache: keys and values so far.
      config: static.
      adapter: a LoRA to apply on the way.

    Returns:
      ([B, T, D] hidden states at the new tokens, the cache).
    """
    hidden, written = forward(
        model, tokens, positions, cache, CachedAttention(columns, mask), config=config, adapter=adapter
    )
    assert written is not None
    return hidden, written


def bucket_length(length: int, minimum: int = 16) -> int:
    """The padded length for `length` tokens: 16, 24, 32, 48, 64, ..., so that few programs serve all.

    From 16 tokens on, at most a third of a block is padding, and on average a seventh.
    """
    if minimum < 2 or minimum & (minimum - 1):
        raise ValueError(f"the smallest bucket must be a power of two from 2 on, got {minimum}")
    bucket = minimum
    while bucket < length:
        bucket = bucket * 3 // 2 if bucket & (bucket - 1) == 0 else bucket * 4 // 3
    return bucket


@functools.partial(jax.jit, static_argnames="config")
def batch_logits(params: Params, tokens: Int[Array, "B L"], *, config: ModelConfig) -> Float[Array, "B L V"]:
    """Logits at every token of a right-padded batch, float32."""
    return lm_head(params, hidden_states(params["model"], tokens, config=config))


@jax.jit
def batch_values(net: ValueNet, tokens: Int[Array, "B L"]) -> Array:
    """Values of a right-padded batch, float32: V(x, y_<=t) [B, L], or Q(x, y_<=t, a) [B, L, V]."""
    return net.values(hidden_states(net.model, tokens, config=net.config.backbone, adapter=net.adapter))


@functools.partial(jax.jit, static_argnames="config")
def batch_rewards(
    params: Params, tokens: Int[Array, "B L"], lengths: Int[Array, " B"], *, config: ModelConfig
) -> Float[Array, " B"]:
    """Reward of each row of a right-padded batch, read at its last token, float32."""
    hidden = hidden_states(params["model"], tokens, config=config)
    last = pick(hidden, lengths - 1)
    return reward_head(params["score"], last)
