"""Rotary position embedding, plain and with Llama 3.1's scaling."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sia_jax.models.config import RopeConfig


def inverse_frequencies(config: RopeConfig, head_dim: int) -> np.ndarray:
    """theta^(-2i/H), i = 0 .. H/2 - 1; under `llama3` scaling the slow ones are divided by `factor`.

    With wavelength w = 2 pi / f and the original context O: w > O / low_freq_factor is divided, w <
    O / high_freq_factor is kept, and in between (1 - s) f / factor + s f with
    s = (O / w - low) / (high - low).

    Returns:
      float32 [H / 2], radians a position, bit for bit those of transformers: at position 100,000 the last bit
      of a frequency is a phase of 0.01. So every step is rounded to float32, and torch's order of operations
      is kept: it divides a number by a tensor by multiplying with the reciprocal. Only the power is taken in
      float64 and rounded once, because that of float32 has other last bits on other CPUs.
    """
    f32 = np.float32
    exponents = np.arange(0, head_dim, 2, dtype=f32) / f32(head_dim)
    frequencies = f32(1) / np.power(np.float64(config.theta), exponents.astype(np.float64)).astype(f32)
    if config.scaling is None:
        return frequencies
    scaling = config.scaling
    context = scaling.original_max_position_embeddings
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    wavelengths = f32(1) / frequencies * f32(2 * math.pi)
    smooth = (f32(1) / wavelengths * f32(context) - f32(low)) / f32(high - low)
    slowed = frequencies / f32(scaling.factor)
    between = (f32(1) - smooth) * frequencies / f32(scaling.factor) + smooth * frequencies
    scaled = np.where(wavelengths > f32(context / low), slowed, frequencies)
    is_between = (wavelengths >= f32(context / high)) & (wavelengths <= f32(context / low))
    return np.where(is_between, between, scaled).astype(f32)


def rotary_angles(
    positions: Int[Array, "..."], frequencies: np.ndarray
) -> tuple[Float[Array, "... 1 H"], Float[Array, "... 1 H"]]:
    """(cos, cos) and (-sin, sin) of position * frequency, float32, with an axis for the heads.

    Of the width of a head and not of half of it, or else XLA on a CPU moves cosines and sines into the
    rotations, which then compute them for every layer and head.
    """
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)


def rotate(
    x: Float[Array, "... N H"], cos: Float[Array, "... 1 H"], sin: Float[Array, "... 1 H"]
) -> Float[Array, "... N H"]:
    """(a, b) -> (a cos - b sin, b cos + a sin) for the pairs a = x[i], b = x[i + H/2], in float32.

    Args:
      x: queries or keys.
      cos: with sin, of `rotary_angles`.
      sin: whose first half is negative.
    """
    y = x.astype(jnp.float32)
    a, b = jnp.split(y, 2, axis=-1)
    return (y * cos + jnp.concatenate([b, a], axis=-1) * sin).astype(x.dtype)
