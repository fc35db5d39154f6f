"""How well scores rank what they predict: the area under the ROC curve, and what the best share catches."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Ranking:
    """Items from the best score to the worst, those of equal score as one group; see `rank`."""

    order: np.ndarray  # [n] places of the items
    starts: np.ndarray  # [g] where each group begins in that order
    positive: np.ndarray  # [n] 0 or 1, in that order

    def curve(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[g + 1] each: weight of all items, and of the positive ones, in the first 0, 1, ..., g groups.

        Args:
          weights: [n] how often each item counts, in the order of the scores.
        """
        own = weights[self.order]
        every, positive = (np.add.reduceat(w, self.starts) for w in (own, own * self.positive))
        return np.append(0.0, np.cumsum(every)), np.append(0.0, np.cumsum(positive))

    def area(self, weights: np.ndarray) -> float:
        """P(a positive item's score > another's) + P(equal) / 2: the area under the ROC curve.

        Args:
          weights: [n] as of `curve`.

        Returns:
          NaN where one of the two kinds has no weight.
        """
        every, positive = self.curve(weights)
        negative = every - positive
        pairs = positive[-1] * negative[-1]
        if pairs <= 0:
            return np.nan
        middle = (positive[1:] + positive[:-1]) / 2
        return float(middle @ np.diff(negative) / pairs)

    def caught(self, ratio: float, weights: np.ndarray) -> float:
        """The share of the positive items among the best share of all; of a group that is cut, so much of it.

        Args:
          ratio: in 0 .. 1, of all items.
          weights: [n] as of `curve`.

        Returns:
          NaN where nothing is positive.
        """
        every, positive = self.curve(weights)
        if positive[-1] <= 0:
            return np.nan
        return float(np.interp(ratio * every[-1], every, positive) / positive[-1])


def rank(scores: np.ndarray, labels: np.ndarray) -> Ranking:
    """A ranking of items by their scores.

    Args:
      scores: [n] no NaN, at least one.
      labels: [n] bool, which are positive.

    Raises:
      ValueError: other shapes, no scores, or a NaN.
    """
    s, y = np.asarray(scores, np.float64), np.asarray(labels, bool)
    if s.ndim != 1 or s.shape != y.shape or not len(s) or np.isnan(s).any():
        raise ValueError(f"expected [n] scores without NaN and [n] labels, got {s.shape} and {y.shape}")
    order = np.argsort(-s, kind="stable")
    ranked = s[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    return Ranking(order, starts, y[order].astype(np.float64))
