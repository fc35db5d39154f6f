"""Intervals against their formula written out, and what they promise on simulated and on the world's data."""

import json
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sia_jax.evaluation.coverage import EXPONENTIAL, KINDS, NORMAL, Law, cover, from_values, intervals
from sia_jax.evaluation.statistics import (
    FEWEST,
    FEWEST_OTHERS,
    Interval,
    mean_interval,
    paired_difference,
    why_no_interval,
)
from sia_jax.world.gold import gold_reward
from sia_jax.world.grammar import sample_reply
from sia_jax.world.prompts import prompts

PROMISED = (0.935, 0.965)


def world_differences(alike: float) -> np.ndarray:
    """Of each held-out prompt: the better of two of the world's replies, in gold reward, less another one.

    Args:
      alike: share of prompts at which both methods say the same.
    """
    rng, found = np.random.default_rng(5), []
    for prompt in prompts("test"):
        other, *own = (gold_reward(prompt, sample_reply(prompt, rng)) for _ in range(3))
        found.append(0.0 if rng.random() < alike else max(own) - other)
    return np.array(found)


WORLD = from_values("the world's", world_differences(0.0))
MOSTLY_ALIKE = from_values("the world's, of methods that are mostly alike", world_differences(0.9))
LAWS = (NORMAL, EXPONENTIAL, WORLD, MOSTLY_ALIKE)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("prompts", [3, 5, 10, 30, 300])
def test_95_in_100_intervals_hold_the_mean_or_none_is_given(law: Law, prompts: int) -> None:
    found = cover(law, prompts, trials=4000, resamples=1000, others=False)
    held = found.held[KINDS[-1]]
    assert held >= PROMISED[0]
    if law is MOSTLY_ALIKE:  # many trials get no interval, so more than 95 in 100 are not misled
        assert (found.refused > 0.99) == (prompts < 100)
    else:
        assert held <= PROMISED[1] or prompts < FEWEST
        assert found.refused == (prompts < FEWEST)


@pytest.mark.long
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("prompts", [3, 5, 10, 20, 30, 300])
@pytest.mark.parametrize("seeds", [1, 3])
def test_of_2000_intervals_that_the_programs_give_95_in_100_hold_the_mean(
    law: Law, prompts: int, seeds: int
) -> None:
    """By `mean_interval` itself, each trial with its own resamples, and several replies to a prompt."""
    rng = np.random.default_rng([prompts, seeds])
    x = law.draw(rng, (2000, prompts))
    clusters = [prompt for prompt in range(prompts) for _ in range(seeds)]
    held = known = 0
    for trial, own in enumerate(x):
        noise = rng.normal(size=(prompts, seeds)) * (seeds > 1)
        replies = (own[:, None] + noise - noise.mean(axis=1, keepdims=True)).ravel()
        found = mean_interval(replies, clusters, resamples=1000, seed=trial)
        known += found.is_known
        held += found.low <= law.mean <= found.high
    assert held / 2000 >= PROMISED[0]
    if law is not MOSTLY_ALIKE:
        assert held / 2000 <= PROMISED[1] or prompts < FEWEST
        assert known == 2000 * (prompts >= FEWEST)


def test_the_other_kinds_of_intervals_break_their_promise_where_there_are_few_prompts() -> None:
    """Why the one that is used is used."""
    few, skewed, alike = (
        cover(*of, resamples=1000) for of in ((NORMAL, 5), (EXPONENTIAL, 20), (MOSTLY_ALIKE, 30))
    )
    assert few.held["percentile bootstrap"] < PROMISED[0]
    assert skewed.held["Student's t"] < PROMISED[0]
    assert skewed.held["percentile bootstrap"] < PROMISED[0]
    assert alike.held["bootstrap-t"] < PROMISED[0]
    assert alike.held["BCa, expanded by t"] < PROMISED[0]


def test_what_is_simulated_is_what_is_given() -> None:
    x = np.random.default_rng(3).exponential(size=(4, 40))
    low, high = intervals(x, 500, 7)[KINDS[-1]]
    for trial, own in enumerate(x):
        found = mean_interval(own, range(40), resamples=500, seed=7)
        assert (found.low, found.high) == pytest.approx((low[trial], high[trial]))


def test_differences_that_cancel_but_for_rounding_are_one_value() -> None:
    """Three replies to each of 20 prompts whose differences cancel: nothing is known of their mean."""
    replies = np.random.default_rng(5).normal(size=(20, 3))
    replies -= replies.mean(axis=1, keepdims=True)
    assert len(np.unique(replies.sum(axis=1))) > 1
    found = mean_interval(replies.ravel(), [prompt for prompt in range(20) for _ in range(3)])
    assert not found.is_known
    assert "0 of 20 prompts have another value" in found.why


def written_out(values: list[list[float]], resamples: int, seed: int) -> tuple[float, float]:
    """The interval, resample by resample, with plain numbers."""

    def mean_and_error(clusters: list[list[float]]) -> tuple[float, float]:
        total = sum(len(own) for own in clusters)
        mean = sum(sum(own) for own in clusters) / total
        squares = sum((sum(own) - mean * len(own)) ** 2 for own in clusters)
        n = len(clusters)
        return mean, math.sqrt(n / (n - 1) * squares) / total

    mean, error = mean_and_error(values)
    n = len(values)
    ratios = []
    for places in np.random.default_rng(seed).integers(n, size=(resamples, n)):
        own_mean, own_error = mean_and_error([values[place] for place in places])
        ratios.append((own_mean - mean) / own_error)
    ratios.sort()
    student = float(stats.t.ppf(0.975, n - 1))
    low, high = (ratios[math.ceil(share * resamples) - 1] for share in (0.025, 0.975))
    return mean - max(student, high) * error, mean + max(student, -low) * error


@pytest.mark.parametrize("sizes", [[1] * 25, [3] * 25, [1, 2, 3, 4, 5] * 5])
def test_the_interval_is_that_of_its_formula_written_out(sizes: list[int]) -> None:
    rng = np.random.default_rng(1)
    values = [list(2 + rng.exponential() + 0.5 * rng.normal(size=size)) for size in sizes]
    flat = [value for cluster in values for value in cluster]
    clusters = [name for name, cluster in enumerate(values) for _ in cluster]
    found = mean_interval(flat, clusters, resamples=300, seed=4)
    assert found.mean == pytest.approx(np.mean(flat))
    assert (found.low, found.high) == pytest.approx(written_out(values, 300, 4))


def simulated(rng: np.random.Generator, prompts: int, seeds: int) -> tuple[np.ndarray, list[int]]:
    """Rewards of mean 1: what the prompt is worth, and as much noise of the seed."""
    rewards = 1 + rng.normal(size=(prompts, 1)) + rng.normal(size=(prompts, seeds))
    return rewards.ravel(), [prompt for prompt in range(prompts) for _ in range(seeds)]


def test_nineteen_of_twenty_intervals_hold_the_mean_and_fewer_if_replies_count_as_independent() -> None:
    rng, trials = np.random.default_rng(0), 400
    held = {"prompts": 0, "replies": 0}
    for trial in range(trials):
        rewards, prompts = simulated(rng, 60, 5)
        for name, clusters in (("prompts", prompts), ("replies", list(range(len(rewards))))):
            found = mean_interval(rewards, clusters, resamples=300, seed=trial)
            held[name] += found.low <= 1 <= found.high
    # Binomial of 400 at 0.95: sd 0.011. Independent replies would claim a sd of 0.5 times the true one.
    assert 0.92 <= held["prompts"] / trials <= 0.98
    assert held["replies"] / trials < 0.85


def test_pairs_of_a_prompt_take_out_how_hard_it_is() -> None:
    rng = np.random.default_rng(1)
    hard = 5 * rng.normal(size=200)
    base, better = hard + rng.normal(size=200), hard + 0.5 + rng.normal(size=200)
    paired = paired_difference(better, base, range(200))
    assert 0 < paired.low < 0.5 < paired.high
    assert paired.mean == pytest.approx(better.mean() - base.mean())
    alone = mean_interval(better, range(200))
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_the_same_seed_draws_the_same_prompts_whatever_the_values() -> None:
    rewards, prompts = simulated(np.random.default_rng(2), 30, 3)
    found = mean_interval(rewards, prompts, resamples=2000, seed=3)
    assert mean_interval(rewards, prompts, resamples=2000, seed=3) == found
    shifted = mean_interval(2 * rewards + 7, prompts, resamples=2000, seed=3)
    expected = [2 * x + 7 for x in (found.mean, found.low, found.high)]
    assert [shifted.mean, shifted.low, shifted.high] == pytest.approx(expected)
    skewed = np.random.default_rng(2).exponential(size=30)
    drawn = [mean_interval(skewed, range(30), resamples=2000, seed=seed).high for seed in (3, 4)]
    assert drawn[0] != drawn[1]


@settings(max_examples=60)
@given(st.integers(2, 60), st.integers(1, 3), st.integers(0, 60), st.randoms(use_true_random=False))
def test_too_few_prompts_or_too_few_that_differ_get_a_mean_and_the_reason(
    prompts: int, seeds: int, others: int, random: Random
) -> None:
    """Differences of equal decimals are equal, whatever rounding makes of them."""
    others = min(others, prompts)
    same = [0.3, 0.1 + 0.2]
    values = [random.choice(same) for _ in range(prompts - others)] + [1.0 + i for i in range(others)]
    flat = [value for value in values for _ in range(seeds)]
    clusters = [prompt for prompt in range(prompts) for _ in range(seeds)]
    found = mean_interval(flat, clusters, resamples=50)
    assert found.mean == pytest.approx(np.mean(flat))
    others = min(others, prompts - 1)
    if prompts < FEWEST:
        assert found.why == f"{prompts} prompts, of {FEWEST} needed"
    elif others < FEWEST_OTHERS:
        assert found.why.startswith(f"{others} of {prompts} prompts have another value than the commonest")
    assert found.is_known == (prompts >= FEWEST and others >= FEWEST_OTHERS) == (not found.why)
    assert found.low <= found.mean <= found.high


@pytest.mark.parametrize("constant", [0.0, 1e-300, -3.5, 1e300])
def test_equal_values_say_nothing_of_others(constant: float) -> None:
    found = mean_interval([constant] * 50, range(50))
    assert found.mean == pytest.approx(constant)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert why_no_interval(np.full(50, constant), abs(constant))


def test_an_interval_in_words() -> None:
    found = Interval(1.305, -0.004, 1.4)
    assert found.text() == "1.30 [-0.00, 1.40]"
    assert found.text(signed=True, digits=3) == "+1.305 [-0.004, +1.400]"
    assert Interval(1.305, -math.inf, math.inf, "3 prompts").text(signed=True) == "+1.30 [?]"
    assert Interval(math.nan, -math.inf, math.inf, "none").text() == "?"


@pytest.mark.parametrize(
    "found", [Interval(1.0, 0.5, 2.0), Interval(1.0, -math.inf, math.inf, "3 prompts, of 20 needed")]
)
def test_an_interval_is_the_same_after_strict_json(found: Interval) -> None:
    text = json.dumps(found.to_json(), allow_nan=False)
    assert Interval.from_json(json.loads(text)) == found


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ([], [], "two prompts or more, got 0"),
        ([1.0, 2.0, 6.0], ["a", "a", "a"], "two prompts or more, got 1: one says nothing of others"),
        ([1.0, 2.0], ["a"], "as many values as clusters"),
        ([1.0, float("nan")], ["a", "b"], "finite, got nan at 1"),
    ],
)
def test_what_has_no_mean_is_refused(values: list[float], clusters: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_interval(values, clusters)


def test_values_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="expected pairs"):
        paired_difference([1.0, 2.0], [1.0], ["a", "b"])
