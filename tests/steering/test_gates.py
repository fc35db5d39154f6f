"""Each gate on a few rows whose verdicts can be read off."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.steering.config import SteeringConfig
from sia_jax.steering.gates import (
    After,
    Always,
    Bernoulli,
    Budget,
    Entropy,
    EntropyRatio,
    Features,
    Gate,
    Linear,
    LogitGap,
    Never,
    Position,
    Refractory,
    State,
    TopProbability,
    markers,
    reads_threshold,
    shut_at_infinity,
)
from sia_jax.steering.parts import PerRow, within

ROWS = 3


def features(**given: Any) -> Features:
    """Three rows: whatever is not given is 0."""
    names = Features.__dataclass_fields__
    rows = {name: np.broadcast_to(np.float32(given.get(name, 0)), ROWS) for name in names}
    return Features(
        **{
            name: jnp.asarray(row, jnp.int32 if name in ("index", "last_token") else None)
            for name, row in rows.items()
        }
    )


def rows_of(gate: Gate) -> Gate:
    """The gate with its numbers as a call has them: float32 [B]."""
    return jax.tree.map(lambda x: jnp.full(ROWS, x, jnp.float32), gate)


def decide(gate: Gate, seen: Features, state: Any = None) -> tuple[list[bool], Any]:
    """The verdicts of the rows, and the state after them, if the gate is the whole expression."""
    gate = rows_of(gate)
    state = gate.init(seen.threshold) if state is None else state
    verdict = gate.decide(seen, state)
    return np.asarray(verdict).tolist(), gate.advance(seen, state, verdict)


def reply(gate: Gate, entropies: list[float], threshold: float = 1.0) -> list[int]:
    """The junctions of a row whose entropies are given, one a token."""
    state, junctions = None, []
    for t, entropy in enumerate(entropies):
        verdict, state = decide(gate, features(index=t, entropy=entropy, threshold=threshold), state)
        junctions += [t] * verdict[0]
    return junctions


@pytest.mark.parametrize(
    ("gate", "given"),
    [
        (Entropy(), {"entropy": [0.9, 1.0, 1.1], "threshold": 1.0}),
        (EntropyRatio(np.log(2)), {"entropy": [1.9, 2.1, 2.2], "previous_entropy": 1.0, "index": 1}),
        (~Position(3), {"index": [2, 3, 4]}),
        (~Bernoulli(0.5), {"uniform": [0.4, 0.5, 0.6]}),
        (TopProbability(0.5), {"top_probability": [0.6, 0.5, 0.4]}),
        (LogitGap(1.0), {"logit_gap": [1.5, 1.0, 0.0]}),
        (Linear(-1.0, 1.0, 0, 0, 0, 0), {"entropy": [0.9, 1.0, 1.1]}),
        (Linear(-1.0, 0, 2.0, 0, 0, 0), {"previous_entropy": [0.4, 0.5, 0.6], "index": 1}),
        (Linear(0.5, 0, 0, -1.0, 0, 0), {"top_probability": [0.6, 0.5, 0.4]}),
        (Linear(3.0, 0, 0, 0, -2.0, 0), {"logit_gap": [2.0, 1.5, 0.0]}),
        (Linear(-1.5, 0, 0, 0, 0, 0.5), {"index": [2, 3, 4]}),
    ],
    ids=str,
)
def test_a_bound_decides_and_belongs_to_the_junctions(gate: Gate, given: dict[str, Any]) -> None:
    assert decide(gate, features(**given))[0] == [False, True, True]


def test_always_and_never() -> None:
    assert decide(Always(), features())[0] == [True] * ROWS
    assert decide(Never(), features())[0] == [False] * ROWS


@pytest.mark.parametrize(
    ("gate", "shut"),
    [
        *((Entropy(), True), (Budget(0.2), True), (Never(), True), (Always(), False), (~Entropy(), False)),
        *((Entropy() & ~Position(3), True), (Position(3) & Bernoulli(0.5), False)),
        *((Entropy() | Budget(0.2), True), (Entropy() | Position(3), False)),
        *((After((1,)), False), (After((1,)) & Entropy(), True), (After((1,)) | Entropy(), False)),
    ],
    ids=str,
)
def test_what_an_infinite_threshold_shuts(gate: Gate, shut: bool) -> None:
    assert shut_at_infinity(gate) == shut
    seen = features(threshold=np.inf, uniform=0.1, entropy=5.0)
    assert not (shut and any(decide(gate, seen)[0]))


def test_there_is_no_ratio_at_the_first_token() -> None:
    assert decide(EntropyRatio(-10), features(entropy=1.0, index=[0, 1, 2]))[0] == [False, True, True]


def test_a_sum_has_no_entropy_before_the_first_token() -> None:
    before = Linear(-1.0, 0, 1.0, 0, 0, 0)
    assert decide(before, features(previous_entropy=9.0, index=[0, 1, 2]))[0] == [False, True, True]
    assert decide(~before, features(previous_entropy=np.nan, index=0))[0] == [True] * ROWS


def test_a_gap_counts_as_20_nats_at_most_in_a_sum() -> None:
    seen = features(logit_gap=[19.0, 20.0, np.inf])
    assert decide(Linear(-20.0, 0, 0, 0, 1.0, 0), seen)[0] == [False, True, True]
    assert decide(Linear(-20.5, 0, 0, 0, 1.0, 0), seen)[0] == [False] * ROWS
    assert decide(Linear(0.0, 0, 0, 0, 0.0, 0), seen)[0] == [True] * ROWS


def test_an_infinite_bias_settles_a_sum() -> None:
    seen = features(entropy=5.0, logit_gap=np.inf, index=3)
    assert decide(Linear(-np.inf, 1.0, 1.0, 1.0, 1.0, 1.0), seen)[0] == [False] * ROWS
    assert decide(Linear(np.inf, -1.0, -1.0, -1.0, -1.0, -1.0), seen)[0] == [True] * ROWS


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
    np.testing.assert_allclose(state, [1.2, 1.2, 0.95])
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


def test_after_a_junction_a_refractory_gate_is_shut_for_so_many_tokens() -> None:
    assert reply(Refractory(2), [0] * 8) == [0, 3, 6]
    assert reply(Refractory(0), [0] * 4) == [0, 1, 2, 3]
    assert reply(Refractory(np.inf), [0] * 8) == [0]
    assert reply(Entropy() & Refractory(2), [0, 2, 2, 0, 2, 2, 0, 2]) == [1, 4, 7]


def test_what_counts_for_a_refractory_gate_is_the_verdict_of_the_whole() -> None:
    # Its own verdict at 0, which the entropy shuts, would shut 1 and 2 too.
    assert reply(Refractory(2) & Entropy(), [0, 2, 2, 0, 2, 2, 2]) == [1, 4]
    assert reply(~(~Refractory(2) | ~Entropy()), [0, 2, 2, 0, 2, 2, 2]) == [1, 4]


def test_a_refractory_gate_waits_for_what_a_budget_says() -> None:
    """A & Budget(0.2) & Refractory(1), by hand.

    t      0     1     2     3     4
    A      shut  open  open  open  open
    H      1     1     1     2     1
    q      1     1.2   1.15  1.1   1.3
    b      1     0     0     1     0
    whole  0     0     0     1     0
    """
    # A's verdicts, from before the budget, would make 2 the last junction and shut 3.
    assert reply(~Position(1) & Budget(0.2) & Refractory(1), [1.0, 1.0, 1.0, 2.0, 1.0]) == [3]
    # The budget's would make it 0, and shut 1.
    assert reply(~Position(1) & Budget(0.2) & Refractory(1), [1.0, 1.25, 0.0, 0.0, 0.0]) == [1]


def test_a_budget_counts_what_a_refractory_gate_shuts() -> None:
    seen = features(index=1, entropy=2.0, threshold=1.0)
    _, (q, last) = decide(Budget(0.2) & Refractory(3), features(entropy=2.0, threshold=1.0))
    verdict, (q, last) = decide(Budget(0.2) & Refractory(3), seen, (q, last))
    assert verdict == [False] * ROWS
    np.testing.assert_allclose(q, 1.4)
    np.testing.assert_array_equal(last, 0)


def after(marker: tuple[int, ...], tokens: list[int]) -> list[int]:
    """Where the gate is open in a reply, and one position past it."""
    state, found = None, []
    for t, last in enumerate([-1, *tokens]):
        verdict, state = decide(After(marker), features(index=t, last_token=last), state)
        found += [t] * verdict[0]
    return found


@pytest.mark.parametrize(
    ("marker", "tokens", "first"),
    [
        ((7,), [7, 7, 1], 1),
        ((7,), [1, 0, 7, 2, 3], 3),
        ((0,), [1, 0, 1], 2),
        ((1, 2), [1, 3, 2, 1], None),
        ((1, 2), [2, 1], None),
        ((1, 1, 2), [1, 1, 1, 2, 5, 1], 4),
        ((1, 2, 1, 3), [1, 2, 1, 2, 1, 3, 1], 6),
        ((5, 5, 5), [5, 5, 4, 5, 5, 5], 6),
    ],
)
def test_a_gate_is_open_after_its_marker_and_stays_so(marker, tokens, first):
    assert after(marker, tokens) == ([] if first is None else [*range(first, len(tokens) + 1)])


@pytest.mark.parametrize("marker", [(0,), (0, 0), (0, 1), (0, 0, 1), (0, 1, 0), (0, 1, 0, 0, 1, 0, 1)])
def test_a_marker_is_found_in_every_reply_that_has_it(marker):
    replies = np.array(list(itertools.product((0, 1), repeat=9)))
    n, rows = len(marker), len(replies)
    gate, nothing = After(marker), jnp.zeros(rows)
    state = gate.init(nothing)
    for t in range(replies.shape[1] + 1):
        last = jnp.asarray(replies[:, t - 1]) if t else jnp.full(rows, -1)
        seen = Features(*[nothing] * 7, last_token=last)
        expected = [any((row[i : i + n] == marker).all() for i in range(t - n + 1)) for row in replies]
        np.testing.assert_array_equal(gate.decide(seen, state), expected)
        state = gate.advance(seen, state, jnp.zeros(rows, bool))


def test_a_row_whose_prompt_has_the_marker_starts_after_it():
    gate, nothing = After((7, 8), started=jnp.array([0.0, 1.0, 0.0])), jnp.zeros(ROWS)
    state = gate.init(nothing)
    for last, expected in (([-1] * 3, [0, 1, 0]), ([7, 8, 8], [0, 1, 0]), ([8, 7, 8], [1, 1, 0])):
        seen = features(last_token=last)
        assert gate.decide(seen, state).tolist() == [bool(x) for x in expected]
        state = gate.advance(seen, state, nothing)


def test_the_parts_of_a_gate_are_asked_for_thresholds_and_markers():
    gate = (Position(3) | ~After((4, 5))) & After((6,))
    assert markers(gate) == [(4, 5), (6,)]
    assert not reads_threshold(gate)
    assert reads_threshold(gate | ~Budget(0.2))
    assert markers(Entropy() & Refractory(2)) == []


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EveryNth(Gate):
    """t mod n = 0."""

    n: PerRow = field(metadata=within(1, np.inf))

    def decide(self, features: Features, state: State) -> jax.Array:
        return features.index % self.n == 0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AtMost(Gate):
    """So many junctions in a reply."""

    most: PerRow

    def init(self, threshold: jax.Array) -> State:
        return {"junctions": jnp.zeros_like(threshold)}

    def decide(self, features: Features, state: State) -> jax.Array:
        return state["junctions"] < self.most

    def advance(self, features: Features, state: State, junction: jax.Array) -> State:
        return {"junctions": state["junctions"] + junction}


def test_a_gate_of_one_s_own_works_like_the_others() -> None:
    assert reply(EveryNth(3), [0] * 8) == [0, 3, 6]
    assert reply(AtMost(2) & ~EveryNth(2), [0] * 8) == [1, 3]
    assert SteeringConfig(gate=~EveryNth(2) & AtMost(2)).gate == ~EveryNth(2) & AtMost(2)
    with pytest.raises(ValueError, match=r"must lie in 1 .. inf, got 0 in EveryNth\(n=0\)"):
        SteeringConfig(gate=EveryNth(0))
