"""Intervals of ratios of sums, such as a perplexity's nats by token, and of differences between them.

R = sum t_i / sum k_i is no mean. About its true value it differs from one by what is of second order in the
number of clusters: with k the mean of the k_i,

  R = (1 / n) sum u_i,   u_i = R + (t_i - R k_i) / k

and the spread of the u_i is that of R (the linearised ratio estimator; Cochran, Sampling Techniques, 1977,
chapter 6). So what `sia_jax.evaluation.statistics` does for means is done for the u_i.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from sia_jax.evaluation.statistics import Interval, mean_interval, paired_difference


def ratio_interval(
    totals: Any, sizes: Any, clusters: Sequence[Hashable], *, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """sum totals / sum sizes, with an interval in which every cluster counts as one; see `mean_interval`.

    Args:
      totals: [n] finite numbers, such as nats of replies.
      sizes: [n] what they are divided by, 0 or more, such as tokens of replies.
      clusters: [n] what is drawn as one, such as the prompt of each reply.
      resamples: drawn.
      seed: of the draws.

    Raises:
      ValueError: other numbers of both, a size below 0, none above it; or what `mean_interval` finds.
    """
    return mean_interval(linearised(totals, sizes), clusters, resamples=resamples, seed=seed)


def ratio_difference(
    totals: Any,
    sizes: Any,
    other_totals: Any,
    other_sizes: Any,
    clusters: Sequence[Hashable],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """By how much one ratio of sums is above another of partners; see `paired_difference`.

    Args:
      totals: [n].
      sizes: [n].
      other_totals: [n], each of the partner of the one at its place: a reply to the same prompt under the
        same seed.
      other_sizes: [n].
      clusters: [n] of the pairs.
      resamples: drawn.
      seed: of the draws.

    Raises:
      ValueError: as of `ratio_interval` and `paired_difference`.
    """
    one, other = linearised(totals, sizes), linearised(other_totals, other_sizes)
    return paired_difference(one, other, clusters, resamples=resamples, seed=seed)


def linearised(totals: Any, sizes: Any) -> np.ndarray:
    """[n] u_i, whose mean is the ratio and whose spread is that of the ratio; see the module.

    Args:
      totals: [n] finite numbers.
      sizes: [n] numbers of 0 or more, one of them above.

    Raises:
      ValueError: something else.
    """
    t, k = np.asarray(totals, np.float64), np.asarray(sizes, np.float64)
    if t.shape != k.shape or t.ndim != 1:
        raise ValueError(f"expected a total and a size for each, got shapes {t.shape} and {k.shape}")
    if not np.isfinite(t).all() or not np.isfinite(k).all() or not (k >= 0).all() or not k.sum() > 0:
        raise ValueError("expected finite totals, and sizes of 0 or more of which one is above 0")
    ratio = t.sum() / k.sum()
    found: np.ndarray = ratio + (t - ratio * k) / k.mean()
    return found
