"""What gates and tilts are made of: numbers, each with a range, and operands.

An expression is a pytree whose numbers are the leaves: floats in a configuration, which is static and
hashable, and [B] arrays in `RowParams`, which are traced. JAX rebuilds a tree by calling its classes with
whatever stands for the leaves (tracers, None, specifications), so the constructors check nothing, and
`check_numbers` says what is wrong with an expression when it is put to use.
"""

import abc
import math
from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any, ClassVar, cast

import jax
import numpy as np
from jaxtyping import Array, Float

from sia_jax.arguments import check_kind, check_real, check_whole, concrete, read_numbers, told
from sia_jax.reprs import shortened

PerRow = float | Float[Array, " B"]
"""One number for all rows, or one for each."""


class Expression(abc.ABC):
    """A gate or a tilt: a frozen dataclass, registered with `jax.tree_util.register_dataclass`."""

    _described: ClassVar[str]  # for errors: what to pass


def within(low: float, high: float) -> dict[str, Any]:
    """The metadata of a dataclass field that holds a number in low .. high; without it, it may be any."""
    return {"range": (low, high)}


def ids() -> dict[str, Any]:
    """The metadata of a dataclass field that holds ids: a tuple of one or more, static."""
    return {"static": True, "ids": True}


def operand(kind: type[Expression]) -> dict[str, Any]:
    """The metadata of a dataclass field that holds an expression."""
    return {"kind": kind}


def range_of(f: Field) -> tuple[float, float]:
    """Where the number that a field holds makes sense."""
    return f.metadata.get("range", (-math.inf, math.inf))


def check_numbers(name: str, expression: Expression, *, static: bool) -> None:
    """An expression is made of what its classes say, and its numbers lie where they make sense.

    Args:
      name: "gate" or "tilt", for errors.
      expression: numbers that are tracers are not looked at.
      static: each number is to be a Python or NumPy scalar; else anything that reads as an array will do.

    Raises:
      TypeError: an operand of another kind, what is no number, or no tuple of ids.
      ValueError: a number that is NaN or out of its range, an id that is none, or no ids.
    """
    found = []
    for owner, of, x in _numbers(expression):
        label = f"{of.name} of {type(owner).__name__}"
        if static:
            check_real(label, x)
        found.append((x if static else read_numbers(label, x), *range_of(of)))
    known = [(x, low, high) for x, low, high in found if concrete(x)]
    shown = shortened(repr(expression), 200)
    if any(np.isnan(x).any() for x, _, _ in known):
        raise ValueError(f"the numbers of the {name} must not be NaN, got {shown}")
    for x, low, high in known:
        if not np.all((low <= x) & (x <= high)):
            raise ValueError(f"a number of the {name} must lie in {low:g} .. {high:g}, got {x} in {shown}")


def same_expression(name: str, given: Any, expected: Expression) -> None:
    """`given` is `expected` with other numbers, so that it runs in the program compiled for `expected`.

    Raises:
      TypeError: it is no gate or tilt.
      ValueError: it is another one, or a number in it is no single leaf, such as a list.
    """
    remedy = "pass the configuration's own expression with scalars or arrays [B] for its numbers"
    if not isinstance(given, Expression):
        raise TypeError(f"{name} must be of the form {expected}, got {told(given)}; {remedy}")
    form, wanted = (cast(Any, jax.tree.structure(x)) for x in (given, expected))
    if form != wanted or not _same_classes(given, expected):
        raise ValueError(
            f"{name} must be of the form {expected}, got {shortened(repr(given), 200)}; {remedy}: "
            "another expression is another program, and goes into SteeringConfig"
        )


def _same_classes(given: Any, expected: Any) -> bool:
    """Which the equality of JAX's tree structures does not compare, if they are dataclasses (0.10)."""
    return type(given) is type(expected) and all(
        _same_classes(getattr(given, f.name), getattr(expected, f.name))
        for f in fields(expected)
        if isinstance(getattr(expected, f.name), Expression)
    )


def _numbers(expression: Expression) -> Iterator[tuple[Expression, Field, Any]]:
    """(whose, its field, the number), from left to right."""
    for f in fields(expression):  # type: ignore[arg-type]
        x, kind = getattr(expression, f.name), f.metadata.get("kind")
        if kind is not None:
            check_kind(f"{type(expression).__name__}.{f.name}", x, kind, kind._described)
        if isinstance(x, Expression):
            yield from _numbers(x)
        elif "ids" in f.metadata:
            _check_ids(f"{f.name} of {type(expression).__name__}", x)
        elif not f.metadata.get("static"):
            yield expression, f, x


def _check_ids(label: str, x: Any) -> None:
    check_kind(label, x, tuple, "a tuple of ids such as (151668,)")
    for token in x:
        check_whole(f"an id in {label}", token)
    if not x or min(x) < 0 or max(x) >= 2**31:
        raise ValueError(f"{label} must be one or more ids of 0 .. {2**31 - 1}, got {shortened(repr(x), 80)}")
