"""What the sampler is given to be timed."""

import jax.numpy as jnp

from sia_jax.benchmarks.systems import SamplerSystem
from sia_jax.costs.shapes import REAL_SHAPES, AdaptedModels
from sia_jax.decoding.checks import check_params


def test_the_sampler_is_given_the_policy_s_weights_in_bfloat16_and_an_adapter():
    models = AdaptedModels.random(REAL_SHAPES["tiny"], jnp.bfloat16)
    params = models.params("scalar")
    check_params(params.policy, params.value, SamplerSystem(models, 0.2).config(2, 4))
    assert params.policy["model"]["embed_tokens"]["weight"].dtype == jnp.bfloat16
    assert "lm_head" not in params.policy
    assert set(params.value) == {"lora", "value_head"}
    assert models.params(None).value is None
