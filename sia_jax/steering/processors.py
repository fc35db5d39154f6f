"""Logit processors: what is done to the model's logits before anybody looks at them.

They come before candidates, gates and filters. (A penalty that comes after the tilt punishes what the value
model has chosen; a peer that did so lost three quarters of its reward.)
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def mask_ids(
    logits: Float[Array, "B V"],
    num_tokens: int,
    banned_ids: Int[Array, "B X"],
    unused_ids: Sequence[tuple[int, int]] = (),
) -> Float[Array, "B V"]:
    """-inf for ids that have no token and for banned ones.

    Args:
      logits: [B, V] of the model.
      num_tokens: ids from here on have no token (vocabularies are padded).
      banned_ids: [B, X]; an id of -1 bans nothing.
      unused_ids: static ranges below `num_tokens` without a token: (first, one past the last).
    """
    if unused_ids:
        known = np.arange(logits.shape[-1]) < num_tokens  # a constant of V bytes in the program
        for first, end in unused_ids:
            known[first:end] = False
        logits = jnp.where(known, logits, -jnp.inf)
    elif num_tokens < logits.shape[-1]:
        logits = jnp.where(jnp.arange(logits.shape[-1]) < num_tokens, logits, -jnp.inf)
    return logits.at[_places(logits, banned_ids)].set(-jnp.inf, mode="drop")


def add_bias(
    logits: Float[Array, "B V"], ids: Int[Array, "B X"], bias: Float[Array, "B X"]
) -> Float[Array, "B V"]:
    """l_a + bias_a. An id of -1 biases nothing; an id given twice adds up."""
    return logits.at[_places(logits, ids)].add(bias, mode="drop")


def repetition_penalty(
    logits: Float[Array, "B V"], seen: Bool[Array, "B V"], penalty: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """l / r where l > 0, l r elsewhere, for ids in prompt or reply (Keskar et al. 2019; transformers).

    Args:
      logits: [B, V].
      seen: [B, V] ids of the prompt and of the reply so far.
      penalty: [B] r > 0; 1 does nothing.
    """
    r = penalty[:, None]
    return jnp.where(seen, jnp.where(logits > 0, logits / r, logits * r), logits)


def count_penalties(
    logits: Float[Array, "B V"],
    counts: Int[Array, "B V"],
    presence: Float[Array, " B"],
    frequency: Float[Array, " B"],
) -> Float[Array, "B V"]:
    """l - presence [n > 0] - frequency n, n the id's count in the reply (OpenAI's two penalties).

    Args:
      logits: [B, V].
      counts: [B, V] n.
      presence: [B] nats; 0 does nothing.
      frequency: [B] nats for each occurrence.
    """
    return logits - presence[:, None] * (counts > 0) - frequency[:, None] * counts


def minimum_length(
    logits: Float[Array, "B V"],
    index: Int[Array, " B"],
    min_new_tokens: Int[Array, " B"],
    stop_ids: Int[Array, "B X"],
) -> Float[Array, "B V"]:
    """-inf for the stop ids while t < min_new_tokens."""
    held = jnp.where((index < min_new_tokens)[:, None], stop_ids, -1)
    return logits.at[_places(logits, held)].set(-jnp.inf, mode="drop")


def _places(logits: Array, ids: Array) -> tuple[Array, Array]:
    """The index of [row, ids[row]]; -1 is taken out of range, where an update drops it."""
    rows = jnp.arange(logits.shape[0])[:, None]
    return rows, jnp.where(ids < 0, logits.shape[-1], ids)
