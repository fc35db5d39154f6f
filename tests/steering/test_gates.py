"""Each gate on a few rows whose verdicts can be read off."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.steering.gates import (
    Always,
    Bernoulli,
    Budget,
    Entropy,
    EntropyRatio,
    Features,
    Gate,
    LogitGap,
    Never,
    Position,
    TopProbability,
)

ROWS = 3


def features(**given: Any) -> Features:
    """Three rows: whatever is not given is 0."""
    names = Features.__dataclass_fields__
    rows = {name: np.broadcast_to(np.float32(given.get(name, 0)), ROWS) for name in names}
    return Features(
        **{name: jnp.asarray(row, jnp.int32 if name == "index" else None) for name, row in rows.items()}
    )


def decide(gate: Gate, seen: Features, state: Any = None) -> tuple[list[bool], Any]:
    """The verdicts of the rows, and the state after them."""
    numbers = tuple(jnp.full(ROWS, number, jnp.float32) for number in gate.numbers)
    verdict, state = gate.decide(seen, numbers, gate.init(seen.threshold) if state is None else state)
    return np.asarray(verdict).tolist(), state


@pytest.mark.parametrize(
    ("gate", "given"),
    [
        (Entropy(), {"entropy": [0.9, 1.0, 1.1], "threshold": 1.0}),
        (EntropyRatio(np.log(2)), {"entropy": [1.9, 2.1, 2.2], "previous_entropy": 1.0, "index": 1}),
        (~Position(3), {"index": [2, 3, 4]}),
        (~Bernoulli(0.5), {"uniform": [0.4, 0.5, 0.6]}),
        (TopProbability(0.5), {"top_probability": [0.6, 0.5, 0.4]}),
        (LogitGap(1.0), {"logit_gap": [1.5, 1.0, 0.0]}),
    ],
    ids=str,
)
def test_a_bound_decides_and_belongs_to_the_junctions(gate: Gate, given: dict[str, Any]) -> None:
    assert decide(gate, features(**given))[0] == [False, True, True]


def test_always_and_never() -> None:
    assert decide(Always(), features())[0] == [True] * ROWS
    assert decide(Never(), features())[0] == [False] * ROWS


def test_there_is_no_ratio_at_the_first_token() -> None:
    assert decide(EntropyRatio(-10), features(entropy=1.0, index=[0, 1, 2]))[0] == [False, True, True]


def test_an_entropy_of_nearly_nothing_counts_as_a_millionth() -> None:
    seen = features(entropy=[0, 1e-9, 3e-6], previous_entropy=[1e-6, 0, 1e-12], index=1)
    assert decide(EntropyRatio(np.log(2.9)), seen)[0] == [False, False, True]


def test_operators_are_those_of_logic() -> None:
    seen = features(index=[0, 1, 2], entropy=[1, 0, 1], threshold=1)
    early, sure = Position(2), Entropy()
    assert decide(early & sure, seen)[0] == [True, False, False]
    assert decide(early | sure, seen)[0] == [True, True, True]
    assert decide(~early, seen)[0] == [False, False, True]


def test_each_part_of_an_expression_keeps_its_numbers() -> None:
    seen = features(index=[1, 3, 5])
    assert decide(Position(2) | ~Position(4), seen)[0] == [True, False, True]


def test_a_budget_raises_its_threshold_after_a_junction_and_lowers_it_else() -> None:
    seen = features(entropy=[2.0, 1.0, 0.0], threshold=1.0)
    verdict, state = decide(Budget(0.2), seen)
    assert verdict == [True, True, False]
    np.testing.assert_allclose(state[0], [1.2, 1.2, 0.95])
    assert decide(Budget(0.2), seen, state)[0] == [True, False, False]


def test_a_budget_keeps_the_share_of_junctions_that_it_was_given() -> None:
    rng, state, junctions = np.random.default_rng(0), None, np.zeros(ROWS)
    for _ in range(400):
        verdict, state = decide(Budget(0.3), features(entropy=rng.exponential(size=ROWS), threshold=1), state)
        junctions += verdict
    np.testing.assert_allclose(junctions / 400, 0.3, atol=0.02)


def test_budgets_of_one_expression_have_states_of_their_own() -> None:
    seen = features(entropy=1.0, threshold=1.0)
    _, state = decide(Budget(0.2) & ~Budget(0.6), seen)
    np.testing.assert_allclose(np.asarray(state)[:, 0], [1.2, 1.1])
