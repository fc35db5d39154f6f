"""Gates: at which positions the policy is steered.

A gate is an expression over per-row features, `Entropy() & ~Position(3)`, say. What it is made of is static,
part of the compiled program; its numbers are the leaves of a pytree and traced, so that sweeping one compiles
nothing. `threshold` is the number of every `Entropy` and the start of every `Budget`; the other gates carry
their own.
"""

import abc
import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sia_jax.arguments import check_kind, told
from sia_jax.steering.parts import Expression, PerRow, ids, operand, within

BUDGET_STEP = 0.25
"""eta: how far, in nats, one verdict moves the threshold of a `Budget`."""

SMALLEST_ENTROPY = 1e-6
"""Entropies below this count as this in a ratio, nats."""

LARGEST_GAP = 20.0
"""Gaps of two logits above this count as this in a sum, nats: e^-20 of the best is nothing, and an infinite
gap times a weight of 0 would be no number."""

LARGEST_WEIGHT = 1e6
"""Absolute value that a weight of `Linear` may have: with it a sum is finite at any position."""

State = Any
"""What a gate remembers of a row: a pytree of arrays [B]."""


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
    last_token: Int[Array, " B"]  # y_{t-1}, the reply's last id; -1 at t = 0


class Gate(Expression):
    """An expression that says of each position whether it is a junction.

    To write one: a frozen dataclass, registered with JAX, whose fields are its numbers, with a `decide`; see
    `Bernoulli`. One that remembers has an `init` and an `advance` too; see `Refractory`.

    Examples:
      >>> Entropy() & ~Position(3)
      (Entropy() & ~Position(first=3))
      >>> (Entropy() | Bernoulli(0.1)) & Refractory(5)
      ((Entropy() | Bernoulli(rate=0.1)) & Refractory(tokens=5))
    """

    _described: ClassVar[str] = "a gate such as Entropy() or Position(3)"

    def init(self, threshold: Float[Array, " B"]) -> State:
        """The state before the first token."""
        return ()

    @abc.abstractmethod
    def decide(self, features: Features, state: State) -> Bool[Array, " B"]:
        """The verdict at this position."""

    def advance(self, features: Features, state: State, junction: Bool[Array, " B"]) -> State:
        """The state for the next position, once a token.

        Args:
          features: of the rows, as `decide` saw them.
          state: likewise.
          junction: [B] the verdict of the whole expression that this gate is a part of.
        """
        return state

    def __and__(self, other: "Gate") -> "Gate":
        check_kind("what & combines", other, Gate, self._described)
        return And(self, other)

    __rand__ = __and__

    def __or__(self, other: "Gate") -> "Gate":
        check_kind("what | combines", other, Gate, self._described)
        return Or(self, other)

    __ror__ = __or__

    def __invert__(self) -> "Gate":
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError(
            f"the gate {self} is neither true nor false before there is a position; combine gates with "
            "&, | and ~, not with `and`, `or` and `not`"
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Entropy(Gate):
    """H_t >= threshold: the paper's gate."""

    def __init__(self, *numbers: Any, **named: Any):
        if numbers or named:
            raise TypeError(
                f"Entropy() has no number of its own, got {told(numbers[0] if numbers else named)}: its "
                "threshold is an argument of the call, sample(params, prompt, threshold, ...)"
            )

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return features.entropy >= features.threshold


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EntropyRatio(Gate):
    """ln(max(H_t, 1e-6) / max(H_{t-1}, 1e-6)) >= at_least; false at t = 0 (official: `entropy_ratio`)."""

    at_least: PerRow

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        now = jnp.log(jnp.maximum(features.entropy, SMALLEST_ENTROPY))
        before = jnp.log(jnp.maximum(features.previous_entropy, SMALLEST_ENTROPY))
        return (now - before >= self.at_least) & (features.index > 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Position(Gate):
    """t < first: the reply's first tokens (official: `intervene_num`)."""

    first: PerRow = field(metadata=within(0, math.inf))

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return features.index < self.first


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bernoulli(Gate):
    """u < rate, u uniform: junctions at random. All in one expression share a position's u."""

    rate: PerRow = field(metadata=within(0, 1))

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return features.uniform < self.rate


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TopProbability(Gate):
    """max softmax(l) <= at_most: the policy has no favourite."""

    at_most: PerRow = field(metadata=within(0, 1))

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return features.top_probability <= self.at_most


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LogitGap(Gate):
    """l_(1) - l_(2) <= at_most: the two best are close."""

    at_most: PerRow = field(metadata=within(0, math.inf))

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return features.logit_gap <= self.at_most


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Linear(Gate):
    """bias + w . x >= 0, x = (H_t, H_{t-1}, max softmax(l), min(l_(1) - l_(2), 20), t), H_{-1} = 0.

    In nats, nats, 1, nats and tokens: what a logistic regression has learned (`decode.learn_gate`).
    """

    bias: PerRow
    entropy: PerRow = field(metadata=within(-LARGEST_WEIGHT, LARGEST_WEIGHT))
    previous_entropy: PerRow = field(metadata=within(-LARGEST_WEIGHT, LARGEST_WEIGHT))
    top_probability: PerRow = field(metadata=within(-LARGEST_WEIGHT, LARGEST_WEIGHT))
    logit_gap: PerRow = field(metadata=within(-LARGEST_WEIGHT, LARGEST_WEIGHT))
    position: PerRow = field(metadata=within(-LARGEST_WEIGHT, LARGEST_WEIGHT))

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        score = (
            self.bias
            + self.entropy * features.entropy
            + self.previous_entropy * jnp.where(features.index > 0, features.previous_entropy, 0)
            + self.top_probability * features.top_probability
            + self.logit_gap * jnp.minimum(features.logit_gap, LARGEST_GAP)
            + self.position * features.index
        )
        return score >= 0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Always(Gate):
    """Every position: dense steering."""

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return jnp.ones_like(features.index, bool)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Never(Gate):
    """No position."""

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return jnp.zeros_like(features.index, bool)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Budget(Gate):
    """b_t = (H_t >= q_t), q_0 = threshold, q_{t+1} = q_t + eta (b_t - rate): the share of verdicts is held.

    After T tokens |share - rate| = |q_T - q_0| / (eta T), whatever the entropies. An infinite threshold stays
    infinite, and every verdict the same. Inside `A & Budget` it is its own verdicts that are counted.
    """

    rate: PerRow = field(metadata=within(0, 1))

    def init(self, threshold: Float[Array, " B"]) -> State:
        """q_0."""
        return threshold

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return features.entropy >= state

    def advance(self, features: Features, state: State, junction: Array) -> State:
        """q_{t+1}."""
        return state + BUDGET_STEP * (self.decide(features, state) - self.rate)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Refractory(Gate):
    """t - last > tokens, `last` the last junction of the whole expression; true until there is one."""

    tokens: PerRow = field(metadata=within(0, math.inf))

    def init(self, threshold: Float[Array, " B"]) -> State:
        """No last junction: -1, which is no position."""
        return jnp.full_like(threshold, -1, jnp.int32)

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return (state < 0) | (features.index - state > self.tokens)

    def advance(self, features: Features, state: State, junction: Array) -> State:
        """The last junction."""
        return jnp.where(junction, features.index, state)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class After(Gate):
    """y_{i-n} .. y_{i-1} = tokens for some i <= t, or started > 0: from the end of a marker of n ids on.

    A marker such as </think> leaves a reasoning model its thoughts, and steers its answer. It is looked for
    in the reply; `started` is 1 where the prompt has it already, and the first token is after it. The ids are
    static: another marker is another program.
    """

    tokens: tuple[int, ...] = field(metadata=ids())
    started: PerRow = field(default=0.0, kw_only=True, metadata=within(0, 1))

    def init(self, threshold: Float[Array, " B"]) -> State:
        """So many ids of the marker, from its first on, the reply ends with; once they are n, they stay n."""
        return jnp.where(self.started > 0, len(self.tokens), jnp.zeros_like(threshold, jnp.int32))

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return self.advance(features, state, jnp.zeros((), bool)) == len(self.tokens)

    def advance(self, features: Features, state: State, junction: Array) -> State:
        """From y_0 .. y_{t-2} to y_0 .. y_{t-1}: y_t is not known yet, the next position reads it."""
        before, token, after = np.array(_steps(self.tokens), np.int32).T
        taken = (state[:, None] == before) & (features.last_token[:, None] == token)
        matched = jnp.max(jnp.where(taken, after, 0), axis=-1)
        return jnp.where(state == len(self.tokens), state, matched)


def _steps(tokens: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(k, y, j): what ends with the first k ids of a marker, and with no more, ends after y with the first j.

    Where there is no entry, j = 0. The automaton of Knuth, Morris and Pratt: at most 2n entries.
    """
    after: list[dict[int, int]] = []
    border = 0  # as if the marker had begun one id later
    for k, token in enumerate(tokens):
        after.append({**(after[border] if k else {}), token: k + 1})
        border = after[border].get(token, 0) if k else 0
    return [(k, token, j) for k, of in enumerate(after) for token, j in of.items()]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Not(Gate):
    """~inner."""

    inner: Gate = field(metadata=operand(Gate))

    def __repr__(self) -> str:
        return f"~{self.inner}"

    def init(self, threshold: Float[Array, " B"]) -> State:
        """That of `inner`."""
        return self.inner.init(threshold)

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return ~self.inner.decide(features, state)

    def advance(self, features: Features, state: State, junction: Array) -> State:
        """See `Gate`."""
        return self.inner.advance(features, state, junction)


@dataclass(frozen=True)
class _Pair(Gate):
    """Two expressions, both evaluated at every position, whatever the other says; a pair of states."""

    left: Gate = field(metadata=operand(Gate))
    right: Gate = field(metadata=operand(Gate))

    def init(self, threshold: Float[Array, " B"]) -> State:
        """That of the left, and that of the right."""
        return self.left.init(threshold), self.right.init(threshold)

    def advance(self, features: Features, state: State, junction: Array) -> State:
        """See `Gate`."""
        left, right = state
        return self.left.advance(features, left, junction), self.right.advance(features, right, junction)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class And(_Pair):
    """left & right."""

    def __repr__(self) -> str:
        return f"({self.left} & {self.right})"

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return self.left.decide(features, state[0]) & self.right.decide(features, state[1])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Or(_Pair):
    """left | right: how the official code joins its gates."""

    def __repr__(self) -> str:
        return f"({self.left} | {self.right})"

    def decide(self, features: Features, state: State) -> Array:
        """See `Gate`."""
        return self.left.decide(features, state[0]) | self.right.decide(features, state[1])


def shut_at_infinity(gate: Gate) -> bool:
    """Whether an infinite threshold shuts the gate everywhere, whatever its numbers."""
    if isinstance(gate, And):
        return shut_at_infinity(gate.left) or shut_at_infinity(gate.right)
    if isinstance(gate, Or):
        return shut_at_infinity(gate.left) and shut_at_infinity(gate.right)
    return isinstance(gate, Entropy | Budget | Never)


def reads_threshold(gate: Gate) -> bool:
    """Whether `threshold` is a number of the gate: an `Entropy` or a `Budget` is in it."""
    return isinstance(gate, Entropy | Budget) or any(map(reads_threshold, _parts(gate).values()))


def markers(gate: Gate) -> list[tuple[int, ...]]:
    """The ids that each `After` of the gate waits for, from left to right."""
    own = [gate.tokens] if isinstance(gate, After) else []
    return own + [tokens for part in _parts(gate).values() for tokens in markers(part)]


def budgets(gate: Gate) -> list[Budget]:
    """The budgets of the gate, from left to right."""
    own = [gate] if isinstance(gate, Budget) else []
    return own + [found for part in _parts(gate).values() for found in budgets(part)]


def with_rate(gate: Gate, rate: float) -> Gate:
    """The gate with this rate in each of its budgets.

    Args:
      gate: any.
      rate: the share of tokens to steer.
    """
    if isinstance(gate, Budget):
        return replace(gate, rate=rate)
    parts: dict[str, Any] = {name: with_rate(part, rate) for name, part in _parts(gate).items()}
    return replace(gate, **parts) if parts else gate  # type: ignore[type-var]


def _parts(gate: Gate) -> dict[str, Gate]:
    parts = {f.name: getattr(gate, f.name) for f in fields(gate)}  # type: ignore[arg-type]
    return {name: part for name, part in parts.items() if isinstance(part, Gate)}
