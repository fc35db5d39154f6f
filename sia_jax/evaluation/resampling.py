"""A bootstrap of any figures whatever, by drawing clusters: prompts, with all that belongs to them.

Of means `sia_jax.evaluation.statistics` has better intervals; correlations and ratios are no means. These
here are percentiles, further out than 2.5 and 97.5: n clusters spread by sqrt((n - 1) / n) less than what
they are drawn from, and how much that is, is itself estimated,

    tail = Phi(-sqrt(n / (n - 1)) t_{n-1, 0.975}),

the expanded percentile interval of Hesterberg, "What teachers should know about the bootstrap" (The
American Statistician, 2015). Quantiles of B resamples are those of B draws, at the places i / (B + 1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from sia_jax.evaluation.statistics import LEVEL

FEWEST = 100
"""Clusters from which there is an interval."""


@dataclass(frozen=True)
class Figure:
    """A number and the percentile interval of its bootstrap; NaN where there is too little to say."""

    estimate: float
    low: float
    high: float


def bootstrap(
    figures: Callable[[np.ndarray], dict[str, float]], clusters: int, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Figure]:
    """Figures of all clusters, each with an interval from resamples of the clusters.

    A resample draws as many clusters as there are, with replacement, so it is told by how often each was
    drawn. Resamples in which a figure is NaN have no part in its interval. Of fewer than `FEWEST` clusters
    there is none.

    Args:
      figures: from how often each cluster was drawn, [clusters], to numbers by name; what belongs to a
        cluster counts so often. Called with ones for the estimates.
      clusters: at least 1.
      resamples: more make the ends of the intervals less random.
      seed: of the draws.

    Raises:
      ValueError: no clusters, or no resamples.
    """
    if clusters < 1 or resamples < 1:
        raise ValueError(f"expected at least one cluster and one resample, got {clusters} and {resamples}")
    counts = np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), resamples)
    estimates = figures(np.ones(clusters))
    if clusters < FEWEST:
        return {name: Figure(float(estimate), np.nan, np.nan) for name, estimate in estimates.items()}
    drawn = [figures(count.astype(np.float64)) for count in counts]
    tail = norm.sf(np.sqrt(clusters / (clusters - 1)) * t.isf((1 - LEVEL) / 2, clusters - 1))
    found = {}
    for name, estimate in estimates.items():
        sample = np.array([each[name] for each in drawn])
        sample = sample[np.isfinite(sample)]
        low = high = np.nan
        if len(sample):
            low, high = np.quantile(sample, (tail, 1 - tail), method="weibull")
        found[name] = Figure(float(estimate), float(low), float(high))
    return found
