"""The one gate of all methods: each method's numbers open its own part and shut the rest."""

import json
import math
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.evaluation.gate_numbers import (
    SHUT,
    GateNumbers,
    check_numbers_in,
    gate_of,
    numbers_in,
    parse_linear,
)
from sia_jax.steering.gates import BUDGET_STEP, Features, Linear

LEARNED = Linear(-1.0, 1.5, -0.5, -0.25, 0.125, 0.0625)
GATES = {
    "nowhere": GateNumbers(),
    "dense": GateNumbers(-math.inf),
    "entropy": GateNumbers(0.9),
    "random": GateNumbers(rate=0.3),
    "budget": GateNumbers(0.9, budget=0.4),
    "entropy ratio": GateNumbers(entropy_ratio=0.25),
    "position": GateNumbers(position=7),
    "learned": GateNumbers(learned=LEARNED),
}
STEPS = 60


def seen() -> dict[str, np.ndarray]:
    """[STEPS] of one reply; the entropy before the first token is no number."""
    rng = np.random.default_rng(0)
    entropy = rng.gamma(2.0, 0.5, STEPS).astype(np.float32)
    top, gap, uniform = rng.uniform(0, 1, (3, STEPS)).astype(np.float32)
    gap = np.where(np.arange(STEPS) % 9 == 0, np.float32(np.inf), 4 * gap)
    before = np.concatenate([[np.float32(np.nan)], entropy[:-1]])
    return {"entropy": entropy, "before": before, "top": top, "gap": gap, "uniform": uniform}


def by_hand(gate: GateNumbers, x: dict[str, np.ndarray]) -> np.ndarray:
    """[STEPS] the verdicts, each kind by its own definition, and no two at once."""
    t, h = np.arange(STEPS), x["entropy"]
    if gate.budget is not None:
        q, verdicts = gate.threshold, []
        for entropy in h:
            verdicts.append(bool(entropy >= np.float32(q)))
            q = float(np.float32(q) + np.float32(BUDGET_STEP) * np.float32(verdicts[-1] - gate.budget))
        return np.array(verdicts)
    if gate.learned != SHUT:
        features = (h, np.where(t > 0, x["before"], 0), x["top"], np.minimum(x["gap"], 20), t)
        weights = list(asdict(gate.learned).values())
        score = weights[0] + sum(w * np.float64(f) for w, f in zip(weights[1:], features, strict=True))
        return np.asarray(score) >= 0
    if gate.entropy_ratio < math.inf:
        return (t > 0) & (np.log(h / x["before"]) >= gate.entropy_ratio)
    if gate.rate > 0:
        return x["uniform"] < gate.rate
    return t < gate.position if gate.position else h >= np.float32(gate.threshold)


def test_rows_of_one_batch_are_steered_each_by_its_own_gate_alone() -> None:
    """The expressions differ in their numbers alone, so that they stack."""
    x = seen()
    gate = jax.tree.map(lambda *numbers: jnp.array(numbers, jnp.float32), *map(gate_of, GATES.values()))
    rows = len(GATES)
    threshold = jnp.array([numbers.threshold for numbers in GATES.values()], jnp.float32)
    state, verdicts = gate.init(threshold), []
    for t in range(STEPS):
        columns = (np.full(rows, x[name][t]) for name in ("entropy", "before", "top", "gap", "uniform"))
        features = Features(np.full(rows, t), *columns, threshold, np.full(rows, -1))
        verdicts.append(np.asarray(gate.decide(features, state)))
        state = gate.advance(features, state, verdicts[-1])
    for place, (name, numbers) in enumerate(GATES.items()):
        expected = by_hand(numbers, x)
        assert [bool(verdict[place]) for verdict in verdicts] == expected.tolist(), name
        assert 0 < expected.mean() < 1 or name in ("nowhere", "dense")


def test_a_threshold_of_infinity_shuts_a_budget_too() -> None:
    gate = gate_of(GateNumbers(math.inf, budget=1.0))
    state = gate.init(jnp.array([math.inf]))
    features = Features(*(np.array([x]) for x in (0, 50.0, 1.0, 0.5, 1.0, 0.5, math.inf, -1)))
    for _ in range(20):
        assert not gate.decide(features, state).any()
        state = gate.advance(features, state, np.array([False]))


def test_a_record_says_what_is_open_and_nothing_else() -> None:
    for name, extra in {
        **{name: set() for name in ("nowhere", "dense", "entropy", "random")},
        **{"budget": {"budget"}, "entropy ratio": {"entropy_ratio"}},
        **{"position": {"position"}, "learned": {"learned"}},
    }.items():
        told = GATES[name].to_json()
        assert set(told) == {"threshold", "rate"} | extra
        record: dict[str, Any] = json.loads(json.dumps({"method": name, **told}, allow_nan=False))
        check_numbers_in(record)
        assert numbers_in(record) == told
    assert GATES["dense"].to_json() == {"threshold": "-inf", "rate": 0.0}
    assert parse_linear(GATES["learned"].to_json()["learned"]) == LEARNED


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": "much"}, "threshold must be a number"),
        ({"rate": -0.1}, "rate must be a number, of 0 or more"),
        ({"budget": None}, "budget must be a number"),
        ({"entropy_ratio": "inf"}, "entropy_ratio must be a number"),
        ({"position": [3]}, "position must be a number"),
        ({"learned": 3}, "a learned gate must be an object with bias, entropy, previous_entropy"),
        ({"learned": asdict(LEARNED) | {"bias": True}}, "bias of a learned gate must be a number"),
        ({"learned": asdict(LEARNED) | {"more": 1.0}}, "a learned gate must be an object"),
        ({"learned": asdict(LEARNED) | {"entropy": 1e7}}, "a number of the learned gate must lie in"),
    ],
)
def test_numbers_that_are_none_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_numbers_in({"threshold": 1.0, "rate": 0.0} | changes)
