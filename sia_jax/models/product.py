"""How the networks multiply: float32 means float32 on every backend, and narrower types add up in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array


def precision_of(dtype: jnp.dtype) -> jax.lax.Precision | None:
    """HIGHEST for float32: by default a GPU would use TF32 and a TPU bfloat16, both off by 1e-3."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def einsum_float32(subscripts: str, x: Array, y: Array) -> Array:
    """jnp.einsum with a float32 result, accumulated in float32 whatever the operands' dtype."""
    return jnp.einsum(subscripts, x, y, precision=precision_of(x.dtype), preferred_element_type=jnp.float32)
