"""Confidence intervals of mean rewards that hold the true mean as often as they say, or say nothing.

Replies to one prompt resemble each other, so they are no independent witnesses: a prompt counts with all its
replies, under whichever seeds they were sampled. Two methods that replied to the same prompts are compared
reply by reply, which takes out how hard a prompt is.

An interval is the wider, at either end, of two: Student's t of the prompts, and the studentised bootstrap
(bootstrap-t) that draws prompts. Of skewed rewards the first is too short on one side, where there are few
prompts, and of differences that are mostly 0 the second. The percentile bootstrap is too short of all, and
BCa too (`decode.coverage` measures them: docs/intervals.md). With fewer than `FEWEST` prompts, or where fewer
than `FEWEST_OTHERS` have another value than the commonest, none of these holds what it promises, and there is
no interval.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Share of intervals that hold the true mean."""

FEWEST = 20
"""Prompts from which there is an interval."""

FEWEST_OTHERS = 10
"""Prompts that must have another value than the commonest one: of 300 differences of which 295 are 0, the
other 5 decide, and 5 say little of others."""

_DRAWS = 2**20
"""Prompts that are drawn at a time, which bounds the memory."""


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that it lies in with a confidence of `LEVEL`, in the unit of the values."""

    mean: float
    """NaN where there is nothing to take it of."""
    low: float
    high: float
    """-inf and inf where the data say too little for an interval."""
    why: str = ""
    """Why there is none: '12 prompts, of 20 needed'."""
    p: float | None = None
    """Of a difference: the two-sided p-value of its being 0 that belongs to the interval; see
    `paired_difference`. None where there is no interval, and of what is no difference."""

    @property
    def is_known(self) -> bool:
        """Whether both ends are numbers."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def to_json(self) -> dict[str, Any]:
        """Its numbers by their names, null for one that is not known, and then why; p where there is one."""
        numbers = {"mean": self.mean, "low": self.low, "high": self.high}
        known = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
        known |= {} if self.p is None else {"p": self.p}
        return known | ({"why": self.why} if self.why else {})

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Interval":
        """The interval of which `to_json` has written this."""

        def number(name: str, unknown: float) -> float:
            return unknown if fields[name] is None else float(fields[name])

        ends = number("low", -math.inf), number("high", math.inf)
        return cls(number("mean", math.nan), *ends, fields.get("why", ""), fields.get("p"))

    def within(self, lowest: float, highest: float) -> "Interval":
        """The interval without what lies outside of a range, as of shares; one that is not known stays so."""
        if not self.is_known:
            return self
        return replace(self, low=max(self.low, lowest), high=min(self.high, highest))

    def text(self, *, signed: bool = False, digits: int = 2) -> str:
        """'1.31 [1.22, 1.40]', or '+1.31 [+1.22, +1.40]'; '1.31 [?]' without an interval.

        A small number below 0 keeps its sign, as -0.00.
        """
        if math.isnan(self.mean):
            return "?"
        form = f"{'+' if signed else ''}.{digits}f"
        ends = f"{self.low:{form}}, {self.high:{form}}" if self.is_known else "?"
        return f"{self.mean:{form}} [{ends}]"


def mean_interval(
    values: Any, clusters: Sequence[Hashable], *, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of values, with an interval in which every cluster counts as one.

    With s_i the sum of cluster i's values, k_i their number, n clusters, K = sum k_i:

      m = sum s_i / K,   se^2 = n / (n - 1) * sum (s_i - m k_i)^2 / K^2

    A resample draws n clusters with replacement and has m*, se* of its own, and t* = (m* - m) / se*. The
    interval reaches from m - max(q, t*_(1 - a)) se to m + max(q, -t*_a) se, with a = (1 - LEVEL) / 2, t*_a
    the a-quantile of t*, and q Student's 1 - a quantile of n - 1 degrees of freedom.

    Args:
      values: [n] finite numbers.
      clusters: [n] what is drawn as one, such as the prompt of each reply.
      resamples: more make the ends of the interval less random, not the interval narrower.
      seed: of the draws. Equal seeds and clusters draw the same prompts.

    Raises:
      ValueError: other numbers of values and clusters, a value that is not finite, fewer than two clusters.
    """
    return replace(_estimate(values, clusters, resamples, seed), p=None)


def paired_difference(
    values: Any, others: Any, clusters: Sequence[Hashable], *, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """By how much the mean of some values is above that of others; see `mean_interval`.

    Its p is the smallest 2 a at which the interval of confidence 1 - 2 a leaves 0 out: with t0 = m / se,

      p = 2 max(Student's P(t >= |t0|), (1 + resamples with t* as far as t0, on its side) / (1 + resamples))

    so p <= 1 - LEVEL where the interval leaves 0 out, but for one resample.

    Args:
      values: [n].
      others: [n], each the partner of the value at its place: a reply to the same prompt under the same seed.
      clusters: [n] of the pairs.
      resamples: drawn.
      seed: of the draws.

    Raises:
      ValueError: other numbers of values; or what `mean_interval` finds.
    """
    x, y = np.asarray(values, np.float64), np.asarray(others, np.float64)
    if x.shape != y.shape:
        raise ValueError(f"expected pairs, got values of shapes {x.shape} and {y.shape}")
    return _estimate(x - y, clusters, resamples, seed)


def win_rate(
    values: Any,
    others: Any,
    clusters: Sequence[Hashable],
    *,
    tie: float = 1e-6,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """How often some values are above their partners; a tie counts one half. See `paired_difference`.

    The interval ends at 0 and 1 at the latest, and p is that of a rate of one half.

    Args:
      values: [n].
      others: [n], each the partner of the value at its place.
      clusters: [n] of the pairs.
      tie: what differs by no more than so much of the largest absolute value is equal: a network's rewards of
        one text may differ by rounding from batch to batch.
      resamples: drawn.
      seed: of the draws.

    Raises:
      ValueError: as of `paired_difference`.
    """
    x, y = np.asarray(values, np.float64), np.asarray(others, np.float64)
    if x.shape != y.shape:
        raise ValueError(f"expected pairs, got values of shapes {x.shape} and {y.shape}")
    largest = max(float(np.abs(side).max(initial=0.0)) for side in (x, y))
    beyond = np.where(np.abs(x - y) <= tie * largest, 0.0, np.sign(x - y) / 2)  # a NaN stays one
    found = _estimate(beyond, clusters, resamples, seed)
    return replace(found, mean=found.mean + 0.5, low=found.low + 0.5, high=found.high + 0.5).within(0, 1)


def why_no_interval(means: np.ndarray, largest: float) -> str:
    """Why the means of clusters, [n], allow no interval; empty if they do.

    Args:
      means: one of each cluster.
      largest: absolute value of what they are means of, beside which differences by rounding are small.
    """
    count = len(means)
    if count < FEWEST:
        return f"{count} prompts, of {FEWEST} needed"
    # Differences of equal decimals differ by rounding.
    commonest = int(np.unique(np.round(means / (largest or 1.0), 9), return_counts=True)[1].max())
    if count - commonest < FEWEST_OTHERS:
        return (
            f"{count - commonest} of {count} prompts have another value than the commonest, of "
            f"{FEWEST_OTHERS} needed"
        )
    return ""


def standard_error(residuals: np.ndarray, sizes: np.ndarray) -> Any:
    """sqrt(n / (n - 1) sum r_i^2) / sum k_i, over the last axis; see `mean_interval`."""
    n = residuals.shape[-1]
    return np.sqrt(n / (n - 1) * np.sum(residuals**2, axis=-1)) / np.sum(sizes, axis=-1)


def _estimate(values: Any, clusters: Sequence[Hashable], resamples: int, seed: int) -> Interval:
    """`mean_interval`, with the p-value of a mean of 0."""
    x = np.asarray(values, np.float64)
    if x.shape != (len(clusters),):
        raise ValueError(f"expected as many values as clusters, got {x.shape} and {len(clusters)}")
    if not np.isfinite(x).all():
        raise ValueError(f"values must be finite, got {x[~np.isfinite(x)][0]} at {np.argmin(np.isfinite(x))}")
    if resamples < 1:
        raise ValueError(f"resamples must be 1 or more, got {resamples}")
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    if len(places) < 2:
        raise ValueError(
            f"an interval takes two prompts or more, got {len(places)}: one says nothing of others"
        )
    place = np.array([places[cluster] for cluster in clusters])
    sums, sizes = np.bincount(place, x), np.bincount(place).astype(np.float64)
    mean, why = float(x.mean()), why_no_interval(sums / sizes, float(np.abs(x).max()))
    if why:
        return Interval(mean, -math.inf, math.inf, why)
    # About the mean, where nothing is lost by rounding.
    residuals = sums - mean * sizes
    error = float(standard_error(residuals, sizes))
    tail = (1 - LEVEL) / 2
    ratios = _studentised(residuals, sizes, resamples, seed)
    # No interpolation: a resample without any spread may have an infinite t*.
    low, high = map(float, np.quantile(ratios, (tail, 1 - tail), method="inverted_cdf"))
    student = float(stats.t.ppf(1 - tail, len(places) - 1))
    ends = mean - max(student, high) * error, mean + max(student, -low) * error
    return Interval(mean, *ends, p=_p_value(mean / error, ratios, len(places) - 1))


def _studentised(residuals: np.ndarray, sizes: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """[resamples] t* of clusters whose residuals about the mean sum up to 0."""
    n, rng, found = len(sizes), np.random.default_rng(seed), []
    rows = max(1, _DRAWS // n)
    for start in range(0, resamples, rows):
        drawn = rng.integers(n, size=(min(rows, resamples - start), n))
        own, counts = residuals[drawn], sizes[drawn]
        shift = own.sum(axis=1) / counts.sum(axis=1)  # m* - m
        error = standard_error(own - shift[:, None] * counts, counts)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.nan_to_num(shift / error, nan=0.0, posinf=np.inf, neginf=-np.inf))
    return np.concatenate(found)


def _p_value(ratio: float, ratios: np.ndarray, degrees: int) -> float:
    """Of a mean that is `ratio` standard errors from 0; see `paired_difference`."""
    as_far = np.count_nonzero(ratios >= ratio if ratio > 0 else ratios <= ratio)
    share = (1 + as_far) / (1 + len(ratios))
    return min(1.0, 2 * max(share, float(stats.t.sf(abs(ratio), degrees))))
