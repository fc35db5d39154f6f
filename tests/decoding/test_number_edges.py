"""Numbers at the edge of float32 and of int32: nothing wraps, overflows into a token, or is cut off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.models.heads import value_head
from sia_jax.steering import gates
from tests.support.checkpoints import tiny_policy, tiny_value_model

POLICY = tiny_policy()
VALUE = tiny_value_model(POLICY)
CONFIG = sia_jax.SamplerConfig(
    policy=POLICY.config,
    value=VALUE.config,
    steering=sia_jax.SteeringConfig(num_candidates=1, gate=gates.LogitGap(1e9)),
    max_new_tokens=4,
)


def sample(**knobs: object) -> sia_jax.Samples:
    return sia_jax.sample(
        sia_jax.SteeringParams(POLICY.params, VALUE.params),
        sia_jax.Prompt.pack([[5, 6], [7]]),
        0.5,
        rng_key=jax.random.key(0, impl="threefry2x32"),
        config=CONFIG,
        knobs=sia_jax.Knobs(
            stop_ids=np.zeros(0, np.int32), **{"bias_ids": [5, 5], "bias": [0.0, 0.0]} | knobs
        ),
    )


def test_a_logit_gap_looks_past_a_single_candidate():
    assert bool(np.all(sample().junction))


@pytest.mark.parametrize("knobs", [{"beta": [1.0, 3e38]}, {"frequency_penalty": [0, -3e38]}])
def test_a_number_that_overflows_ends_its_row_and_never_becomes_a_token(knobs):
    samples = sample(**{name: np.float32(value) for name, value in knobs.items()})
    assert samples.finish_reason.tolist() == [sia_jax.FinishReason.LENGTH, sia_jax.FinishReason.NON_FINITE]
    written = np.arange(CONFIG.max_new_tokens) < np.asarray(samples.lengths)[:, None]
    assert np.isfinite(np.asarray(samples.logprob)[written]).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 1.7),
        ("top_k", 2**32 + 1),
        ("min_new_tokens", 2**31),
        ("max_new_tokens", 2.5),
        ("beta", 1e39),
        ("repetition_penalty", 1e-40),  # the reciprocal
        ("repetition_penalty", 1e39),
    ],
)
def test_a_number_that_its_type_cannot_hold_is_an_error(name, value):
    with pytest.raises(ValueError, match=name):
        sample(**{name: value})


def test_a_number_of_the_schedule_is_whole():
    with pytest.raises(ValueError, match=r"min_waiting must be whole numbers of 32 bits, got 1\.5"):
        sample(schedule=sia_jax.Burst(1.5))


def test_the_numbers_of_a_gate_come_in_a_gate():
    with pytest.raises(TypeError, match=r"knobs\.gate must be of the form"):
        sample(gate=0.5)


@pytest.mark.parametrize("rows", [1, 12, 14, 36])
def test_a_value_does_not_depend_on_its_place(rows):
    hidden = jax.random.normal(jax.random.key(1), (24,))
    head = {"weight": jax.random.normal(jax.random.key(2), (1, 24)), "bias": jnp.ones(1)}
    values = jax.jit(value_head)(head, jnp.broadcast_to(hidden, (rows, 24)))
    assert len(np.unique(np.asarray(values))) == 1
