"""The study on simulated positions whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sia_jax.evaluation.resampling import bootstrap
from sia_jax.studies.entropy.spread import draw_by_stratum, quantile_bins
from sia_jax.studies.entropy.study import Drawn, Population, measure, study

PROMPTS, BINS, M = 120, 4, 24
ROOT = "reliability"


class World:
    """2400 positions: half do not branch; of the others, some of high entropy are matters of style."""

    def __init__(self, noise: float, each: int, seed: int = 0):
        rng = np.random.default_rng(0)
        n = 2400
        entropies = np.where(rng.random(n) < 0.5, 0.1 * rng.random(n), 0.2 + 1.8 * rng.random(n))
        branches = entropies > 0.15
        strata = np.full(n, -1)
        strata[branches] = quantile_bins(entropies[branches], BINS)
        # Two candidates, half and half: the variance is (difference / 2)^2.
        self.style = rng.random(n) < 0.4
        gaps = np.where(branches & ~self.style, entropies * (1 + 0.3 * rng.normal(size=n)), 0)
        self.gaps, self.variances = gaps, (gaps / 2) ** 2
        # Values that know about half of it.
        self.value_gaps = np.where(branches, gaps + 0.8 * rng.normal(size=n), 0)
        self.population = Population(
            prompts=rng.permutation(np.arange(n) % PROMPTS),
            entropies=entropies,
            spreads=np.abs(self.value_gaps) / 2,
            plain_spreads=rng.random(n),
            lot_spreads=np.sqrt(entropies),
            strata=strata,
        )
        rng = np.random.default_rng([1, seed])  # of what is drawn; the positions are always the same
        branching = np.flatnonzero(branches)
        places, weights = draw_by_stratum(strata[branching], each, rng)
        self.drawn = []
        for place, weight in zip(branching[places], weights, strict=True):
            rewards = noise * rng.normal(size=(2, M)) + np.array([[0.0], [gaps[place]]])
            values = np.array([0.0, self.value_gaps[place]])
            self.drawn.append(Drawn(int(place), float(weight), np.array([0.5, 0.5]), values, rewards))


def figures_of(world, **options):
    figures, _ = study(world.population, world.drawn, threshold=1.0, resamples=1, **options)
    return {name: figure.estimate for name, figure in figures.items()}


@pytest.fixture(scope="module")
def whole():
    """Every branching position drawn, rewards without noise."""
    return World(noise=0.0, each=10**6)


@pytest.fixture(scope="module")
def truth(whole):
    """What is true of the world; of matters of style, their share itself."""
    high = whole.population.entropies >= 1
    return figures_of(whole) | {"high/alike_gold": whole.style[high].mean()}


def test_with_all_positions_and_no_noise_everything_is_known(whole):
    world = whole
    found, measured = study(world.population, world.drawn, threshold=1.0, resamples=2)
    found = {name: figure.estimate for name, figure in found.items()}
    h, v, s = world.population.entropies, world.variances, world.population.spreads
    high, branches = h >= 1, world.population.branches
    expected = {
        "value/all/pearson": stats.pearsonr(h, s).statistic,
        "value/all/spearman": stats.spearmanr(h, s).statistic,
        "plain_value/all/pearson": stats.pearsonr(h, world.population.plain_spreads).statistic,
        "value/branching/pearson": stats.pearsonr(h[branches], s[branches]).statistic,
        "lot/branching/pearson": stats.pearsonr(h[branches], np.sqrt(h[branches])).statistic,
        "plain_gold/branching/pearson": stats.pearsonr(h[branches], v[branches]).statistic,
        "gold/all/pearson": stats.pearsonr(h, v).statistic,
        "gold/branching/pearson": stats.pearsonr(h[branches], v[branches]).statistic,
        "gold/branching/spearman": stats.spearmanr(h[branches], v[branches]).statistic,
        "value_gold/all/pearson": stats.pearsonr(s**2, v).statistic,
        f"{ROOT}/half": 1,
        f"{ROOT}/whole": 1,
        f"{ROOT}/ceiling": 1,
        "high/share": high.mean(),
        "high/value_variance": (s**2)[high].sum() / (s**2).sum(),
        "high/gold_variance": v[high].sum() / v.sum(),
        "high/alike_value": (s[high] < 0.1).mean(),
        "high/undecided": world.style[high].mean(),
        "agreement/observed": stats.pearsonr(
            *(np.concatenate([d, -d]) for d in (world.value_gaps[branches], world.gaps[branches]))
        ).statistic,
        "bin/3/gold_variance": v[world.population.strata == 3].mean(),
        "bin/-1/share": (~branches).mean(),
        "bin/2/value": s[world.population.strata == 2].mean(),
    }
    for name, number in expected.items():
        assert found[name] == pytest.approx(number, rel=1e-6, abs=1e-6), name
    assert found["agreement/corrected"] == pytest.approx(found["agreement/observed"], abs=1e-9)
    assert [m.variance for m in measured] == pytest.approx([v[d.place] for d in world.drawn], abs=1e-12)


def test_few_positions_and_noise_find_what_is_true_of_all(truth):
    runs = [figures_of(World(noise=1.0, each=60, seed=seed)) for seed in range(10)]
    exact = "high/gold_variance", "agreement/corrected", "bin/3/gold_variance", "bin/0/gold_variance"
    for name in exact:
        found = [run[name] for run in runs]
        error = np.std(found, ddof=1) / np.sqrt(len(runs))
        assert error < 0.03, name
        assert np.mean(found) == pytest.approx(truth[name], abs=4 * error), name
    # This one errs upwards, by the smallest differences.
    alike = np.mean([run["high/alike_gold"] for run in runs])
    assert truth["high/alike_gold"] - 0.05 < alike < truth["high/alike_gold"] + 0.1
    noisy = np.mean([run["agreement/observed"] for run in runs])
    assert noisy < truth["agreement/observed"] - 0.03


def test_reliability_predicts_what_noise_takes_off_a_correlation(truth):
    runs = [figures_of(World(noise=1.5, each=100, seed=seed)) for seed in range(8)]
    found, ceiling = (
        np.mean([run[n] for run in runs]) for n in ("gold/branching/pearson", f"{ROOT}/ceiling")
    )
    assert ceiling < 0.9
    assert found == pytest.approx(truth["gold/branching/pearson"] * ceiling, abs=0.06)


def test_intervals_hold_the_truth(truth):
    world = World(noise=1.0, each=60)
    figures, _ = study(world.population, world.drawn, threshold=1.0, resamples=200)
    for name in ("value/all/pearson", "high/gold_variance", "bin/3/gold_variance"):
        figure = figures[name]
        assert figure.low < figure.estimate < figure.high, name
        assert figure.low < truth[name] < figure.high, name


def test_in_a_resample_a_stratum_counts_as_all_its_positions_do():
    world = World(noise=0.0, each=25)
    population, variances = world.population, np.array([0.0, 1.0, 2.0, 5.0, 9.0])[world.population.strata + 1]
    drawn = [
        replace(each, rewards=np.repeat([[0.0], [2 * np.sqrt(variances[each.place])]], M, axis=1))
        for each in world.drawn
    ]
    # Variances are those of the strata, and the threshold lies between two of them.
    edge = population.entropies[population.strata == 2].min()
    high = population.entropies >= edge

    def from_all(counts):
        own = counts[population.prompts] * variances
        return {"high": own[high].sum() / own.sum()}

    figures, _ = study(population, drawn, threshold=float(edge), resamples=50, seed=5)
    expected = bootstrap(from_all, PROMPTS, resamples=50, seed=5)["high"]
    found = figures["high/gold_variance"]
    assert (found.estimate, found.low, found.high) == pytest.approx(
        (expected.estimate, expected.low, expected.high)
    )


def test_weights_shrink_a_variance_and_equal_ones_do_not():
    rewards = np.repeat([[0.0], [1.0], [1.0]], M, axis=1)
    drawn = Drawn(0, 1.0, np.array([0.9, 0.05, 0.05]), np.zeros(3), rewards)
    found = measure(drawn, np.random.default_rng(0))
    assert found.variance == pytest.approx(0.9 * 0.1)
    assert found.plain_variance == pytest.approx(2 / 9)


def test_without_rewards_there_are_the_figures_of_values():
    world = World(noise=0.0, each=1)
    figures, measured = study(world.population, [], threshold=1.0, resamples=5)
    assert measured == []
    assert {name.split("/")[0] for name in figures} == {"value", "plain_value", "lot", "high", "bin"}
    assert not any("gold" in name for name in figures)
