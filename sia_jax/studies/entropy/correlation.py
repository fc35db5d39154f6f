"""Correlations of weighted observations: of a population of which some parts were looked at more closely.

An observation of weight w stands for w members of the population; whole weights give what the population
with each member repeated so often would give.
"""

from typing import Any

import numpy as np


class Pair:
    """Two quantities of the same n observations, to be correlated under any weights.

    Args:
      x: [n].
      y: [n].

    Raises:
      ValueError: shapes that differ, or numbers that are not finite.
    """

    def __init__(self, x: Any, y: Any):
        self.x, self.y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if self.x.shape != self.y.shape or self.x.ndim != 1:
            raise ValueError(f"expected x and y of one shape [n], got {self.x.shape} and {self.y.shape}")
        if not (np.isfinite(self.x).all() and np.isfinite(self.y).all()):
            raise ValueError("x and y must be finite")
        # Sorted once; a bootstrap asks for ranks a thousand times.
        self._places = [np.unique(numbers, return_inverse=True)[1] for numbers in (self.x, self.y)]

    def pearson(self, weights: Any) -> float:
        """r = cov(x, y) / (sd x sd y), moments taken under the weights.

        Args:
          weights: [n], 0 or more.

        Returns:
          NaN where x or y does not vary, or the weights are all 0.
        """
        return _pearson(self.x, self.y, self._check(weights))

    def spearman(self, weights: Any) -> float:
        """`pearson` of the ranks; a rank is the mass of what is below, and half the mass of what is equal.

        Args:
          weights: [n], 0 or more.

        Returns:
          NaN where x or y does not vary, or the weights are all 0.
        """
        w = self._check(weights)
        x, y = (_ranks(places, w) for places in self._places)
        return _pearson(x, y, w)

    def _check(self, weights: Any) -> np.ndarray:
        w = np.asarray(weights, np.float64)
        if w.shape != self.x.shape or not (w >= 0).all():
            raise ValueError(f"weights must be {self.x.shape} numbers of 0 or more, got {w.shape}")
        return w


def _ranks(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mid-ranks, but for a constant, of observations whose values have these places among all values."""
    mass = np.bincount(places, weights)
    return np.asarray((np.cumsum(mass) - mass / 2)[places])


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    total = weights.sum()
    if not total > 0:
        return float("nan")
    # Sums, not BLAS products: these would wake all threads for a few thousand numbers, a thousand times.
    w = weights / total
    mean_x, mean_y = float(np.sum(w * x)), float(np.sum(w * y))
    dx, dy = x - mean_x, y - mean_y
    vx, vy = float(np.sum(w * dx * dx)), float(np.sum(w * dy * dy))
    # What is left of a constant after its mean is taken away is rounding, not variance.
    if vx <= 1e-24 * mean_x**2 or vy <= 1e-24 * mean_y**2:
        return float("nan")
    return float(np.clip(np.sum(w * dx * dy) / np.sqrt(vx * vy), -1, 1))
