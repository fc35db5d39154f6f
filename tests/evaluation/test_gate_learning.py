"""A gate that is learned where the truth is known, and what is said of it on prompts held out."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import mannwhitneyu

from sia_jax.evaluation.gate_examples import Examples
from sia_jax.evaluation.gate_learning import hold_out, learn
from sia_jax.evaluation.learned_gate import FEATURES, scores

TRUTH = np.array([0.8, 0.0, -3.0, -0.4, -0.05])


def prompts(count: int, seed: int, truth: np.ndarray = TRUTH) -> list[Examples]:
    """Replies whose tokens shift by a logistic law of the features, and gain so much."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        t = int(rng.integers(5, 40))
        entropy = rng.gamma(1.5, 0.8, t)
        top, gap = expit(rng.normal(1 - entropy)), np.minimum(rng.exponential(2, t), 20)
        x = np.column_stack([entropy, np.append(0, entropy[:-1]), top, gap, np.arange(t)])
        score = x @ truth + rng.normal(0, 0.3)  # tokens of one prompt resemble each other
        found.append(Examples(x, rng.random(t) < expit(score), score + rng.normal(size=t)))
    return found


def joined(examples: list[Examples]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([e.features for e in examples]), np.concatenate([e.shifted for e in examples])


@pytest.fixture(scope="module")
def sides() -> tuple[list[Examples], list[Examples]]:
    return prompts(200, seed=0), prompts(150, seed=1)


@pytest.fixture(scope="module")
def found(sides: tuple[list[Examples], list[Examples]]) -> Any:
    return learn(*sides, {"policy": "p"}, resamples=200)


def test_the_weights_are_those_that_make_the_tokens_likeliest(sides: Any, found: Any) -> None:
    x, y = joined(sides[0])
    std = x.std(axis=0)

    def loss(at: np.ndarray) -> float:
        score = (x / std) @ at[:-1] + at[-1]
        return float(np.mean(np.logaddexp(0, score) - y * score) + 1e-3 / 2 * at[:-1] @ at[:-1])

    at = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-7}).x
    np.testing.assert_allclose(np.array(found.gate.weights) * std, at[:-1], atol=2e-4)
    assert found.gate.intercept == pytest.approx(at[-1], abs=1e-3)


def test_areas_are_those_of_the_tokens_held_out(sides: Any, found: Any) -> None:
    x, y = joined(sides[1])
    for score, interval in ((scores(found.gate, *x.T), found.area.learned), (x[:, 0], found.area.entropy)):
        expected = mannwhitneyu(score[y], score[~y]).statistic / (y.sum() * (~y).sum())
        assert interval.mean == pytest.approx(expected, abs=1e-12)
        assert interval.low < expected < interval.high


def test_what_the_best_tokens_catch_is_counted(sides: Any, found: Any) -> None:
    x, y = joined(sides[1])
    for ratio, comparison in found.caught.items():
        k = int(ratio * len(y))
        best = np.argsort(-scores(found.gate, *x.T))[:k]
        assert comparison.learned.mean == pytest.approx(y[best].sum() / y.sum(), abs=1.5 / y.sum())


def test_it_is_found_better_than_the_entropy_where_it_is(found: Any) -> None:
    assert found.area.difference.low > 0.02
    assert found.caught[0.2].difference.low > 0
    assert found.area.difference.mean == pytest.approx(found.area.learned.mean - found.area.entropy.mean)


def test_it_is_not_found_better_where_the_entropy_is_all_that_counts() -> None:
    truth = np.array([1.5, 0, 0, 0, 0])
    found = learn(prompts(300, 2, truth), prompts(150, 3, truth), {}, resamples=200)
    assert found.area.difference.low < 0
    assert abs(found.area.difference.mean) < 0.01


def test_a_bias_steers_its_ratio_of_the_tokens_held_out(sides: Any, found: Any) -> None:
    x, _ = joined(sides[1])
    for ratio, bias in found.gate.biases.items():
        share = np.mean(scores(found.gate, *x.T) + bias >= 0)
        assert share == pytest.approx(ratio, abs=1 / len(x))
        assert found.steered[ratio] == pytest.approx(share, abs=1 / len(x))


def test_gains_above_a_quantile_are_learned() -> None:
    own, others = prompts(120, 4), prompts(100, 5)
    found = learn(own, others, {}, label="gain", gain_quantile=0.8, resamples=20)
    gains = np.concatenate([e.gain for e in own if e.gain is not None])
    assert found.above == pytest.approx(np.quantile(gains, 0.8))
    assert found.labelled[0] == pytest.approx(0.2, abs=0.001)
    assert found.area.learned.mean > found.area.entropy.mean
    assert found.to_json()["label"] == "gain"


def test_of_few_prompts_there_are_figures_and_no_intervals() -> None:
    found = learn(prompts(30, 6), prompts(20, 7), {}, resamples=20)
    assert found.area.learned.why == "20 prompts, of 100 needed"
    assert found.area.learned.text() == f"{found.area.learned.mean:.2f} [?]"
    json.dumps(found.to_json(), allow_nan=False)


def test_the_content_of_the_file_says_what_was_found(found: Any) -> None:
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert list(written["weights"]) == list(FEATURES)
    assert [row["ratio"] for row in written["biases"]] == [0.1, 0.2, 0.4]
    assert written["area"]["difference"]["mean"] == found.area.difference.mean
    assert written["prompts"] == {"learned_from": 200, "held_out": 150}
    assert written["label"] == "shifted"


def test_prompts_are_held_out_whole_and_each_is_on_one_side() -> None:
    own, held = hold_out(10, 0.3, seed=0)
    assert sorted([*own, *held]) == list(range(10))
    assert len(held) == 3
    assert hold_out(10, 0.3, seed=0) == (own, held)
    assert hold_out(10, 0.3, seed=1) != (own, held)
    assert [len(side) for side in hold_out(2, 0.01, 0)] == [1, 1]
    assert [len(side) for side in hold_out(2, 0.99, 0)] == [1, 1]


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (0, 0.5), (5, 0.0), (5, 1.0), (5, np.nan)])
def test_prompts_that_cannot_be_shared_out_are_refused(count: int, share: float) -> None:
    with pytest.raises(ValueError, match=r"held_out must lie between|two prompts or more"):
        hold_out(count, share, 0)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ratios": ()}, "ratios must be different shares"),
        ({"ratios": (0.1, 0.1)}, "ratios must be different shares"),
        ({"ratios": (0.0,)}, "ratios must be different shares"),
        ({"ratios": (np.nan,)}, "ratios must be different shares"),
        ({"label": "gain", "gain_quantile": 1.0}, "gain_quantile must lie in 0 .. 1"),
        ({"penalty": 0.0}, "penalty must be"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        learn(prompts(5, 8), prompts(5, 9), {}, **changes)


@pytest.mark.parametrize(
    ("own", "others", "where"), [(True, False, "held out"), (False, True, "to learn from")]
)
def test_tokens_that_are_all_alike_teach_nothing(own: bool, others: bool, where: str) -> None:
    def side(varied: bool) -> list[Examples]:
        return [Examples(e.features, e.shifted & varied, None) for e in prompts(5, 8)]

    with pytest.raises(ValueError, match=f"0 of [0-9]+ tokens {where} are shifted: it takes both kinds"):
        learn(side(own), side(others), {})
