"""What a value model is trained to do, trajectory by trajectory. Nothing here knows of networks.

A row holds several trajectories side by side; `segment_ids` says which of them a token belongs to. Every
function gives one number for each trajectory, [R, M], so that a long reply weighs as much as a short one.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def reply_mean(
    x: Float[Array, "R L"], segment_ids: Int[Array, "R L"], is_reply: Bool[Array, "R L"], segments: int
) -> Float[Array, "R M"]:
    """(1 / T) sum_t x_t over the T reply tokens of each trajectory; 0 where there is no trajectory.

    Args:
      x: [R, L] one number a token.
      segment_ids: [R, L] 1 .. M; 0: padding.
      is_reply: [R, L] the tokens that count.
      segments: M, static.
    """
    own = (segment_ids[..., None] == jnp.arange(1, segments + 1)) & is_reply[..., None]
    total = jnp.sum(jnp.where(own, x[..., None], 0), axis=-2)
    return total / jnp.maximum(jnp.sum(own, axis=-2), 1)


def at_tokens(x: Float[Array, "R M"], segment_ids: Int[Array, "R L"]) -> Float[Array, "R L"]:
    """The number of each token's own trajectory; 0 at padding."""
    of_token = jnp.take_along_axis(x, jnp.maximum(segment_ids - 1, 0), axis=-1)
    return jnp.where(segment_ids > 0, of_token, 0)


def mean_squared_error(
    values: Float[Array, "R L"],
    rewards: Float[Array, "R M"],
    segment_ids: Int[Array, "R L"],
    is_reply: Bool[Array, "R L"],
) -> Float[Array, "R M"]:
    """((1 / T) sum_t V(x, y_<=t) - R)^2: the paper's equation 6 (official: `train.py`).

    Args:
      values: [R, L] V at each token.
      rewards: [R, M] R of each trajectory.
      segment_ids: [R, L] 1 .. M; 0: padding.
      is_reply: [R, L] the reply's tokens, its stop token included.

    Returns:
      [R, M], in squared units of the reward.
    """
    return jnp.square(reply_mean(values, segment_ids, is_reply, rewards.shape[-1]) - rewards)


def token_squared_error(
    values: Float[Array, "R L"],
    targets: Float[Array, "R L"],
    segment_ids: Int[Array, "R L"],
    is_reply: Bool[Array, "R L"],
    segments: int,
) -> Float[Array, "R M"]:
    """(1 / T) sum_t (V(x, y_<=t) - target_t)^2.

    With target_t = R it is per-token regression to the reward; with target_t = V'(x, y_<=t) of another value
    model, distillation of that one.

    Args:
      values: [R, L] V at each token.
      targets: [R, L] what it should be; no gradient is to flow through it.
      segment_ids: [R, L] 1 .. M; 0: padding.
      is_reply: [R, L] the reply's tokens, its stop token included.
      segments: M, static.

    Returns:
      [R, M], in squared units of the reward.
    """
    return reply_mean(jnp.square(values - targets), segment_ids, is_reply, segments)
