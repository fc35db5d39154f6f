"""Areas and shares of rankings against SciPy and against counting."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from sia_jax.evaluation.ranking import rank


def tied(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a few values, the higher the likelier positive."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 7, n) / 2.0
    return scores, rng.random(n) < (scores + 1) / 6


@pytest.mark.parametrize("seed", range(4))
def test_the_area_is_mann_whitney_s_u_of_all_pairs(seed):
    scores, labels = tied(200, seed)
    u = mannwhitneyu(scores[labels], scores[~labels]).statistic
    expected = u / (labels.sum() * (~labels).sum())
    assert 0.5 < expected < 1
    assert rank(scores, labels).area(np.ones(200)) == pytest.approx(expected, abs=1e-12)


def test_a_weight_counts_an_item_so_often():
    scores, labels = tied(60)
    counts = np.random.default_rng(1).integers(0, 4, 60)
    often = rank(np.repeat(scores, counts), np.repeat(labels, counts))
    once = rank(scores, labels)
    ones = np.ones(counts.sum())
    assert once.area(counts.astype(float)) == pytest.approx(often.area(ones), abs=1e-12)
    for ratio in (0.05, 0.3, 0.77):
        assert once.caught(ratio, counts.astype(float)) == pytest.approx(often.caught(ratio, ones))


def test_the_best_share_catches_what_stands_in_it():
    rng = np.random.default_rng(2)
    scores, labels = rng.normal(size=50), rng.random(50) < 0.4
    ranking = rank(scores, labels)
    for k in (1, 5, 20, 50):
        best = np.argsort(scores)[::-1][:k]
        expected = labels[best].sum() / labels.sum()
        assert ranking.caught(k / 50, np.ones(50)) == pytest.approx(expected)


def test_of_equal_scores_a_cut_catches_what_chance_would():
    scores, labels = tied(40, 3)
    rng, k = np.random.default_rng(4), 13
    drawn = [labels[np.lexsort((rng.random(40), -scores))[:k]].sum() for _ in range(4000)]
    assert len({*drawn}) > 1
    error = np.std(drawn) / np.sqrt(4000)
    found = rank(scores, labels).caught(k / 40, np.ones(40)) * labels.sum()
    assert found == pytest.approx(np.mean(drawn), abs=4 * error)


def test_equal_scores_rank_nothing():
    labels = np.arange(10) < 3
    ranking = rank(np.zeros(10), labels)
    assert ranking.area(np.ones(10)) == 0.5
    assert ranking.caught(0.2, np.ones(10)) == pytest.approx(0.2)


def test_where_one_kind_has_no_weight_there_is_no_figure():
    labels = np.array([True, False])
    ranking = rank(np.array([1.0, 2.0]), labels)
    assert ranking.area(np.ones(2)) == 0
    assert np.isnan(ranking.area(np.array([1.0, 0.0])))
    assert np.isnan(ranking.area(np.array([0.0, 1.0])))
    assert np.isnan(ranking.caught(0.5, np.array([0.0, 1.0])))


@pytest.mark.parametrize("scores", [np.zeros(0), np.zeros(2), np.array([np.nan]), np.zeros((1, 1))])
def test_what_cannot_be_ranked_is_refused(scores):
    with pytest.raises(ValueError, match="expected"):
        rank(scores, np.ones(min(len(scores), 1), bool))
