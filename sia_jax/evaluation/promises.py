"""Thresholds with a promise from densely steered replies, and how other prompts bear it out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sia_jax.evaluation.risk import PromisedThreshold, SteeredReply, losses, promised_threshold
from sia_jax.evaluation.statistics import Interval, mean_interval
from sia_jax.files.reading import check_file
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import parse_object, stream_lines
from sia_jax.runs.journal import is_finite, place_in


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
    check_file(path, "file of replies")
    found: dict[int, list[SteeredReply]] = {}
    with path.open("rb") as file:
        for number, line in stream_lines(file, str(path)):
            place = f"{path}, line {number}"
            record = parse_object(line, place, is_line=True)
            try:
                reply = _reply_of(record)
                found.setdefault(place_in(record, "index"), []).append(reply)
            except (ValueError, KeyError) as error:
                raise ValueError(
                    f"{place}: this is no reply of decode.generate --threshold=-inf ({error})"
                ) from None
    if not found:
        raise ValueError(f"{path}: there is no reply in it")
    return [
        SteeredReply(np.concatenate([r.entropy for r in own]), np.concatenate([r.shifted for r in own]))
        for _, own in sorted(found.items())
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


def _reply_of(record: Mapping[str, Any]) -> SteeredReply:
    """A reply that was steered at every token.

    Raises:
      KeyError, ValueError: it lacks something, or was not.
    """
    lists = {name: record[name] for name in ("entropy", "shifted", "junction")}
    for name, values in lists.items():
        if not isinstance(values, list):
            raise ValueError(f"{name} must be a list, got {shown_value(values, 60)}")
    entropy, shifted, junction = lists.values()
    if not len(entropy) == len(shifted) == len(junction):
        raise ValueError(f"lists of {len(entropy)}, {len(shifted)} and {len(junction)} tokens")
    if not all(is_finite(h) for h in entropy):
        raise ValueError("entropy must be numbers")
    if any(type(flag) is not bool for flag in [*shifted, *junction]):
        raise ValueError("shifted and junction must be true or false")
    if not all(junction):
        raise ValueError(f"{junction.count(False)} of {len(junction)} tokens were not steered")
    return SteeredReply(np.array(entropy, np.float32), np.array(shifted, bool))
