import numpy as np
import pytest

from sia_jax.evaluation.resampling import bootstrap
from sia_jax.evaluation.statistics import mean_interval


def mean_of(values):
    return lambda counts: {"mean": float(counts @ values / counts.sum())}


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(0).normal(2.0, 3.0, size=400)
    found = bootstrap(mean_of(values), 400, resamples=4000)["mean"]
    assert found.estimate == pytest.approx(values.mean())
    error = 1.96 * values.std() / np.sqrt(400)
    assert found.low == pytest.approx(values.mean() - error, abs=0.05 * error)
    assert found.high == pytest.approx(values.mean() + error, abs=0.05 * error)


def test_of_a_mean_it_finds_what_the_bootstrap_of_means_finds():
    rng = np.random.default_rng(2)
    clusters = np.sort(rng.integers(150, size=900))
    values = rng.normal(size=900) + clusters / 75

    def mean(counts):
        weights = counts[clusters]
        return {"mean": float(weights @ values / weights.sum())}

    clusters = np.unique(clusters, return_inverse=True)[1]
    ours = bootstrap(mean, clusters.max() + 1, resamples=4000)["mean"]
    theirs = mean_interval(values, clusters.tolist(), resamples=4000)
    width = theirs.high - theirs.low
    assert ours.estimate == pytest.approx(theirs.mean)
    assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=0.08 * width)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        found = bootstrap(mean_of(rng.exponential(size=100)), 100, resamples=200, seed=seed)["mean"]
        held += found.low <= 1 <= found.high
    assert 0.87 < held / 200 < 0.985


def test_a_resample_without_a_figure_has_no_part_in_the_interval():
    def figures(counts):
        return {"some": 5.0 if counts[0] else float("nan"), "none": float("nan")}

    found = bootstrap(figures, 100, resamples=50)
    assert (found["some"].estimate, found["some"].low, found["some"].high) == (5, 5, 5)
    assert np.isnan([found["none"].estimate, found["none"].low, found["none"].high]).all()


@pytest.mark.parametrize("clusters", [1, 2, 99])
def test_of_few_clusters_there_is_an_estimate_and_no_interval(clusters):
    found = bootstrap(mean_of(np.arange(4.0, 4 + clusters)), clusters, resamples=5)["mean"]
    assert found.estimate == 4 + (clusters - 1) / 2
    assert np.isnan([found.low, found.high]).all()


def test_the_same_seed_draws_the_same():
    values = np.arange(100.0)
    first, again, other = (
        bootstrap(mean_of(values), 100, resamples=30, seed=seed)["mean"] for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize(("clusters", "resamples"), [(0, 10), (3, 0)])
def test_nothing_to_draw_is_refused(clusters, resamples):
    with pytest.raises(ValueError, match="at least one"):
        bootstrap(mean_of(np.ones(3)), clusters, resamples=resamples)
