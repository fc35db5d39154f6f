"""The gate of all steered methods: one expression, whose numbers open one of its parts and shut the rest.

So one program serves them all: the numbers are each request's own.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sia_jax.engine.reply import json_threshold
from sia_jax.files.shown import shown_value
from sia_jax.runs.journal import is_finite
from sia_jax.steering.gates import Bernoulli, Budget, Entropy, EntropyRatio, Gate, Linear, Position
from sia_jax.steering.parts import check_numbers

SHUT = Linear(-math.inf, 0.0, 0.0, 0.0, 0.0, 0.0)
"""A learned gate that never opens."""

LATER = ("budget", "entropy_ratio", "position", "learned")
"""Fields of a record that only the gates have that they are numbers of."""


@dataclass(frozen=True)
class GateNumbers:
    """Where a method steers: at a position where any of these says so. As it stands, nowhere."""

    threshold: float = math.inf
    """H_t >= threshold, nats; with a budget, its threshold at the first token."""
    rate: float = 0.0
    """With this probability."""
    budget: float | None = None
    """The threshold moves so that this share of the tokens is steered; None: it stays."""
    entropy_ratio: float = math.inf
    """ln(H_t / H_{t-1}) >= entropy_ratio, and t > 0."""
    position: int = 0
    """t < position."""
    learned: Linear = SHUT
    """bias + w . x >= 0."""

    def to_json(self) -> dict[str, Any]:
        """What stands in a record: threshold and rate, and of `LATER` what is open."""
        later: dict[str, Any] = {} if self.budget is None else {"budget": self.budget}
        later |= {} if self.entropy_ratio == math.inf else {"entropy_ratio": self.entropy_ratio}
        later |= {} if self.position == 0 else {"position": self.position}
        later |= {} if self.learned == SHUT else {"learned": asdict(self.learned)}
        return {"threshold": json_threshold(self.threshold), "rate": self.rate, **later}


def gate_of(numbers: GateNumbers) -> Gate:
    """The gate with a method's numbers; the threshold is the request's own field.

    A threshold of +inf shuts a budget too, but any other serves both: it is the position that shuts the one
    or the other, at every token.
    """
    held = numbers.budget is not None
    return (
        Entropy() & Position(0.0 if held else math.inf)
        | Budget(numbers.budget or 0.0) & Position(math.inf if held else 0.0)
        | Bernoulli(numbers.rate)
        | EntropyRatio(numbers.entropy_ratio)
        | Position(float(numbers.position))
        | numbers.learned
    )


def numbers_in(record: Mapping[str, Any]) -> dict[str, Any]:
    """The gate's numbers as a record has them, in the form of `GateNumbers.to_json`.

    Args:
      record: of a reply; one of an earlier release has threshold and rate alone.
    """
    names = ("threshold", "rate", *LATER)
    return {name: record[name] for name in names if name in record}


def check_numbers_in(record: Mapping[str, Any]) -> None:
    """A record has numbers where `numbers_in` looks.

    Args:
      record: its file may have been written by anybody.

    Raises:
      KeyError: it has no threshold, or no rate.
      ValueError: one of them is something else.
    """
    threshold, rate = record["threshold"], record["rate"]
    if not is_finite(threshold) and threshold not in ("inf", "-inf"):
        raise ValueError(f'threshold must be a number, "inf" or "-inf", got {shown_value(threshold, 60)}')
    if not is_finite(rate) or rate < 0:
        raise ValueError(f"rate must be a number, of 0 or more, got {shown_value(rate, 60)}")
    for name in ("budget", "entropy_ratio", "position"):
        if name in record and not is_finite(record[name]):
            raise ValueError(f"{name} must be a number, got {shown_value(record[name], 60)}")
    if "learned" in record:
        parse_linear(record["learned"])


def parse_linear(value: Any) -> Linear:
    """The learned gate that JSON says.

    Args:
      value: an object with a finite number, within its range, for each field of `Linear`, and nothing else.

    Raises:
      ValueError: something else.
    """
    names = [f.name for f in fields(Linear)]
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise ValueError(
            f"a learned gate must be an object with {', '.join(names)}, got {shown_value(value, 60)}"
        )
    for name, number in value.items():
        if not is_finite(number):
            raise ValueError(f"{name} of a learned gate must be a number, got {shown_value(number, 60)}")
    found = Linear(**{name: float(number) for name, number in value.items()})
    check_numbers("learned gate", found, static=True)
    return found
