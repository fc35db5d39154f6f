"""Gates and tilts are expressions: what they cannot be combined with, or be made of, is said at once."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.steering.config import SteeringConfig
from sia_jax.steering.gates import (
    After,
    Always,
    And,
    Bernoulli,
    Budget,
    Entropy,
    LogitGap,
    Not,
    Or,
    Position,
    Refractory,
)
from sia_jax.steering.parts import check_numbers, same_expression
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
    with pytest.raises(TypeError, match=r"(Not.inner|And.right|Or.right) must be a gate such as Entropy\(\)"):
        SteeringConfig(gate=make(0.5))


@pytest.mark.parametrize("of", [None, Additive, Entropy()])
def test_a_tilt_bounds_a_tilt(of):
    with pytest.raises(TypeError, match=r"Clipped.of must be a tilt such as Additive\(\)"):
        SteeringConfig(tilt=Clipped(1.0, of))


@pytest.mark.parametrize("number", ["3", None, [3], np.ones(2), True, 1j, Additive])
@pytest.mark.parametrize("gate", [Position, Bernoulli, Budget, LogitGap])
def test_a_gate_s_number_is_a_number(gate, number):
    with pytest.raises(TypeError, match=rf"of {gate.__name__} must be a number, got"):
        SteeringConfig(gate=Entropy() | gate(number))


@pytest.mark.parametrize(
    ("tokens", "error", "said"),
    [
        (151668, TypeError, r"tokens of After must be a tuple of ids such as \(151668,\), got int 151668"),
        ([1, 2], TypeError, "must be a tuple of ids"),
        (None, TypeError, "must be a tuple of ids"),
        ((1.0,), TypeError, "an id in tokens of After must be an integer"),
        ((True,), TypeError, "an id in tokens of After must be an integer"),
        (("a",), TypeError, "an id in tokens of After must be an integer"),
        ((), ValueError, r"must be one or more ids of 0 .. 2147483647, got \(\)"),
        ((3, -1), ValueError, "must be one or more ids"),
        ((2**31,), ValueError, "must be one or more ids"),
    ],
)
def test_a_marker_is_a_tuple_of_ids(tokens, error, said):
    with pytest.raises(error, match=said):
        SteeringConfig(gate=Entropy() & After(tokens))
    assert SteeringConfig(gate=After((np.int64(3),))) == SteeringConfig(gate=After((3,)))


@pytest.mark.parametrize("x", [np.float32([0.5, 2]), jnp.array([0.5, 2]), 2, [0.1, 2]])
def test_a_row_s_number_lies_in_its_range(x):
    with pytest.raises(ValueError, match=r"a number of the gate must lie in 0 .. 1, got .*2.* in ~Bernoulli"):
        check_numbers("gate", ~Bernoulli(x), static=False)


@pytest.mark.parametrize("x", [np.float32([0.5, np.nan]), np.nan])
def test_a_row_s_number_is_not_nan(x):
    with pytest.raises(ValueError, match="the numbers of the tilt must not be NaN"):
        check_numbers("tilt", Clipped(x), static=False)


def test_arrays_and_tracers_are_numbers_of_rows():
    check_numbers("gate", Position(3) & Bernoulli(np.array([0.0, 1])), static=False)
    jax.jit(lambda gate: check_numbers("gate", gate, static=False))(Bernoulli(7.0))
    with pytest.raises(ValueError, match="rate of Bernoulli must be numbers, got"):
        check_numbers("gate", Bernoulli("often"), static=False)


def test_an_expression_is_the_same_with_other_numbers():
    same_expression("knobs.gate", Entropy() & Bernoulli(np.ones(3)), Entropy() & Bernoulli(0.2))
    same_expression("knobs.tilt", Clipped(2), Clipped(1.5))
    same_expression("knobs.gate", After((1, 2), started=np.ones(3)), After((1, 2)))


def test_the_operators_of_an_expression_are_compared():
    with pytest.raises(ValueError, match="another expression is another program"):
        same_expression("knobs.gate", Entropy() & ~Bernoulli(0.2), Entropy() | ~Bernoulli(0.2))


@pytest.mark.parametrize("given", [(0.2,), 0.2, None, Bernoulli])
def test_what_is_no_expression_is_told(given):
    with pytest.raises(
        TypeError, match=r"knobs.gate must be of the form Bernoulli\(rate=0.2\), got .* scalars or"
    ):
        same_expression("knobs.gate", given, Bernoulli(0.2))


@pytest.mark.parametrize(
    "given", [Budget(0.2), ~Bernoulli(0.2), Bernoulli([0.1, 0.2]), Bernoulli(None), Additive()]
)
def test_another_expression_is_told(given):
    with pytest.raises(
        ValueError, match=r"form Bernoulli\(rate=0.2\), got .*another expression is another program"
    ):
        same_expression("knobs.gate", given, Bernoulli(0.2))


@pytest.mark.parametrize("given", [After((1,)), After((2, 1)), After([1, 2]), Position(1)])
def test_another_marker_is_another_program(given):
    with pytest.raises(ValueError, match="another expression is another program"):
        same_expression("knobs.gate", given, After((1, 2)))


EXPRESSIONS = (*GATES, Clipped(2.0, of=Clipped(1.0)), Refractory(3) & Entropy(), ~After((1, 1, 2)))


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=repr)
@pytest.mark.parametrize(
    "leaf",
    [None, object(), "x", jax.ShapeDtypeStruct((3,), jnp.float32)],
    ids=["none", "object", "text", "shape"],
)
def test_jax_may_put_anything_in_the_place_of_the_leaves(expression, leaf):
    rebuilt = jax.tree.map(lambda x: leaf, expression)
    assert type(rebuilt) is type(expression)
    leaves = jax.tree.leaves(rebuilt, is_leaf=lambda x: x is leaf)
    assert len(leaves) == len(jax.tree.leaves(expression))
    assert all(x is leaf for x in leaves)


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=repr)
def test_expressions_pass_through_transformations(expression):
    rows = jax.tree.map(lambda x: jnp.full(3, x, jnp.float32), expression)
    double = jax.vmap(lambda part: jax.tree.map(lambda x: 2 * x, part), axis_size=3)
    for found in (double(rows), jax.jit(double)(rows)):
        same_expression("found", found, expression)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expression), strict=True):
            np.testing.assert_array_equal(x, np.full(3, 2 * y, np.float32))


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=repr)
def test_expressions_are_static_arguments_too(expression):
    rebuilt = jax.tree.unflatten(jax.tree.structure(expression), jax.tree.leaves(expression))
    assert (rebuilt, hash(rebuilt)) == (expression, hash(expression))
    assert repr(rebuilt) == repr(expression)
    traced: list[int] = []
    f = jax.jit(lambda x, part: traced.append(1) or x, static_argnames="part")
    f(1.0, part=expression), f(2.0, part=rebuilt)
    assert len(traced) == 1


def test_an_expression_is_told_as_it_is_written():
    assert repr(~Entropy()) == "~Entropy()"
    assert (
        repr(Entropy() & Budget(0.2) | ~Position(3))
        == "((Entropy() & Budget(rate=0.2)) | ~Position(first=3))"
    )


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
