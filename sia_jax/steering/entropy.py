"""Entropy of the policy's next-token distribution, in nats, at temperature 1."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def candidate_entropy(logits: Float[Array, "... C"]) -> Float[Array, "..."]:
    """H = -sum_a p_a ln p_a, p = softmax(l_A): at most ln C.

    Args:
      logits: [..., C] of the candidates A, the C largest. One of -inf has no part in it.

    Returns:
      [...] nats. It is this entropy that the paper's threshold of 1.0 is meant for (official code:
      `src/sia.py`, a Categorical over the top-k logits).

    Examples:
      >>> round(float(candidate_entropy(jnp.zeros(10))), 4)  # ln 10
      2.3026
    """
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.sum(jnp.where(log_p > -jnp.inf, jnp.exp(log_p) * log_p, 0), axis=-1)


def vocabulary_entropy(logits: Float[Array, "... V"]) -> Float[Array, "..."]:
    """H = -sum_a p_a ln p_a, p = softmax(l): at most ln V.

    Args:
      logits: [..., V]; an id of -inf has no part in it.

    Returns:
      [...] nats.
    """
    shifted = logits - jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(shifted)
    total = jnp.sum(weights, axis=-1)
    # H = ln Z - sum w (l - max) / Z: two sums of one pass, and no logarithm per id.
    moment = jnp.sum(jnp.where(weights > 0, weights * shifted, 0), axis=-1)
    return jnp.log(total) - moment / total
