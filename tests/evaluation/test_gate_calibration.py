"""Numbers of gates for shares of tokens, held against brute force, and the file that they stand in."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sia_jax.evaluation.calibration import EARLIER, FORMAT, calibrate, read_calibration
from sia_jax.evaluation.gate_calibration import calibrate_gates, linear_of
from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.learned_gate import LearnedGate
from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.shares import number_for, realised_share
from sia_jax.evaluation.token_features import TokenFeatures, features_of
from sia_jax.steering.gates import Linear

LEARNED = LearnedGate((1.5, -0.5, -2.0, -0.125, 0.02), -1.0, {}, {})
LENGTHS = (1, 3, 3, 8, 20)


def tokens() -> TokenFeatures:
    """Of five replies of different lengths."""
    rng = np.random.default_rng(0)
    return features_of(
        [
            {
                "entropy": rng.gamma(1.0, 0.5, n),
                "top_probability": rng.uniform(0, 1, n),
                "logit_gap": rng.uniform(0, 20, n),
            }
            for n in LENGTHS
        ]
    )


def test_the_entropy_before_is_that_of_the_same_reply() -> None:
    found = features_of([{"entropy": [1.0, 2.0]}, {"entropy": [3.0]}, {"entropy": [4.0, 5.0, 6.0]}])
    assert found.position.tolist() == [0, 1, 0, 0, 1, 2]
    assert found.previous_entropy.tolist() == [0, 1, 0, 0, 4, 5]


@given(
    st.lists(
        st.sampled_from([-math.inf, -1.0, 0.0, 0.25, 0.25 + 2**-25]) | st.floats(-3, 3, width=32), min_size=1
    ),
    st.floats(0.001, 0.999),
)
def test_no_other_number_steers_a_share_nearer_to_the_ratio(scores: list[float], ratio: float) -> None:
    """Tokens that can never be steered count in the share."""
    x = np.array(scores, np.float32)
    found = realised_share(x, number_for(x, ratio))
    others = [float(np.mean(x >= each)) for each in x[x > -np.inf]] + [0.0]
    assert abs(found - ratio) <= min(abs(share - ratio) for share in others) + 1e-9


@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.3, 0.5, 0.7, 0.95])
def test_the_number_of_first_tokens_is_the_one_whose_share_is_nearest(ratio: float) -> None:
    total = sum(LENGTHS)
    shares = [sum(min(n, first) for n in LENGTHS) / total for first in range(max(LENGTHS) + 1)]
    found = calibrate_gates(tokens(), ratio, None)["position"]
    assert found["share"] == pytest.approx(shares[found["number"]], abs=1e-6)
    assert abs(found["share"] - ratio) == pytest.approx(min(abs(share - ratio) for share in shares), abs=1e-6)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6, 0.8])
def test_numbers_of_ratios_and_sums_steer_the_share_as_the_gates_define_it(ratio: float) -> None:
    one = tokens()
    found = calibrate_gates(one, ratio, LEARNED)
    with np.errstate(divide="ignore"):
        log_ratios = np.log(np.maximum(one.entropy, 1e-6) / np.maximum(one.previous_entropy, 1e-6))
    steered = (one.position > 0) & (log_ratios >= found["entropy-ratio"]["number"])
    assert steered.mean() == pytest.approx(found["entropy-ratio"]["share"], abs=1e-6)
    assert abs(steered.mean() - ratio) <= 0.5 / len(one) + 1e-9
    features = (one.entropy, one.previous_entropy, one.top_probability, one.logit_gap, one.position)
    sums = sum(w * x for w, x in zip((1.5, -0.5, -2.0, -0.125, 0.02), features, strict=True) if x is not None)
    steered = found["learned"]["number"] + sums >= 0
    assert steered.mean() == pytest.approx(found["learned"]["share"], abs=1e-6)
    assert abs(steered.mean() - ratio) <= 0.5 / len(one) + 1e-9


def test_a_share_that_first_tokens_cannot_reach_is_never_steered() -> None:
    """Of ratios above what has a token before it the nearest is all that has."""
    found = calibrate_gates(tokens(), 0.99, None)["entropy-ratio"]
    assert found["share"] == pytest.approx(1 - len(LENGTHS) / sum(LENGTHS), abs=1e-6)


def write(path: Path, **changes: Any) -> Path:
    source = {"settings": {"max_new_tokens": 20}, "learned": {"gate": asdict(linear_of(LEARNED))}}
    path.write_text(json.dumps(calibrate(tokens(), [0.2, 0.5], source, LEARNED) | changes))
    return path


def test_a_file_has_the_gates_of_each_ratio(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json")
    rows = {row["ratio"]: row for row in json.loads(path.read_text())["thresholds"]}
    found = read_calibration(path)
    for ratio, row in rows.items():
        gates = {kind: own["number"] for kind, own in row["gates"].items()}
        assert {kind: numbers[ratio] for kind, numbers in found.gates.items()} == {
            "entropy": GateNumbers(row["threshold"]),
            "budget": GateNumbers(row["threshold"], budget=ratio),
            "entropy-ratio": GateNumbers(entropy_ratio=gates["entropy-ratio"]),
            "position": GateNumbers(position=gates["position"]),
            "learned": GateNumbers(learned=Linear(gates["learned"], 1.5, -0.5, -2.0, -0.125, 0.02)),
        }


def test_a_file_of_an_earlier_release_has_thresholds_and_budgets_alone(tmp_path: Path) -> None:
    rows = [{"ratio": 0.2, "threshold": 1.5, "share": 0.2}]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"format": EARLIER, "settings": {}, "thresholds": rows}))
    assert read_calibration(path).gates == {
        "entropy": {0.2: GateNumbers(1.5)},
        "budget": {0.2: GateNumbers(1.5, budget=0.2)},
    }


def test_what_a_run_must_know_of_its_gates_is_told_once(tmp_path: Path) -> None:
    found = read_calibration(write(tmp_path / "t.json"))
    assert found.cautions_of([Method("base"), Method("entropy", 0.2), Method("budget", 0.2)], 99) == []
    positions = [Method("position", 0.2), Method("position", 0.5)]
    share = next(iter(found.facts["thresholds"]))["gates"]["position"]["share"]
    assert found.cautions_of(positions, 20)[0] == (
        f"{tmp_path / 't.json'}: no number of first tokens steers 0.2 of the tokens, since a place is "
        f"steered in all replies or in none: the nearest steers {share:.4g} of them"
    )
    assert found.cautions_of(positions, 99)[-1].endswith(
        "its numbers of first tokens are of replies of up to 20 tokens (now 99), of which they are another "
        "share"
    )


GATE = {"number": 1, "share": 0.2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gates": []}, "gates must be an object, got a list"),
        ({"gates": {"attention": GATE}}, "gates must be of entropy-ratio, .*, got 'attention'"),
        ({"gates": {"position": 3}}, "the number of position must stand in an object, got a number"),
        ({"gates": {"position": GATE | {"number": 1.5}}}, r"must be 0, 1, ..., got 1.5"),
        ({"gates": {"position": GATE | {"number": -1}}}, r"must be 0, 1, ..., got -1"),
        ({"gates": {"entropy-ratio": GATE | {"number": 1e40}}}, "the ratio of entropies must be a number"),
        (
            {"gates": {"entropy-ratio": GATE | {"share": 1.5}}},
            "share of the ratio of entropies must be 0 .. 1",
        ),
        ({"gates": {"learned": GATE | {"number": "1"}}}, "the bias of the learned gate must be a number"),
    ],
)
def test_gates_that_are_none_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    row = {"ratio": 0.2, "threshold": 1.5, "share": 0.2} | changes
    with pytest.raises(ValueError, match=f"t.json: this is no file of decode.calibrate: .*{message}"):
        read_calibration(write(tmp_path / "t.json", thresholds=[row]))


def test_a_learned_gate_without_weights_is_refused(tmp_path: Path) -> None:
    row = {"ratio": 0.2, "threshold": 1.5, "gates": {"learned": GATE}}
    content = {"format": FORMAT, "settings": {}, "thresholds": [row]}
    for learned, message in (
        ({}, "there is a bias of the learned gate, and no weights"),
        ({"learned": 3}, "learned must be an object"),
        ({"learned": {"gate": {"bias": 1}}}, "a learned gate must be an object with"),
    ):
        (tmp_path / "t.json").write_text(json.dumps(content | learned))
        with pytest.raises(ValueError, match=message):
            read_calibration(tmp_path / "t.json")
