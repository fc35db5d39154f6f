"""Prompts as arrays: the policy's and the value model's, ragged, padded on the right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from sia_jax.models.run import bucket_length


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prompt:
    """A batch of prompts. Each model has its own form of a conversation, so each has its own ids."""

    policy_tokens: Any  # [B, P] int32, padded on the right
    policy_lengths: Any  # [B] int32, at least 1
    value_tokens: Any  # [B, P'] int32, padded on the right
    value_lengths: Any  # [B] int32, at least 1

    @staticmethod
    def pack(
        policy_ids: Sequence[Sequence[int]],
        value_ids: Sequence[Sequence[int]] | None = None,
        *,
        policy_length: int | None = None,
        value_length: int | None = None,
    ) -> "Prompt":
        """Lists of ids, one a row, into padded arrays.

        Args:
          policy_ids: the prompts as the policy sees them.
          value_ids: the same as the value model sees them; default `policy_ids`.
          policy_length: P, by default a bucket (`sia_jax.models.run.bucket_length`) that holds the longest.
          value_length: P', the same for the value model.

        Raises:
          ValueError: no rows, an empty prompt, numbers of rows that differ, a prompt longer than its buffer.
          TypeError: ids that are not integers.
        """
        value_ids = policy_ids if value_ids is None else value_ids
        if len(policy_ids) == 0 or len(policy_ids) != len(value_ids):
            raise ValueError(
                f"expected one value prompt for each policy prompt, and at least one, got {len(policy_ids)} "
                f"policy prompts and {len(value_ids)} value prompts"
            )
        return Prompt(*_pad("policy", policy_ids, policy_length), *_pad("value", value_ids, value_length))

    @property
    def rows(self) -> int:
        """B."""
        return self.policy_tokens.shape[0]


def _pad(name: str, prompts: Sequence[Sequence[int]], length: int | None) -> tuple[np.ndarray, np.ndarray]:
    rows = [np.asarray(ids) for ids in prompts]
    for index, row in enumerate(rows):
        if row.size == 0:
            raise ValueError(f"{name} prompt {index} is empty; it needs at least one id, such as a BOS")
        if row.ndim != 1 or not np.issubdtype(row.dtype, np.integer):
            raise TypeError(
                f"{name} prompt {index} must be a list of integer ids, got {row.dtype} {row.shape}"
            )
    lengths = np.array([len(row) for row in rows], np.int32)
    length = bucket_length(int(lengths.max())) if length is None else length
    too_long = [(index, int(n)) for index, n in enumerate(lengths) if n > length]
    if too_long:
        raise ValueError(
            f"{name} prompts must fit in {length} ids, got (row, ids) {too_long[:10]}; cut them or raise "
            f"{name}_length"
        )
    tokens = np.zeros((len(rows), length), np.int32)
    for padded, row in zip(tokens, rows, strict=True):
        if row.min() < 0 or row.max() > np.iinfo(np.int32).max:
            raise ValueError(f"{name} prompts must hold ids from 0 on, got {row.min()} .. {row.max()}")
        padded[: len(row)] = row
    return tokens, lengths
