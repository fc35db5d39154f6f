"""Which candidates may win under a bounded tilt, whatever their values; only theirs decide the choice.

A tilt bounded by b moves no logit by more than b nats either way, and the Gumbel numbers are known before any
value is read. With f_a(t) = (l_a + t) / T + g_a (T = 0: l_a + t), a member a of A and N *contends* iff

    f_a(b) >= max over m of f_m(-b),   that is   f_a(0) + 2 b / T >= max over m of f_m(0).

No other can win. So the choice among the contenders, by their values, is the one that reading all would have
given: the same law, exactly, at the price of what the draw leaves open. With one contender nothing is read.

    l      3.0   2.9   0.5   with T = 1, b = 0.5
    g     -0.2   0.9   1.1
    f(0)   2.8   3.8   1.6   3.8 - 1 = 2.8: the first two contend
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sia_jax.steering.config import DecisionConfig
from sia_jax.steering.types import RowParams

_ROUNDING = 2.0**-20
"""Eight float32 epsilons of the terms of two scores: more than all roundings on the way to steered ones."""


@dataclass(frozen=True)
class Contest:
    """What is open at a position, if it is a junction."""

    contenders: Int[Array, " B"]
    """How many of the candidates may win."""
    decided: Bool[Array, " B"]
    """One alone may, and nothing need be read."""
    winner: Int[Array, " B"]
    """Its place among the candidates; where several may win, the place of some one."""
    reads: Bool[Array, "B C"]
    """The candidates whose values are read where it is not decided."""


def contest(
    logits: Float[Array, "B C"],
    kept: Int[Array, " B"],
    noise: Float[Array, "B C"],
    index: Int[Array, " B"],
    numbers: RowParams,
    config: DecisionConfig,
) -> Contest:
    """Who contends, and whose values are read.

    Under a tilt without a bound all of A and N contend, and all of A are read. Under a bounded separable one
    the contenders are read; but at t = 0 all of A and N where it looks at V(s), which is the mean there.
    Under any other bounded one all of A and N. A vocabulary head tells all values at once, and one on the
    policy's states at every junction.

    Args:
      logits: [B, C] l, processed, the largest first.
      kept: [B] how many of them are in A and N.
      noise: [B, C] g; 0 at temperature 0.
      index: [B] t.
      numbers: of the rows; `read_all` has all of A read and nothing decided without.
      config: static.
    """
    tilt = config.steering.tilt
    allowed = jnp.arange(logits.shape[-1]) < kept[:, None]
    whole = jnp.ones_like(allowed)
    if not tilt.bounded:
        return Contest(kept, jnp.zeros_like(kept, bool), jnp.zeros_like(kept), whole)
    contends = _contending(logits, allowed, noise, numbers)
    count = jnp.sum(contends, axis=-1, dtype=jnp.int32)
    if not config.reads_candidates:
        reads = whole
    elif not tilt.separable:
        reads = allowed
    elif tilt.reads_prefix_value:
        reads = jnp.where((index == 0)[:, None], allowed, contends)
    else:
        reads = contends
    all_read = (numbers.read_all > 0) | config.reads_all
    return Contest(
        contenders=count,
        decided=(count == 1) & ~all_read,
        winner=jnp.argmax(contends, axis=-1).astype(jnp.int32),
        reads=reads | all_read[:, None],
    )


def _contending(
    logits: Float[Array, "B C"], allowed: Bool[Array, "B C"], noise: Float[Array, "B C"], numbers: RowParams
) -> Bool[Array, "B C"]:
    """The members of A and N that may win; a few that might not, where rounding could tell otherwise."""
    divisor = numbers.divisor[:, None]
    reach = 2 * jnp.broadcast_to(numbers.tilt.limit(), divisor.shape[:1])[:, None] / divisor
    relative = (logits - logits[:, :1]) / divisor
    scores = jnp.where(allowed, relative + noise, -jnp.inf)
    best = jnp.argmax(scores, axis=-1, keepdims=True)
    size = jnp.where(allowed, jnp.abs(relative) + jnp.abs(noise) + reach, 0)
    slack = _ROUNDING * (size + jnp.take_along_axis(size, best, axis=-1))
    # What overflows is no number, and contends.
    return allowed & ~(scores + reach + slack < jnp.take_along_axis(scores, best, axis=-1))
