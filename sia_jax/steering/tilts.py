"""Tilts: what the values of the candidates add to their logits.

A tilt maps values [B, C] to additions [B, C]. Means and deviations are taken over the candidates that may be
chosen, those in A and N. Like a gate it is a pytree whose numbers are the leaves.
"""

import abc
import math
import numbers
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sia_jax.steering.parts import Expression, PerRow, operand, within


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Junction:
    """What a tilt sees of a junction beside the values of its candidates."""

    beta: Float[Array, " B"]  # strength, in nats per unit of reward
    logits: Float[Array, "B C"]  # l, processed
    allowed: Bool[Array, "B C"]  # the candidates in A and N; what a tilt says of others means nothing
    prefix_value: Float[Array, " B"]  # V(s), in units of the reward; no number where none was computed


class Tilt(Expression):
    """An expression that says what is added to the candidates' logits.

    To write one: a frozen dataclass, registered with JAX, whose fields are its numbers, with a `__call__`.
    """

    _described: ClassVar[str] = "a tilt such as Additive()"

    def __bool__(self) -> bool:
        raise TypeError(
            f"the tilt {self} is neither true nor false, and tilts do not combine with `and` and `or`; "
            "one bounds another: Clipped(2.0, of=Standardised())"
        )

    @abc.abstractmethod
    def __call__(self, values: Float[Array, "B C"], at: Junction) -> Float[Array, "B C"]:
        """What to add to the candidates' logits, nats.

        Args:
          values: [B, C] V(s, a), in units of the reward.
          at: the rest of what is known there.
        """

    def relative(self, values: Float[Array, "B C"], at: Junction) -> Float[Array, "B C"]:
        """The same less a number common to a row's candidates: 0 for the largest of those in A and N.

        The law is that of the tilt itself. An offset that all values have takes no digits from it.
        """
        tilt = self(values, at)
        return tilt - _largest(tilt, at.allowed)

    @property
    def bounded(self) -> bool:
        """Whether `limit` may be finite; static."""
        return False

    def limit(self) -> PerRow:
        """b: the nats by which the tilt moves a logit at most, either way, whatever the values."""
        return math.inf

    @property
    def separable(self) -> bool:
        """Whether what it adds to a candidate depends on its own value and the row's numbers alone; static.

        Then the values of the candidates that may win decide which of them does. A tilt of one's own is not
        taken for separable unless it says so.
        """
        return False

    @property
    def reads_prefix_value(self) -> bool:
        """Whether a separable tilt looks at V(s); static."""
        return False


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Additive(Tilt):
    """beta V: the paper's, so that the steered distribution is softmax(l + beta V)."""

    separable = True

    def __call__(self, values: Array, at: Junction) -> Array:
        """See `Tilt`."""
        return at.beta[:, None] * values

    def relative(self, values: Array, at: Junction) -> Array:
        """See `Tilt`; the difference is taken before the product, whose rounding knows no offset then."""
        return _difference(values, at)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Centred(Tilt):
    """beta (V - mean V): the additive law, in scores that stay near the policy's logits."""

    def __call__(self, values: Array, at: Junction) -> Array:
        """See `Tilt`."""
        return at.beta[:, None] * _centred(values, at.allowed)

    def relative(self, values: Array, at: Junction) -> Array:
        """See `Tilt`."""
        return _difference(values, at)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Advantage(Tilt):
    """beta (V(s, a) - V(s)): the additive law, in scores that a bound cuts where a token is unusual.

    The only tilt that reads V(s): where it is not finite, neither is the tilt.
    """

    separable = True
    reads_prefix_value = True

    def __call__(self, values: Array, at: Junction) -> Array:
        """See `Tilt`."""
        # An infinite V(s) would pass a bound for a number.
        prefix_value = jnp.where(jnp.isfinite(at.prefix_value), at.prefix_value, jnp.nan)
        return at.beta[:, None] * (values - prefix_value[:, None])

    def relative(self, values: Array, at: Junction) -> Array:
        """See `Tilt`; V(s) is common to the candidates."""
        return _difference(values, at)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Standardised(Tilt):
    """beta (V - mean V) / std V: one beta for value models of any scale; 0 where all values are equal."""

    def __call__(self, values: Array, at: Junction) -> Array:
        """See `Tilt`."""
        centred = _centred(values, at.allowed)
        std = jnp.sqrt(_mean(jnp.square(centred), at.allowed))
        return at.beta[:, None] * jnp.where(std > 0, centred / jnp.where(std > 0, std, 1), 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Clipped(Tilt):
    """clip(of, -bound, bound): no value model may move a logit by more than `bound` nats.

    So the values of candidates that cannot win are not read: see `sia_jax.steering.contenders`. Of bounded
    tilts `Clipped(b, Advantage())` is the one to take: where |beta V| > b, `Clipped(b)` cuts all alike.

    Examples:
      Three candidates of equal logits, V(s) = 0.5, beta = 2:

      >>> values, prefix = jnp.array([[1.0, 0.0, 0.75]]), jnp.array([0.5])
      >>> at = Junction(jnp.array([2.0]), jnp.zeros((1, 3)), jnp.ones((1, 3), bool), prefix)
      >>> Advantage()(values, at).tolist()
      [[1.0, -1.0, 0.5]]
      >>> Clipped(0.75, of=Advantage())(values, at).tolist()
      [[0.75, -0.75, 0.5]]
    """

    bound: PerRow = field(metadata=within(0, math.inf))
    of: Tilt = field(default_factory=Additive, metadata=operand(Tilt))

    bounded = True

    def limit(self) -> PerRow:
        """See `Tilt`."""
        within = self.of.limit()
        if isinstance(self.bound, numbers.Real) and isinstance(within, numbers.Real):  # of a configuration
            return min(float(self.bound), float(within))
        return jnp.minimum(self.bound, within)

    @property
    def separable(self) -> bool:
        """See `Tilt`."""
        return self.of.separable

    @property
    def reads_prefix_value(self) -> bool:
        """See `Tilt`."""
        return self.of.reads_prefix_value

    def __call__(self, values: Array, at: Junction) -> Array:
        """See `Tilt`."""
        bound = jnp.expand_dims(self.bound, -1)
        return jnp.clip(self.of(values, at), -bound, bound)


def mean_value(values: Float[Array, "B C"], allowed: Bool[Array, "B C"]) -> Float[Array, " B"]:
    """V(s) = mean of V(s, a) over A and N: that of a prompt, of which no value model is trained.

    Args:
      values: [B, C] V(s, a), in units of the reward.
      allowed: [B, C] the candidates in A and N.
    """
    return expected_value(values, jnp.zeros_like(values), allowed)


def expected_value(
    values: Float[Array, "B C"], logits: Float[Array, "B C"], allowed: Bool[Array, "B C"]
) -> Float[Array, " B"]:
    """V(s) = sum_a p_a Q(s, a) over A and N, p = softmax(l) there: that of a vocabulary head.

    Args:
      values: [B, C] Q(s, a), in units of the reward.
      logits: [B, C] l, processed; the temperature is 1.
      allowed: [B, C] the candidates in A and N.
    """
    top = _largest(values, allowed)  # a mean of what all share is rounded
    masses = jnp.where(allowed, jnp.exp(logits - _largest(logits, allowed)), 0)
    below = jnp.sum(jnp.where(allowed, masses * (values - top), 0), axis=-1)
    return top[:, 0] + below / jnp.maximum(jnp.sum(masses, axis=-1), 1)


def _mean(x: Array, allowed: Array) -> Array:
    total = jnp.sum(jnp.where(allowed, x, 0), axis=-1, keepdims=True)
    return total / jnp.maximum(jnp.sum(allowed, axis=-1, keepdims=True), 1)


def _largest(x: Array, allowed: Array) -> Array:
    return jnp.max(jnp.where(allowed, x, -jnp.inf), axis=-1, keepdims=True)


def _difference(values: Array, at: Junction) -> Array:
    """beta (V - V_b), b the candidate of the largest beta V; a difference that overflows is cut off."""
    towards, most = jnp.where(at.beta < 0, -1, 1)[:, None], jnp.finfo(values.dtype).max
    best = towards * _largest(towards * values, at.allowed)
    return at.beta[:, None] * jnp.clip(values - best, -most, most)


def _centred(values: Array, allowed: Array) -> Array:
    near = jnp.where(allowed, values - _largest(values, allowed), 0)  # a mean of what all share is rounded
    return jnp.where(allowed, near - _mean(near, allowed), 0)
