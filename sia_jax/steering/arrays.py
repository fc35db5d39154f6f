"""Two idioms of arrays: a function that is computed only if asked for, and one element of each row."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

Tree = TypeVar("Tree")


def run_if(asked: Array, f: Callable[[Tree], Tree], x: Tree) -> Tree:
    """f(x) if asked, else x: a loop of one trip, or of none.

    `lax.cond` under vmap or shard_map computes both sides and selects; a loop whose condition is one boolean
    computes f only where it is asked for, and leaves x where it lies.

    Args:
      asked: [] bool, the same on all devices.
      f: from x to its like, of the same shapes and dtypes.
      x: any pytree of arrays.
    """

    def once(carry: tuple[Array, Tree]) -> tuple[Array, Tree]:
        return jnp.zeros((), bool), f(carry[1])

    return jax.lax.while_loop(lambda carry: carry[0], once, (asked, x))[1]


def pick(x: Array, index: Array) -> Array:
    """x[b, index[b]] of each row b.

    Args:
      x: [B, N] or [B, N, D].
      index: [B], in 0 .. N-1.

    Returns:
      [B] or [B, D].
    """
    return jnp.take_along_axis(x, index.reshape(-1, *[1] * (x.ndim - 1)), axis=1)[:, 0]
