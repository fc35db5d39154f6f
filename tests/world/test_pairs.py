import itertools
import math

import numpy as np
import pytest

from sia_jax.world.gold import gold_reward
from sia_jax.world.pairs import preference_pairs, preference_probability

NOISE = 0.7


@pytest.fixture(scope="module")
def pairs():
    return list(preference_pairs(11, 2000, NOISE))


def test_pairs_are_a_function_of_their_seed(pairs):
    assert list(preference_pairs(11, 40, NOISE)) == pairs[:40]
    assert list(preference_pairs(12, 40, NOISE)) != pairs[:40]


def test_a_pair_is_two_replies_to_one_training_prompt(pairs):
    assert all(pair.chosen != pair.rejected and pair.prompt.split == "train" for pair in pairs)


def test_no_reply_depends_on_the_noise(pairs):
    other = preference_pairs(11, 200, 0.05)
    assert [{p.chosen, p.rejected} for p in other] == [{p.chosen, p.rejected} for p in pairs[:200]]


def test_pairs_are_ordered_as_gold_as_often_as_the_sigmoid_says(pairs):
    gaps = np.array([gold_reward(p.prompt, p.chosen) - gold_reward(p.prompt, p.rejected) for p in pairs])
    law = 1 / (1 + np.exp(-np.abs(gaps) / NOISE))
    edges = [1e-6, 0.5, 1, 1.5, 2, 2.5, 3.5, 6]
    for low, high in itertools.pairwise(edges):
        own = (np.abs(gaps) > low) & (np.abs(gaps) <= high)
        assert own.sum() > 50
        z = np.sum((gaps[own] > 0) - law[own]) / np.sqrt(np.sum(law[own] * (1 - law[own])))
        assert abs(z) < 3.5, (low, high, z)
    assert 0.8 < np.mean(gaps[gaps != 0] > 0) < 0.95


def test_without_noise_the_better_reply_is_chosen():
    for pair in preference_pairs(3, 200, 0):
        assert gold_reward(pair.prompt, pair.chosen) >= gold_reward(pair.prompt, pair.rejected)


@pytest.mark.parametrize("difference", [-1e4, -2.0, -0.3, 0.0, 0.3, 2.0, 1e4])
def test_the_probability_is_a_sigmoid_and_overflows_nowhere(difference):
    expected = 1 / (1 + math.exp(min(-difference / NOISE, 700)))
    assert preference_probability(difference, NOISE) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("difference", "probability"), [(-0.1, 0), (0, 0.5), (0.1, 1)])
def test_without_noise_the_probability_is_a_step(difference, probability):
    assert preference_probability(difference, 0) == probability


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_a_noise_that_is_none_is_refused(noise):
    with pytest.raises(ValueError, match="noise must be 0 or more"):
        preference_pairs(0, 1, noise)
