"""A batch of trajectories, packed: several in a row, and as many rows as they need."""

from dataclasses import dataclass

import jax
from jaxtyping import Array, Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedBatch:
    """A micro-batches of R rows of L tokens, each with up to M trajectories side by side.

    A is what the longest possible batch needs; those from `micro_batches` on are empty, and the step does not
    run them. So every batch of a run has one shape, whatever the lengths of its replies.

    M, the segments of a row, and A are letters of this package.
    """

    tokens: Int[Array, "A R L"]
    segment_ids: Int[Array, "A R L"]  # 1 .. M, by trajectory; 0: padding
    positions: Int[Array, "A R L"]  # of the token in its trajectory
    is_reply: Bool[Array, "A R L"]  # tokens whose values count, the stop token included
    rewards: Float[Array, "A R M"]  # R of each trajectory
    numbers: Int[Array, "A R M"]  # which trajectory of the data set it is; -1: none
    micro_batches: Int[Array, ""]  # how many of the A hold anything


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedRows:
    """One micro-batch of a `PackedBatch`: the same without the axis A."""

    tokens: Int[Array, "R L"]
    segment_ids: Int[Array, "R L"]
    positions: Int[Array, "R L"]
    is_reply: Bool[Array, "R L"]
    rewards: Float[Array, "R M"]
    numbers: Int[Array, "R M"]


def micro_batch(batch: PackedBatch, index: Int[Array, ""]) -> PackedRows:
    """The rows of one micro-batch."""

    def take(array: Array) -> Array:
        return jax.lax.dynamic_index_in_dim(array, index, keepdims=False)

    return PackedRows(
        tokens=take(batch.tokens),
        segment_ids=take(batch.segment_ids),
        positions=take(batch.positions),
        is_reply=take(batch.is_reply),
        rewards=take(batch.rewards),
        numbers=take(batch.numbers),
    )
