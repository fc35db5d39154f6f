"""Agreement of predictions with rewards: against other implementations, hand cases, and a simulated cover."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from sia_jax.evaluation.prediction_quality import prediction_quality
from sia_jax.training.regression import fit


def sample(prompts: int, replies: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rewards of a part of the prompt's and a part of the reply's, and predictions that know some of both."""
    random = np.random.default_rng(seed)
    own, common = random.normal(size=(prompts, replies)), random.normal(size=(prompts, 1))
    rewards = (own + common).round(1)
    predictions = 0.4 * own + 0.5 * common + 0.3 * random.normal(size=own.shape)
    names = np.repeat([f"p{i}" for i in range(prompts)], replies)
    return predictions.ravel(), rewards.ravel(), names.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_estimates_are_those_of_the_trainings_own_measure(seed):
    p, r, names = sample(12, 5, seed)
    own, theirs = prediction_quality(p, r, names), fit(p.tolist(), r.tolist(), names)
    assert own["r2"].estimate == pytest.approx(theirs.r2, abs=1e-12)
    assert own["mae"].estimate == pytest.approx(theirs.mae, abs=1e-12)
    assert own["rank_agreement"].estimate == pytest.approx(theirs.rank_agreement, abs=1e-12)


def test_one_prompts_agreement_is_kendalls_tau_on_another_scale():
    random = np.random.default_rng(3)
    p, r = random.normal(size=30), random.permutation(30).astype(float)
    found = prediction_quality(p, r, ["same"] * 30)["rank_agreement"].estimate
    assert found == pytest.approx((1 + kendalltau(p, r).statistic) / 2)


def test_the_best_constant_has_an_r2_of_nothing_and_a_coins_order():
    _, r, names = sample(110, 3, 0)
    found = prediction_quality(np.full(len(r), r.mean()), r, names)
    assert found["r2"].estimate == pytest.approx(0, abs=1e-12)
    assert found["rank_agreement"].estimate == 0.5
    assert found["r2"].high <= 0  # of a resample another constant would be the best


def test_intervals_need_a_hundred_prompts():
    assert np.isnan(prediction_quality(*sample(99, 2, 0))["r2"].low)
    assert np.isfinite(prediction_quality(*sample(100, 2, 0))["r2"].low)


def test_rewards_that_are_all_alike_have_neither_r2_nor_order():
    found = prediction_quality([0.1, 0.2], [0.3, 0.3], ["a", "a"])
    assert np.isnan(found["r2"].estimate)
    assert np.isnan(found["rank_agreement"].estimate)
    assert found["mae"].estimate == pytest.approx(0.15)


@pytest.mark.long
def test_intervals_hold_the_truth_about_as_often_as_they_say():
    p, r, names = sample(60_000, 4, 9)
    truth = {name: figure.estimate for name, figure in prediction_quality(p, r, names, resamples=1).items()}
    held = dict.fromkeys(truth, 0)
    worlds = 1000
    for world in range(worlds):
        found = prediction_quality(*sample(200, 4, 1000 + world), resamples=400)
        for name, figure in found.items():
            held[name] += figure.low <= truth[name] <= figure.high
    for name, count in held.items():
        assert 0.925 <= count / worlds <= 0.965, (name, count)


@pytest.mark.parametrize(
    ("p", "r", "names"), [([], [], []), ([1.0], [1.0, 2.0], ["a"]), ([np.nan], [1.0], ["a"])]
)
def test_what_cannot_be_compared_is_refused(p, r, names):
    with pytest.raises(ValueError, match=r"expected as many|finite"):
        prediction_quality(p, r, names)
