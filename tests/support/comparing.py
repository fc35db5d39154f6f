"""Comparisons with made-up rewards, whose means are known."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sia_jax.evaluation.comparison import Comparison
from sia_jax.evaluation.gate_numbers import GateNumbers
from sia_jax.evaluation.methods import GROUPS, Method, plan_methods
from sia_jax.steering.gates import Linear

PROMPTS, SEEDS = 40, 2
METHODS = plan_methods([0.2, 0.8], (4,), (0.2, 4))
WITH_GATES = plan_methods([0.2, 0.8], (4,), (0.2, 4), groups=GROUPS, bounds=(1.0,))
"""All gates, and contenders beside."""


def made_up(means: dict[str, float], noise: float, methods: Sequence[Method] = METHODS) -> Comparison:
    """Methods whose gold rewards are a prompt's own level, plus a mean, plus noise; the proxy is half of it.

    Args:
      means: by the method's key.
      noise: standard deviation of each reply's own part, which cancels out in the mean.
      methods: what is compared.
    """
    hard = np.random.default_rng(0).normal(size=PROMPTS)
    hard -= hard.mean()
    records = {}
    for place, method in enumerate(methods):
        rng = np.random.default_rng([1, place])
        # Noise in pairs that cancel each other, so that the mean is exact.
        half = rng.normal(size=(PROMPTS // 2, SEEDS))
        own = means[method.key] + hard[:, None] + noise * np.concatenate([half, -half])
        records[method.key] = [
            _record(method, index, seed, float(own[index, seed]))
            for seed in range(SEEDS)  # in another order than the comparison's
            for index in range(PROMPTS)
        ]
    return Comparison(methods, records, resamples=500)


def _record(method: Method, index: int, seed: int, reward: float) -> dict[str, Any]:
    share = {"base": 0.0, "dense": 1.0}.get(method.kind, method.ratio)
    assert share is not None
    return {
        "index": index,
        "seed": seed,
        "gold": reward,
        "proxy": reward / 2,
        "length": 10,
        "finish_reason": "length" if index % 4 == 0 else "stop",
        "sampled_tokens": 10 * method.n,
        "sampled_junctions": round(10 * method.n * share),
        "seconds": 0.5,  # 20 s a seed
        "flops": {"policy": 1000.0 * method.n, "value": 300.0 * method.is_steered, "reward": 0.0},
        **_numbers(method).to_json(),
    }


def _numbers(method: Method) -> GateNumbers:
    gates = {
        "entropy": GateNumbers(1.25),
        "random": GateNumbers(rate=0.2),
        "entropy-ratio": GateNumbers(entropy_ratio=0.5),
        "position": GateNumbers(position=3),
        "budget": GateNumbers(1.25, budget=method.ratio),
        "learned": GateNumbers(learned=Linear(-2.5, 1.0, 0.0, 0.0, 0.0, 0.0)),
    }
    return gates.get(method.kind, GateNumbers())
