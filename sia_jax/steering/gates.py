"""Gates: at which positions the policy is steered.

A gate is an expression over per-row features, `Entropy() & ~Position(3)`, say. The expression is static,
part of the compiled program; its numbers are traced, so that sweeping one compiles nothing. `threshold` is
the number of every `Entropy` and the start of every `Budget`; the other gates carry their own.
"""

import abc
import math
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sia_jax.arguments import check_kind, check_real, told

BUDGET_STEP = 0.25
"""eta: how far, in nats, one verdict moves the threshold of a `Budget`."""

SMALLEST_ENTROPY = 1e-6
"""Entropies below this count as this in a ratio, nats."""

_OPERATORS = {"Not": "~", "And": "&", "Or": "|"}

Numbers = tuple[Float[Array, " B"], ...]
State = tuple[Float[Array, " B"], ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Features:
    """What gates see of a row at one position: the processed logits l, unfiltered, at temperature 1."""

    index: Int[Array, " B"]  # t, tokens generated so far
    entropy: Float[Array, " B"]  # H_t, nats
    previous_entropy: Float[Array, " B"]  # H_{t-1}, nats; anything at t = 0
    top_probability: Float[Array, " B"]  # largest of softmax(l) over the vocabulary
    logit_gap: Float[Array, " B"]  # largest l less the second largest; infinite where there is no second
    uniform: Float[Array, " B"]  # the position's own random number in (0, 1)
    threshold: Float[Array, " B"]  # nats


@dataclass(frozen=True)
class Gate(abc.ABC):
    """A static expression. Its leaves' fields are the defaults of its traced numbers."""

    def __post_init__(self) -> None:
        for field in fields(self):
            check_real(f"{field.name} of {type(self).__name__}", getattr(self, field.name))

    def __and__(self, other: "Gate") -> "Gate":
        return And(self, other)

    __rand__ = __and__

    def __or__(self, other: "Gate") -> "Gate":
        return Or(self, other)

    __ror__ = __or__

    def __invert__(self) -> "Gate":
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError(
            f"the gate {self} is neither true nor false before there is a position; combine gates with "
            "&, | and ~, not with `and`, `or` and `not`"
        )

    @property
    def numbers(self) -> tuple[float, ...]:
        """The default numbers of all leaves, from left to right."""
        return tuple(getattr(self, field.name) for field in fields(self))

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Where each of the numbers makes sense."""
        return tuple((-math.inf, math.inf) for _ in self.numbers)

    def init(self, threshold: Float[Array, " B"]) -> State:
        """The state before the first token: one array for each `Budget`, from left to right."""
        return ()

    @abc.abstractmethod
    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Bool[Array, " B"], State]:
        """The verdict at this position, and the state for the next one.

        Args:
          features: of the rows.
          numbers: [B] each, in the order of `self.numbers`.
          state: as `init` made it or `decide` returned it.
        """


@dataclass(frozen=True)
class Entropy(Gate):
    """H_t >= threshold: the paper's gate."""

    def __init__(self, *numbers: Any, **named: Any):
        if numbers or named:
            raise TypeError(
                f"Entropy() has no number of its own, got {told(numbers[0] if numbers else named)}: its "
                "threshold is an argument of the call, sample(params, prompt, threshold, ...)"
            )

    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, State]:
        """See `Gate`."""
        return features.entropy >= features.threshold, state


@dataclass(frozen=True)
class EntropyRatio(Gate):
    """ln(max(H_t, 1e-6) / max(H_{t-1}, 1e-6)) >= at_least; false at t = 0 (official: `entropy_ratio`)."""

    at_least: float

    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, State]:
        """See `Gate`."""
        now = jnp.log(jnp.maximum(features.entropy, SMALLEST_ENTROPY))
        before = jnp.log(jnp.maximum(features.previous_entropy, SMALLEST_ENTROPY))
        return (now - before >= numbers[0]) & (features.index > 0), state


@dataclass(frozen=True)
class Position(Gate):
    """t < first: the reply's first tokens (official: `intervene_num`)."""

    first: float

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """See `Gate`."""
        return ((0.0, math.inf),)

    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, State]:
        """See `Gate`."""
        return features.index < numbers[0], state


@dataclass(frozen=True)
class Bernoulli(Gate):
    """u < rate, u uniform: junctions at random. All in one expression share a position's u."""

    rate: float

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """See `Gate`."""
        return ((0.0, 1.0),)

    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, State]:
        """See `Gate`."""
        return features.uniform < numbers[0], state


@dataclass(frozen=True)
class TopProbability(Gate):
    """max softmax(l) <= at_most: the policy has no favourite."""

    at_most: float

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """See `Gate`."""
        return ((0.0, 1.0),)

    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, State]:
        """See `Gate`."""
        return features.top_probability <= numbers[0], state


@dataclass(frozen=True)
class LogitGap(Gate):
    """l_(1) - l_(2) <= at_most: the two best are close."""

    at_most: float

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """See `Gate`."""
        return ((0.0, math.inf),)

    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, State]:
        """See `Gate`."""
        return features.logit_gap <= numbers[0], state


@dataclass(frozen=True)
class Always(Gate):
    """Every position: dense steering."""

    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, State]:
        """See `Gate`."""
        return jnp.ones_like(features.index, bool), state


@dataclass(frozen=True)
class Never(Gate):
    """No position."""

    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, State]:
        """See `Gate`."""
        return jnp.zeros_like(features.index, bool), state


@dataclass(frozen=True)
class Budget(Gate):
    """b_t = (H_t >= q_t), q_0 = threshold, q_{t+1} = q_t + eta (b_t - rate): the share of verdicts is held.

    After T tokens |share - rate| = |q_T - q_0| / (eta T), whatever the entropies. An infinite threshold stays
    infinite, and every verdict the same. Inside `A & Budget` it is its own verdicts that are counted.
    """

    rate: float

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """See `Gate`."""
        return ((0.0, 1.0),)

    def init(self, threshold: Float[Array, " B"]) -> State:
        """q_0."""
        return (threshold,)

    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, State]:
        """See `Gate`."""
        (q,) = state
        verdict = features.entropy >= q
        return verdict, (q + BUDGET_STEP * (verdict - numbers[0]),)


@dataclass(frozen=True, repr=False)
class Not(Gate):
    """~inner."""

    inner: Gate

    def __repr__(self) -> str:
        return f"~{self.inner}"

    def __post_init__(self) -> None:
        _check_gates(self, self.inner)

    @property
    def numbers(self) -> tuple[float, ...]:
        """Those of `inner`."""
        return self.inner.numbers

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Those of `inner`."""
        return self.inner.ranges

    def init(self, threshold: Float[Array, " B"]) -> State:
        """That of `inner`."""
        return self.inner.init(threshold)

    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, State]:
        """See `Gate`."""
        verdict, state = self.inner.decide(features, numbers, state)
        return ~verdict, state


@dataclass(frozen=True)
class _Pair(Gate):
    """Two expressions, both evaluated at every position, whatever the other says."""

    left: Gate
    right: Gate

    def __post_init__(self) -> None:
        _check_gates(self, self.left, self.right)

    @property
    def numbers(self) -> tuple[float, ...]:
        """Those of the left, then those of the right."""
        return self.left.numbers + self.right.numbers

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Those of both."""
        return self.left.ranges + self.right.ranges

    def init(self, threshold: Float[Array, " B"]) -> State:
        """That of the left, then that of the right."""
        return self.left.init(threshold) + self.right.init(threshold)

    def _decide_both(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, Array, State]:
        split, states = len(self.left.numbers), len(self.left.init(features.threshold))
        left, left_state = self.left.decide(features, numbers[:split], state[:states])
        right, right_state = self.right.decide(features, numbers[split:], state[states:])
        return left, right, left_state + right_state


@dataclass(frozen=True, repr=False)
class And(_Pair):
    """left & right."""

    def __repr__(self) -> str:
        return f"({self.left} & {self.right})"

    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, State]:
        """See `Gate`."""
        left, right, state = self._decide_both(features, numbers, state)
        return left & right, state


@dataclass(frozen=True, repr=False)
class Or(_Pair):
    """left | right: how the official code joins its gates."""

    def __repr__(self) -> str:
        return f"({self.left} | {self.right})"

    def decide(self, features: Features, numbers: Numbers, state: State) -> tuple[Array, State]:
        """See `Gate`."""
        left, right, state = self._decide_both(features, numbers, state)
        return left | right, state


def _check_gates(whole: Gate, *parts: object) -> None:
    for part in parts:
        operator = _OPERATORS[type(whole).__name__]
        check_kind(f"what {operator} combines", part, Gate, "a gate such as Entropy() or Position(3)")
