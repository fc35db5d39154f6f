"""Which V(s) a tilt sees at a junction, and which states a gate gets."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.steering.config import DecisionConfig, SteeringConfig
from sia_jax.steering.decision import decide, steer
from sia_jax.steering.gates import Always, Gate, Refractory
from sia_jax.steering.tilts import Additive, Advantage, Clipped, Tilt
from sia_jax.steering.types import History, Pending, RowParams

ROWS, IDS, CANDIDATES = 3, 6, 3
VALUES = jnp.array([[1.0, 3.0, 9.0]] * ROWS)  # the third is not in N
LOGITS = jnp.log(jnp.array([[3.0, 1.0, 0.5]] * ROWS))
INF, NAN = np.inf, np.nan


def numbers_of(tilt: Tilt, gate: Gate) -> RowParams:
    """Temperature 1, beta 1, and nothing penalised or banned; the rest at its default."""
    given = {"threshold": 1.0, "beta": 1.0, "temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}
    whole = ("top_k", "min_new_tokens", "max_new_tokens")
    fields: dict[str, Any] = {
        f.name: jnp.full(ROWS, given.get(f.name, 0), jnp.int32 if f.name in whole else jnp.float32)
        for f in dataclasses.fields(RowParams)
    }
    none = jnp.full((ROWS, 1), -1)
    tilt, gate = (jax.tree.map(lambda x: jnp.full(ROWS, x, jnp.float32), part) for part in (tilt, gate))
    fields |= {"stop_ids": none, "banned_ids": none, "bias_ids": none, "bias": jnp.zeros((ROWS, 1))}
    return RowParams(**fields | {"keys": jnp.zeros((ROWS, 2), jnp.uint32), "tilt": tilt, "gate": gate})


def config_of(tilt: Tilt, gate: Gate, **changes: Any) -> DecisionConfig:
    steering = SteeringConfig(num_candidates=CANDIDATES, gate=gate, tilt=tilt)
    return DecisionConfig(steering, IDS, record_candidates=True, **changes)


def steered(tilt: Tilt, prefix_value: Any, index: Any = 1, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    """log of the distribution at the two candidates in N, and whether the row is sound."""
    pending = Pending(
        ids=jnp.array([[4, 2, 0]] * ROWS),
        logits=LOGITS,
        policy_logprobs=LOGITS,
        kept=jnp.full(ROWS, 2),
        contenders=jnp.full(ROWS, 2),
        reads=jnp.ones((ROWS, 3), bool),
        entropy=jnp.ones(ROWS),
        policy_choice=jnp.full(ROWS, 4),
        gate=(),
    )
    prefix_value, index = (jnp.broadcast_to(jnp.asarray(x), ROWS) for x in (prefix_value, index))
    config = config_of(tilt, Always(), **changes)
    _, entry, sound = steer(
        VALUES, pending, index, prefix_value.astype(jnp.float32), numbers_of(tilt, Always()), config
    )
    assert entry.candidates is not None
    return np.asarray(entry.candidates.logprobs)[:, :2], np.asarray(sound)


def law(tilt: list[float]) -> np.ndarray:
    scores = np.asarray(LOGITS)[0, :2] + tilt
    return scores - np.log(np.exp(scores).sum())


def test_the_prefix_value_is_the_row_s_own_but_at_the_first_token() -> None:
    # Of V = 1 and 3 the mean is 2; a bound of 0.5 is reached by both, or by one alone.
    found, sound = steered(Clipped(0.5, of=Advantage()), [1.0, 1.0, 3.0], index=[0, 1, 2])
    np.testing.assert_allclose(found, [law([-0.5, 0.5]), law([0, 0.5]), law([-0.5, 0])], rtol=1e-5)
    assert sound.all()


def test_with_a_vocabulary_head_it_is_the_mean_under_the_policy_but_at_the_first_token() -> None:
    # p = 3/4 and 1/4: V(s) = 1.5, and the advantages are -0.5 and 1.5; at t = 0 they are -1 and 1.
    found, sound = steered(Clipped(1.0, of=Advantage()), NAN, index=[0, 1, 2], reads_candidates=False)
    np.testing.assert_allclose(found, [law([-1.0, 1.0]), *[law([-0.5, 1.0])] * 2], rtol=1e-5)
    assert sound.all()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_prefix_value_that_is_no_number_is_told_where_it_is_read(bad: float) -> None:
    prefix, index = [bad, bad, 1.0], [0, 1, 1]
    assert steered(Advantage(), prefix, index)[1].tolist() == [True, False, True]
    assert steered(Clipped(0.5, of=Advantage()), prefix, index)[1].tolist() == [True, False, True]
    found, sound = steered(Clipped(0.5), prefix, index)
    assert sound.all()
    np.testing.assert_array_equal(found, steered(Clipped(0.5), 0.0, index)[0])


def test_advantages_have_the_additive_law() -> None:
    np.testing.assert_array_equal(steered(Advantage(), 2.5)[0], steered(Additive(), NAN)[0])


@pytest.mark.parametrize("is_steered", [False, True])
def test_a_gate_s_state_gets_the_final_verdict(is_steered: bool) -> None:
    gate, tilt = Refractory(2), Additive()
    history = History(
        index=jnp.array([0, 4, 5]),
        previous_entropy=jnp.ones(ROWS),
        gate=jnp.array([-1, 2, 2], jnp.int32),
        prompt_ids=jnp.zeros((ROWS, IDS), bool),
        counts=jnp.zeros((ROWS, IDS), jnp.int32),
        last_token=jnp.array([-1, 4, 4]),
    )
    logits = jnp.array([[0.0, 1, 2, 3, 4, 5]] * ROWS)
    config = config_of(tilt, gate, steered=is_steered)
    decision = decide(logits, history, numbers_of(tilt, gate), config)
    np.testing.assert_array_equal(decision.junction, np.array([True, False, True]) & is_steered)
    np.testing.assert_array_equal(decision.pending.gate, [0, 2, 5] if is_steered else [-1, 2, 2])
