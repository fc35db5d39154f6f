"""Heads: what is read off the hidden states. Each is a function of its own weights and of hidden [..., D].

All results are float32, whatever the backbone's dtype.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sia_jax.models.config import ValueConfig
from sia_jax.models.product import einsum_float32
from sia_jax.types import Params


def lm_head(params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Logits m = W h. W is `params["lm_head"]`, or the embedding where the two are tied.

    Args:
      params: the policy's tree: {"model": ..., "lm_head": {"weight": [V, D]}}, the latter absent if tied.
      hidden: [..., D] after the final norm.

    Returns:
      [..., V] float32, before any temperature.
    """
    head = params["lm_head"] if "lm_head" in params else params["model"]["embed_tokens"]
    weight = head["weight"]
    return einsum_float32("...d,vd->...v", hidden, weight)


def value_head(head: Params, hidden: Float[Array, "... D"]) -> Float[Array, "..."]:
    """V(s, a) = w h + b on the hidden state at the candidate token a (the official `token_reward_head`).

    Args:
      head: {"weight": [1, D], "bias": [1]} float32.
      hidden: [..., D] after the final norm.

    Returns:
      [...] float32, in units of the trajectory reward.
    """
    weight, bias = head["weight"].astype(jnp.float32), head["bias"].astype(jnp.float32)
    # Not a product of a matrix and a vector: XLA on CPU adds up its last rows in another order than the
    # others, so that a candidate's value would depend, by a bit, on its place in the batch.
    return jnp.sum(hidden.astype(jnp.float32) * weight[0], axis=-1) + bias[0]


def vocab_value_head(head: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Q(s, a) = U (D h) + b for every a at once, from the hidden state of the prefix s.

    Args:
      head: {"down": {"weight": [R, D]}, "up": {"weight": [V, R], "bias": [V]}} float32.
      hidden: [..., D] after the final norm, at the last token of the prefix.

    Returns:
      [..., V] float32, in units of the trajectory reward.
    """
    down, up = head["down"]["weight"], head["up"]["weight"]
    inner = einsum_float32("...d,rd->...r", hidden.astype(down.dtype), down)
    return einsum_float32("...r,vr->...v", inner, up) + head["up"]["bias"]


def reward_head(head: Params, hidden: Float[Array, "... D"]) -> Float[Array, "..."]:
    """R = w h, without a bias: `score` of a ForSequenceClassification checkpoint, num_labels = 1.

    Args:
      head: {"weight": [1, D]}.
      hidden: [..., D] after the final norm, at a sequence's last token.

    Returns:
      [...] float32.
    """
    weight = head["weight"].astype(jnp.float32)
    return jnp.sum(hidden.astype(jnp.float32) * weight[0], axis=-1)


def init_value_head(config: ValueConfig, rng_key: jax.Array) -> Params:
    """A fresh head of `config.head`'s kind, float32; `rng_key` is consumed.

    The scalar head starts as torch's `Linear` does, uniform in +-1/sqrt(D). The vocab head starts at Q = 0
    (`up` is zero), so that before training it steers nothing.
    """
    d = config.backbone.hidden_size
    bound = d**-0.5
    if config.head == "scalar":
        weight_key, bias_key = jax.random.split(rng_key)
        return {
            "weight": jax.random.uniform(weight_key, (1, d), jnp.float32, -bound, bound),
            "bias": jax.random.uniform(bias_key, (1,), jnp.float32, -bound, bound),
        }
    rank, vocab = config.head_rank, config.backbone.vocab_size
    assert rank is not None
    return {
        "down": {"weight": jax.random.uniform(rng_key, (rank, d), jnp.float32, -bound, bound)},
        "up": {"weight": jnp.zeros((vocab, rank)), "bias": jnp.zeros((vocab,))},
    }
