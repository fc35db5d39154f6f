"""Which ids may be drawn: the C candidates, top_k, top_p and min_p, without a sort.

Ids are ordered by (logit descending, id ascending). The candidates A are a prefix of that order, and so are
the ids N that survive top_k, then top_p, then min_p. A prefix is told by its last member, so no mask over the
vocabulary is kept: `Prefix` is two numbers a row, and membership is a comparison that fuses into whatever
reads the logits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sia_jax.steering.arrays import pick, run_if

_BLOCK = 128
"""Ids whose largest logit is looked at first, when candidates are sought."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prefix:
    """The ids up to and including one, in the order (logit descending, id ascending)."""

    logit: Float[Array, " B"]  # of the last member
    token: Int[Array, " B"]  # the last member, or any larger id that stands for all of its logit

    def holds(self, logits: Float[Array, "B X"], ids: Int[Array, "..."]) -> Bool[Array, "B X"]:
        """Which of `ids` [X] or [B, X], of the given logits, are members."""
        last = self.logit[:, None]
        return (logits > last) | ((logits == last) & (ids <= self.token[:, None]))


def largest(logits: Float[Array, "B V"], count: int) -> tuple[Float[Array, "B C"], Int[Array, "B C"]]:
    """The `count` largest logits and their ids, in order; ties go to the lower id.

    The blocks with the largest maxima hold them all, so a selection among V / 128 maxima and one among
    128 `count` logits replace one among V: a quarter of the time on a CPU.
    """
    b, v = logits.shape
    blocks = v // _BLOCK
    if v % _BLOCK or blocks <= 2 * count:
        return _top_k(logits, count)
    blocked = logits.reshape(b, blocks, _BLOCK)
    _, best = _top_k(jnp.max(blocked, axis=-1), count)
    best = jnp.sort(best, axis=-1)  # in the order of ids, on which ties rely
    held = jnp.take_along_axis(blocked, best[..., None], axis=1).reshape(b, count * _BLOCK)
    values, places = _top_k(held, count)
    ids = jnp.take_along_axis(best, places // _BLOCK, axis=1) * _BLOCK + places % _BLOCK
    return values, ids


def likeliest(m: Float[Array, "B V"], count: int) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The `count` largest of m and their ids, as of `largest`; where -inf is all that is left, the id is -1.

    Args:
      m: [B, V], -inf for ids that cannot be.
      count: K, at most V.
    """
    logits, ids = largest(jnp.where(m == 0, 0, m), count)  # -0.0 and 0.0 are equals
    return logits, jnp.where(logits > -jnp.inf, ids, -1)


def survivors(
    logits: Float[Array, "B V"],
    candidate_logits: Float[Array, "B C"],
    candidate_ids: Int[Array, "B C"],
    temperature: Float[Array, " B"],
    top_k: Int[Array, " B"],
    top_p: Float[Array, " B"],
    min_p: Float[Array, " B"],
) -> Prefix:
    """N: the first top_k ids, of them the fewest whose mass reaches top_p, of them those of p >= min_p max p.

    p = softmax(l / T). As in transformers: temperature, then top_k, then top_p on what top_k has left,
    renormalised, then min_p. The prefix of top_k and top_p is found among the candidates where it ends there,
    and else by a bisection on the logit, which takes no trip when no row asks for it; that of min_p ends at
    the logit max l + T log min_p.

    Args:
      logits: [B, V] l.
      candidate_logits: [B, C] the largest of them, in order.
      candidate_ids: [B, C].
      temperature: [B]; 0 keeps all ids.
      top_k: [B]; 0 keeps all ids.
      top_p: [B]; 1 keeps all ids.
      min_p: [B]; 0 keeps all ids.
    """
    v, c = logits.shape[-1], candidate_ids.shape[-1]
    everything = Prefix(jnp.full_like(candidate_logits[:, 0], -jnp.inf), jnp.full_like(top_k, v))
    sampled = temperature > 0

    asks_k = sampled & (top_k > 0) & (top_k < v)
    last = jnp.clip(top_k - 1, 0, c - 1)
    kept = _where(asks_k, _candidate(candidate_logits, candidate_ids, last), everything)
    kept = _search(logits, lambda: jnp.ones_like(logits), top_k, asks_k & (top_k > c), kept)

    asks_p = sampled & (top_p < 1)
    divisor = jnp.where(sampled, temperature, 1)[:, None]
    top = candidate_logits[:, :1]

    def masses() -> Array:
        held = kept.holds(logits, jnp.arange(v))
        return jnp.where(held, jnp.exp((logits - top) / divisor), 0)

    target = run_if(jnp.any(asks_p), lambda p: p * jnp.sum(masses(), axis=-1), top_p)
    in_k = kept.holds(candidate_logits, candidate_ids)
    cumulative = jnp.cumsum(jnp.where(in_k, jnp.exp((candidate_logits - top) / divisor), 0), axis=-1)
    reached = cumulative >= target[:, None]
    inside = asks_p & jnp.any(reached, axis=-1)
    first = _candidate(candidate_logits, candidate_ids, jnp.argmax(reached, axis=-1))
    kept = _search(logits, masses, target, asks_p & ~inside, _where(inside, first, kept))

    drop = divisor[:, 0] * jnp.log(min_p)  # at most 0: the largest logit is always kept
    border = top[:, 0] + drop
    # Under a large offset the sum is rounded, maybe to a logit that lies lower than `drop` allows.
    border = jnp.where(border - top[:, 0] < drop, jnp.nextafter(border, jnp.inf), border)
    likely = Prefix(jnp.where(sampled & (min_p > 0), border, -jnp.inf), everything.token)
    return _shorter(kept, likely)


def _search(
    logits: Float[Array, "B V"],
    measure: Callable[[], Float[Array, "B V"]],
    target: Array,
    asks: Bool[Array, " B"],
    otherwise: Prefix,
) -> Prefix:
    """The shortest prefix whose measure reaches `target`, in the rows that ask; `otherwise` in the others.

    A bisection on the logit's bits, then, where several ids share the last logit, one on the id.
    """
    v = logits.shape[-1]
    ids = jnp.arange(v)

    def total(held: Array) -> Array:
        return jnp.sum(jnp.where(held, measure(), 0), axis=-1)

    # Invariant: the ids of logits from `low` on reach the target, those from `high` on do not.
    low = jnp.full(asks.shape, _sortable(jnp.float32(-jnp.inf)))
    high = _sortable(jnp.max(logits, axis=-1)) + 1

    def narrow_logit(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = total(logits >= _unsortable(middle)[:, None]) >= target
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low, _ = jax.lax.while_loop(
        lambda bounds: jnp.any(asks & (bounds[1] - bounds[0] > 1)), narrow_logit, (low, high)
    )
    last = _unsortable(low)[:, None]

    def narrow_id(bounds: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        first, end, shared = bounds  # ids up to `end` reach the target
        middle = first + (end - first) // 2
        enough = total((logits > last) | ((logits == last) & (ids <= middle[:, None]))) >= target
        return jnp.where(enough, first, middle + 1), jnp.where(enough, middle, end), shared

    def shares(_: Array) -> Array:
        return asks & (jnp.sum(logits == last, axis=-1) > 1)

    shared = run_if(jnp.any(asks), shares, jnp.zeros_like(asks))
    _, token, _ = jax.lax.while_loop(
        lambda bounds: jnp.any(bounds[2] & (bounds[0] < bounds[1])),
        narrow_id,
        (jnp.zeros(asks.shape, jnp.int32), jnp.full(asks.shape, v - 1, jnp.int32), shared),
    )
    return _where(asks, Prefix(last[:, 0], token), otherwise)


def _top_k(x: Array, count: int) -> tuple[Array, Array]:
    """lax.top_k, behind barriers: XLA takes a top_k of which later code slices a part for a full sort.

    One for each result: on a mesh XLA ends the process where a barrier takes both of them as they come.
    """
    values, places = jax.lax.top_k(x, count)
    return jax.lax.optimization_barrier(values), jax.lax.optimization_barrier(places)


def _candidate(logits: Array, ids: Array, place: Array) -> Prefix:
    return Prefix(pick(logits, place), pick(ids, place))


def _shorter(one: Prefix, other: Prefix) -> Prefix:
    """The ids in both."""
    ends_first = (one.logit > other.logit) | ((one.logit == other.logit) & (one.token < other.token))
    return _where(ends_first, one, other)


def _where(rows: Array, one: Prefix, other: Prefix) -> Prefix:
    return jax.tree.map(lambda a, b: jnp.where(rows, a, b), one, other)


def _sortable(x: Array) -> Array:
    """uint32 in the order of float32: the sign bit set for x >= 0, all bits turned round for x < 0."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _unsortable(key: Array) -> Array:
    """The inverse of `_sortable`."""
    bits = jnp.where(key >> 31 == 1, key & jnp.uint32((1 << 31) - 1), ~key)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
