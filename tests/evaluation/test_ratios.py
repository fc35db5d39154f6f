"""Intervals of ratios of sums: against the jackknife, against those of means, and in simulated worlds."""

from typing import Any

import numpy as np
import pytest

from sia_jax.evaluation.coverage import intervals
from sia_jax.evaluation.ratios import linearised, ratio_difference, ratio_interval
from sia_jax.evaluation.statistics import mean_interval, paired_difference

TOKENS = 60
TRUE = 2 + 0.01 * ((TOKENS + 1) * (2 * TOKENS + 1) / 6) / ((TOKENS + 1) / 2)
"""E t / E k of `replies`: 2 + 0.01 E k^2 / E k, of k uniform on 1 .. TOKENS."""


def replies(rng: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """(nats, tokens): long replies have more nats a token, and prompts differ."""
    tokens = rng.integers(1, TOKENS + 1, shape)
    rate = 2 + 0.01 * tokens + rng.normal(0, 0.5, shape)
    return tokens * rate + np.sqrt(tokens) * rng.normal(size=shape), tokens.astype(np.float64)


def test_the_spread_of_a_ratio_is_the_jackknifes() -> None:
    nats, tokens = replies(np.random.default_rng(0), 400)
    found = linearised(nats, tokens)
    assert found.mean() == pytest.approx(nats.sum() / tokens.sum())
    without = (nats.sum() - nats) / (tokens.sum() - tokens)
    jackknife = np.sqrt(399 / 400 * np.sum((without - without.mean()) ** 2))
    assert found.std(ddof=1) / 20 == pytest.approx(jackknife, rel=0.02)


def test_of_replies_of_one_length_a_ratio_is_a_mean() -> None:
    rng = np.random.default_rng(1)
    prompts = np.repeat(np.arange(40), 2).tolist()
    nats, others = rng.exponential(size=(2, 80))
    eight = np.full(80, 8.0)
    expected = mean_interval(nats / 8, prompts, resamples=500)
    found = ratio_interval(nats, eight, prompts, resamples=500)
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))
    both = paired_difference(nats / 8, others / 8, prompts, resamples=500)
    pair = ratio_difference(nats, eight, others, eight, prompts, resamples=500)
    assert (pair.mean, pair.low, pair.high, pair.p) == pytest.approx((both.mean, both.low, both.high, both.p))


def test_an_empty_reply_changes_no_ratio_and_a_pair_of_equals_has_no_difference() -> None:
    nats, tokens = replies(np.random.default_rng(2), 50)
    nats[7] = tokens[7] = 0
    assert linearised(nats, tokens).mean() == pytest.approx(nats.sum() / tokens.sum())
    found = ratio_difference(nats, tokens, nats, tokens, range(50))
    assert (found.mean, found.is_known) == (0, False)


@pytest.mark.parametrize("prompts", [30, 100, 300])
def test_95_in_100_intervals_hold_the_ratio(prompts: int) -> None:
    """4,000 worlds, by the intervals of means whose cover `tests.evaluation.test_statistics` has."""
    nats, tokens = replies(np.random.default_rng(prompts), 4000, prompts)
    worlds = np.stack([linearised(*world) for world in zip(nats, tokens, strict=True)])
    low, high = intervals(worlds, 1000, 0, others=False)["used here"]
    assert 0.935 <= np.mean((low <= TRUE) & (high >= TRUE)) <= 0.965


@pytest.mark.long
@pytest.mark.parametrize("prompts", [20, 60])
def test_of_2000_intervals_of_paired_ratios_95_in_100_hold_the_difference(prompts: int) -> None:
    """By the functions in use, two replies to a prompt; those of the second method are half as likely."""
    rng, held = np.random.default_rng([prompts]), 0
    clusters = np.repeat(np.arange(prompts), 2).tolist()
    for world in range(2000):
        nats, tokens = (own.ravel() for own in replies(rng, prompts, 2))
        others = nats + np.log(2) * tokens + rng.normal(size=2 * prompts)
        found = ratio_difference(others, tokens, nats, tokens, clusters, resamples=1000, seed=world)
        held += found.low <= np.log(2) <= found.high
    assert 0.935 <= held / 2000 <= 0.965


@pytest.mark.parametrize(
    ("totals", "sizes", "message"),
    [
        ([1.0], [1.0, 2.0], "a total and a size for each"),
        ([[1.0]], [[1.0]], "a total and a size for each"),
        ([1.0, float("nan")], [1.0, 1.0], "finite totals, and sizes of 0 or more"),
        ([1.0, 1.0], [1.0, -1.0], "finite totals, and sizes of 0 or more"),
        ([1.0, 1.0], [0.0, 0.0], "of which one is above 0"),
    ],
)
def test_what_has_no_ratio_is_refused(totals: Any, sizes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linearised(totals, sizes)
