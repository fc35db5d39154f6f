"""What the statistics promise, in 2,000 worlds each: 95 of 100 two-sided intervals, give or take 1.5.

`test_statistics` has it of means, `test_ratios` of ratios, `test_power` of power, `test_risk` of promises.
"""

from collections.abc import Callable

import numpy as np
import pytest

from sia_jax.evaluation.claims import MARGIN
from sia_jax.evaluation.multiplicity import holm
from sia_jax.evaluation.resampling import bootstrap
from sia_jax.evaluation.statistics import paired_difference, win_rate

pytestmark = pytest.mark.long

WORLDS = 2000
PROMISED = (0.935, 0.965)
ONE_SIDED = 0.05 + 0.015
"""Of one-sided guarantees of 95%, so many may fail."""


def rewards(rng: np.random.Generator, prompts: int, seeds: int, gain: float = 0.0) -> tuple[np.ndarray, ...]:
    """Two methods' rewards of the same prompts and seeds, [prompts seeds] each: skewed, of one hardness."""
    hard = rng.exponential(size=(prompts, 1))
    own = gain + rng.normal(0, 0.5, (prompts, 1))
    base = hard + rng.exponential(size=(prompts, seeds))
    better = hard + own + rng.exponential(size=(prompts, seeds))
    return better.ravel(), base.ravel()


def clusters_of(prompts: int, seeds: int) -> list[int]:
    return [prompt for prompt in range(prompts) for _ in range(seeds)]


@pytest.mark.parametrize(("prompts", "seeds"), [(20, 1), (40, 3), (100, 2)])
def test_of_paired_differences_the_interval_holds_the_true_one_and_p_is_small_as_rarely_as_it_says(
    prompts: int, seeds: int
) -> None:
    rng, held, small = np.random.default_rng([prompts, seeds]), 0, 0
    for world in range(WORLDS):
        better, base = rewards(rng, prompts, seeds, gain=0.3)
        clusters = clusters_of(prompts, seeds)
        found = paired_difference(better, base, clusters, resamples=1000, seed=world)
        held += found.low <= 0.3 <= found.high
        null = paired_difference(better - 0.3, base, clusters, resamples=1000, seed=world)
        assert null.p is not None
        small += null.p <= 0.05
    assert PROMISED[0] <= held / WORLDS <= PROMISED[1]
    assert small / WORLDS <= ONE_SIDED


@pytest.mark.parametrize(("prompts", "seeds"), [(40, 1), (100, 3)])
def test_of_win_rates_the_interval_holds_the_true_one(prompts: int, seeds: int) -> None:
    """Of whole rewards with ties: P(win) + P(tie) / 2, by all outcomes of two of them."""
    chances, others = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.3, 0.3])
    table = np.outer(chances, others)
    true = np.tril(table, -1).sum() + np.trace(table) / 2
    rng, held = np.random.default_rng([prompts, seeds]), 0
    for world in range(WORLDS):
        x, y = (rng.choice(3, p=p, size=prompts * seeds).astype(float) for p in (chances, others))
        found = win_rate(x, y, clusters_of(prompts, seeds), resamples=1000, seed=world)
        held += found.low <= true <= found.high
    assert PROMISED[0] <= held / WORLDS <= PROMISED[1]


def test_of_families_without_a_difference_at_most_5_in_100_have_a_wrong_call() -> None:
    """Six methods against one base on the same prompts: p-values that hang together."""
    rng, wrong, prompts = np.random.default_rng(0), 0, 40
    for world in range(WORLDS):
        base = rng.exponential(size=prompts)
        p = [
            paired_difference(
                rng.exponential(size=prompts), base, range(prompts), resamples=1000, seed=world
            ).p
            for _ in range(6)
        ]
        wrong += holm(p).min() <= 0.05
    assert wrong / WORLDS <= ONE_SIDED


def test_a_method_that_keeps_just_nine_tenths_is_said_to_match_in_at_most_5_of_100_worlds() -> None:
    """As the claims have it: matched where the interval of what is kept beyond nine tenths lies above 0."""
    rng, matched, held, prompts = np.random.default_rng(1), 0, 0, 60
    for world in range(WORLDS):
        dense, base = rewards(rng, prompts, 2, gain=0.5)
        needed = (1 - MARGIN) * dense + MARGIN * base
        sparse = base + (1 - MARGIN) * 0.5 + rng.normal(0, 0.5, 2 * prompts)
        found = paired_difference(sparse, needed, clusters_of(prompts, 2), resamples=1000, seed=world)
        matched += found.low >= 0
        held += found.low <= 0 <= found.high
    assert matched / WORLDS <= ONE_SIDED
    assert PROMISED[0] <= held / WORLDS <= PROMISED[1]


@pytest.mark.parametrize("clusters", [100, 300])
def test_of_the_percentile_bootstrap_intervals_of_other_figures_hold_the_true_one(clusters: int) -> None:
    """A correlation and a ratio, of clusters of one; 100 are the fewest that have an interval."""
    rng, held = np.random.default_rng(clusters), {"correlation": 0, "ratio": 0}
    for world in range(WORLDS):
        x = rng.normal(size=clusters)
        y = 0.6 * x + 0.8 * rng.normal(size=clusters)
        sizes = rng.integers(1, 20, clusters).astype(float)
        found = bootstrap(_figures(x, y, sizes), clusters, resamples=400, seed=world)
        held["correlation"] += found["correlation"].low <= 0.6 <= found["correlation"].high
        held["ratio"] += found["ratio"].low <= 2 <= found["ratio"].high
    for name, count in held.items():
        assert PROMISED[0] <= count / WORLDS <= PROMISED[1], (name, count / WORLDS)


def _figures(x: np.ndarray, y: np.ndarray, sizes: np.ndarray) -> Callable[[np.ndarray], dict[str, float]]:
    totals = sizes * (2 + y)

    def figures(counts: np.ndarray) -> dict[str, float]:
        w = counts / counts.sum()
        a, b = x - w @ x, y - w @ y
        correlation = (w @ (a * b)) / np.sqrt((w @ a**2) * (w @ b**2))
        return {"correlation": float(correlation), "ratio": float((counts @ totals) / (counts @ sizes))}

    return figures
