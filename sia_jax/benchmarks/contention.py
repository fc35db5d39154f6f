"""Random weights whose policy is as sure of itself as a real one: so that as many candidates contend."""

from dataclasses import replace
from typing import TypeVar

import numpy as np

from sia_jax.costs.shapes import AdaptedModels, Models
from sia_jax.models.passes import batch_logits

Kind = TypeVar("Kind", Models, AdaptedModels)

CONTENDERS = 3.0
"""Candidates a token that contend at 2 b = 2 nats, as they do with SmolLM2-135M-Instruct at temperature 1."""
BOUND = 1.0
"""b, nats."""
_CANDIDATES = 10
_ROWS, _LENGTH = 4, 64


def with_contenders(models: Kind, wanted: float = CONTENDERS, bound: float = BOUND) -> Kind:
    """The same models, but that the logits are scaled so that `wanted` of ten candidates contend on average.

    Args:
      models: the last norm of the policy is scaled, and with it what an adapter's head reads.
      wanted: contenders a token.
      bound: b, nats, at temperature 1.
    """
    tokens = np.random.default_rng(0).integers(0, models.config.vocab_size, (_ROWS, _LENGTH), np.int32)
    logits = np.asarray(batch_logits(models.policy, tokens, config=models.config))
    best = -np.sort(-logits.reshape(-1, logits.shape[-1]), axis=-1)[:, :_CANDIDATES]
    scale = scale_for(best - best[:, :1], wanted, bound)
    model = models.policy["model"]
    norm = {"weight": (model["norm"]["weight"] * scale).astype(model["norm"]["weight"].dtype)}
    return replace(models, policy=models.policy | {"model": model | {"norm": norm}})


def scale_for(logits: np.ndarray, wanted: float, bound: float) -> float:
    """The factor on logits at which `wanted` candidates contend on average, by bisection.

    Args:
      logits: [N, C] of candidates, relative to the largest.
      wanted: between 1 and C.
      bound: b, nats, at temperature 1.
    """
    noise = np.random.default_rng(1).gumbel(size=(200, *logits.shape)).astype(np.float32)

    def contenders(scale: float) -> float:
        scores = scale * logits + noise
        return float(np.mean(np.sum(scores + 2 * bound >= scores.max(-1, keepdims=True), axis=-1)))

    low, high = 1e-3, 1e3  # the more the logits differ, the fewer contend
    for _ in range(40):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if contenders(middle) > wanted else (low, middle)
    return float(np.sqrt(low * high))
