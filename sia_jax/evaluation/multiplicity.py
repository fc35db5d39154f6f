"""p-values corrected for how many of them there are."""

from typing import Any

import numpy as np


def holm(p: Any) -> np.ndarray:
    """p-values adjusted for their number, by Holm's step-down method; [m] in the order of the p-values.

    With p_(1) <= ... <= p_(m) those values in order:

      adjusted p_(i) = min(1, max over j <= i of (m - j + 1) p_(j))

    To call only those different whose adjusted p is at most a makes, with a chance of a at most, any false
    call among the m at all, however the m depend on each other (Holm, Scandinavian Journal of Statistics 6,
    1979).

    Args:
      p: [m], each valid for its own comparison; 1 for one of which nothing is known.

    Raises:
      ValueError: not a list of numbers from 0 to 1.
    """
    values = np.asarray(p, np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"expected a list of p-values from 0 to 1, got {str(p)[:200]}")
    order = np.argsort(values, kind="stable")
    left = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(left * values[order]))
    return adjusted
