"""Tilts: what the values of the candidates add to their logits.

A tilt maps values [B, C] and beta [B] to additions [B, C]. Means and deviations are taken over the candidates
that may be chosen, those in A and N.
"""

import abc
import math
from dataclasses import dataclass, field, fields

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sia_jax.arguments import check_kind, check_real

Numbers = tuple[Float[Array, " B"], ...]


@dataclass(frozen=True)
class Tilt(abc.ABC):
    """Static; the fields that are numbers are the defaults of traced ones."""

    def __bool__(self) -> bool:
        raise TypeError(
            f"the tilt {self} is neither true nor false, and tilts do not combine with `and` and `or`; "
            "one bounds another: Clipped(2.0, of=Standardised())"
        )

    @property
    def numbers(self) -> tuple[float, ...]:
        """The default numbers, from left to right."""
        own = [getattr(self, f.name) for f in fields(self)]
        return tuple(number for x in own for number in (x.numbers if isinstance(x, Tilt) else (x,)))

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Where each of the numbers makes sense."""
        return ()

    @abc.abstractmethod
    def __call__(
        self,
        values: Float[Array, "B C"],
        beta: Float[Array, " B"],
        allowed: Bool[Array, "B C"],
        numbers: Numbers = (),
    ) -> Float[Array, "B C"]:
        """What to add to the candidates' logits.

        Args:
          values: [B, C] V(s, a), in units of the reward.
          beta: [B] strength, in nats per unit of reward.
          allowed: [B, C] the candidates in A and N; what comes out for others means nothing.
          numbers: [B] each, in the order of `self.numbers`.
        """

    def relative(
        self,
        values: Float[Array, "B C"],
        beta: Float[Array, " B"],
        allowed: Bool[Array, "B C"],
        numbers: Numbers = (),
    ) -> Float[Array, "B C"]:
        """The same less a number common to a row's candidates: 0 for the largest of those in A and N.

        The law is that of the tilt itself. An offset that all values have takes no digits from it.
        """
        tilt = self(values, beta, allowed, numbers)
        return tilt - _largest(tilt, allowed)


@dataclass(frozen=True)
class Additive(Tilt):
    """beta V: the paper's, so that the steered distribution is softmax(l + beta V)."""

    def __call__(self, values: Array, beta: Array, allowed: Array, numbers: Numbers = ()) -> Array:
        """See `Tilt`."""
        return beta[:, None] * values

    def relative(self, values: Array, beta: Array, allowed: Array, numbers: Numbers = ()) -> Array:
        """See `Tilt`; the difference is taken before the product, whose rounding knows no offset then."""
        return _difference(values, beta, allowed)


@dataclass(frozen=True)
class Centred(Tilt):
    """beta (V - mean V): the additive law, in scores that stay near the policy's logits."""

    def __call__(self, values: Array, beta: Array, allowed: Array, numbers: Numbers = ()) -> Array:
        """See `Tilt`."""
        return beta[:, None] * _centred(values, allowed)

    def relative(self, values: Array, beta: Array, allowed: Array, numbers: Numbers = ()) -> Array:
        """See `Tilt`."""
        return _difference(values, beta, allowed)


@dataclass(frozen=True)
class Standardised(Tilt):
    """beta (V - mean V) / std V: one beta for value models of any scale; 0 where all values are equal."""

    def __call__(self, values: Array, beta: Array, allowed: Array, numbers: Numbers = ()) -> Array:
        """See `Tilt`."""
        centred = _centred(values, allowed)
        std = jnp.sqrt(_mean(jnp.square(centred), allowed))
        return beta[:, None] * jnp.where(std > 0, centred / jnp.where(std > 0, std, 1), 0)


@dataclass(frozen=True)
class Clipped(Tilt):
    """clip(of, -bound, bound): no value model may move a logit by more than `bound` nats."""

    bound: float
    of: Tilt = field(default_factory=Additive)

    def __post_init__(self) -> None:
        check_real("bound of Clipped", self.bound)
        check_kind("what Clipped bounds", self.of, Tilt, "a tilt such as Additive()")

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """See `Tilt`."""
        return ((0.0, math.inf), *self.of.ranges)

    def __call__(self, values: Array, beta: Array, allowed: Array, numbers: Numbers = ()) -> Array:
        """See `Tilt`."""
        bound = numbers[0][:, None]
        return jnp.clip(self.of(values, beta, allowed, numbers[1:]), -bound, bound)


def _mean(x: Array, allowed: Array) -> Array:
    total = jnp.sum(jnp.where(allowed, x, 0), axis=-1, keepdims=True)
    return total / jnp.maximum(jnp.sum(allowed, axis=-1, keepdims=True), 1)


def _largest(x: Array, allowed: Array) -> Array:
    return jnp.max(jnp.where(allowed, x, -jnp.inf), axis=-1, keepdims=True)


def _difference(values: Array, beta: Array, allowed: Array) -> Array:
    """beta (V - V_b), b the candidate of the largest beta V; a difference that overflows is cut off."""
    towards, most = jnp.where(beta < 0, -1, 1)[:, None], jnp.finfo(values.dtype).max
    best = towards * _largest(towards * values, allowed)
    return beta[:, None] * jnp.clip(values - best, -most, most)


def _centred(values: Array, allowed: Array) -> Array:
    near = jnp.where(allowed, values - _largest(values, allowed), 0)  # a mean of what all share is rounded
    return jnp.where(allowed, near - _mean(near, allowed), 0)
