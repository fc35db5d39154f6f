"""What a value out of a checkpoint's JSON may be: the tests that its readers share."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sia_jax.files.shown import shown_value

_LARGEST_FLOAT32 = 3.4028234e38


def is_integer(value: Any) -> bool:
    """An integer of any sign; true and false, which Python counts among them, are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """An integer above 0."""
    return is_integer(value) and value > 0


def is_index(value: Any) -> bool:
    """An integer from 0."""
    return is_integer(value) and value >= 0


def is_number(value: Any) -> bool:
    """A finite number, which float64 can hold."""
    if isinstance(value, float):
        return math.isfinite(value)
    return is_integer(value) and abs(value) <= sys.float_info.max


def is_positive(value: Any) -> bool:
    """A number above 0 that float32, in which networks compute, can hold."""
    return is_number(value) and 0 < value <= _LARGEST_FLOAT32


def is_bool(value: Any) -> bool:
    """True or false, not what Python takes for them."""
    return isinstance(value, bool)


def is_object(value: Any) -> bool:
    """A JSON object."""
    return isinstance(value, dict)


def is_set(value: Any) -> bool:
    """Whether a field says anything: not null, false or empty. A zero does."""
    return not (value is None or value is False or value in ("", [], {}))


def as_list(value: Any) -> list[Any]:
    """A list as it is, null as an empty one, anything else as the one entry of a list."""
    return [] if value is None else value if isinstance(value, list) else [value]


Kinds = Sequence[tuple[Iterable[str], Callable[[Any], bool], str]]
"""Names of fields, what holds of each of them that is there and not null, and that in words."""


def wrong_values(raw: Mapping[str, Any], kinds: Kinds) -> list[str]:
    """Fields of a JSON object that are there but are not of their kind, each with what was expected."""
    return [
        f"{key} is {shown_value(raw[key])}, expected {expected}"
        for keys, holds, expected in kinds
        for key in keys
        if raw.get(key) is not None and not holds(raw[key])
    ]
