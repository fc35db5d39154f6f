"""How many prompts, and replies to each, a difference between two methods needs to be found.

The difference of a pair, prompt i under seed j, is modelled as d + a_i + e_ij: the true difference, what the
prompt adds to it, and what the seed does. Tested is its mean over n prompts and s seeds, whose standard error
is se with

  se^2 = (between + within / s) / n,   between = Var a_i,   within = Var e_ij

by the interval of `sia_jax.evaluation.statistics`: the wider, at either end, of Student's t of the prompts
and of the studentised bootstrap; see `critical_value`. Of rewards far from normal it is wider still.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from sia_jax.evaluation.statistics import FEWEST, LEVEL

RESAMPLES = 10_000
"""Of the bootstrap, as of the programs."""

MOST = 10_000_000
"""Prompts that are looked for at most."""


@dataclass(frozen=True)
class Spread:
    """How the differences of pairs vary; variances, in the unit of rewards squared."""

    between: float
    """Of what prompts add to the difference."""
    within: float
    """Of what seeds do, at one prompt."""

    def error(self, prompts: int, seeds: int) -> float:
        """The standard error of the mean difference: sqrt((between + within / seeds) / prompts)."""
        return float(np.sqrt((self.between + self.within / seeds) / prompts))


def spread_of(differences: Any, prompts: Sequence[Hashable]) -> Spread:
    """The spread that differences of pairs have, by the analysis of variance of one way.

    With k_i differences d_ij of prompt i, n prompts, K = sum k_i:

      within = sum (d_ij - mean_i)^2 / (K - n)
      between = (sum k_i (mean_i - mean)^2 / (n - 1) - within) / k0, and 0 at least
      k0 = (K - sum k_i^2 / K) / (n - 1)

    (Searle, Casella and McCulloch, Variance Components, 1992.) With one reply to each prompt both cannot be
    told apart: all of it counts as between, which is what seeds do not take away.

    Args:
      differences: [K].
      prompts: [K] the prompt of each.

    Raises:
      ValueError: other numbers of both, a difference that is not finite, fewer than two prompts.
    """
    x = np.asarray(differences, np.float64)
    if x.shape != (len(prompts),) or not np.isfinite(x).all():
        raise ValueError(f"expected a finite difference for each of {len(prompts)} prompts, got {x.shape}")
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    place = np.array([places[prompt] for prompt in prompts], int)
    sizes = np.bincount(place).astype(np.float64)
    n, total = len(sizes), len(x)
    if n < 2:
        raise ValueError(f"a spread takes two prompts or more, got {n}")
    means = np.bincount(place, x) / sizes
    outer = float(np.sum(sizes * (means - x.mean()) ** 2)) / (n - 1)
    if total == n:
        return Spread(outer, 0.0)
    within = float(np.sum((x - means[place]) ** 2)) / (total - n)
    size = (total - float(np.sum(sizes**2)) / total) / (n - 1)
    return Spread(max((outer - within) / size, 0.0), within)


def spread_from(deviation: float, correlation: float, share_within: float = 0.0) -> Spread:
    """The spread of differences between rewards of one deviation: 2 deviation^2 (1 - correlation), parted.

    Args:
      deviation: standard deviation of the rewards of either method, over prompts and seeds.
      correlation: of both methods' rewards of the same prompt and seed.
      share_within: of the variance of the difference, what seeds make, from 0 to 1.

    Raises:
      ValueError: a number out of its range.
    """
    if not (np.isfinite(deviation) and deviation > 0):
        raise ValueError(f"deviation must be a number above 0, got {deviation}")
    if not -1 <= correlation < 1:
        raise ValueError(f"correlation must be from -1 to below 1, got {correlation}")
    if not 0 <= share_within <= 1:
        raise ValueError(f"within must be from 0 to 1, got {share_within}")
    whole = 2 * deviation**2 * (1 - correlation)
    return Spread((1 - share_within) * whole, share_within * whole)


def critical_value(prompts: int, *, comparisons: int = 1, resamples: int = RESAMPLES) -> float:
    """How many standard errors from 0 a mean difference must lie to be found, on average of samples.

    The bootstrap's end is, for normal differences, Student's quantile q plus noise: the sample's skewness, of
    deviation sqrt(6 / n), moves it by (2 z^2 + 1) / 6 of that over sqrt(n) (Hall, The Bootstrap and Edgeworth
    Expansion, 1992), and the resamples by that of their quantile. The wider of both is longer by the noise
    where that is above 0, on average

      q + sigma / sqrt(2 pi),   sigma^2 = ((2 z^2 + 1) / (sqrt(6) n))^2 + (a / 2) (1 - a / 2) / (B phi(z)^2)

    with a = (1 - LEVEL) / comparisons, z the normal quantile of 1 - a / 2, phi the density and B resamples.

    Args:
      prompts: n, 2 or more.
      comparisons: that are corrected for, by Bonferroni's level, which Holm's method asks of the first.
      resamples: of the bootstrap.

    Raises:
      ValueError: a number below its least, or fewer resamples than tell so small a p-value.
    """
    if prompts < 2 or comparisons < 1 or resamples < 1:
        raise ValueError(
            f"expected 2 prompts, 1 comparison and 1 resample or more, got {prompts}, {comparisons} and "
            f"{resamples}"
        )
    level = (1 - LEVEL) / comparisons
    if level < 2 / (resamples + 1):
        raise ValueError(
            f"comparisons must be {(1 - LEVEL) * (resamples + 1) / 2:,.0f} at most, got {comparisons:,}: a "
            f"p-value of {resamples:,} resamples is never below {2 / (resamples + 1):.2g}"
        )
    z = stats.norm.ppf(1 - level / 2)
    of_sample = (2 * z**2 + 1) / (np.sqrt(6) * prompts)
    of_resamples = np.sqrt(level / 2 * (1 - level / 2) / resamples) / stats.norm.pdf(z)
    wider = np.hypot(of_sample, of_resamples) / np.sqrt(2 * np.pi)
    return float(stats.t.ppf(1 - level / 2, prompts - 1) + wider)


def power(
    difference: float,
    spread: Spread,
    prompts: int,
    seeds: int,
    *,
    comparisons: int = 1,
    resamples: int = RESAMPLES,
) -> float:
    """The probability that a true difference is found: that the test says it is not 0.

      P(|t'| > c),   t' noncentral of n - 1 degrees and difference / se,   c of `critical_value`

    Args:
      difference: the true one, in the unit of rewards.
      spread: of the differences of pairs.
      prompts: n, 2 or more.
      seeds: replies of each method to each prompt.
      comparisons: see `critical_value`.
      resamples: of the bootstrap.

    Raises:
      ValueError: differences that do not vary, no seeds, or what `critical_value` finds.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be 1 or more, got {seeds}")
    critical = critical_value(prompts, comparisons=comparisons, resamples=resamples)
    error = spread.error(prompts, seeds)
    if not error > 0:
        raise ValueError("the differences do not vary, so there is nothing to test")
    degrees, shift = prompts - 1, abs(difference) / error
    if shift > critical + 20:  # where the noncentral t is beyond what is computed of it
        return 1.0
    beyond = stats.nct.sf(critical, degrees, shift)
    if shift < 4:  # the other tail is below a millionth from there on, and soon not a number
        beyond += np.nan_to_num(stats.nct.cdf(-critical, degrees, shift))
    return float(np.clip(beyond, 0, 1))


def prompts_needed(
    difference: float, spread: Spread, seeds: int, wanted: float, *, comparisons: int = 1
) -> int | None:
    """The fewest prompts, `FEWEST` at least, with which a difference is found so often; None: above `MOST`.

    Args:
      difference: the true one, not 0.
      spread: of the differences of pairs.
      seeds: replies of each method to each prompt.
      wanted: the power, between 0 and 1.
      comparisons: see `critical_value`.

    Raises:
      ValueError: a difference of 0, a power out of its range, or what `power` finds.
    """
    if difference == 0 or not np.isfinite(difference):
        raise ValueError(f"difference must be a number other than 0, got {difference}")
    if not 0 < wanted < 1:
        raise ValueError(f"power must be between 0 and 1, got {wanted}")

    def is_enough(prompts: int) -> bool:
        return power(difference, spread, prompts, seeds, comparisons=comparisons) >= wanted

    high = FEWEST
    while not is_enough(high):
        if high >= MOST:
            return None
        high = min(2 * high, MOST)
    low = FEWEST - 1 if high == FEWEST else high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
