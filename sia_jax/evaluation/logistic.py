"""Logistic regression with a small penalty, by Newton's method, in float64."""

import numpy as np
from scipy.special import expit

PENALTY = 1e-3
"""lambda: beside a mean log loss of at most ln 2."""

_STEPS, _HALVINGS = 100, 60
_GRADIENT = 1e-10
"""Largest component of the gradient at which the minimum is found: float64 has some 1e-16 of it."""


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, penalty: float = PENALTY
) -> tuple[np.ndarray, float]:
    """The weights w and the intercept b that predict labels best, for the features as they are.

    With z the features less their means over their standard deviations, y in {-1, 1}, and v, c the minimum of

      J(v, c) = mean_i log(1 + exp(-y_i (c + v . z_i))) + lambda / 2 |v|^2,

    w = v / std, b = c - w . mean, so c + v . z = b + w . x. A feature that does not vary has a weight of 0.

    Args:
      features: [n, k] finite numbers.
      labels: [n] bool, of both kinds.
      penalty: lambda, over 0.

    Returns:
      ([k] w, in inverse units of the features; b)

    Raises:
      ValueError: other shapes, numbers that are not finite, labels of one kind alone, a penalty that is not
        over 0, or no minimum after a hundred steps.
    """
    x, y = np.asarray(features, np.float64), np.asarray(labels)
    if x.ndim != 2 or y.shape != (len(x),) or y.dtype != bool:
        raise ValueError(f"expected [n, k] features, [n] bool labels, got {x.shape}, {y.dtype} {y.shape}")
    if not np.isfinite(x).all():
        raise ValueError("features must be finite")
    if y.all() or not y.any():
        raise ValueError(f"labels must be of both kinds, got {int(y.sum())} of {len(y)} that are true")
    if not 0 < penalty < np.inf:
        raise ValueError(f"penalty must be a finite number over 0, got {penalty}")
    mean, std = x.mean(axis=0), x.std(axis=0)
    varies = std > 1e-9 * np.maximum(1.0, np.abs(mean))
    scale = np.where(varies, std, 1.0)
    z = np.column_stack([np.ones(len(x)), np.where(varies, (x - mean) / scale, 0.0)])
    found = _minimum(z, y, np.array([0.0] + [penalty] * x.shape[1]))
    weights = found[1:] / scale
    return weights, float(found[0] - weights @ mean)


def _minimum(z: np.ndarray, y: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Newton's method from the labels' mean; a step that does not lower J is halved. J is strictly convex."""
    sign = np.where(y, -1.0, 1.0)

    def objective(at: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0.0, sign * (z @ at))) + 0.5 * penalties @ at**2)

    share = y.mean()
    at = np.zeros(z.shape[1])
    at[0] = np.log(share / (1 - share))
    value = objective(at)
    for _ in range(_STEPS):
        p = expit(z @ at)
        gradient = z.T @ (p - y) / len(y) + penalties * at
        if np.abs(gradient).max() <= _GRADIENT:
            return at
        curvature = (z * (p * (1 - p))[:, None]).T @ z / len(y) + np.diag(penalties)
        step = np.linalg.solve(curvature, gradient)
        slope, length = float(gradient @ step), 1.0
        for _ in range(_HALVINGS):
            lower = objective(at - length * step)
            # The last steps change J by less than its own rounding.
            if lower <= value - 1e-4 * length * slope + 1e-14 * (1 + abs(value)):
                break
            length /= 2
        at, value = at - length * step, lower
    raise ValueError(f"the regression has not converged in {_STEPS} steps; raise the penalty")
