"""p-values: that they belong to their intervals, and that many of them are corrected for their number."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sia_jax.evaluation.multiplicity import holm
from sia_jax.evaluation.statistics import mean_interval, paired_difference, win_rate

P = st.lists(st.floats(0, 1), max_size=6)


def test_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.4]).tolist() == pytest.approx([0.8, 0.8])
    assert holm([0.02]).tolist() == [0.02]
    assert holm([]).tolist() == []


@given(P)
def test_holm_is_the_closed_test_of_bonferroni(p: list[float]) -> None:
    """The largest Bonferroni p-value of any set of hypotheses that one belongs to, by brute force."""
    sets = [chosen for size in range(1, len(p) + 1) for chosen in itertools.combinations(range(len(p)), size)]
    bonferroni = {chosen: min(1.0, len(chosen) * min(p[i] for i in chosen)) for chosen in sets}
    expected = [max(bonferroni[chosen] for chosen in sets if i in chosen) for i in range(len(p))]
    assert holm(p).tolist() == pytest.approx(expected)


@given(P)
def test_adjusted_values_keep_the_order_and_lie_between_the_plain_ones_and_bonferronis(
    p: list[float],
) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(1, len(p) * np.array(p)) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    assert (adjusted <= 1).all()


@pytest.mark.parametrize("p", [[0.5, 1.5], [-0.1], [float("nan")], 0.5, [[0.5]]])
def test_what_is_no_p_value_is_refused(p: object) -> None:
    with pytest.raises(ValueError, match="expected a list of p-values from 0 to 1"):
        holm(p)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("skewed", [False, True])
def test_an_end_of_the_interval_is_where_p_is_5_percent(seed: int, skewed: bool) -> None:
    rng, resamples = np.random.default_rng(seed), 2000
    prompts = np.repeat(np.arange(30), 2)
    values = (rng.exponential(size=60) if skewed else rng.normal(size=60)) + rng.normal(size=30)[prompts]
    found = mean_interval(values, prompts.tolist(), resamples=resamples)
    for end in (found.low, found.high):
        p = paired_difference(values, np.full(60, end), prompts.tolist(), resamples=resamples).p
        assert p == pytest.approx(0.05, abs=2.5 * 2 / resamples)


def test_p_is_at_most_5_percent_exactly_where_the_interval_leaves_0_out() -> None:
    rng, outside = np.random.default_rng(3), []
    for trial in range(200):
        values = rng.exponential(size=25) - 1 + rng.normal(0, 0.3)
        found = paired_difference(values, np.zeros(25), range(25), resamples=999, seed=trial)
        assert found.p is not None
        outside.append(found.low > 0 or found.high < 0)
        assert (found.p <= 0.05) == outside[-1]
    assert 20 < sum(outside) < 180


def test_p_is_never_below_students_and_never_below_what_the_resamples_can_tell() -> None:
    rng = np.random.default_rng(4)
    for shift in (0.0, 0.3, 3.0):
        values = rng.normal(shift, 1, 40)
        p = paired_difference(values, np.zeros(40), range(40), resamples=400).p
        assert p is not None
        assert p >= stats.ttest_1samp(values, 0).pvalue * (1 - 1e-9)
        assert p >= 2 / 401
        assert p == paired_difference(np.zeros(40), values, range(40), resamples=400).p


def test_there_is_no_p_value_where_there_is_no_interval_nor_of_what_is_no_difference() -> None:
    assert paired_difference(np.arange(19.0), np.zeros(19), range(19)).p is None
    assert mean_interval(np.arange(30.0), range(30)).p is None


def test_of_methods_that_do_not_differ_5_in_100_families_have_a_wrong_call_at_most() -> None:
    """Six methods against one base on the same prompts: p-values that hang together."""
    rng, trials, methods, prompts = np.random.default_rng(0), 400, 6, 40
    plain = corrected = 0
    for trial in range(trials):
        base = rng.normal(size=prompts)
        p = [
            paired_difference(rng.normal(size=prompts), base, range(prompts), resamples=400, seed=trial).p
            for _ in range(methods)
        ]
        plain += min(p) <= 0.05
        corrected += holm(p).min() <= 0.05
    deviation = np.sqrt(0.05 * 0.95 / trials)
    assert corrected / trials <= 0.05 + 3 * deviation
    assert plain / trials > 0.05 + 3 * deviation


@pytest.mark.parametrize("rate", [0.5, 0.8])
def test_wins_are_counted_with_ties_as_halves_and_prompts_as_one(rate: float) -> None:
    rng = np.random.default_rng(1)
    prompts = np.repeat(np.arange(50), 3).tolist()
    outcome = rng.choice([1.0, -1.0, 0.0], p=[rate - 0.1, 0.9 - rate, 0.2], size=150)
    others = rng.normal(size=150)
    found = win_rate(others + outcome, others, prompts)
    halves = [1.0 if x > 0 else 0.5 if x == 0 else 0.0 for x in outcome]
    assert found.mean == pytest.approx(sum(halves) / 150)
    expected = mean_interval(halves, prompts)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    back = win_rate(others, others + outcome, prompts)
    assert back.mean == pytest.approx(1 - found.mean)
    assert found.p is not None
    assert (found.p <= 0.05) == (not found.low <= 0.5 <= found.high)


def test_rewards_that_differ_by_rounding_are_a_tie() -> None:
    others = np.random.default_rng(2).normal(10, 1, 40)
    assert win_rate(others * (1 + 1e-9), others, range(40)).mean == 0.5
    assert win_rate(others * (1 + 1e-9), others, range(40), tie=0).mean == 1.0
    assert win_rate(others * (1 + 1e-3), others, range(40)).mean == 1.0


def test_an_interval_of_wins_ends_at_1() -> None:
    values = np.ones(40)
    values[:10] = -1
    values[10:20] = 0
    found = win_rate(values, np.full(40, -2.0) + 2 * (values < 0), range(40))
    assert found.high <= 1
    nearly = np.where(np.arange(40) < 10, 0.0, 1.0)
    assert win_rate(nearly, np.zeros(40), range(40)).high <= 1
    with pytest.raises(ValueError, match="expected pairs"):
        win_rate([1.0], [1.0, 2.0], ["a"])
