"""The structure of steering, static, and its numbers, traced."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import jax

from sia_jax.arguments import check_real, check_whole, told
from sia_jax.reprs import changed
from sia_jax.steering.gates import Entropy, Gate
from sia_jax.steering.tilts import Additive, Tilt

_REAL = ("beta", "temperature", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty")


@dataclass(frozen=True, repr=False)
class SteeringConfig:
    """How junctions are found and steered. Frozen and hashable: a static argument of `jax.jit`.

    The first block is structure: it shapes the compiled program. The second holds defaults of numbers that
    are traced; `Knobs` overrides them call by call and row by row, and compiles nothing.
    """

    num_candidates: int = 10
    """C, the paper's k."""
    entropy: Literal["candidates", "vocabulary"] = "candidates"
    """What the entropy gates see: softmax(l_A), at most ln C nats, or softmax(l)."""
    gate: Gate = field(default_factory=Entropy)
    """Where the policy is steered: an expression of `sia_jax.steering.gates`."""
    tilt: Tilt = field(default_factory=Additive)
    """What values add to logits: one of `sia_jax.steering.tilts`."""
    unsteered: Literal["policy", "candidates"] = "policy"
    """Elsewhere: the policy's own distribution (the paper), or that restricted to A (the official code)."""

    beta: float = 1.0
    """Strength of the tilt, nats per unit of reward."""
    temperature: float = 1.0
    """0: the best one, always."""
    top_k: int = 0
    """Ids that may be drawn; 0: all."""
    top_p: float = 1.0
    """Mass of the ids that may be drawn; 1: all."""
    repetition_penalty: float = 1.0
    """Divides positive logits of ids seen in prompt or reply, multiplies negative ones; 1: off."""
    presence_penalty: float = 0.0
    """Nats taken off the logits of ids that the reply has."""
    frequency_penalty: float = 0.0
    """Nats taken off for each time that the reply has an id."""
    min_new_tokens: int = 0
    """No stop id, and no stop string, ends a reply before so many tokens."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("entropy", ("candidates", "vocabulary")),
            ("unsteered", ("policy", "candidates")),
        ):
            chosen = getattr(self, name)
            if not isinstance(chosen, str) or chosen not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {told(chosen)}")
        for name in ("num_candidates", "top_k", "min_new_tokens"):
            check_whole(name, getattr(self, name))
        for name in _REAL:
            check_real(name, getattr(self, name))
        if self.num_candidates < 1:
            raise ValueError(f"num_candidates must be 1 or more, got {self.num_candidates}")
        for name, kind in (("gate", Gate), ("tilt", Tilt)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} must be a {kind.__name__}, got {told(getattr(self, name))}")
            part = getattr(self, name)
            if any(math.isnan(x) for x in part.numbers):
                raise ValueError(f"the numbers of the {name} must not be NaN, got {part}")
            for x, (low, high) in zip(part.numbers, part.ranges, strict=True):
                if not low <= x <= high:
                    raise ValueError(
                        f"a number of the {name} must lie in {low:g} .. {high:g}, got {x} in {part}"
                    )

    def __repr__(self) -> str:
        return changed(self, always=("num_candidates", "gate", "tilt", "beta"))

    @staticmethod
    def official() -> "SteeringConfig":
        """What the official code does: C = 10, beta 1, temperature 1, unsteered tokens from the candidates.

        Its threshold is 1.0 over the candidates; pass it to `sample`.
        """
        return SteeringConfig(unsteered="candidates")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Knobs:
    """The numbers of a call, each a scalar or one for each row; None: the configuration's default.

    Any values run in one compiled program, except that the widths X of the id lists are shapes.
    """

    beta: Any = None  # [] or [B]
    temperature: Any = None
    top_k: Any = None
    top_p: Any = None
    repetition_penalty: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    min_new_tokens: Any = None
    max_new_tokens: Any = None  # at most the configuration's, which is the buffer
    stop_ids: Any = None  # [X] or [B, X]; -1 is no id; X = 0: none, the reply goes on to its full length
    banned_ids: Any = None  # [X] or [B, X]; -1 is no id
    bias_ids: Any = None  # [X] or [B, X]; -1 is no id
    bias: Any = None  # [X] or [B, X], nats added to the logits of bias_ids
    gate: Any = None  # a tuple of [] or [B], as config.steering.gate.numbers
    tilt: Any = None  # a tuple of [] or [B], as config.steering.tilt.numbers
    quorum: Any = None  # [] rows that wait before a value pass runs
    patience: Any = None  # [] policy steps that a row waits at most while others run

    def __repr__(self) -> str:
        return changed(self)

    def override(self, **changes: Any) -> "Knobs":
        """These knobs with some replaced."""
        return Knobs(**{f.name: getattr(self, f.name) for f in fields(self)} | changes)
