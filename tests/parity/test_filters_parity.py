"""temperature, top_k, top_p and min_p against the warpers of transformers, in the order of `generate`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sia_jax.steering.filters import largest, survivors

ROWS, V = 50, 300


@pytest.mark.parametrize("candidates", [1, 10])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (0.7, 50, 0.9, 0.05),
        (1.5, 200, 0.99, 0.1),
        (1.3, 299, 0.999, 0.3),
        (0.5, 5, 0.8, 0.5),
        (2.0, 40, 0.5, 0.9),
    ],
)
def test_the_same_ids_survive(
    candidates: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = np.random.default_rng(int(1000 * min_p)).normal(0, 3, (ROWS, V)).astype(np.float32)
    warpers = LogitsProcessorList(
        [
            TemperatureLogitsWarper(temperature),
            TopKLogitsWarper(top_k),
            TopPLogitsWarper(top_p),
            MinPLogitsWarper(min_p),
        ]
    )
    wanted = np.isfinite(warpers(torch.zeros(ROWS, 1, dtype=torch.long), torch.from_numpy(logits)).numpy())
    best, ids = largest(jnp.asarray(logits), candidates)
    real = (jnp.full(ROWS, x, jnp.float32) for x in (temperature, top_p, min_p))
    numbers = next(real), jnp.full(ROWS, top_k, jnp.int32), *real
    found = jax.jit(survivors)(jnp.asarray(logits), best, ids, *numbers)
    np.testing.assert_array_equal(found.holds(jnp.asarray(logits), jnp.arange(V)), wanted)


def test_what_each_filter_cuts_is_seen() -> None:
    """The last one cuts something that the three before it have left."""
    logits = torch.from_numpy(np.random.default_rng(100).normal(0, 3, (ROWS, V)).astype(np.float32))
    nothing = torch.zeros(ROWS, 1, dtype=torch.long)
    left = LogitsProcessorList([TemperatureLogitsWarper(1.5), TopKLogitsWarper(200), TopPLogitsWarper(0.99)])(
        nothing, logits
    )
    after = MinPLogitsWarper(0.1)(nothing, left)
    assert (torch.isfinite(after) != torch.isfinite(left)).any()
