import numpy as np
import pytest

from sia_jax.training.regression import fit


def test_a_perfect_prediction():
    found = fit([1.0, 2.0, 4.0], [1.0, 2.0, 4.0], ["a", "a", "b"])
    assert (found.count, found.mse, found.mae, found.rmse, found.r2, found.rank_agreement) == (
        3,
        0,
        0,
        0,
        1,
        1,
    )


def test_the_mean_of_the_targets_explains_nothing_of_them():
    assert fit([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], ["a"] * 3).r2 == 0


def test_numbers_by_hand():
    found = fit([0.0, 3.0, 1.0, 1.0], [1.0, 2.0, 2.0, 5.0], ["a", "a", "b", "b"])
    assert found.mse == pytest.approx((1 + 1 + 1 + 16) / 4)
    assert found.mae == pytest.approx((1 + 1 + 1 + 4) / 4)
    assert found.r2 == pytest.approx(1 - 19 / 9)
    assert found.rank_agreement == (1 + 0.5) / 2  # a tie counts half
    assert found.pairs == 2


def test_pairs_are_counted_within_a_group_and_where_rewards_differ():
    rng = np.random.default_rng(0)
    p, r = rng.normal(size=30).round(1), rng.normal(size=30).round(0)
    groups = [str(i % 4) for i in range(30)]
    agreed, pairs = 0.0, 0
    for i in range(30):
        for j in range(i):
            if groups[i] == groups[j] and r[i] != r[j]:
                pairs += 1
                agreed += 0.5 if p[i] == p[j] else (p[i] > p[j]) == (r[i] > r[j])
    assert fit(p.tolist(), r.tolist(), groups).rank_agreement == pytest.approx(agreed / pairs)


def test_what_cannot_be_said_is_nan():
    found = fit([1.0, 2.0], [3.0, 3.0], ["a", "a"])
    assert np.isnan(found.r2)
    assert np.isnan(found.rank_agreement)


@pytest.mark.parametrize("wrong", [([], [], []), ([1.0], [1.0, 2.0], ["a"]), ([1.0], [1.0], ["a", "b"])])
def test_other_lengths_are_refused(wrong):
    with pytest.raises(ValueError, match="as many predictions"):
        fit(*wrong)
