"""How the networks multiply: float32 means float32 on every backend, and narrower types add up in float32."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FEW = 128
"""Tokens of a pass up to which `project` turns a product around on a CPU; of more, both ways take as long."""


def precision_of(dtype: jnp.dtype) -> jax.lax.Precision | None:
    """HIGHEST for float32: by default a GPU would use TF32 and a TPU bfloat16, both off by 1e-3."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def einsum_float32(subscripts: str, x: Array, y: Array) -> Array:
    """jnp.einsum with a float32 result, accumulated in float32 whatever the operands' dtype."""
    return jnp.einsum(subscripts, x, y, precision=precision_of(x.dtype), preferred_element_type=jnp.float32)


def project(
    x: Float[Array, "... I"], weight: Float[Array, "O I"], dtype: Any = None
) -> Float[Array, "... O"]:
    """W x of every token.

    The few tokens of a decoding pass, in float32 on a CPU, become the columns of a product with W on the
    left. XLA's kernels pack the operand on the right anew in each run, and of the two W is by far the larger.
    Blocks of whole sequences, as of prompts and of training, stay as they are.

    Args:
      x: the tokens; of a decoding pass [T, I] or [B, 1, I].
      weight: W, [out, in].
      dtype: of the result; None: the operands'.
    """
    few = 1 < math.prod(x.shape[:-1]) <= FEW and (x.ndim == 2 or x.shape[-2] == 1)
    if few and x.dtype == weight.dtype == jnp.float32 and jax.default_backend() == "cpu":
        return _weight_left(x, weight)
    precision = precision_of(x.dtype)
    return jnp.einsum("...i,oi->...o", x, weight, precision=precision, preferred_element_type=dtype)


def _weight_left(x: Array, weight: Array) -> Array:
    """The barriers keep XLA from turning the product back, which it takes for the same."""
    columns = x.reshape(-1, x.shape[-1]).T
    count = columns.shape[1]
    # The kernels take 32 columns at a time; up to eight empty ones are cheaper than what is done for a rest.
    short = -count % 32
    if short <= 8:
        columns = jnp.pad(columns, ((0, 0), (0, short)))
    columns = jax.lax.optimization_barrier(columns)
    y = jnp.einsum("oi,im->om", weight, columns, precision=precision_of(x.dtype))
    return jax.lax.optimization_barrier(y)[:, :count].T.reshape(*x.shape[:-1], -1)
