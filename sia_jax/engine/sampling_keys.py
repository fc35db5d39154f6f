"""Threefry2x32 keys on the host, so that to check a request waits for no device.

The cipher is that of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), with 20 rounds,
as JAX has it; `jax.random.key` and `jax.random.fold_in` give the same words.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sia_jax.arguments import told

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def key_of_seed(seed: int) -> np.ndarray:
    """[2] words of key(seed), for seeds of 32 bits."""
    return np.array([0, seed], np.uint32)


def fold_in(key: np.ndarray, data: np.ndarray) -> np.ndarray:
    """[n, 2] words of fold_in(key, d) for each d of data [n], of 32 bits each.

    Args:
      key: [2] words.
      data: [n] integers.
    """
    data = np.asarray(data).astype(np.uint32)
    x0, x1 = np.zeros_like(data), data  # the counter is the key of the data as a seed
    words = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    with np.errstate(over="ignore"):
        x0, x1 = x0 + words[0], x1 + words[1]
        for step in range(5):
            for turn in _ROTATIONS[step % 2]:
                x0 = x0 + x1
                x1 = (x1 << np.uint32(turn)) | (x1 >> np.uint32(32 - turn))
                x1 = x1 ^ x0
            x0 = x0 + words[(step + 1) % 3]
            x1 = x1 + words[(step + 2) % 3] + np.uint32(step + 1)
    return np.stack([x0, x1], axis=-1)


def words_of(key: Any) -> np.ndarray:
    """[2] words of a key of JAX.

    Raises:
      TypeError: no threefry2x32 key.
      ValueError: several.
    """
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(f"key must be one such as jax.random.key(0, impl='threefry2x32'), got {told(key)}")
    if str(jax.random.key_impl(key)) != "threefry2x32":
        raise TypeError(f"key must be of impl 'threefry2x32', got {jax.random.key_impl(key)}")
    if key.shape != ():
        raise ValueError(f"key must be one key, got shape {key.shape}")
    return np.asarray(jax.random.key_data(key))
