"""The table of sampling numbers: each row is one number of a call, told once.

`SteeringConfig` (defaults), `Knobs` (what a call gives) and `RowParams` (what the program gets) inherit its
rows, and the options of the programs, what thresholds are bound to and what a run records are made of them.
So a new number is a row here, and a processor or a filter that reads it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, TypeVar, get_type_hints

import numpy as np

from sia_jax.arguments import check_real, check_whole, concrete, read_numbers

_LARGEST = float(np.finfo(np.float32).max)

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Number:
    """What is known of a number: its default, where it must lie, and what it is for."""

    default: float = 0.0
    expected: str = "a finite number"
    """What an error asks for."""
    help: str = ""
    """One sentence, as a program's `--help` says it."""
    low: float = -math.inf
    high: float = math.inf
    """It is finite, whatever these say."""
    open_at_zero: bool = False
    """Whether 0 itself is refused."""
    smallest: float = 0.0
    """Numbers between 0 and this are refused."""
    whole: bool = False
    """An int32; else a float32."""

    @property
    def dtype(self) -> type:
        """Of its arrays."""
        return np.int32 if self.whole else np.float32

    def check(self, name: str, value: Any) -> Any:
        """It lies where it makes sense.

        Args:
          name: what an error calls it.
          value: a number, or an array of any shape of them; of a tracer nothing is known.

        Returns:
          The numbers, as an array.

        Raises:
          ValueError: with the name, what was got and what was expected.
        """
        array = read_numbers(name, value)
        if not concrete(array) or not array.size:  # whether there may be none is a question of shape
            return array
        if self.whole and not (np.all(array == np.floor(array)) and np.all(np.abs(array) < 2**31)):
            raise ValueError(f"{name} must be whole numbers of 32 bits, got {array.tolist()}")
        wrong = ~(np.abs(array) <= _LARGEST) | (array < self.low) | (array > self.high)
        wrong |= (array > 0) & (array < self.smallest)
        if self.open_at_zero:
            wrong |= array == 0
        if wrong.any():
            raise ValueError(f"{name} must be {self.expected}, got {array.tolist()}")
        return array


@dataclass(frozen=True, kw_only=True)
class FilterNumbers:
    """What an id may be drawn by, in the order in which it is applied; None: not given."""

    temperature: Annotated[
        Any,
        Number(
            default=1.0,
            low=0,
            smallest=1e-30,  # below it, logits over the temperature overflow
            expected="0 (greedy), or a finite number from 1e-30 on",
            help="0: the best token, always.",
        ),
    ] = None
    top_k: Annotated[
        Any,
        Number(
            default=0,
            low=0,
            whole=True,
            expected="0 (all) or more",
            help="Sample among so many tokens; 0: all.",
        ),
    ] = None
    top_p: Annotated[
        Any,
        Number(
            default=1.0,
            low=0,
            high=1,
            open_at_zero=True,
            expected="in (0, 1]",
            help="Sample among the tokens that have this mass; 1: all.",
        ),
    ] = None
    min_p: Annotated[
        Any,
        Number(
            default=0.0,
            low=0,
            high=1,
            expected="in [0, 1]",
            help="Sample among the tokens that have this share of the best one's probability; 0: all.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SamplingNumbers(FilterNumbers):
    """All of them; None: not given."""

    beta: Annotated[
        Any,
        Number(default=1.0, help="Strength of the steering, nats per unit of reward."),
    ] = None
    repetition_penalty: Annotated[
        Any,
        Number(
            default=1.0,
            low=0,
            high=1e30,
            open_at_zero=True,
            smallest=1e-30,  # below it, and above the other, logits over or times the penalty overflow
            expected="in [1e-30, 1e30]",
            help="Divides positive logits of tokens seen in prompt or reply; 1: off.",
        ),
    ] = None
    presence_penalty: Annotated[
        Any,
        Number(default=0.0, help="Nats taken off tokens that the reply has."),
    ] = None
    frequency_penalty: Annotated[
        Any,
        Number(default=0.0, help="Nats taken off for each time that the reply has a token."),
    ] = None
    min_new_tokens: Annotated[
        Any,
        Number(
            default=0,
            low=0,
            whole=True,
            expected="0 or more",
            help="No end of the reply before so many tokens, by a stop token or a stop text.",
        ),
    ] = None
    read_all: Annotated[
        Any,
        Number(
            default=0,
            low=0,
            high=1,
            whole=True,
            expected="0 or 1",
            help="1: read the values of all candidates, also of those that a bounded tilt cannot make win; "
            "the tokens are the same.",
        ),
    ] = None


def _rows() -> dict[str, Number]:
    hints = get_type_hints(SamplingNumbers, include_extras=True)
    return {f.name: hints[f.name].__metadata__[0] for f in fields(SamplingNumbers)}


NUMBERS: Mapping[str, Number] = _rows()
"""The rows by their names."""


def names_of(kind: type) -> tuple[str, ...]:
    """The names of the rows that a dataclass has, or that a class inherits of one."""
    return tuple(f.name for f in fields(kind) if f.name in NUMBERS)


def check_number(name: str, value: Any) -> Any:
    """Numbers of a row lie where they make sense; see `Number.check`.

    Raises:
      ValueError: with the name, what was got and what was expected.
    """
    return NUMBERS[name].check(name, value)


def check_static(name: str, value: Any) -> None:
    """A number of a configuration is one, and hashable, and lies where it makes sense.

    Raises:
      TypeError: it is no number, or an array.
      ValueError: with the name, what was got and what was expected.
    """
    (check_whole if NUMBERS[name].whole else check_real)(name, value)
    check_number(name, value)


def redeclare(change: Callable[[Number], tuple[Any, Any]]) -> Callable[[type[Kind]], type[Kind]]:
    """A decorator below `@dataclass`: the rows that a class inherits, with another type and default.

    Args:
      change: of a row; gives its type, as `dataclass` and what reads annotations see it, and its default.
    """

    def decorate(cls: type[Kind]) -> type[Kind]:
        for name in names_of(cls):
            annotation, default = change(NUMBERS[name])
            cls.__annotations__[name] = annotation
            setattr(cls, name, field(default=default, kw_only=True))
        return cls

    return decorate


def with_absent(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run's recorded settings, where a number that they do not name stands at its default.

    So what was written before a row was added is read as what it was: a run without that number.
    """
    absent = {name: row.default for name, row in NUMBERS.items() if name not in settings}
    return {**settings, **absent}
