"""Which prompts run together."""

from collections.abc import Sequence
from dataclasses import dataclass

from sia_jax.models.passes import bucket_length
from sia_jax.runs.runner import Row


@dataclass(frozen=True)
class Batch:
    """Prompts that run together, by their indices, in buffers of one shape."""

    indices: list[int]
    shape: tuple[int, int]


def plan(rows: Sequence[Row], size: int, *, by_length: bool) -> list[Batch]:
    """Which prompts run together.

    Args:
      rows: all prompts of the run, those that are done too: a run that goes on must meet the same batches.
      size: prompts of a batch.
      by_length: sort by buckets first, so that little is padded and few programs are compiled; else the order
        of the input is kept.
    """
    buckets = [(bucket_length(len(row.policy_ids)), bucket_length(len(row.value_ids))) for row in rows]
    order = sorted(range(len(rows)), key=buckets.__getitem__) if by_length else range(len(rows))
    batches = []
    for start in range(0, len(rows), size):
        indices = list(order[start : start + size])
        lengths = [buckets[index] for index in indices]
        batches.append(Batch(indices, (max(p for p, _ in lengths), max(v for _, v in lengths))))
    return batches
