"""Logits scaled until as many candidates contend as are asked for."""

import numpy as np
import pytest

from sia_jax.benchmarks.contention import scale_for, with_contenders
from sia_jax.costs.shapes import SHAPES, Models
from sia_jax.models.passes import batch_logits


@pytest.mark.parametrize("wanted", [1.5, 3.0, 4.5])
def test_at_the_scale_that_is_found_so_many_contend(wanted: float) -> None:
    rng = np.random.default_rng(3)
    logits = -np.sort(rng.exponential(size=(400, 10)), axis=-1)
    logits -= logits[:, :1]
    scale = scale_for(logits.astype(np.float32), wanted, 1.0)
    scores = scale * logits + rng.gumbel(size=(300, *logits.shape))
    found = (scores + 2.0 >= scores.max(-1, keepdims=True)).sum(-1).mean()
    assert found == pytest.approx(wanted, rel=0.02)


def test_the_policy_s_logits_are_scaled_and_nothing_else() -> None:
    models = Models.random(SHAPES["tiny"])
    scaled = with_contenders(models)
    tokens = np.arange(12, dtype=np.int32)[None]
    one, other = (np.asarray(batch_logits(m.policy, tokens, config=m.config)) for m in (models, scaled))
    factor = other.ravel()[0] / one.ravel()[0]
    np.testing.assert_allclose(other, factor * one, rtol=1e-3, atol=1e-4)
    assert factor > 1
    assert scaled.value_model is models.value_model
