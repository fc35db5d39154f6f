"""The structure of steering, static, and its numbers, traced."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import jax

from sia_jax.arguments import check_whole, told
from sia_jax.reprs import changed
from sia_jax.steering.gates import Entropy, Gate
from sia_jax.steering.numbers import Number, SamplingNumbers, check_static, names_of, redeclare
from sia_jax.steering.parts import check_numbers
from sia_jax.steering.tilts import Additive, Tilt


def _default(row: Number) -> tuple[Any, Any]:
    return (int if row.whole else float), row.default


@dataclass(frozen=True, repr=False)
@redeclare(_default)
class SteeringConfig(SamplingNumbers):
    """How junctions are found and steered. Frozen and hashable: a static argument of `jax.jit`.

    Its own fields are structure: they shape the compiled program. Those that it inherits are defaults of the
    sampling numbers (`sia_jax.steering.numbers`), which are traced; `Knobs` overrides them call by call and
    row by row, and compiles nothing.
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

    def __post_init__(self) -> None:
        for name, choices in (
            ("entropy", ("candidates", "vocabulary")),
            ("unsteered", ("policy", "candidates")),
        ):
            chosen = getattr(self, name)
            if not isinstance(chosen, str) or chosen not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {told(chosen)}")
        check_whole("num_candidates", self.num_candidates)
        for name in names_of(SteeringConfig):
            check_static(name, getattr(self, name))
        if self.num_candidates < 1:
            raise ValueError(f"num_candidates must be 1 or more, got {self.num_candidates}")
        for name, kind in (("gate", Gate), ("tilt", Tilt)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} must be a {kind.__name__}, got {told(getattr(self, name))}")
            check_numbers(name, getattr(self, name), static=True)

    def __repr__(self) -> str:
        return changed(self, always=("num_candidates", "gate", "tilt", "beta"))

    @staticmethod
    def official() -> "SteeringConfig":
        """What the official code does: C = 10, beta 1, temperature 1, unsteered tokens from the candidates.

        Its threshold is 1.0 over the candidates; pass it to `sample`.
        """
        return SteeringConfig(unsteered="candidates")


@dataclass(frozen=True)
class DecisionConfig:
    """What `decide` and `steer` are compiled for. Frozen and hashable: static under `jax.jit`."""

    steering: SteeringConfig
    num_tokens: int
    """Ids from here on have no token (vocabularies are padded)."""
    unused_ids: tuple[tuple[int, int], ...] = ()
    """Ranges of ids below `num_tokens` without a token: (first, one past the last)."""
    steered: bool = True
    """False: no position is a junction, whatever the gate says."""
    reads_candidates: bool = True
    """V(s, a) is read at the candidate; False: a vocabulary head's, read of the prefix alone."""
    reads_all: bool = False
    """Whether all of A are read at every junction, whatever contends: by a head on the policy's states, at no
    price."""
    record_candidates: bool = False
    """Whether a `CandidateRecord` is written."""
    top_logprobs: int = 0
    """K of the `TopLogprobs` that are written; 0: none are."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False, kw_only=True)
class Knobs(SamplingNumbers):
    """The numbers of a call, each a scalar [] or one for each row [B]; None: the configuration's default.

    Those of `sia_jax.steering.numbers` are inherited. Any values run in one compiled program, except that the
    widths X of the id lists are shapes.
    """

    max_new_tokens: Any = None  # at most the configuration's, which is the buffer
    stop_ids: Any = None  # [X] or [B, X]; -1 is no id; X = 0: none, the reply goes on to its full length
    banned_ids: Any = None  # [X] or [B, X]; -1 is no id
    bias_ids: Any = None  # [X] or [B, X]; -1 is no id
    bias: Any = None  # [X] or [B, X], nats added to the logits of bias_ids
    gate: Any = None  # the configuration's gate with other numbers, [] or [B]: Bernoulli(rates)
    tilt: Any = None  # likewise
    schedule: Any = None  # numbers of config.schedule, such as Burst(min_waiting=2)

    def __repr__(self) -> str:
        return changed(self)

    def override(self, **changes: Any) -> "Knobs":
        """These knobs with some replaced.

        Examples:
          >>> Knobs(beta=2.0, top_p=0.9).override(beta=4.0)
          Knobs(top_p=0.9, beta=4.0)
        """
        return Knobs(**{f.name: getattr(self, f.name) for f in fields(self)} | changes)
