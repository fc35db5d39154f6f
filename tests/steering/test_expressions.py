"""Gates and tilts are expressions: what they cannot be combined with, or be made of, is said at once."""

import functools
import operator

import numpy as np
import pytest

from sia_jax import SteeringConfig
from sia_jax.steering.gates import Always, And, Bernoulli, Budget, Entropy, LogitGap, Not, Or, Position
from sia_jax.steering.tilts import Additive, Centred, Clipped

GATES = (Entropy(), Position(3), ~Budget(0.2), Entropy() & Position(3), Always() | Bernoulli(0.5))


@pytest.mark.parametrize("gate", GATES, ids=repr)
@pytest.mark.parametrize(
    "combine",
    [
        lambda a: a and Position(3),
        lambda a: a or Position(3),
        lambda a: not a,
        lambda a: Position(1) if a else Position(3),
        lambda a: any([a]),
    ],
    ids=["and", "or", "not", "if", "any"],
)
def test_a_gate_is_neither_true_nor_false(gate, combine):
    with pytest.raises(TypeError, match=r"combine gates with &, \| and ~"):
        combine(gate)


@pytest.mark.parametrize("tilt", [Additive(), Centred(), Clipped(2.0)], ids=repr)
def test_a_tilt_is_neither_true_nor_false(tilt):
    with pytest.raises(TypeError, match=r"tilts do not combine.*Clipped\(2.0, of=Standardised\(\)\)"):
        _ = tilt and Additive()


@pytest.mark.parametrize(
    "other", [True, 3, 0.5, None, "entropy", Entropy, Additive(), np.ones(2), [Entropy()]]
)
@pytest.mark.parametrize("combine", [operator.and_, operator.or_], ids=["&", "|"])
def test_gates_combine_with_gates_alone(combine, other):
    with pytest.raises(TypeError, match=r"what [&|] combines must be a gate such as Entropy\(\)"):
        combine(Entropy(), other)
    if not isinstance(other, np.ndarray | Additive):
        with pytest.raises(TypeError, match=r"what [&|] combines must be a gate|unsupported operand"):
            combine(other, Entropy())


@pytest.mark.parametrize("make", [Not, functools.partial(And, Entropy()), functools.partial(Or, Entropy())])
def test_parts_of_an_expression_are_gates(make):
    with pytest.raises(TypeError, match="must be a gate"):
        make(0.5)


@pytest.mark.parametrize("number", ["3", None, [3], np.ones(2), True, 1j, Entropy()])
@pytest.mark.parametrize("gate", [Position, Bernoulli, Budget, LogitGap])
def test_a_gate_s_number_is_a_number(gate, number):
    with pytest.raises(TypeError, match=rf"of {gate.__name__} must be a number, got"):
        gate(number)


def test_a_number_of_numpy_is_a_number():
    assert SteeringConfig(gate=Position(np.int64(3)), beta=np.float32(2), num_candidates=np.int32(4)) == (
        SteeringConfig(gate=Position(3), beta=2, num_candidates=4)
    )


@pytest.mark.parametrize("arguments", [((0.5,), {}), ((), {"threshold": 0.5})])
def test_the_threshold_is_no_number_of_the_entropy_gate(arguments):
    positional, named = arguments
    with pytest.raises(TypeError, match=r"its threshold is an argument of the call, sample\("):
        Entropy(*positional, **named)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"gate": Entropy}, "gate must be a Gate, got the class Entropy"),
        ({"gate": None}, "gate must be a Gate"),
        ({"tilt": 2.0}, "tilt must be a Tilt"),
        ({"num_candidates": "10"}, "num_candidates must be an integer, got str '10'"),
        ({"num_candidates": 2.5}, "num_candidates must be an integer"),
        ({"num_candidates": True}, "num_candidates must be an integer"),
        ({"top_k": None}, "top_k must be an integer"),
        ({"beta": "1"}, "beta must be a number"),
        ({"beta": np.ones(2)}, r"beta must be a number, got ndarray of float64 \(2,\).*Knobs"),
        ({"temperature": None}, "temperature must be a number"),
    ],
)
def test_a_configuration_is_made_of_what_its_fields_say(fields, name):
    with pytest.raises(TypeError, match=name):
        SteeringConfig(**fields)


@pytest.mark.parametrize("value", [[], {}, None, 3, ["policy"]])
def test_a_choice_is_one_of_its_words(value):
    with pytest.raises(ValueError, match="entropy must be one of"):
        SteeringConfig(entropy=value)
