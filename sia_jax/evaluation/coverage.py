"""How often intervals of a mean hold it: simulated, for the kind that is used and for those that are not.

A trial draws n differences, one a prompt, from a law whose mean is known. All trials of a size share their
resamples, which makes thousands of them cheap and changes no trial's own chance.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sia_jax.evaluation.statistics import LEVEL, why_no_interval

KINDS = ("percentile bootstrap", "BCa, expanded by t", "Student's t", "bootstrap-t", "used here")
"""The kinds of intervals; the last is that of `sia_jax.evaluation.statistics`."""

_TAIL = (1 - LEVEL) / 2


@dataclass(frozen=True)
class Law:
    """What differences are drawn from."""

    name: str
    draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    """(rng, shape) -> numbers, independent of each other."""
    mean: float


@dataclass(frozen=True)
class Cover:
    """Of the trials of one law and size."""

    refused: float
    """Share of trials that get no interval."""
    held: dict[str, float]
    """By kind: share of all trials whose interval holds the mean, refused or not; of the kind that is used,
    share of those in which none that was given misses it."""
    width: float
    """Median width of the intervals used, in standard errors of the law; NaN if all are refused."""


def from_values(name: str, values: np.ndarray) -> Law:
    """The law that draws among given numbers, all equally likely."""
    x = np.asarray(values, np.float64)
    return Law(name, lambda rng, shape: rng.choice(x, shape), float(x.mean()))


NORMAL = Law("normal", lambda rng, shape: rng.standard_normal(shape), 0.0)
EXPONENTIAL = Law("exponential", lambda rng, shape: rng.exponential(size=shape), 1.0)


def cover(
    law: Law,
    prompts: int,
    *,
    trials: int = 2000,
    resamples: int = 2000,
    seed: int = 0,
    others: bool = True,
) -> Cover:
    """Simulate.

    Args:
      law: of the differences.
      prompts: of each trial, 2 or more.
      trials: how many.
      resamples: of each bootstrap.
      seed: of everything random.
      others: False: only the kind that is used.
    """
    x = law.draw(np.random.default_rng([seed, prompts]), (trials, prompts))
    found = intervals(x, resamples, seed, others=others)
    held = {name: (low <= law.mean) & (law.mean <= high) for name, (low, high) in found.items()}
    low, high = found[KINDS[-1]]
    refused = np.array([bool(why_no_interval(row, float(np.abs(row).max()))) for row in x])
    held[KINDS[-1]] = held[KINDS[-1]] | refused
    given = (high - low)[~refused]
    unit = float(x.std()) / np.sqrt(prompts)
    return Cover(
        refused=float(refused.mean()),
        held={name: float(holds.mean()) for name, holds in held.items()},
        width=float(np.median(given)) / unit if len(given) else float("nan"),
    )


def intervals(
    x: np.ndarray, resamples: int, seed: int, *, others: bool = True
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The intervals of each kind for many samples, refused by none.

    Args:
      x: [trials, n].
      resamples: of the bootstraps.
      seed: of the draws, which are those of `mean_interval` with this seed.
      others: False: only the kind that is used.

    Returns:
      (low, high) by kind, [trials] each.
    """
    n = x.shape[1]
    mean = x.mean(axis=1)
    centred = x - mean[:, None]
    error = x.std(axis=1, ddof=1) / np.sqrt(n)
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    places = drawn + n * np.arange(resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)
    shifts = counts @ centred.T / n  # m* - m, [resamples, trials]
    variances = np.maximum(counts @ (centred**2).T / n - shifts**2, 0)
    # What is left of equal numbers after their mean is taken away is rounding.
    errors = np.sqrt(np.where(variances > 1e-24 * centred.max() ** 2, variances, 0) / (n - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num(shifts / errors, nan=0.0, posinf=np.inf, neginf=-np.inf)
    student = stats.t.ppf(1 - _TAIL, n - 1)
    low_t, high_t = np.quantile(ratios, (_TAIL, 1 - _TAIL), axis=0, method="inverted_cdf")
    with np.errstate(invalid="ignore"):
        studentised = mean - high_t * error, mean - low_t * error
        wider = mean - np.maximum(high_t, student) * error, mean + np.maximum(-low_t, student) * error
    if not others:
        return {"used here": wider}
    ends = np.quantile(shifts, (_TAIL, 1 - _TAIL), axis=0)
    return {
        "percentile bootstrap": (mean + ends[0], mean + ends[1]),
        "BCa, expanded by t": _bca(mean, centred, shifts),
        "Student's t": (mean - student * error, mean + student * error),
        "bootstrap-t": studentised,
        "used here": wider,
    }


def _bca(mean: np.ndarray, centred: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Efron's BCa, whose tails are taken where a t of n - 1 degrees would have them (Hesterberg)."""
    n, resamples = centred.shape[1], len(shifts)
    below = (shifts < 0).mean(axis=0) + (shifts == 0).mean(axis=0) / 2
    bias = stats.norm.ppf(np.clip(below, 1 / resamples, 1 - 1 / resamples))
    squares = np.sum(centred**2, axis=1)
    skew = np.sum(centred**3, axis=1) / (6 * np.maximum(squares, 1e-100) ** 1.5)
    z = np.sqrt(n / (n - 1)) * stats.t.ppf(1 - _TAIL, n - 1)
    ordered = np.sort(shifts, axis=0)
    ends = []
    for side in (-z, z):
        share = stats.norm.cdf(bias + (bias + side) / (1 - skew * (bias + side)))
        place = np.clip((share * resamples).astype(int), 0, resamples - 1)
        ends.append(mean + ordered[place, np.arange(len(mean))])
    return ends[0], ends[1]
