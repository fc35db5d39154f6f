"""A head on the policy's own hidden states: nobody waits, nothing is read twice, and the values are those."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.sample import start
from sia_jax.models.config import ValueConfig
from sia_jax.steering.tilts import Additive, Clipped
from tests.decoding.test_over_a_mesh import placed
from tests.support.checkpoints import assert_close, tiny_policy, tiny_value_model
from tests.support.engines import (
    assert_same,
    make_engine,
    pair,
    random_requests,
    sampled,
)
from tests.support.marks import long

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 40, "num_heads": 4, "num_kv_heads": 2}
PROMPT = sia_jax.Prompt.pack([[5, 9, 12], [7, 3, 40, 41]] * 4)
LENGTH, THRESHOLD = 20, 1.9
KEY = jax.random.key(1, impl="threefry2x32")
INF = float("inf")


@functools.cache
def models() -> tuple[sia_jax.Policy, sia_jax.ValueModel]:
    policy = tiny_policy(num_layers=1, **SIZES)
    return policy, tiny_value_model(policy, head="states")


def config_of(**fields: Any) -> sia_jax.SamplerConfig:
    policy, value = models()
    usual = {"value": value.config, "max_new_tokens": LENGTH, "record": "candidates"}
    return sia_jax.SamplerConfig(policy.config, **usual | fields)


def params_of(**changes: Any) -> sia_jax.SteeringParams:
    policy, value = models()
    return replace(sia_jax.SteeringParams(policy.params, value.params), **changes)


def reply(threshold: float = THRESHOLD, **changes: Any) -> sia_jax.Samples:
    given = {"params": params_of(), "prompt": PROMPT, "config": config_of()} | changes
    return jax.device_get(sia_jax.sample(threshold=threshold, rng_key=KEY, **given))


def with_nan(token: int) -> sia_jax.SteeringParams:
    """The head's row of a token is NaN."""
    head = params_of().value["value_head"]
    up = head["up"] | {"bias": head["up"]["bias"].at[token].set(jnp.nan)}
    return params_of(value={"value_head": head | {"up": up}})


@pytest.mark.parametrize(
    ("threshold", "tilt"), [(-INF, Additive()), (THRESHOLD, Additive()), (THRESHOLD, Clipped(0.3))]
)
def test_nobody_waits_and_no_pass_is_run(threshold, tilt):
    samples = reply(threshold, config=config_of(steering=sia_jax.SteeringConfig(tilt=tilt)))
    assert samples.junction[:, :3].mean() > 0.1
    assert samples.policy_steps == samples.lengths.max()
    assert samples.value_calls == samples.value_computed == samples.value_tokens.sum() == 0
    assert (samples.policy_tokens == samples.lengths + np.asarray(PROMPT.policy_lengths) - 1).all()
    # Under a bounded tilt too, by which fewer candidates contend, all values are there.
    np.testing.assert_array_equal(samples.values_read, 10 * samples.junction)
    steered = np.isfinite(samples.candidates.values).all(axis=-1)
    np.testing.assert_array_equal(steered, samples.junction)
    np.testing.assert_array_equal(np.isfinite(samples.value), samples.junction)


def test_there_is_no_value_cache():
    config = config_of().resolve(PROMPT.rows)
    numbers = make_row_params(THRESHOLD, KEY, sia_jax.Knobs(), PROMPT.rows, config)
    prompts = jax.tree.map(jnp.asarray, PROMPT)
    assert jax.eval_shape(lambda: start(params_of(), prompts, numbers, config)).value_cache is None


def test_the_prompt_of_the_value_model_is_not_looked_at():
    other = replace(PROMPT, value_ids=PROMPT.value_ids[:, ::-1] + 1000)
    for one, another in zip(*(jax.tree.leaves(reply(prompt=p)) for p in (PROMPT, other)), strict=True):
        np.testing.assert_array_equal(one, another)


@pytest.mark.long
def test_the_replies_are_those_of_a_vocab_head_that_runs_passes_over_the_same_weights():
    policy, value = models()
    params = params_of(value=value.params | {"model": policy.params["model"]})
    passes = reply(params=params, config=config_of(value=replace(value.config, states="own")))
    samples = reply()
    assert passes.value_calls > 0
    for name in ("tokens", "junction", "shifted", "lengths", "finish_reason", "policy_tokens"):
        np.testing.assert_array_equal(getattr(samples, name), getattr(passes, name), err_msg=name)
    assert_close(samples.value[samples.junction], passes.value[samples.junction])


def test_a_value_that_is_not_finite_ends_its_row_and_no_neighbour_notices():
    whole = reply()
    met = (whole.candidates.ids == 17).any(axis=-1) & whole.junction
    assert 0 < met.any(axis=1).sum() < PROMPT.rows
    spoilt = reply(params=with_nan(17))
    for row, places in enumerate(met):
        length = int(np.argmax(places)) if places.any() else int(whole.lengths[row])
        assert spoilt.lengths[row] == length
        np.testing.assert_array_equal(spoilt.tokens[row, :length], whole.tokens[row, :length])
        failed = spoilt.finish_reason[row] == sia_jax.FinishReason.NON_FINITE
        assert failed == places.any()


def test_the_last_tokens_value_is_read_behind_the_policys_prompt():
    value, config = models()[1], config_of(branches=2, record=None)
    prompt = replace(PROMPT, value_ids=PROMPT.value_ids[:, ::-1])
    found = sia_jax.best_of_n(params_of(), prompt, INF, rng_key=KEY, config=config)
    for row, score in enumerate(np.asarray(found.scores).reshape(-1)):
        length = PROMPT.policy_lengths[row // 2]
        said = np.asarray(found.samples.tokens[row, : found.samples.lengths[row]])
        ids = [*PROMPT.policy_ids[row // 2, :length].tolist(), *said.tolist()]
        q = np.asarray(value.values(np.array([ids]), [len(ids)]))[0, -2]
        assert score == pytest.approx(q[ids[-1]], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("shape", [(2, 2, 2), long((1, 8, 1))])
def test_replies_on_a_mesh_are_those_of_one_device(shape):
    mesh = sia_jax.make_mesh(*shape)
    alone, spread = reply(), reply(params=placed(params_of(), mesh), config=config_of(mesh=mesh))
    for name in ("tokens", "junction", "shifted", "lengths", "policy_steps", "value_calls"):
        np.testing.assert_array_equal(getattr(spread, name), getattr(alone, name), err_msg=name)
    assert_close(spread.value[alone.junction], alone.value[alone.junction])


@functools.cache
def pair_on_states() -> tuple[sia_jax.Policy, sia_jax.ValueModel]:
    policy, _ = pair()
    return policy, tiny_value_model(policy, head="states")


@pytest.mark.parametrize("options", [{}, long({"prefix_caching": True})])
def test_an_engine_gives_each_request_the_reply_of_sample(options):
    requests = random_requests(24)
    with make_engine(pair_on_states(), **options) as engine:
        replies, totals = engine.generate(requests), engine.statistics()
        expected = sampled(engine, requests)
    for found, other in zip(replies, expected, strict=True):
        assert_same(found, other)
    assert totals.steered_tokens > 0
    assert totals.value_tokens == 0


def test_an_engine_gives_a_conversation_in_words_one_prompt():
    policy, value = pair_on_states()
    messages = [{"role": "user", "content": "Is it hot?"}]
    with make_engine((policy, value)) as engine:
        in_words = engine.generate(sia_jax.Request(messages=messages, max_new_tokens=5))
        ids = policy.prompt_ids(messages)
        assert_same(in_words, engine.generate(sia_jax.Request(prompt_ids=ids, max_new_tokens=5)))
    with pytest.raises(
        ValueError, match=r"reads the policy's hidden states .*leave the value model's ids out"
    ):
        value.prompt_ids(messages)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "scalar", "head_rank": None}, "is a vocab head without an adapter, got .*head='scalar'"),
        ({"lora": sia_jax.LoraConfig()}, "without an adapter, got states='policy' .*lora=LoraConfig"),
        ({"states": "hidden"}, r"states must be one of \('own', 'policy'\), got str 'hidden'"),
        ({"states": ["policy"]}, r"states must be one of .*, got list \['policy'\]"),
    ],
)
def test_other_kinds_of_value_models_have_states_of_their_own(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(models()[1].config, **changes)


def test_another_policys_head_and_weights_of_its_own_are_refused_before_anything_is_traced():
    policy, value = models()
    other = ValueConfig(replace(policy.config, rms_norm_eps=0.1), "vocab", 3, states="policy")
    with pytest.raises(ValueError, match=r"must be the policy's, got rms_norm_eps=0\.1 instead of 1e-06"):
        reply(config=config_of(value=other))
    with pytest.raises(ValueError, match=r"unexpected \['model.*take both from one model"):
        reply(params=params_of(value=value.params | {"model": policy.params["model"]}))
    narrow = tiny_value_model(tiny_policy(num_layers=1, **SIZES | {"hidden_size": 24}), head="states")
    with pytest.raises(ValueError, match=r"value_head.down.weight \(3, 24\) instead of \(3, 32\)"):
        reply(params=params_of(value=narrow.params))
