"""The threshold that promises to miss few of the tokens that steering would shift."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from sia_jax.evaluation.risk import (
    SteeredReply,
    binomial_cdf,
    fewest,
    losses,
    p_value,
    promised_threshold,
)

WORLDS = 2000
ROOM = 0.015
"""Three standard errors of a share of 5% in so many worlds."""


def test_losses_are_shares_of_shifted_tokens_below_the_threshold() -> None:
    reply = SteeredReply(np.array([0.1, 0.5, 0.5, 2.0]), np.array([True, True, False, True]))
    quiet = SteeredReply(np.array([0.1, 3.0]), np.array([False, False]))
    thresholds = np.array([-np.inf, 0.1, 0.2, 0.5, 0.6, 2.0, 2.1])
    found = losses([reply, quiet], thresholds)
    np.testing.assert_allclose(found[0] * 3, [0, 0, 1, 1, 2, 2, 3])
    assert not found[1].any()


@pytest.mark.parametrize(("n", "p"), [(5, 0.3), (200, 0.05), (900, 0.4)])
def test_the_binomial_distribution_is_scipys(n: int, p: float) -> None:
    for k in (0, 1, n // 10, n // 2, n):
        assert binomial_cdf(k, n, p) == pytest.approx(float(binom.cdf(k, n, p)), rel=1e-9, abs=1e-300)


def test_p_values_of_no_loss_at_all_are_powers_and_tell_how_few_are_enough() -> None:
    for alpha, delta in ((0.1, 0.05), (0.05, 0.1), (0.3, 0.01)):
        n = fewest(alpha, delta)
        assert p_value(0.0, n, alpha) == pytest.approx((1 - alpha) ** n)
        assert p_value(0.0, n, alpha) <= delta < p_value(0.0, n - 1, alpha)
    assert fewest(0.1, None) == 9


def test_the_p_value_is_the_smaller_of_two_bounds_by_hand() -> None:
    risk, n, alpha = 0.04, 100, 0.1
    h = risk * math.log(risk / alpha) + (1 - risk) * math.log((1 - risk) / (1 - alpha))
    assert p_value(risk, n, alpha) == pytest.approx(min(math.exp(-n * h), math.e * binom.cdf(4, n, alpha)))
    assert p_value(0.1, n, alpha) == p_value(0.5, n, alpha) == 1.0


def test_the_threshold_is_the_largest_whose_losses_pass_and_all_smaller_ones_pass() -> None:
    rng = np.random.default_rng(0)
    replies = [world_reply(rng) for _ in range(200)]
    found = promised_threshold(replies, 0.1, 0.05)
    entropies = np.unique(np.concatenate([reply.entropy for reply in replies]).astype(np.float32))
    risks = [float(losses(replies, np.array([h]))[:, 0].mean()) for h in entropies]
    passes = [p_value(risk, 200, 0.1) <= 0.05 for risk in risks]
    place = int(np.flatnonzero(entropies == np.float32(found.threshold))[0])
    assert all(passes[: place + 1])
    assert not passes[place + 1]
    steered = np.concatenate([reply.entropy >= np.float32(found.threshold) for reply in replies])
    assert found.steered == steered.mean()
    assert 0 < found.missed < 0.1


def world_reply(rng: np.random.Generator) -> SteeredReply:
    """A prompt of its own temper: tokens of one prompt are alike, and some prompts are never shifted."""
    length, temper = int(rng.integers(1, 30)), rng.gamma(2.0, 0.4)
    entropy = rng.gamma(1.5, temper, length).astype(np.float32)
    chance = rng.beta(0.5, 0.5) * entropy / (entropy + rng.gamma(1.0, 1.0))
    return SteeredReply(entropy, rng.random(length) < chance)


def kept_promises(n: int, alpha: float, delta: float, *, expected_only: bool) -> tuple[np.ndarray, int]:
    """[worlds] the true risk of the threshold of each world, and of how many no threshold was promised."""
    rng = np.random.default_rng(1)
    fresh = [world_reply(rng) for _ in range(4000)]
    grid = np.linspace(0, 8, 400)
    truth = losses(fresh, grid).mean(axis=0)
    risks = np.zeros(WORLDS)
    dense = 0
    for world in range(WORLDS):
        own = [fresh[i] for i in rng.integers(len(fresh), size=n)]  # the 4,000 are the whole population
        found = promised_threshold(own, alpha, delta, expected_only=expected_only)
        dense += found.threshold == -math.inf
        risks[world] = np.interp(found.threshold, grid, truth, left=0.0)
    return risks, dense


@pytest.mark.long
@pytest.mark.parametrize(("n", "alpha"), [(60, 0.2), (200, 0.1)])
def test_in_2000_worlds_the_promise_is_broken_in_at_most_one_of_twenty(n: int, alpha: float) -> None:
    risks, dense = kept_promises(n, alpha, 0.05, expected_only=False)
    assert np.mean(risks > alpha) <= 0.05 + ROOM
    assert dense < WORLDS / 2
    assert risks.mean() > alpha / 4  # a promise that steers everything is worth little


@pytest.mark.long
def test_in_2000_worlds_the_promise_on_average_is_kept_on_average() -> None:
    risks, _ = kept_promises(60, 0.1, 0.05, expected_only=True)
    assert 0.05 < risks.mean() <= 0.1 + 3 * risks.std() / math.sqrt(WORLDS)
    assert np.mean(risks > 0.1) > 0.1  # it is no promise with a confidence


def test_too_few_prompts_and_wrong_shares_are_refused() -> None:
    reply = SteeredReply(np.array([1.0, 2.0]), np.array([True, False]))
    with pytest.raises(ValueError, match=r"28 prompts promise nothing: a miss rate of 0.1 takes 29 or more"):
        promised_threshold([reply] * 28, 0.1)
    assert promised_threshold([reply] * 29, 0.1).threshold == 1.0
    for alpha, delta in ((0.0, 0.1), (1.0, 0.1), (0.1, 0.0), (0.1, 1.0), (math.nan, 0.1)):
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            promised_threshold([reply] * 100, alpha, delta)
    with pytest.raises(ValueError, match="finite entropies"):
        promised_threshold([SteeredReply(np.array([np.nan]), np.array([True]))] * 100, 0.1)
