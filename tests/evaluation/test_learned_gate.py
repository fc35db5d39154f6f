"""Scores of a learned gate against the gate itself, and the file that it stands in."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.evaluation.learned_gate import FEATURES, FORMAT, LearnedGate, read_learned_gate, scores
from sia_jax.steering.expressions import parse_gate, text_of
from sia_jax.steering.gates import Features, Linear

GATE = LearnedGate((1.5, -0.5, -2.0, 0.25, -0.01), -0.7, {0.1: -1.25, 0.4: 0.5}, {"policy": "p"})


def test_the_gate_steers_where_the_score_reaches_the_bias() -> None:
    """At t = 0 and at infinite gaps too, away from ties of float32."""
    n, rng = 200, np.random.default_rng(0)
    now, before, top, gap = rng.uniform(0, 2, (4, n)).astype(np.float32)
    gap[:20] = np.inf
    before[40:60] = np.nan
    index = np.where((np.arange(n) >= 40) & (np.arange(n) < 60), 0, rng.integers(0, 50, n))
    found = scores(GATE, now, before, top, gap, index)
    zeros = np.zeros(n, np.float32)
    seen = Features(*map(jnp.asarray, (index, now, before, top, gap, zeros, zeros, index)))
    for ratio, bias in GATE.biases.items():
        clear = np.abs(found + bias) > 1e-5
        assert clear.mean() > 0.95
        gate = jax.tree.map(lambda x: jnp.full(n, x, jnp.float32), GATE.gate(ratio))
        verdicts = np.asarray(gate.decide(seen, ()))
        assert 0.1 < verdicts.mean() < 0.9
        np.testing.assert_array_equal(verdicts[clear], (found + bias >= 0)[clear])


def test_scores_by_hand() -> None:
    found = scores(GATE, [1.0, 1.0], [2.0, 2.0], [0.5, 0.5], [4.0, np.inf], [0, 10])
    np.testing.assert_allclose(found, [1.5 - 1 + 1, 1.5 - 1 - 1 + 5 - 0.1])


def test_the_gate_of_a_ratio_is_an_expression_that_can_be_written() -> None:
    assert GATE.gate(0.1) == Linear(-1.25, 1.5, -0.5, -2.0, 0.25, -0.01)
    assert parse_gate(text_of(GATE.gate(0.4))) == GATE.gate(0.4)
    with pytest.raises(ValueError, match=r"ratio 0.2 has no bias; there are \[0.1, 0.4\]"):
        GATE.gate(0.2)


FILE: dict[str, Any] = {
    "format": FORMAT,
    "weights": dict(zip(FEATURES, GATE.weights, strict=True)),
    "intercept": -0.7,
    "biases": [{"ratio": 0.1, "bias": -1.25, "steered": 0.1}, {"ratio": 0.4, "bias": 0.5}],
    "settings": {"policy": "p"},
}


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    path.write_text(json.dumps(FILE))
    assert read_learned_gate(path) == GATE


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format": "sia_jax calibration 1"}, "does not say 'sia_jax learned gate 1'"),
        ({"weights": [1, 2]}, "weights must be an object, got a list of 2"),
        ({"weights": {"entropy": 1}}, "weights must be of entropy, previous_entropy, top_probability"),
        ({"weights": FILE["weights"] | {"length": 1}}, "weights must be of"),
        ({"weights": FILE["weights"] | {"position": "1"}}, "the weight of position must be a number up to"),
        ({"weights": FILE["weights"] | {"position": 2e6}}, "the weight of position must be a number up to"),
        ({"intercept": None}, "intercept must be a number"),
        ({"biases": []}, "biases must be a list"),
        ({"biases": [3]}, "a bias must be an object, got a number"),
        ({"biases": [{"ratio": 0.1}]}, "bias must be a number"),
        ({"biases": [{"ratio": 1, "bias": 0}]}, "ratio must lie between 0 and 1"),
        ({"biases": [{"ratio": 0.1, "bias": 0}] * 2}, "each once"),
        ({"biases": [{"ratio": True, "bias": 0}]}, "ratio must be a number"),
        ({"settings": None}, "settings must be an object, got null"),
    ],
)
def test_another_file_is_refused_by_its_name(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    path = tmp_path / "gate.json"
    path.write_text(json.dumps(FILE | changes))
    with pytest.raises(ValueError, match=why) as error:
        read_learned_gate(path)
    assert str(error.value).startswith(f"{path}: this is no file of decode.learn_gate: ")


def test_a_file_that_is_not_there_or_no_json_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"decode\.learn_gate makes one"):
        read_learned_gate(tmp_path / "gate.json")
    (tmp_path / "gate.json").write_text('{"format": NaN}')
    with pytest.raises(ValueError, match=r"gate\.json, line 1"):
        read_learned_gate(tmp_path / "gate.json")
