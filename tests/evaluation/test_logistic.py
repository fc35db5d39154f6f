"""The logistic regression against an optimiser that knows nothing of it, and against the truth."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from sia_jax.evaluation.logistic import fit_logistic

WEIGHTS, INTERCEPT = np.array([1.2, -0.7, 0.0, 0.05]), -0.4
SCALES, SHIFTS = np.array([1.0, 0.2, 3.0, 20.0]), np.array([0.5, -1.0, 0.0, 40.0])


def data(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = SHIFTS + SCALES * rng.normal(size=(n, 4))
    return x, rng.random(n) < expit((x - SHIFTS) @ WEIGHTS + INTERCEPT)


def objective(at: np.ndarray, x: np.ndarray, y: np.ndarray, penalty: float) -> float:
    """Of raw weights and intercept; the penalty is on the weights times the deviations."""
    score = x @ at[:-1] + at[-1]
    loss = np.log1p(np.exp(-np.abs(score))) + np.maximum(score, 0) - y * score
    return float(loss.mean() + penalty / 2 * np.sum((at[:-1] * x.std(axis=0)) ** 2))


@pytest.mark.parametrize("penalty", [1e-3, 0.3])
def test_it_finds_the_minimum_that_an_optimiser_without_derivatives_finds(penalty):
    x, y = data(400)
    weights, intercept = fit_logistic(x, y, penalty)
    units = np.append(SCALES, 1.0)
    theirs = minimize(
        lambda at: objective(at / units, x - SHIFTS, y, penalty),
        np.zeros(5),
        method="Powell",
        options={"xtol": 1e-10, "ftol": 1e-15, "maxiter": 10_000},
    )
    expected = theirs.x / units
    np.testing.assert_allclose(weights * SCALES, expected[:-1] * SCALES, atol=1e-5)
    assert intercept == pytest.approx(expected[-1] - expected[:-1] @ SHIFTS, abs=1e-4)


def test_the_gradient_is_zero_there():
    x, y = data(500, seed=1)
    weights, intercept = fit_logistic(x, y, 0.01)
    residual = expit(x @ weights + intercept) - y
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    assert abs(residual.mean()) < 1e-9
    np.testing.assert_allclose(z.T @ residual / len(y) + 0.01 * weights * x.std(axis=0), 0, atol=1e-9)


def test_it_recovers_the_weights_that_made_the_labels():
    """Each within four standard errors, by the Fisher information at the truth."""
    x, y = data(40_000, seed=2)
    weights, intercept = fit_logistic(x, y, 1e-9)
    design = np.column_stack([x - SHIFTS, np.ones(len(x))])
    p = expit(design @ np.append(WEIGHTS, INTERCEPT))
    errors = np.sqrt(np.diag(np.linalg.inv((design * (p * (1 - p))[:, None]).T @ design)))
    assert (errors < 0.1).all()
    found = np.append(weights, intercept + weights @ SHIFTS)
    assert (np.abs(found - np.append(WEIGHTS, INTERCEPT)) < 4 * errors).all()


def test_the_units_of_a_feature_change_its_weight_alone():
    x, y = data(300, seed=3)
    weights, intercept = fit_logistic(x, y)
    scale, shift = np.array([1e3, 1e-3, 7.0, 1.0]), np.array([5.0, 0.0, -2.0, 1.0])
    others, other = fit_logistic(x * scale + shift, y)
    np.testing.assert_allclose(others * scale, weights, rtol=1e-7)
    assert other + others @ shift == pytest.approx(intercept, rel=1e-7)


def test_a_feature_that_does_not_vary_weighs_nothing():
    x, y = data(300, seed=4)
    weights, intercept = fit_logistic(x, y)
    more, same = fit_logistic(np.column_stack([np.full(300, 0.1), x]), y)
    assert more[0] == 0
    np.testing.assert_allclose(more[1:], weights, rtol=1e-9)
    assert same == pytest.approx(intercept)


def test_labels_that_a_feature_tells_apart_have_a_finite_weight():
    x = np.arange(40.0)[:, None]
    weights, intercept = fit_logistic(x, x[:, 0] > 29, 1e-6)
    assert np.isfinite(weights).all()
    assert (x @ weights + intercept > 0).tolist() == (x[:, 0] > 29).tolist()


@pytest.mark.parametrize(
    ("x", "y", "penalty", "why"),
    [
        (np.zeros(3), np.array([True, False, True]), 0.1, "expected"),
        (np.zeros((3, 1)), np.array([True, False]), 0.1, "expected"),
        (np.zeros((3, 1)), np.array([1, 0, 1]), 0.1, "expected"),
        (np.full((2, 1), np.nan), np.array([True, False]), 0.1, "finite"),
        (np.zeros((2, 1)), np.array([True, True]), 0.1, "of both kinds, got 2 of 2"),
        (np.zeros((0, 1)), np.zeros(0, bool), 0.1, "of both kinds, got 0 of 0"),
        (np.zeros((2, 1)), np.array([True, False]), 0.0, "penalty must be a finite number over 0"),
        (np.zeros((2, 1)), np.array([True, False]), np.nan, "penalty"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x, y, penalty, why):
    with pytest.raises(ValueError, match=why):
        fit_logistic(x, y, penalty)
