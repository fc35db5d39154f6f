"""Trajectories side by side in rows, so that hardly any padding is computed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sia_jax.data.trajectories import Trajectory
from sia_jax.training.batch import PackedBatch


def pack(
    trajectories: Sequence[Trajectory],
    *,
    length: int,
    rows: int,
    batch_size: int,
    segments: int | None = None,
) -> PackedBatch:
    """Put a batch into as few rows as the longest-first rule finds, and the rows into micro-batches.

    Every trajectory lies whole in one row; the longest come first, each into the first row that has room.

    Args:
      trajectories: at most `batch_size`.
      length: L, tokens of a row.
      rows: R, rows of a micro-batch.
      batch_size: the most trajectories of a batch, which sizes A: a row for each would do.
      segments: M, the most trajectories of a row; None: `batch_size`.

    Returns:
      PackedBatch of NumPy arrays, with A = ceil(batch_size / R).

    Raises:
      ValueError: too many trajectories, or one that is longer than a row.
    """
    segments = segments or batch_size
    if not 1 <= len(trajectories) <= batch_size:
        raise ValueError(f"a batch must hold 1 .. {batch_size} trajectories, got {len(trajectories)}")
    too_long = [(t.number, t.length) for t in trajectories if t.length > length]
    if too_long:
        raise ValueError(
            f"trajectories must fit into a row of {length} tokens, got (number, tokens) {too_long[:5]}; "
            "leave them out or make rows longer"
        )
    bins = _first_fit([trajectory.length for trajectory in trajectories], length, segments)
    micro_batches = -(-batch_size // rows)
    shape = (micro_batches * rows, length)
    tokens, segment_ids, positions = (np.zeros(shape, np.int32) for _ in range(3))
    is_reply = np.zeros(shape, bool)
    rewards = np.zeros((shape[0], segments), np.float32)
    numbers = np.full((shape[0], segments), -1, np.int32)
    for row, members in enumerate(bins):
        start = 0
        for segment, index in enumerate(members):
            trajectory = trajectories[index]
            reply = start + len(trajectory.prompt_ids)
            end = start + trajectory.length
            tokens[row, start:reply], tokens[row, reply:end] = trajectory.prompt_ids, trajectory.reply_ids
            segment_ids[row, start:end] = segment + 1
            positions[row, start:end] = np.arange(trajectory.length)
            is_reply[row, reply:end] = True
            rewards[row, segment], numbers[row, segment] = trajectory.reward, trajectory.number
            start = end

    used: Any = np.int32(-(-len(bins) // rows))

    def split(array: np.ndarray) -> Any:
        return array.reshape(micro_batches, rows, *array.shape[1:])

    return PackedBatch(
        tokens=split(tokens),
        segment_ids=split(segment_ids),
        positions=split(positions),
        is_reply=split(is_reply),
        rewards=split(rewards),
        numbers=split(numbers),
        micro_batches=used,
    )


def _first_fit(lengths: Sequence[int], capacity: int, segments: int) -> list[list[int]]:
    """Indices by row; the order of equal lengths is kept, so that a batch is always packed alike."""
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = (b for b in range(len(bins)) if room[b] >= lengths[index] and len(bins[b]) < segments)
        row = next(fits, len(bins))
        if row == len(bins):
            bins.append([])
            room.append(capacity)
        bins[row].append(index)
        room[row] -= lengths[index]
    return bins
