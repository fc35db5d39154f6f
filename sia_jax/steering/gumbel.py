"""Randomness and the Gumbel race: which id is drawn, at the cost of C draws instead of V.

argmax_a (x_a + g_a), g Gumbel, is a draw from softmax(x). Every candidate runs with a Gumbel number keyed by
its id; all ids outside the candidates run as one, with the logsumexp of theirs, for the largest of their
perturbed logits has just that law. Only if the rest wins is one of its ids sought. The policy's own choice
and the steered one share the candidates' numbers, so where the values say nothing the two are the same,
unless the policy's own lay in the rest.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32

from sia_jax.steering.arrays import pick

REST = 2**32 - 1
"""Under this number in place of an id runs the rest."""

PLACE_IN_REST = 2**32 - 2
"""And under this one is the place in the rest drawn."""

_TOKEN, _GATE = 0, 1
_BLOCK = 128
"""Ids whose masses are added up first, when a place in the rest is sought."""


def position_keys(
    keys: UInt32[Array, "B 2"], index: Int[Array, " B"]
) -> tuple[Key[Array, " B"], Key[Array, " B"]]:
    """The keys of a position: of k = fold_in(key, t), the token has fold_in(k, 0), the gate fold_in(k, 1).

    Args:
      keys: [B, 2] the requests' threefry2x32 keys, as raw data.
      index: [B] t, 0 for the first generated token.
    """
    row_keys = jax.random.wrap_key_data(keys, impl="threefry2x32")
    here = jax.vmap(jax.random.fold_in)(row_keys, index)
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return fold(here, _TOKEN), fold(here, _GATE)


def uniform(keys: Key[Array, " B"], numbers: Int[Array, "B X"] | UInt32[Array, "B X"]) -> Float[Array, "B X"]:
    """u = ((w >> 9) + 1/2) / 2^23, w the first word of fold_in(key, number): in (0, 1), both ends left out.

    The hash itself is the random number: the same under every setting of JAX's generators.

    Args:
      keys: [B] threefry2x32.
      numbers: [B, X] what each draw is keyed by, such as token ids.
    """
    each = jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))
    words = jax.random.key_data(each(keys, numbers.astype(jnp.uint32)))[..., 0]
    return ((words >> 9).astype(jnp.float32) + 0.5) * 2.0**-23


def gumbel(uniform: Float[Array, "..."]) -> Float[Array, "..."]:
    """g = -ln(-ln u)."""
    return -jnp.log(-jnp.log(uniform))


def lowest_best(
    scores: Float[Array, "B C"], ids: Int[Array, "B C"]
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    """The place of the largest score, and its id; ties go to the lowest id.

    Args:
      scores: [B, C], -inf for what may not be chosen; not all of them.
      ids: [B, C].
    """
    best = scores == jnp.max(scores, axis=-1, keepdims=True)
    place = jnp.argmin(jnp.where(best, ids, jnp.iinfo(jnp.int32).max), axis=-1).astype(jnp.int32)
    return place, pick(ids, place)


def place_in(masses: Float[Array, "B V"], uniform: Float[Array, " B"]) -> Int[Array, " B"]:
    """Inverse CDF in the order of ids: the first id whose cumulative mass exceeds u times the total.

    Masses are added up in blocks of 128, then within the one block where the place lies.

    Args:
      masses: [B, V] not all zero.
      uniform: [B] in (0, 1).
    """
    b, v = masses.shape
    blocks = -(-v // _BLOCK)
    if blocks * _BLOCK != v:
        masses = jnp.pad(masses, ((0, 0), (0, blocks * _BLOCK - v)))
    blocked = masses.reshape(b, blocks, _BLOCK)
    sums = jnp.sum(blocked, axis=-1)
    before = jnp.cumsum(sums, axis=-1)
    goal = uniform * before[:, -1]
    block = _first_above(before, goal, sums)
    earlier = pick(before, jnp.maximum(block - 1, 0))
    skipped = jnp.where(block > 0, earlier, 0)
    inside = pick(blocked, block)
    return block * _BLOCK + _first_above(jnp.cumsum(inside, axis=-1), goal - skipped, inside)


def _first_above(cumulative: Array, goal: Array, masses: Array) -> Array:
    """First place with any mass where cumulative > goal; where rounding leaves none, the last one with any.

    The sums of a parallel scan are rounded in an order of its own: from one place to the next they may rise a
    little, or fall, where there is no mass at all.
    """
    count = cumulative.shape[-1]
    has_mass = masses > 0
    above = (cumulative > goal[:, None]) & has_mass
    last = count - 1 - jnp.argmax(has_mass[:, ::-1], axis=-1)
    return jnp.where(jnp.any(above, axis=-1), jnp.argmax(above, axis=-1), last).astype(jnp.int32)
