import numpy as np
import pytest
from scipy import stats

from sia_jax.studies.entropy.correlation import Pair


def test_a_weight_is_a_repetition():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=40).round(1), rng.normal(size=40).round(0)  # with ties
    weights = rng.integers(0, 4, size=40)
    pair = Pair(x, y)
    a, b = np.repeat(x, weights), np.repeat(y, weights)
    assert pair.pearson(weights) == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-12)
    assert pair.spearman(weights) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_only_the_proportions_of_weights_count():
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=20), rng.random(20)
    pair = Pair(x, x + rng.normal(size=20))
    for correlation in (pair.pearson, pair.spearman):
        assert correlation(weights) == pytest.approx(correlation(7 * weights), abs=1e-12)


def test_ranks_see_order_alone():
    x = np.array([0.1, 0.5, 0.7, 2.0])
    pair = Pair(x, np.exp(9 * x))
    assert pair.spearman(np.array([1, 2, 0.5, 3])) == pytest.approx(1)
    assert pair.pearson(np.ones(4)) < 0.99


@pytest.mark.parametrize(
    ("y", "weights"), [([0.1, 0.1, 0.1], [1, 1, 1]), ([1, 2, 3], [0, 1, 0]), ([1, 2, 3], [0, 0, 0])]
)
def test_without_variation_there_is_no_correlation(y, weights):
    pair = Pair([1.0, 2.0, 3.0], y)
    assert np.isnan(pair.pearson(weights))
    assert np.isnan(pair.spearman(weights))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        Pair([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="finite"):
        Pair([1, 2], [1, np.nan])
    with pytest.raises(ValueError, match="0 or more"):
        Pair([1, 2], [2, 1]).pearson([1, -1])
