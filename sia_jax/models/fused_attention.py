"""Attention by one fused kernel: JAX's own `dot_product_attention`, which on an NVIDIA GPU cuDNN can run.

It takes queries [B, T, N, H] and keys and values [B, S, K, H] as they lie in a cache of layout "BSKH", so
that none is laid out anew. Of a prompt it takes the causal order, of a decoding step how many columns each
row sees, and of a value pass a mask, which cuDNN adds to the scores. A cache for it must hold no NaN in
columns that are not seen, for NaN added to anything is NaN.

The two parts of a value pass, a row's beginning and its few new tokens, are one call. The log-sum-exps by
which two calls would be merged come rounded to the operands' dtype: in bfloat16 those from 8 to 16 are a
sixteenth apart, which puts the weight of a part off by up to 3%.
"""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.extend import backend
from jaxtyping import Array, Bool, Float, Int

Kernel = Literal["cudnn", "xla"]
"""Implementations of `jax.nn.dot_product_attention`: that of an NVIDIA GPU, and products that run anywhere,
by which the same calls are tested."""
KERNELS: tuple[str, ...] = get_args(Kernel)


def fused_attention(
    queries: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    kernel: Kernel,
    *,
    causal: bool = False,
    seen: Int[Array, " B"] | None = None,
    mask: Bool[Array, "B T S"] | None = None,
) -> Float[Array, "B T N H"]:
    """softmax(q k / sqrt(H)) v, where all that is given allows it; query head n reads key head n // (N / K).

    Args:
      queries: [B, T, N, H].
      keys: [B, S, K, H].
      values: [B, S, K, H].
      kernel: static.
      causal: whether token t sees columns 0 .. t alone; static.
      seen: [B] how many first columns the tokens of a row see, at least 1; None: all.
      mask: [B, T, S] the columns that each token sees; None: all.

    Returns:
      [B, T, N, H] in the queries' dtype.

    Raises:
      NotImplementedError: JAX's own, of what `check_kernel` would have refused.

    Source: Dao et al. 2022, as cuDNN has it.
    """
    attended = jax.nn.dot_product_attention(
        queries.astype(keys.dtype),
        keys,
        values,
        mask=None if mask is None else mask[:, None],
        is_causal=causal,
        key_value_seq_lengths=seen,
        implementation=kernel,
    )
    return attended.astype(queries.dtype)


def check_kernel(kernel: Kernel, dtype: Any, head_dim: int) -> None:
    """The kernel runs on JAX's default device, and takes heads of this dtype and size.

    Args:
      kernel: which.
      dtype: of a cache.
      head_dim: H.

    Raises:
      ValueError: cuDNN without an NVIDIA GPU, with heads of another dtype than bfloat16 or float16, or of a
        size that its attention does not take.
    """
    if kernel != "cudnn":
        return
    remedy = "leave attention out"
    if "cuda" not in backend.get_backend().platform_version:
        raise ValueError(f"attention='cudnn' needs an NVIDIA GPU, got {jax.default_backend()}; {remedy}")
    if dtype not in (jnp.bfloat16, jnp.float16):
        raise ValueError(
            f"attention='cudnn' needs weights in bfloat16 or float16, got {jnp.dtype(dtype).name}; load them "
            f"with dtype='bfloat16', or {remedy}"
        )
    capability = jax.local_devices()[0].compute_capability
    most = 256 if float(capability) >= 9 else 128
    if head_dim % 8 or head_dim > most:
        raise ValueError(
            f"attention='cudnn' needs heads in multiples of 8 up to {most} (compute capability "
            f"{capability}), got {head_dim}; {remedy}"
        )
