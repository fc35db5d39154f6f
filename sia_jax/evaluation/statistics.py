"""Confidence intervals of mean rewards, by a bootstrap that draws prompts.

Replies to one prompt resemble each other, so they are no independent witnesses: a prompt is drawn with all
its replies, under whichever seeds they were sampled, or not at all. Two methods that replied to the same
prompts are compared reply by reply, which takes out how hard a prompt is.
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
"""Share of intervals that hold the true mean."""

_DRAWS = 2**20
"""Prompts that are drawn at a time, which bounds the memory."""


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that it lies in with a confidence of `LEVEL`, in the unit of the values."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Its three numbers by their names."""
        return asdict(self)

    def text(self, *, signed: bool = False, digits: int = 2) -> str:
        """'1.31 [1.22, 1.40]', or '+1.31 [+1.22, +1.40]'; a small number below 0 keeps its sign, as -0.00."""
        form = f"{'+' if signed else ''}.{digits}f"
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


def bootstrap_mean(
    values: Any, clusters: Sequence[Hashable], *, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of values, with the percentile interval of its bootstrap.

    Each resample draws as many clusters as there are, with replacement, and takes the mean of all their
    values. The interval reaches from the (1 - LEVEL) / 2 quantile of these means to the 1 - (1 - LEVEL) / 2
    quantile.

    Args:
      values: [n] finite numbers.
      clusters: [n] what is drawn as one, such as the prompt of each reply.
      resamples: more make the ends of the interval less random, not the interval narrower.
      seed: of the draws. Equal seeds and clusters draw the same prompts.

    Raises:
      ValueError: other numbers of values and clusters, a value that is not finite, fewer than two clusters.
    """
    x = np.asarray(values, np.float64)
    if x.shape != (len(clusters),):
        raise ValueError(f"expected as many values as clusters, got {x.shape} and {len(clusters)}")
    if not np.isfinite(x).all():
        raise ValueError(f"values must be finite, got {x[~np.isfinite(x)][0]} at {np.argmin(np.isfinite(x))}")
    if resamples < 1:
        raise ValueError(f"resamples must be 1 or more, got {resamples}")
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    count = len(places)
    if count < 2:
        raise ValueError(f"an interval takes two prompts or more, got {count}: one says nothing of others")
    place = np.array([places[cluster] for cluster in clusters])
    sums, sizes = np.bincount(place, x), np.bincount(place)
    rng, means = np.random.default_rng(seed), []
    rows = max(1, _DRAWS // count)
    for start in range(0, resamples, rows):
        drawn = rng.integers(count, size=(min(rows, resamples - start), count))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return Interval(float(x.mean()), float(low), float(high))


def paired_difference(
    values: Any, others: Any, clusters: Sequence[Hashable], *, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """By how much the mean of some values is above that of others; see `bootstrap_mean`.

    Args:
      values: [n].
      others: [n], each the partner of the value at its place: a reply to the same prompt under the same seed.
      clusters: [n] of the pairs.
      resamples: drawn.
      seed: of the draws.

    Raises:
      ValueError: other numbers of values; or what `bootstrap_mean` finds.
    """
    x, y = np.asarray(values, np.float64), np.asarray(others, np.float64)
    if x.shape != y.shape:
        raise ValueError(f"expected pairs, got values of shapes {x.shape} and {y.shape}")
    return bootstrap_mean(x - y, clusters, resamples=resamples, seed=seed)
