"""A learned gate: weights of what a gate sees before any value is read, and the file that they stand in.

A logistic regression has predicted from them what reading the values does
(`sia_jax.evaluation.gate_learning`); `sia_jax.steering.gates.Linear` takes them as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sia_jax.files.reading import read_bytes
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import kind_of, parse_object
from sia_jax.runs.journal import is_finite
from sia_jax.steering.gates import LARGEST_GAP, LARGEST_WEIGHT, Linear

FORMAT = "sia_jax learned gate 1"
"""Stands in the file; a reader refuses any other."""

FEATURES = ("entropy", "previous_entropy", "top_probability", "logit_gap", "position")
"""In the order of the weights of `Linear`."""


@dataclass(frozen=True)
class LearnedGate:
    """Weights of the cheap features, and from which score on to steer for which share of tokens."""

    weights: tuple[float, ...]
    """In the order of `FEATURES`: per nat, per nat, of a probability, per nat, per token."""
    intercept: float
    """The bias of even odds; the others part the tokens by the same scores."""
    biases: Mapping[float, float]
    """Ratio -> the bias that steers this share of densely steered tokens."""
    settings: Mapping[str, Any]
    """Of the run that it was learned from."""

    def gate(self, ratio: float) -> Linear:
        """The gate for a ratio.

        Raises:
          ValueError: there is no bias for it.
        """
        if ratio not in self.biases:
            raise ValueError(f"ratio {ratio} has no bias; there are {sorted(self.biases)}")
        return Linear(self.biases[ratio], *self.weights)


def scores(
    learned: LearnedGate, entropy: Any, previous: Any, top: Any, gap: Any, position: Any
) -> np.ndarray:
    """w . x: `Linear(-s, *learned.weights)` steers a token whose score is s or more.

    Args:
      learned: whose weights; its biases are not looked at.
      entropy: [...] H_t, nats.
      previous: [...] H_{t-1}, nats; not looked at where t = 0.
      top: [...] largest probability at temperature 1, unfiltered.
      gap: [...] largest logit less the second largest, nats; cut as the gate cuts it.
      position: [...] t, tokens.

    Returns:
      [...] float64.
    """
    before = np.where(np.asarray(position) > 0, previous, 0.0)
    seen = (entropy, before, top, np.minimum(gap, LARGEST_GAP), position)
    found = np.zeros(())
    for weight, x in zip(learned.weights, seen, strict=True):
        found = found + weight * np.asarray(x, np.float64)
    return found


def read_learned_gate(path: Path) -> LearnedGate:
    """The gate of a file that decode.learn_gate has written.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it holds something else, and what.
    """
    content = read_bytes(path, "file of a learned gate", "decode.learn_gate makes one")
    facts = parse_object(content, str(path), like=f'{{"format": "{FORMAT}", "weights": {{...}}}}')
    try:
        if facts.get("format") != FORMAT:
            raise ValueError(f"it does not say {FORMAT!r}")
        weights, settings = facts.get("weights"), facts.get("settings")
        for name, value in (("weights", weights), ("settings", settings)):
            if not isinstance(value, dict):
                raise ValueError(f"{name} must be an object, got {kind_of(value)}")
        assert isinstance(weights, dict)
        assert isinstance(settings, dict)
        if set(weights) != set(FEATURES):
            raise ValueError(f"weights must be of {', '.join(FEATURES)}, got {shown_value(sorted(weights))}")
        known = tuple(_number(f"the weight of {name}", weights[name], LARGEST_WEIGHT) for name in FEATURES)
        intercept = _number("intercept", facts.get("intercept"), 1e30)
        return LearnedGate(known, intercept, _biases(facts.get("biases")), settings)
    except ValueError as error:
        raise ValueError(f"{path}: this is no file of decode.learn_gate: {error}") from None


def _number(name: str, value: Any, largest: float) -> float:
    if not is_finite(value) or abs(value) > largest:
        raise ValueError(f"{name} must be a number up to {largest:g}, got {shown_value(value, 60)}")
    return float(value)


def _biases(rows: Any) -> dict[float, float]:
    """Ratio -> bias.

    Raises:
      ValueError: anything else than one finite bias for each of some ratios.
    """
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"biases must be a list, at least one, got {kind_of(rows)}")
    found: dict[float, float] = {}
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"a bias must be an object, got {kind_of(row)}")
        ratio = _number("ratio", row.get("ratio"), 1.0)
        if not 0 < ratio < 1 or ratio in found:
            raise ValueError(f"ratio must lie between 0 and 1, each once, got {ratio}")
        found[ratio] = _number("bias", row.get("bias"), 1e30)
    return found
