"""AdamW as the paper runs it, and its learning rate."""

from sia_jax.extras import installed_with
from sia_jax.training.config import OptimizerConfig

with installed_with("train"):
    import optax


def learning_rate(config: OptimizerConfig) -> optax.Schedule:
    """Step -> learning rate: a linear warm-up, then constant, or a cosine down to a tenth of the highest.

    Args:
      config: static.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.schedule == "cosine":
        assert config.total_steps is not None
        rest: optax.Schedule = optax.cosine_decay_schedule(peak, config.total_steps - warmup, alpha=0.1)
    else:
        rest = optax.constant_schedule(peak)
    if not warmup:
        return rest
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), rest], [warmup])


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clip the gradient to a norm, then AdamW (Loshchilov and Hutter 2019, algorithm 2).

    Args:
      config: static.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
        ),
    )
