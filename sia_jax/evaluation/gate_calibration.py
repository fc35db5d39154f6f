"""The numbers of the further gates for shares of the policy's own tokens, and how a file says them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.learned_gate import LearnedGate, scores
from sia_jax.evaluation.methods import GateKind
from sia_jax.evaluation.shares import number_for, realised_share, share_caution
from sia_jax.evaluation.token_features import TokenFeatures
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import kind_of
from sia_jax.runs.journal import is_finite
from sia_jax.steering.gates import SMALLEST_ENTROPY, Linear


@dataclass(frozen=True)
class Scale:
    """What a gate compares, and what its number is."""

    what: str
    """The number, in words."""
    since: str
    """Why there may be none for a share."""
    text: str
    """How a number is shown: '{:.4f}'."""
    numbers: Callable[[float, Linear | None], GateNumbers]
    """Of a number; a learned gate is told its weights."""


def _learned(bias: float, weights: Linear | None) -> GateNumbers:
    assert weights is not None
    return GateNumbers(learned=replace(weights, bias=bias))


SCALES: Mapping[GateKind, Scale] = {
    "entropy-ratio": Scale(
        "ratio of entropies",
        "many have the same, and the first of a reply has none",
        "ln(H_t / H_t-1) >= {:.4f}",
        lambda number, _: GateNumbers(entropy_ratio=number),
    ),
    "position": Scale(
        "number of first tokens",
        "a place is steered in all replies or in none",
        "t < {:.0f}",
        lambda number, _: GateNumbers(position=int(number)),
    ),
    "learned": Scale(
        "bias of the learned gate", "many have the same sum", "learned gate with a bias of {:.4f}", _learned
    ),
}
"""Of the gates that have a number of their own for each share; a budget takes the entropy gate's."""


def linear_of(learned: LearnedGate) -> Linear:
    """The gate of even odds."""
    return Linear(learned.intercept, *learned.weights)


def log_ratios(tokens: TokenFeatures) -> np.ndarray:
    """[T] ln(max(H_t, 1e-6) / max(H_{t-1}, 1e-6)), -inf at t = 0, as `EntropyRatio` sees them; float32."""
    least = np.float32(SMALLEST_ENTROPY)
    now, before = np.maximum(tokens.entropy, least), np.maximum(tokens.previous_entropy, least)
    return np.where(tokens.position > 0, np.log(now) - np.log(before), np.float32(-np.inf))


def calibrate_gates(tokens: TokenFeatures, ratio: float, learned: LearnedGate | None) -> dict[str, Any]:
    """By gate, its number for a share of these tokens and the share that it steers; JSON.

    Args:
      tokens: of the policy's own replies.
      ratio: in (0, 1).
      learned: whose bias is found too; None: there is none.
    """
    ratios = log_ratios(tokens)
    number = number_for(ratios, ratio)
    found = {"entropy-ratio": _row(number, realised_share(ratios, number))}
    # t < first, of whole numbers, is -t >= 1 - first.
    first = math.floor(-number_for(-tokens.position, ratio)) + 1
    found["position"] = _row(first, realised_share(-tokens.position, 1 - first))
    if learned is not None:
        sums = scores(
            learned,
            tokens.entropy,
            tokens.previous_entropy,
            tokens.top_probability,
            tokens.logit_gap,
            tokens.position,
        )
        number = number_for(sums, ratio)
        found["learned"] = _row(-number, realised_share(sums, number))
    return found


def parse_gates(gates: Any, learned: Linear | None) -> dict[GateKind, GateNumbers]:
    """The gates' numbers that JSON says; see `calibrate_gates`.

    Args:
      gates: anything.
      learned: weights of the learned gate; None: the file has none.

    Raises:
      ValueError: it says something else.
    """
    if not isinstance(gates, dict):
        raise ValueError(f"gates must be an object, got {kind_of(gates)}")
    unknown = sorted(set(gates) - set(SCALES))
    if unknown:
        raise ValueError(f"gates must be of {', '.join(SCALES)}, got {shown_value(unknown[0], 60)}")
    found: dict[GateKind, GateNumbers] = {}
    for kind, scale in SCALES.items():
        if kind not in gates:
            continue
        row = gates[kind]
        if not isinstance(row, dict):
            raise ValueError(f"the number of {kind} must stand in an object, got {kind_of(row)}")
        number: Any = row.get("number")
        share: Any = row.get("share")
        if not is_finite(number) or abs(number) >= 1e30:
            raise ValueError(f"the {scale.what} must be a number, got {shown_value(number, 60)}")
        if not is_finite(share) or not 0 <= share <= 1:
            raise ValueError(f"the share of the {scale.what} must be 0 .. 1, got {shown_value(share, 60)}")
        if kind == "position" and (number < 0 or number != int(number)):
            raise ValueError(f"the {scale.what} must be 0, 1, ..., got {shown_value(number, 60)}")
        if kind == "learned" and learned is None:
            raise ValueError(f"there is a {scale.what}, and no weights")
        found[kind] = scale.numbers(float(number), learned)
    return found


def gate_caution(kind: GateKind, ratio: float, share: float, tokens: int) -> str:
    """What must be said of a gate's share that is not the one asked for; see `share_caution`.

    Args:
      kind: of `SCALES`, or one whose number is the threshold of the entropy gate.
      ratio: asked for.
      share: that its number steers.
      tokens: how many there are.
    """
    if kind not in SCALES:
        return share_caution(ratio, share, tokens)
    scale = SCALES[kind]
    return share_caution(ratio, share, tokens, scale.what, scale.since)


def _row(number: float, share: float) -> dict[str, float]:
    return {"number": number, "share": round(share, 6)}
