"""Prompts as arrays: the policy's and the value model's, ragged, padded on the right."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from sia_jax.arguments import check_whole, read_numbers, told
from sia_jax.models.passes import bucket_length
from sia_jax.reprs import readable, shape_of, span

_LONGEST = 2**24
"""Ids for which a buffer is made at most."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Prompt:
    """A batch of prompts. Each model has its own form of a conversation, so each has its own ids."""

    policy_ids: Any  # [B, P] int32, padded on the right
    policy_lengths: Any  # [B] int32, at least 1
    value_ids: Any  # [B, P'] int32, padded on the right
    value_lengths: Any  # [B] int32, at least 1

    def __repr__(self) -> str:
        parts = []
        for name, tokens, lengths in (
            ("policy", self.policy_ids, self.policy_lengths),
            ("value", self.value_ids, self.value_lengths),
        ):
            ids = f", {span(lengths)} ids each" if readable(lengths) else ""
            parts.append(f"{name} {shape_of(tokens)}{ids}")
        return f"Prompt({'; '.join(parts)})"

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
          policy_length: P, by default a bucket (`models.passes.bucket_length`) that holds the longest.
          value_length: P', the same for the value model.

        Raises:
          ValueError: no rows, an empty prompt, numbers of rows that differ, a prompt longer than its buffer.
          TypeError: ids that are not integers.

        Examples:
          >>> prompt = Prompt.pack([[5, 6, 7], [8]], policy_length=4)
          >>> prompt.policy_ids.tolist(), prompt.policy_lengths.tolist()
          ([[5, 6, 7, 0], [8, 0, 0, 0]], [3, 1])
        """
        value_ids = policy_ids if value_ids is None else value_ids
        for name, ids in (("policy_ids", policy_ids), ("value_ids", value_ids)):
            if not _is_list(ids):
                raise TypeError(
                    f"{name} must be a list of prompts, each a list of ids such as "
                    f"policy.prompt_ids(messages), got {told(ids)}"
                )
        for name, length in (("policy_length", policy_length), ("value_length", value_length)):
            if length is not None:
                check_whole(name, length)
                if not 1 <= length <= _LONGEST:
                    raise ValueError(f"{name} must lie in 1 .. {_LONGEST}, got {length}")
        if len(policy_ids) == 0 or len(policy_ids) != len(value_ids):
            raise ValueError(
                f"expected one value prompt for each policy prompt, and at least one, got {len(policy_ids)} "
                f"policy prompts and {len(value_ids)} value prompts"
            )
        return Prompt(*_pad("policy", policy_ids, policy_length), *_pad("value", value_ids, value_length))

    @property
    def rows(self) -> int:
        """B."""
        return int(np.shape(self.policy_ids)[0])


def _is_list(x: Any) -> bool:
    """Whether it has rows in an order: a list, a tuple, an array; no text, no mapping, no set."""
    if isinstance(x, str | bytes | bytearray | Mapping | Set):
        return False
    try:
        return len(x) == len(list(x))
    except TypeError:  # no length, or none that can be gone through
        return False


_HINT = "; a text becomes ids with policy.prompt_ids([{'role': 'user', 'content': text}])"


def _pad(name: str, prompts: Sequence[Sequence[int]], length: int | None) -> tuple[np.ndarray, np.ndarray]:
    rows = []
    for index, ids in enumerate(prompts):
        try:
            row = read_numbers(f"{name} prompt {index}", ids, "a list of integer ids")
            if not isinstance(row, np.ndarray):
                raise ValueError(f"{name} prompt {index} must be a list of integer ids, got {told(ids)}")
        except ValueError as error:
            raise TypeError(f"{error}{_HINT if isinstance(ids, str) else ''}") from None
        rows.append(row)
        if row.size == 0:
            raise ValueError(f"{name} prompt {index} is empty; it needs at least one id, such as a BOS")
        if row.ndim != 1 or not np.issubdtype(row.dtype, np.integer):
            raise TypeError(
                f"{name} prompt {index} must be a list of integer ids, got {row.dtype} {row.shape}; "
                "one prompt is a list in a list: [[1, 2, 3]]"
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
