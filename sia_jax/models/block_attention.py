"""Causal attention of long rows in blocks, which passes over the blocks that no query sees.

A row of packed sequences is mostly blind to itself: a token sees its own segment, up to itself. Scores are
made a block of queries and a block of keys at a time, from the block in which the queries' first segment
begins to their own, and are never held whole. The backward pass makes them again from one number a query.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sia_jax.models.product import einsum_float32

_LOWEST = jnp.finfo(jnp.float32).min


def block_attention(
    queries: Float[Array, "B L N H"],
    keys: Float[Array, "B L K H"],
    values: Float[Array, "B L K H"],
    segment_ids: Int[Array, "B L"] | None,
    first_blocks: Int[Array, " I"] | None,
    block: int,
) -> Float[Array, "B L N H"]:
    """softmax(q k / sqrt(H)) v over what is before each token in its segment, itself included.

    Args:
      queries: [B, L, N, H].
      keys: [B, L, K, H]; query head n reads key head n // (N / K).
      values: [B, L, K, H].
      segment_ids: [B, L], the tokens of a segment side by side; 0: padding, whose result is 0. None: one
        segment a row.
      first_blocks: `find_first_blocks` of them, so that a network computes it once; None with None.
      block: queries, and keys, at a time; static.

    Returns:
      [B, L, N, H] in the queries' dtype.

    Source: Dao et al. 2022, algorithms 1 and 4, on one device's memory.
    """
    b, length, n, h = queries.shape
    k = keys.shape[2]
    count = -(-length // block)
    if segment_ids is None or first_blocks is None:
        segment_ids, first_blocks = jnp.ones((b, length), jnp.int32), jnp.zeros(count, jnp.int32)

    def split(x: Array) -> Array:  # [B, L, ...] -> [I, B, block, ...]
        padded = jnp.pad(x, [(0, 0), (0, count * block - length)] + [(0, 0)] * (x.ndim - 2))
        return padded.reshape(b, count, block, *x.shape[2:]).swapaxes(0, 1)

    grouped = split(queries).reshape(count, b, block, k, n // k, h).transpose(0, 1, 3, 4, 2, 5)
    by_head = [split(x).swapaxes(2, 3) for x in (keys, values)]
    attended = _attend(grouped, *by_head, split(segment_ids), first_blocks)
    joined = attended.transpose(1, 0, 4, 2, 3, 5).reshape(b, count * block, n, h)
    return joined[:, :length]


def find_first_blocks(segment_ids: Int[Array, "B L"], block: int) -> Int[Array, " I"]:
    """For each block of queries, the first block of keys that any row's queries see.

    A block of padding sees none, and gets the number behind its own.
    """
    length = segment_ids.shape[1]
    place = jnp.arange(length)
    begins = jnp.diff(segment_ids, axis=1, prepend=-1) != 0
    begin = jax.lax.cummax(jnp.where(begins, place, 0), axis=1)
    count = -(-length // block)
    begin = jnp.where(segment_ids > 0, begin, length + block)
    begin = jnp.pad(begin, ((0, 0), (0, count * block - length)), constant_values=length + block)
    first = jnp.min(begin.reshape(-1, count, block), axis=(0, 2)) // block
    return jnp.minimum(first, jnp.arange(count) + 1)


@jax.custom_vjp
def _attend(queries: Array, keys: Array, values: Array, segments: Array, first: Array) -> Array:
    """Queries [I, B, K, G, b, H], keys and values [I, B, K, b, H], segments [I, B, b] -> as the queries."""
    return _forward(queries, keys, values, segments, first)[0]


def _forward(
    queries: Array, keys: Array, values: Array, segments: Array, first: Array
) -> tuple[Array, tuple[Array, ...]]:
    def attend(i: Array) -> tuple[Array, Array]:
        q = queries[i]

        def see(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            highest, total, mixed = carry
            seen = _seen(segments, i, j)
            scores = jnp.where(seen, _scores(q, keys[j]), _LOWEST)
            higher = jnp.maximum(highest, jnp.max(scores, axis=-1))
            weights = jnp.where(seen, jnp.exp(scores - higher[..., None]), 0)
            shrink = jnp.exp(highest - higher)
            more = einsum_float32("bkgqs,bksh->bkgqh", weights.astype(values.dtype), values[j])
            return higher, total * shrink + jnp.sum(weights, axis=-1), mixed * shrink[..., None] + more

        nothing = jnp.full(q.shape[:-1], _LOWEST), jnp.zeros(q.shape[:-1]), jnp.zeros(q.shape)
        highest, total, mixed = jax.lax.fori_loop(first[i], i + 1, see, nothing)
        total = jnp.where(total > 0, total, 1)
        return (mixed / total[..., None]).astype(q.dtype), highest + jnp.log(total)

    attended, normaliser = jax.lax.map(attend, jnp.arange(queries.shape[0]))
    return attended, (queries, keys, values, segments, first, attended, normaliser)


def _backward(saved: tuple[Array, ...], gradient: Array) -> tuple[Any, ...]:
    queries, keys, values, segments, first, attended, normaliser = saved
    # sum_s p_s dp_s of every query, without the p: what the softmax takes off each dp.
    common = jnp.sum(gradient.astype(jnp.float32) * attended.astype(jnp.float32), axis=-1)

    def attend(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], Array]:
        q, g = queries[i], gradient[i]

        def see(j: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            to_q, to_keys, to_values = carry
            k, v, seen = keys[j], values[j], _seen(segments, i, j)
            weights = jnp.where(seen, jnp.exp(_scores(q, k) - normaliser[i][..., None]), 0)
            to_weights = einsum_float32("bkgqh,bksh->bkgqs", g, v)
            to_scores = weights * (to_weights - common[i][..., None]) * q.shape[-1] ** -0.5
            to_scores = to_scores.astype(q.dtype)
            to_q += einsum_float32("bkgqs,bksh->bkgqh", to_scores, k)
            to_keys = to_keys.at[j].add(einsum_float32("bkgqs,bkgqh->bksh", to_scores, q))
            more = einsum_float32("bkgqs,bkgqh->bksh", weights.astype(g.dtype), g)
            return to_q, to_keys, to_values.at[j].add(more)

        to_q, *carry_ = jax.lax.fori_loop(first[i], i + 1, see, (jnp.zeros(q.shape), *carry))
        return (carry_[0], carry_[1]), to_q

    zeros = jnp.zeros(keys.shape, jnp.float32), jnp.zeros(values.shape, jnp.float32)
    (to_keys, to_values), to_queries = jax.lax.scan(attend, zeros, jnp.arange(queries.shape[0]))
    return (
        to_queries.astype(queries.dtype),
        to_keys.astype(keys.dtype),
        to_values.astype(values.dtype),
        None,
        None,
    )


_attend.defvjp(_forward, _backward)


def _scores(queries: Array, keys: Array) -> Float[Array, "B K G q s"]:
    return einsum_float32("bkgqh,bksh->bkgqs", queries, keys) * queries.shape[-1] ** -0.5


def _seen(segments: Array, i: Array, j: Array) -> Bool[Array, "B 1 1 q s"]:
    """Whether each query of block i sees each key of block j."""
    mine, theirs = segments[i], segments[j]
    place = jnp.arange(mine.shape[-1])
    size = mine.shape[-1]
    before = (i * size + place)[:, None] >= (j * size + place)
    same = (mine[:, :, None] == theirs[:, None, :]) & (mine[:, :, None] > 0)
    return (before & same)[:, None, None]
