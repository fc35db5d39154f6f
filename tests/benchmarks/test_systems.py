"""What the sampler is given to be timed, and what stands beside it."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.benchmarks import projections
from sia_jax.benchmarks.contention import with_contenders
from sia_jax.benchmarks.systems import KnownSteps, SamplerSystem, known_steps
from sia_jax.costs.roofline import DeviceRates
from sia_jax.costs.shapes import REAL_SHAPES, AdaptedModels
from sia_jax.decoding.checks import check_params
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.sample import lower
from sia_jax.decoding.schedule import make_schedule
from tests.support.checkpoints import assert_close

pytestmark = pytest.mark.optimised


def test_the_sampler_is_given_the_policy_s_weights_in_bfloat16_and_an_adapter():
    models = AdaptedModels.random(REAL_SHAPES["tiny"], jnp.bfloat16)
    params = models.params("scalar")
    check_params(params.policy, params.value, SamplerSystem(models, 0.2).config(2, 4))
    assert params.policy["model"]["embed_tokens"]["weight"].dtype == jnp.bfloat16
    assert "lm_head" not in params.policy
    assert set(params.value) == {"lora", "value_head"}
    assert models.params(None).value is None


def test_with_a_known_number_of_steps_the_tokens_are_those_of_the_sampler():
    models = with_contenders(AdaptedModels.random(REAL_SHAPES["tiny"], jnp.float32))
    prompts = [[5, 6, 7], [8]]
    timing, sampled = KnownSteps(models)(prompts, 6), SamplerSystem(models, None)(prompts, 6)
    assert timing.counts == sampled.counts | {"differing_tokens": 0}
    assert timing.tokens == sampled.tokens == 12
    _, samples = SamplerSystem(models, None).sample(prompts, 6)
    assert len(np.unique(samples.tokens)) > 6  # so that equal tokens say something


def test_xla_knows_how_many_steps_there_are_and_not_so_of_the_samplers_own_loop():
    models = AdaptedModels.random(REAL_SHAPES["tiny"], jnp.float32)
    system, steps = SamplerSystem(models, None), 7
    config = system.config(2, steps)
    prompt = jax.tree.map(jnp.asarray, Prompt.pack([[5, 6, 7], [8]]))
    inputs = system.params(), prompt, system.numbers(config, 2)
    own = lower(*inputs, make_schedule(None, config.schedule), config=config)
    counts = [
        set(re.findall(r'"known_trip_count":{"n":"(\d+)"}', lowered.compile().as_text()))
        for lowered in (known_steps.lower(*inputs, config=config), own)
    ]
    assert str(steps) in counts[0] - counts[1]


def test_tokens_that_differ_from_the_samplers_are_counted(monkeypatch):
    models = with_contenders(AdaptedModels.random(REAL_SHAPES["tiny"], jnp.float32))
    prompts, sample = [[5, 6, 7], [8]], SamplerSystem.sample

    def other(system, prompts, new_tokens):
        seconds, samples = sample(system, prompts, new_tokens)
        return seconds, replace(samples, tokens=samples.tokens.at[1, 2].add(1))

    monkeypatch.setattr(SamplerSystem, "sample", other)
    assert KnownSteps(models)(prompts, 6).counts["differing_tokens"] == 1


@pytest.mark.parametrize("tokens", [(4, 1), (1, 7)])
def test_products_as_one_have_the_results_of_each_by_itself(tokens):
    config = replace(REAL_SHAPES["tiny"], num_heads=6)
    model = AdaptedModels.random(config, jnp.float32).policy["model"]
    x = jax.random.normal(jax.random.key(1), (*tokens, config.hidden_size))
    for block, names in (("self_attn", ("q_proj", "k_proj", "v_proj")), ("mlp", ("gate_proj", "up_proj"))):
        layers = [[layer[block][name]["weight"] for name in names] for layer in model["layers"].values()]
        widths = tuple(weight.shape[0] for weight in layers[0])
        joined = [[jnp.concatenate(weights)] for weights in layers]
        each, one = (projections.repeat(weights, x, 3, widths=widths) for weights in (layers, joined))
        assert_close(one, each)
        assert not np.allclose(each, projections.repeat(layers, x, 2, widths=widths))


def test_products_are_timed_each_by_itself_and_as_one():
    model = AdaptedModels.random(REAL_SHAPES["tiny"], jnp.float32).policy["model"]
    rows = projections.time_projections(model, (4, 1), 100, 2.0, DeviceRates(1e9, 1e15))
    assert [row["part"] for row in rows] == [
        "q, k, v each by itself",
        "q, k, v as one",
        "gate, up each by itself",
        "gate, up as one",
    ]
    sizes = [2 * 64 * 128] * 2 + [2 * 64 * 256] * 2  # of both layers
    for row, size in zip(rows, sizes, strict=True):
        assert row["runs"] == 100
        assert row["floor_ms_each"] == pytest.approx(1e3 * 4 * size / 1e9)
        assert row["share"] == pytest.approx(100 * row["ms_each"] / 1e3 / 2.0)
