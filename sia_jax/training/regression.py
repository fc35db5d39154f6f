"""How well predicted rewards agree with true ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fit:
    """Agreement of n predictions with their targets; NaN where there is too little to say."""

    count: int
    mse: float
    mae: float
    r2: float
    """1 - sum (p - r)^2 / sum (r - mean r)^2: 0 is what the mean of the targets would get."""
    rank_agreement: float
    """Share of pairs of one group, unequal in r, that p orders as r does; ties in p count half."""
    pairs: int
    """Pairs of one group that are unequal in r."""

    @property
    def rmse(self) -> float:
        """sqrt(mse), in units of the reward."""
        return float(np.sqrt(self.mse))


def fit(predictions: Sequence[float], targets: Sequence[float], groups: Sequence[str]) -> Fit:
    """Compare predictions with targets, in float64.

    Args:
      predictions: [n] p.
      targets: [n] r, in the same unit.
      groups: [n] what belongs together, such as the replies to one prompt.

    Raises:
      ValueError: other lengths, or nothing to compare.
    """
    p, r = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    if not (p.shape == r.shape == (len(groups),)) or not len(p):
        raise ValueError(
            f"fit needs as many predictions, targets and groups, got {p.shape}, {r.shape}, {len(groups)}"
        )
    errors = p - r
    spread = np.sum((r - r.mean()) ** 2)
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    agreed, pairs = 0.0, 0
    for own in members.values():
        first, second = np.triu_indices(len(own), 1)
        a, b = np.array(own)[first], np.array(own)[second]
        sign = np.sign(r[a] - r[b])
        agreed += float(np.sum(np.where(sign != 0, (1 + sign * np.sign(p[a] - p[b])) / 2, 0)))
        pairs += int(np.sum(sign != 0))
    return Fit(
        count=len(p),
        mse=float(np.mean(errors**2)),
        mae=float(np.mean(np.abs(errors))),
        r2=float(1 - np.sum(errors**2) / spread) if spread > 0 else float("nan"),
        rank_agreement=agreed / pairs if pairs else float("nan"),
        pairs=pairs,
    )


def comparable_pairs(targets: Sequence[float], groups: Sequence[str]) -> int:
    """Pairs of targets of one group that are unequal: what `Fit.rank_agreement` is a share of.

    Args:
      targets: [n].
      groups: [n] what belongs together.
    """
    return fit(targets, targets, groups).pairs if len(targets) else 0
