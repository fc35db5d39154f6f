from itertools import product

import numpy as np
import pytest
from scipy import stats

from sia_jax.studies.entropy import spread

P = np.array([0.5, 0.3, 0.2])


def bernoulli_draws(chances, number):
    """Every outcome of `number` draws of 0 or 1 for each candidate, and its probability."""
    for outcome in product((0, 1), repeat=len(chances) * number):
        rewards = np.array(outcome, float).reshape(len(chances), number)
        yield (
            rewards,
            np.prod([np.where(r == 1, c, 1 - c).prod() for r, c in zip(rewards, chances, strict=True)]),
        )


def true_variance(means, p):
    p = np.asarray(p) / np.sum(p)
    return sum(a * b * (m - n) ** 2 / 2 for (a, m), (b, n) in product(zip(p, means, strict=True), repeat=2))


def test_a_variance_is_that_of_a_repeated_population():
    values, counts = np.array([1.0, 4.0, -2.0]), np.array([3, 5, 2])
    assert spread.variance(values, counts) == pytest.approx(np.repeat(values, counts).var())
    assert spread.variance(values) == pytest.approx(values.var())
    both = spread.variance(np.array([values, 3 * values]), np.array([counts, counts[::-1]]))
    assert both == pytest.approx([np.repeat(values, counts).var(), 9 * np.repeat(values, counts[::-1]).var()])


@pytest.mark.parametrize("weights", [[1, 1], [0.9, 0.1], [3, 0]])
@pytest.mark.parametrize("number", [2, 3])
def test_the_expectation_over_all_outcomes_is_the_true_variance(weights, number):
    chances = (0.3, 0.9)
    found = raw = 0.0
    for rewards, chance in bernoulli_draws(chances, number):
        found += chance * spread.between_variance(rewards, weights)
        raw += chance * float(spread.variance(rewards.mean(axis=1), weights))
    assert found == pytest.approx(true_variance(chances, weights), abs=1e-12)
    p = np.array(weights) / np.sum(weights)
    noise = sum(a * (1 - a) * c * (1 - c) / number for a, c in zip(p, chances, strict=True))
    assert raw == pytest.approx(found + noise, abs=1e-12)


def test_the_expectation_of_a_covariance_is_the_true_one():
    chances, values = (0.3, 0.9, 0.5), np.array([1.0, 0.5, -1.0])
    found = sum(
        chance * spread.covariance(values, rewards, P) for rewards, chance in bernoulli_draws(chances, 2)
    )
    means = np.array(chances)
    assert found == pytest.approx(P @ (values * means) - (P @ values) * (P @ means), abs=1e-12)


def test_certain_rewards_have_no_noise():
    rewards = np.repeat([[1.0], [2.0], [2.0]], 5, axis=1)
    assert spread.between_variance(rewards, P) == pytest.approx(0.25)


def test_halves_share_no_reward_and_lose_none():
    first, second = spread.halves(np.arange(12).reshape(2, 6))
    assert first.tolist() == [[0, 2, 4], [6, 8, 10]]
    assert second.tolist() == [[1, 3, 5], [7, 9, 11]]
    assert [half.shape for half in spread.halves(np.zeros((2, 7)))] == [(2, 3), (2, 3)]


def test_candidates_that_are_alike():
    rng = np.random.default_rng(0)
    found = [spread.difference(rng.exponential(size=(3, 12)), 1, 0.5, rng) for _ in range(300)]
    for p_values in ([each.p_value for each in found], lots := [each.lot for each in found]):
        assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert spread.share_alike(lots) > 0.85
    gains = np.mean([each.gain > 0.5 for each in found])
    assert np.mean([each.by_chance for each in found]) == pytest.approx(gains, abs=0.06)
    assert gains > 0.1


def test_candidates_that_differ():
    rng = np.random.default_rng(1)
    rewards = rng.normal(size=(3, 24)) + np.array([[0.0], [2.0], [0.0]])
    found = spread.difference(rewards, 0, 0.3, rng)
    assert found.p_value < 0.01
    assert found.gain == pytest.approx(rewards.mean(axis=1)[1] - rewards.mean(axis=1)[0])
    assert spread.difference(rewards, 1, 0.3, rng).gain == 0


def test_rewards_that_are_all_equal_tell_of_no_difference():
    rng = np.random.default_rng(0)
    found = [spread.difference(np.full((4, 8), 0.1), 0, 0.3, rng) for _ in range(100)]
    assert {(each.p_value, each.gain, each.by_chance) for each in found} == {(1, 0, 0)}
    assert stats.kstest([each.lot for each in found], "uniform").pvalue > 0.01


def test_the_share_without_a_difference_in_a_mixture():
    rng = np.random.default_rng(2)
    alike = rng.random(2000) < 0.6
    p_values = np.where(alike, rng.random(2000), rng.random(2000) ** 20)
    assert spread.share_alike(p_values) == pytest.approx(0.6, abs=0.06)
    assert spread.share_alike(p_values, alike) == pytest.approx(1, abs=0.06)
    assert spread.share_alike(p_values, ~alike) < 0.12
    assert np.isnan(spread.share_alike([], []))


def test_bins_are_of_equal_size_and_in_order():
    x = np.random.default_rng(0).normal(size=103)
    found = spread.quantile_bins(x, 8)
    sizes = np.bincount(found)
    assert len(sizes) == 8
    assert sizes.max() - sizes.min() <= 1
    assert all(x[found == i].max() < x[found == i + 1].min() for i in range(7))


def test_drawn_members_stand_for_their_stratum():
    strata = np.repeat([0, 1, 2], [50, 10, 3])
    places, weights = spread.draw_by_stratum(strata, 5, np.random.default_rng(0))
    assert np.bincount(strata[places]).tolist() == [5, 5, 3]
    assert len(set(places.tolist())) == 13
    assert dict(zip(strata[places].tolist(), weights.tolist(), strict=True)) == {0: 10, 1: 2, 2: 1}
    x = np.random.default_rng(1).normal(size=63) + strata
    totals = []
    for seed in range(400):
        places, weights = spread.draw_by_stratum(strata, 5, np.random.default_rng(seed))
        totals.append(weights @ x[places])
    assert np.mean(totals) == pytest.approx(x.sum(), abs=4 * np.std(totals) / 20)
    assert len({round(total, 6) for total in totals}) > 300


@pytest.mark.parametrize("weights", [[0, 0, 0], [1, -1, 3]])
def test_weights_that_are_no_distribution_are_refused(weights):
    with pytest.raises(ValueError, match="0 or more"):
        spread.variance([1, 2, 3], weights)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (0, 4)])
def test_too_few_rewards_are_refused(shape):
    with pytest.raises(ValueError, match="at least 2"):
        spread.between_variance(np.zeros(shape), np.ones(3))
