"""The counts that a record keeps of its reply's tokens."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sia_jax.files.shown import shown_value

BIN = 0.1
"""Nats of entropy that are counted together."""

_ROUNDING = 1e-5
"""Of a bin: by how much float32 may fall short of its edge."""

_PARTS = 10
"""Of a reply, by its length."""

_MOST = 200
"""Bins of entropy: 20 nats, above the logarithm of any vocabulary."""


def token_counts(junction: np.ndarray, entropy: np.ndarray, shifted: np.ndarray) -> dict[str, list[int]]:
    """Counts of a reply's tokens: its junctions by tenths of the reply, all by entropy, shifted or not.

    The token at place t of T lies in tenth floor(10 t / T). Bin k of "shifted" and "unshifted" holds the
    tokens of `BIN` k nats up to `BIN` (k + 1); bins after the last that holds one are left out, and a token
    whose entropy is not finite is in none.

    Args:
      junction: [T] bool, the token was steered.
      entropy: [T] nats.
      shifted: [T] bool, the policy alone would have said something else.
    """
    junction, shifted = np.asarray(junction, bool), np.asarray(shifted, bool)
    entropy = np.asarray(entropy, np.float64)
    return {
        "junctions": np.bincount(tenths_of(len(junction))[junction], minlength=_PARTS).tolist(),
        "shifted": _by_entropy(entropy[shifted]),
        "unshifted": _by_entropy(entropy[~shifted]),
    }


def tenths_of(length: int) -> np.ndarray:
    """[T] the tenth of a reply of T tokens that each of its tokens lies in."""
    return _PARTS * np.arange(length) // max(length, 1)


def check_counts(counts: Any, length: float) -> None:
    """The counts of a record are such as `token_counts` makes.

    Args:
      counts: the file of it may have been written by anybody.
      length: tokens of the reply.

    Raises:
      ValueError: they are not.
    """
    names = ("junctions", "shifted", "unshifted")
    if not isinstance(counts, Mapping) or set(counts) != set(names):
        raise ValueError(f"counts must be an object with {', '.join(names)}, got {shown_value(counts, 60)}")
    for name in names:
        own = counts[name]
        if not isinstance(own, list) or any(type(count) is not int or count < 0 for count in own):
            raise ValueError(f"{name} of counts must be whole numbers, got {shown_value(own, 60)}")
        if len(own) > _MOST or (name == "junctions" and len(own) != _PARTS):
            wanted = _PARTS if name == "junctions" else f"at most {_MOST}"
            raise ValueError(f"{name} of counts must be {wanted} numbers, got {len(own)}")
    if sum(counts["junctions"]) > length or sum(counts["shifted"] + counts["unshifted"]) > length:
        raise ValueError(f"counts must be of the reply's {length:g} tokens, got more")


def _by_entropy(entropy: np.ndarray) -> list[int]:
    known = np.maximum(entropy[np.isfinite(entropy)], 0.0)  # rounding may leave -1e-8
    return np.bincount(np.minimum(np.floor(known / BIN + _ROUNDING).astype(np.int64), _MOST - 1)).tolist()
