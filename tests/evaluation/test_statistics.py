"""Bootstrap intervals against enumeration, and against what they promise on simulated data."""

import itertools

import numpy as np
import pytest

from sia_jax.evaluation.statistics import Interval, bootstrap_mean, paired_difference


def enumerate_bootstrap(values: list[list[float]]) -> tuple[float, float]:
    """The 2.5% and 97.5% points of the means of all equally likely resamples, one by one."""
    means = []
    for drawn in itertools.product(values, repeat=len(values)):
        together = [value for cluster in drawn for value in cluster]
        means.append(sum(together) / len(together))
    means.sort()
    # The first mean at which the share of resamples up to it reaches the tail.
    ends = [means[int(np.ceil(tail * len(means))) - 1] for tail in (0.025, 0.975)]
    return ends[0], ends[1]


@pytest.mark.parametrize(
    "values",
    [
        [[0.0], [1.0], [3.0], [7.0], [20.0]],
        [[0.0, 1.0], [2.0, 5.0], [-4.0, 3.0], [8.0, 8.5], [1.0, 1.5]],
        [[0.0, 1.0, 2.0], [9.0], [-4.0, 3.0], [8.0], [1.0, 2.0, 2.0, 6.0]],
    ],
)
def test_the_interval_is_that_of_all_resamples_written_out(values: list[list[float]]) -> None:
    flat = [value for cluster in values for value in cluster]
    clusters = [name for name, cluster in enumerate(values) for _ in cluster]
    found = bootstrap_mean(flat, clusters, resamples=200_000)
    low, high = enumerate_bootstrap(values)
    assert found.mean == pytest.approx(np.mean(flat))
    # Of so many resamples the quantile lies at the enumerated one or at a neighbouring mean.
    assert found.low == pytest.approx(low, abs=0.02 * (high - low))
    assert found.high == pytest.approx(high, abs=0.02 * (high - low))


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
            found = bootstrap_mean(rewards, clusters, resamples=300, seed=trial)
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
    alone = bootstrap_mean(better, range(200))
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_the_same_seed_draws_the_same_prompts_whatever_the_values() -> None:
    rewards, prompts = simulated(np.random.default_rng(2), 30, 3)
    found = bootstrap_mean(rewards, prompts, seed=3)
    assert bootstrap_mean(rewards, prompts, seed=3) == found
    assert bootstrap_mean(rewards, prompts, seed=4) != found
    shifted = bootstrap_mean(2 * rewards + 7, prompts, seed=3)
    expected = [2 * x + 7 for x in (found.mean, found.low, found.high)]
    assert [shifted.mean, shifted.low, shifted.high] == pytest.approx(expected)


def test_an_interval_in_words() -> None:
    found = Interval(1.305, -0.004, 1.4)
    assert found.text() == "1.30 [-0.00, 1.40]"
    assert found.text(signed=True, digits=3) == "+1.305 [-0.004, +1.400]"


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
        bootstrap_mean(values, clusters)


def test_values_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="expected pairs"):
        paired_difference([1.0, 2.0], [1.0], ["a", "b"])
