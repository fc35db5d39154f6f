"""A batch of trajectories, packed: several in a row, and as many rows as they need."""

from dataclasses import dataclass, fields

import jax
from jaxtyping import Array, Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedRows:
    """One micro-batch: R rows of L tokens, each with up to M trajectories side by side.

    M, the segments of a row, and A, an axis of micro-batches, are letters of this package.
    """

    tokens: Int[Array, "*A R L"]
    segment_ids: Int[Array, "*A R L"]  # 1 .. M, by trajectory; 0: padding
    positions: Int[Array, "*A R L"]  # of the token in its trajectory
    is_reply: Bool[Array, "*A R L"]  # tokens whose values count, the stop token included
    rewards: Float[Array, "*A R M"]  # R of each trajectory
    numbers: Int[Array, "*A R M"]  # which trajectory of the data set it is; -1: none


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedBatch(PackedRows):
    """A micro-batches, stacked along a first axis.

    A is what the longest possible batch needs; those from `micro_batches` on are empty, and the step does not
    run them. So every batch of a run has one shape, whatever the lengths of its replies.
    """

    micro_batches: Int[Array, ""]  # how many of the A hold anything


def micro_batch(batch: PackedBatch, index: Int[Array, ""]) -> PackedRows:
    """The rows of one micro-batch."""
    arrays = {field.name: getattr(batch, field.name) for field in fields(PackedRows)}
    rows = {
        name: jax.lax.dynamic_index_in_dim(array, index, keepdims=False) for name, array in arrays.items()
    }
    return PackedRows(**rows)
