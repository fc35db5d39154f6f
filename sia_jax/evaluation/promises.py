"""Thresholds with a promise from densely steered replies, and how other prompts bear it out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sia_jax.evaluation.dense_replies import dense_reply, read_by_prompt
from sia_jax.evaluation.risk import PromisedThreshold, SteeredReply, losses, promised_threshold
from sia_jax.evaluation.statistics import Interval, mean_interval


@dataclass(frozen=True)
class Promise:
    """A threshold, and what other prompts say of it."""

    found: PromisedThreshold
    missed_elsewhere: Interval | None
    """Mean share of shifted tokens that it misses on prompts that it was not found on."""
    steered_elsewhere: float | None
    """Share of their tokens that it steers."""

    def to_json(self) -> dict[str, Any]:
        """Strict JSON: a threshold of -inf is a text."""
        numbers = asdict(self.found)
        if not np.isfinite(self.found.threshold):
            numbers["threshold"] = str(self.found.threshold)
        elsewhere = None if self.missed_elsewhere is None else self.missed_elsewhere.to_json()
        return numbers | {"missed_elsewhere": elsewhere, "steered_elsewhere": self.steered_elsewhere}


def read_dense_replies(path: Path) -> list[SteeredReply]:
    """The densely steered replies of a file, those to one prompt joined; in the order of the prompts.

    Args:
      path: JSONL of `decode.generate`, steered at every token.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a line that is no such reply, a reply that was not steered at every token, or no line.
    """
    return [
        SteeredReply(np.concatenate([r.entropy for r in own]), np.concatenate([r.shifted for r in own]))
        for own in read_by_prompt(path, dense_reply)
    ]


def promises(
    replies: Sequence[SteeredReply],
    miss_rates: Sequence[float],
    confidence: float | None,
    elsewhere: Sequence[SteeredReply] = (),
) -> list[Promise]:
    """A promise for each miss rate.

    Args:
      replies: to the prompts that thresholds are found on.
      miss_rates: shares of shifted tokens that may be missed.
      confidence: of each promise; None: on average over calibrations.
      elsewhere: replies to other prompts.

    Raises:
      ValueError: see `promised_threshold`.
    """
    found = []
    for rate in miss_rates:
        delta = 0.05 if confidence is None else 1 - confidence
        own = promised_threshold(replies, rate, delta, expected_only=confidence is None)
        missed = steered = None
        if elsewhere:
            shares = losses(elsewhere, np.array([own.threshold]))[:, 0]
            missed = mean_interval(shares, range(len(shares)))
            entropies = np.concatenate([reply.entropy for reply in elsewhere]).astype(np.float32)
            steered = float(np.mean(entropies >= np.float32(own.threshold)))
        found.append(Promise(own, missed, steered))
    return found
