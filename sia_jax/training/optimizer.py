"""AdamW as the paper runs it, Muon for what is trained from nothing, and their learning rates."""

import jax

from sia_jax.extras import installed_with
from sia_jax.training.config import OptimizerConfig
from sia_jax.types import Params

with installed_with("train"):
    import optax
    from optax.contrib import MuonDimensionNumbers

_OUT_IN = MuonDimensionNumbers(reduction_axis=1, output_axis=0)
"""How a matrix is held."""


def learning_rate(config: OptimizerConfig) -> optax.Schedule:
    """Step -> learning rate: a linear warm-up, then constant, or a cosine down to a share of the highest.

    Args:
      config: static.
    """
    return _schedule(config, config.learning_rate)


def _schedule(config: OptimizerConfig, peak: float) -> optax.Schedule:
    warmup, end = config.warmup_steps, config.schedule_end
    if config.schedule == "cosine":
        assert config.total_steps is not None
        rest: optax.Schedule = optax.cosine_decay_schedule(peak, config.total_steps - warmup, alpha=end)
    else:
        rest = optax.constant_schedule(peak)
    if not warmup:
        return rest
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), rest], [warmup])


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clip the gradient to a norm, then AdamW, or Muon for matrices and AdamW for the rest.

    Args:
      config: static.

    Source: Loshchilov and Hutter 2019, algorithm 2; Jordan et al. 2024, "Muon".
    """
    rest = optax.adamw(
        learning_rate(config), b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay
    )
    if config.method == "adamw":
        return optax.chain(optax.clip_by_global_norm(config.clip_norm), rest)
    muon = optax.contrib.muon(
        _schedule(config, config.matrix_learning_rate),
        weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=lambda params: jax.tree.map(lambda leaf: _OUT_IN, params),
    )
    update = optax.partition({"muon": muon, "adamw": rest}, _methods)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update)


def _methods(params: Params) -> Params:
    """Muon for the layers' matrices, AdamW for embeddings, heads and vectors."""

    def of(path: jax.tree_util.KeyPath, leaf: jax.Array) -> str:
        return "muon" if "layers" in jax.tree_util.keystr(path) and leaf.ndim == 2 else "adamw"

    return jax.tree_util.tree_map_with_path(of, params)
