"""The power of the paired test: by scipy's noncentral t, by simulation, and of spreads that are known."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from sia_jax.evaluation.power import (
    MOST,
    Spread,
    critical_value,
    power,
    prompts_needed,
    spread_from,
    spread_of,
)
from sia_jax.evaluation.replies import read_pairs
from sia_jax.evaluation.statistics import FEWEST, paired_difference

SPREAD = Spread(1.0, 2.0)


def differences(
    rng: np.random.Generator, mean: float, spread: Spread, prompts: int, seeds: int
) -> tuple[np.ndarray, list[int]]:
    own = rng.normal(0, math.sqrt(spread.between), (prompts, 1))
    x = mean + own + rng.normal(0, math.sqrt(spread.within), (prompts, seeds))
    return x.ravel(), [prompt for prompt in range(prompts) for _ in range(seeds)]


def test_power_by_hand() -> None:
    """Variance (1 + 2 / 4) / 60, so a standard error of 0.1581; z of 1.96 and its density of 0.05845."""
    error = math.sqrt((1 + 2 / 4) / 60)
    noise = math.hypot(8.683 / (2.4495 * 60), math.sqrt(0.025 * 0.975 / 10_000) / 0.05845)
    q = stats.t.ppf(0.975, 59) + noise / 2.5066
    expected = stats.nct.sf(q, 59, 0.4 / error) + stats.nct.cdf(-q, 59, 0.4 / error)
    assert power(0.4, SPREAD, 60, 4) == pytest.approx(expected, rel=1e-5)
    assert power(-0.4, SPREAD, 60, 4) == pytest.approx(expected, rel=1e-5)
    assert 0.045 < power(0.0, SPREAD, 60, 4) < 0.05
    corrected = stats.nct.sf(critical_value(60, comparisons=8), 59, 0.4 / error)
    assert power(0.4, SPREAD, 60, 4, comparisons=8) == pytest.approx(corrected, rel=1e-5)


def test_the_critical_value_is_students_where_there_is_no_noise_and_above_it_elsewhere() -> None:
    assert critical_value(10**6, resamples=10**12) == pytest.approx(stats.norm.ppf(0.975), abs=1e-4)
    for comparisons in (1, 20):
        q = stats.t.ppf(1 - 0.025 / comparisons, 29)
        values = [critical_value(30, comparisons=comparisons, resamples=b) for b in (1000, 10_000, 10**9)]
        assert values == sorted(values, reverse=True)
        assert values[-1] > q


def test_comparisons_of_which_the_resamples_can_find_none_are_refused() -> None:
    """As the test itself: its p-values are 2 / (resamples + 1) or more."""
    x = np.random.default_rng(0).normal(50, 1, 40)
    p = paired_difference(x, np.zeros(40), range(40), resamples=999).p
    assert p == 2 / 1000
    critical_value(40, comparisons=24, resamples=999)
    with pytest.raises(
        ValueError, match="comparisons must be 25 at most, got 26: a p-value of 999 resamples"
    ):
        critical_value(40, comparisons=26, resamples=999)


@pytest.mark.parametrize("prompts", [3, 20, 200, 10_000])
@pytest.mark.parametrize("shift", [0.5, 2.0, 3.9, 4.1, 8.0, 15.0, 100.0])
def test_power_is_the_integral_over_the_spread_that_is_found(prompts: int, shift: float) -> None:
    """P(|Z + shift| > c S), with S the found standard deviation over the true one: another way to the law."""
    degrees, q = prompts - 1, critical_value(prompts)

    def at(s: float) -> float:
        beyond = stats.norm.sf(q * s - shift) + stats.norm.cdf(-q * s - shift)
        return float(beyond * stats.chi2.pdf(s * s * degrees, degrees) * 2 * s * degrees)

    width = 12 / math.sqrt(2 * degrees)
    expected, _ = integrate.quad(at, max(0, 1 - width), 1 + width, limit=200, epsabs=1e-10)
    spread = Spread(1.0, 0.0)
    assert power(shift * spread.error(prompts, 1), spread, prompts, 1) == pytest.approx(expected, abs=2e-6)


@given(st.floats(0.05, 3), st.integers(1, 8), st.floats(0.3, 0.99), st.integers(1, 20))
def test_one_prompt_fewer_is_not_enough(
    difference: float, seeds: int, wanted: float, comparisons: int
) -> None:
    count = prompts_needed(difference, SPREAD, seeds, wanted, comparisons=comparisons)
    assert count is not None
    assert power(difference, SPREAD, count, seeds, comparisons=comparisons) >= wanted
    if count > FEWEST:
        assert power(difference, SPREAD, count - 1, seeds, comparisons=comparisons) < wanted


def test_many_prompts_are_those_of_the_normal_law_and_too_many_are_none() -> None:
    """(c + 0.8416)^2 variance / difference^2, with c 1.96 and a little."""
    c = critical_value(10**5)
    assert 1.96 < c < 1.98
    assert prompts_needed(0.02, SPREAD, 1, 0.8) == pytest.approx((c + 0.84162) ** 2 * 3 / 0.02**2, abs=5)
    assert prompts_needed(0.001, SPREAD, 1, 0.8) is None
    assert power(0.001, SPREAD, MOST, 1) < 0.8
    assert prompts_needed(100.0, SPREAD, 1, 0.9) == FEWEST


def test_more_seeds_take_away_what_seeds_make_and_no_more() -> None:
    counts = [prompts_needed(0.2, SPREAD, seeds, 0.8) for seeds in (1, 2, 4, 10_000)]
    only_prompts = prompts_needed(0.2, Spread(1.0, 0.0), 1, 0.8)
    assert counts == sorted(counts, key=lambda count: -(count or 0))
    assert counts[-1] == only_prompts
    assert counts[0] == prompts_needed(0.2, Spread(3.0, 0.0), 1, 0.8)


@pytest.mark.parametrize("sizes", [[3] * 40, [1, 2, 3, 4] * 10])
def test_a_spread_is_that_of_the_analysis_of_variance(sizes: list[int]) -> None:
    rng = np.random.default_rng(0)
    groups = [rng.normal() + 2 * rng.normal(size=size) for size in sizes]
    x = np.concatenate(groups)
    found = spread_of(x, [f"p{place}" for place, own in enumerate(groups) for _ in own])
    # F = between groups / within them; k0 is the size that stands for all.
    total, count = len(x), len(groups)
    f = stats.f_oneway(*groups).statistic if min(sizes) > 1 else None
    within = sum(float(np.sum((own - own.mean()) ** 2)) for own in groups) / (total - count)
    outer = sum(len(own) * (own.mean() - x.mean()) ** 2 for own in groups) / (count - 1)
    assert f is None or f == pytest.approx(outer / within)
    size = (total - sum(k * k for k in sizes) / total) / (count - 1)
    assert found.within == pytest.approx(within)
    assert found.between == pytest.approx(max((outer - within) / size, 0))


def test_a_known_spread_is_found_again_without_bias() -> None:
    rng = np.random.default_rng(1)
    found = [spread_of(*differences(rng, 0.3, SPREAD, 100, 3)) for _ in range(300)]
    for name, expected in (("between", 1.0), ("within", 2.0)):
        values = [getattr(one, name) for one in found]
        assert abs(np.mean(values) - expected) < 4 * np.std(values) / math.sqrt(300)


def test_one_reply_to_each_prompt_counts_as_its_own() -> None:
    x = np.random.default_rng(2).normal(size=50)
    found = spread_of(x, range(50))
    assert found.within == 0
    assert found.between == pytest.approx(x.var(ddof=1))
    replies = spread_of(np.repeat(x, 2), np.repeat(np.arange(50), 2).tolist())
    assert (replies.between, replies.within) == pytest.approx((x.var(ddof=1), 0))


def test_correlated_rewards_differ_by_what_they_do_not_share() -> None:
    rng = np.random.default_rng(3)
    both = rng.multivariate_normal([0, 0], [[2.25, 0.9 * 2.25], [0.9 * 2.25, 2.25]], 200_000)
    found = spread_from(1.5, 0.9, 0.25)
    assert found.between + found.within == pytest.approx((both[:, 0] - both[:, 1]).var(), rel=0.01)
    assert found.within == pytest.approx(found.between / 3)


@pytest.mark.long
@pytest.mark.parametrize(
    ("prompts", "seeds", "mean", "comparisons"),
    [(30, 2, 0.8, 1), (60, 1, 0.6, 1), (60, 4, 0.4, 1), (60, 1, 0.7, 4), (200, 3, 0.25, 1)],
)
def test_so_often_is_a_difference_found_in_2000_worlds(
    prompts: int, seeds: int, mean: float, comparisons: int
) -> None:
    """By the test in use itself, each world with its own resamples."""
    rng, worlds, resamples, found = np.random.default_rng([prompts, seeds]), 2000, 1000, 0
    for world in range(worlds):
        x, clusters = differences(rng, mean, SPREAD, prompts, seeds)
        p = paired_difference(x, np.zeros(len(x)), clusters, resamples=resamples, seed=world).p
        assert p is not None
        found += p <= 0.05 / comparisons
    expected = power(mean, SPREAD, prompts, seeds, comparisons=comparisons, resamples=resamples)
    assert 0.5 < expected < 0.97
    assert abs(found / worlds - expected) < 3 * math.sqrt(expected * (1 - expected) / worlds)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power(0.1, Spread(0.0, 0.0), 30, 1), "do not vary"),
        (lambda: power(0.1, SPREAD, 1, 1), "expected 2 prompts, 1 comparison and 1 resample or more"),
        (lambda: power(0.1, SPREAD, 30, 0), "seeds must be 1 or more, got 0"),
        (lambda: prompts_needed(0.0, SPREAD, 1, 0.8), "difference must be a number other than 0"),
        (lambda: prompts_needed(float("nan"), SPREAD, 1, 0.8), "difference must be a number other than 0"),
        (lambda: prompts_needed(0.1, SPREAD, 1, 1.0), "power must be between 0 and 1"),
        (lambda: spread_from(0.0, 0.5), "deviation must be a number above 0"),
        (lambda: spread_from(1.0, 1.0), "correlation must be from -1 to below 1"),
        (lambda: spread_from(1.0, 0.5, 1.5), "within must be from 0 to 1"),
        (lambda: spread_of([1.0], [1]), "two prompts or more, got 1"),
        (lambda: spread_of([], []), "two prompts or more, got 0"),
        (lambda: spread_of([1.0, float("inf")], [1, 2]), "a finite difference for each of 2 prompts"),
    ],
)
def test_what_has_no_power_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def line(method: str, index: int, seed: int, proxy: float | None, **more: Any) -> str:
    return json.dumps({"method": method, "index": index, "seed": seed, "proxy": proxy} | more) + "\n"


def test_pairs_are_of_one_prompt_and_seed_whatever_the_order(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    lines = [line("base", 0, 1, 1.0), line("dense", 1, 2, 4.0), line("dense", 0, 1, 3.0)]
    lines += [line("base", 1, 1, None), line("base", 1, 2, 4.5), line("dense", 1, 1, 5.0)]
    path.write_text("".join(lines))
    (tmp_path / "results.json").write_text("{}")
    for named in (path, tmp_path, tmp_path / "results.json"):
        found = read_pairs(named, "dense:base", "proxy")
        assert found.differences.tolist() == [2.0, -0.5]
        assert found.prompts == [0, 1]
        assert found.left_out == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line("base", 0, 1, 1.0) * 2, "'base' has two replies to prompt 0 under seed 1"),
        (line("base", 0, 1, 1.0) + line("dense", 0, 2, 1.0), "no replies of both methods of dense:base"),
        (line("base", 0, 1, 1.0), r"only of \['base'\]"),
        ('{"method": "base", "index": 0, "seed": 1}', "line 1: this is no reply .* a proxy reward"),
        (line("base", 0, -1, 1.0), "line 1: this is no reply .*seed must be a whole number"),
        ("", "no replies of both methods"),
    ],
)
def test_a_file_of_no_such_pairs_is_refused_by_its_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path}.*{message}"):
        read_pairs(path, "dense:base", "proxy")
