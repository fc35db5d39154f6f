"""Batches of token ids: checked, padded to buckets, and where a reward is read."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sia_jax.arguments import read_integers
from sia_jax.models import passes
from sia_jax.models.config import ModelConfig
from sia_jax.parallel.mesh import check_axes, row_sharding, row_shards


def check_batch(tokens: Any, lengths: Any, config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """A batch as arrays, once it fits.

    Args:
      tokens: [B, L] ids.
      lengths: [B].
      config: gives V.

    Raises:
      ValueError: not [B, L] and [B] integers, a length outside 1 .. L, an id outside 0 .. V-1.
    """
    tokens, lengths = read_integers("tokens", tokens), read_integers("lengths", lengths)
    if tokens.ndim != 2 or lengths.shape != tokens.shape[:1]:
        raise ValueError(f"expected tokens [B, L] and lengths [B], got {tokens.shape} and {lengths.shape}")
    b, length = tokens.shape
    if b == 0 or lengths.min() < 1 or lengths.max() > length:
        raise ValueError(f"lengths must lie in 1 .. {length} (the width of tokens), got {lengths.tolist()}")
    real = np.arange(length) < lengths[:, None]
    wrong = sorted(set(tokens[real & ((tokens < 0) | (tokens >= config.vocab_size))].tolist()))
    if wrong:
        raise ValueError(f"ids must lie in 0 .. {config.vocab_size - 1} (the vocabulary), got {wrong[:10]}")
    return tokens, lengths


def pad_batch(
    tokens: Any, lengths: Any, config: ModelConfig, mesh: Mesh | None = None
) -> tuple[jax.Array, jax.Array]:
    """Check a batch, and pad it on the right to a bucket, so that few programs serve all lengths.

    Args:
      tokens: [B, L] ids.
      lengths: [B].
      config: gives V.
      mesh: rows are spread over its "data" and "fsdp", and padded to a multiple of them; None: one device.

    Returns:
      ([B', bucket] int32, [B'] int32), the first B rows those of the batch.

    Raises:
      ValueError: as `check_batch`.
    """
    tokens, lengths = check_batch(tokens, lengths, config)
    b, length = tokens.shape
    real = np.arange(length) < lengths[:, None]
    if mesh is not None:
        check_axes(mesh)
    rows = -(-b // row_shards(mesh)) * row_shards(mesh)
    padded = np.zeros((rows, passes.bucket_length(length)), np.int32)
    padded[:b, :length] = np.where(real, tokens, 0)
    padded_lengths = np.ones((rows,), np.int32)
    padded_lengths[:b] = lengths
    if mesh is None:
        return jnp.asarray(padded), jnp.asarray(padded_lengths)
    return jax.device_put((padded, padded_lengths), row_sharding(mesh))


def read_at(tokens: np.ndarray, lengths: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Where a reward model is read, as lengths: each row up to its last token that is not the pad id.

    Sequence classification in transformers looks for that token, so it is where the model has learnt to
    give its reward; a row of nothing but pad ids is read at its first.

    Args:
      tokens: [B, L] ids, padded on the right, that `check_batch` took.
      lengths: [B], likewise.
      config: its pad id; None: rows are read at their ends.
    """
    if config.pad_token_id is None:
        return lengths
    length = tokens.shape[1]
    counts = (np.arange(length) < lengths[:, None]) & (tokens != config.pad_token_id)
    last = length - np.argmax(counts[:, ::-1], axis=1)
    return np.where(counts.any(axis=1), last, 1).astype(lengths.dtype)
