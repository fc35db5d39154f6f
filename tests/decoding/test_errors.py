"""What is wrong is said before anything is traced; what is not finite ends its row, and only that."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax import (
    Burst,
    FinishReason,
    Knobs,
    LoraConfig,
    Prompt,
    SamplerConfig,
    Samples,
    SteeringConfig,
    SteeringParams,
    ValueConfig,
)
from sia_jax.decoding import sample as module
from sia_jax.steering.gates import Always, Bernoulli, Budget, Entropy, Gate
from sia_jax.steering.tilts import Additive, Clipped
from sia_jax.types import Params
from tests.support.checkpoints import tiny_config, tiny_policy, tiny_value_model

ROWS, T, C, V, REAL = 6, 10, 3, 64, 60
NAN, INF = float("nan"), float("inf")


@functools.cache
def models():
    policy = tiny_policy(num_layers=1)
    return policy, tiny_value_model(policy)


def gate(rate: Any) -> Gate:
    return Entropy() | Bernoulli(rate)


def config_of(**fields: Any) -> SamplerConfig:
    policy, value = models()
    steering = SteeringConfig(num_candidates=C, gate=gate(0.0), tilt=Clipped(9.0))
    defaults = {"policy": policy.config, "value": value.config, "steering": steering, "max_new_tokens": T}
    return SamplerConfig(**(defaults | fields))


def call(**changes: Any) -> Samples:
    """A call that is right but for the changes."""
    policy, value = models()
    arguments = {
        "params": SteeringParams(policy.params, value.params),
        "prompt": Prompt.pack([[5, 6, 7], [8]]),
        "threshold": 1.0,
        "rng_key": jax.random.key(0, impl="threefry2x32"),
        "config": config_of(),
        "knobs": None,
    } | changes
    positional = [arguments.pop(name) for name in ("params", "prompt", "threshold")]
    return module.sample(*positional, **arguments)


def prompt_of(**changes: Any) -> Prompt:
    return replace(Prompt.pack([[5, 6, 7], [8]]), **changes)


def params_of(**changes: Any) -> SteeringParams:
    policy, value = models()
    return SteeringParams(**({"policy": policy.params, "value": value.params} | changes))


def other_head(kind: str) -> ValueConfig:
    return ValueConfig(
        models()[0].config, kind, 3 if kind == "vocab" else None, LoraConfig(rank=4, alpha=8.0)
    )


def knob(**knobs: Any):
    return lambda: call(knobs=Knobs(**knobs))


def old_key() -> Any:
    return jnp.zeros(2, jnp.uint32)


MISTAKES = {
    # name: (what is done, what the message must hold: name, got, expected, remedy)
    "an empty prompt": (
        lambda: call(prompt=prompt_of(policy_lengths=np.array([3, 0]))),
        ["policy prompts", "1 .. 16", "[3, 0]", "empty"],
    ),
    "an empty value prompt": (
        lambda: call(prompt=prompt_of(value_lengths=np.array([0, 1]))),
        ["value prompts", "1 .. 16", "[0, 1]", "empty"],
    ),
    "a length over the buffer": (
        lambda: call(prompt=prompt_of(policy_lengths=np.array([3, 17]))),
        ["policy prompts", "1 .. 16", "[3, 17]", "buffer"],
    ),
    "a prompt over the buffer": (
        lambda: Prompt.pack([[5], [6, 7, 8]], policy_length=2),
        ["policy prompts", "2 ids", "(1, 3)", "policy_length"],
    ),
    "an id the policy does not know": (
        lambda: call(prompt=Prompt.pack([[5, 6, V], [8]], [[5], [8]])),
        ["policy prompts", "0 .. 63", "[64]"],
    ),
    "an id the value model does not know": (
        lambda: call(prompt=Prompt.pack([[5], [8]], [[5, 99], [8]])),
        ["value prompts", "0 .. 63", "[99]"],
    ),
    "prompts and lengths of different rows": (
        lambda: call(prompt=prompt_of(policy_lengths=np.array([3, 1, 1]))),
        ["policy prompts", "[B, P]", "(2, 16)", "(3,)"],
    ),
    "value prompts of other rows": (
        lambda: call(prompt=prompt_of(value_ids=np.ones((3, 16), int), value_lengths=np.array([1, 1, 1]))),
        ["value prompts", "[B, P]", "(3, 16)"],
    ),
    "a prompt that is a number": (
        lambda: call(prompt=prompt_of(policy_ids=np.array(1), policy_lengths=np.array(1))),
        ["policy prompts", "[B, P]", "()"],
    ),
    "prompts of one axis": (
        lambda: call(prompt=prompt_of(policy_ids=np.ones(2, int))),
        ["policy prompts", "[B, P]", "(2,)"],
    ),
    "more positions than the policy has": (
        lambda: call(config=config_of(max_new_tokens=254)),
        ["policy prompts", "3 ids", "254 new tokens", "256 positions", "cut the prompts", "max_new_tokens"],
    ),
    "more positions than the value model has": (
        lambda: call(prompt=Prompt.pack([[5]], [[5] * 3]), config=config_of(max_new_tokens=254)),
        ["value prompts", "3 ids", "254 new tokens", "256 positions", "max_new_tokens"],
    ),
    "a threshold of NaN": (lambda: call(threshold=NAN), ["threshold", "NaN", "-inf"]),
    "one threshold of NaN": (lambda: call(threshold=[1.0, NAN]), ["threshold", "[1.0, nan]"]),
    "a threshold of another shape": (
        lambda: call(threshold=np.ones(3)),
        ["threshold", "() or (2,)", "(3,)"],
    ),
    "a threshold that is a word": (lambda: call(threshold="high"), ["threshold", "numbers"]),
    "no threshold": (lambda: call(threshold=None), ["threshold", "numbers"]),
    "a threshold without a value model": (
        lambda: call(params=params_of(value=None), config=config_of(value=None)),
        ["value model", "threshold", "+inf", "1.0", "float('inf')"],
    ),
    "one threshold without a value model": (
        lambda: call(params=params_of(value=None), config=config_of(value=None), threshold=[INF, -INF]),
        ["threshold", "+inf", "[inf, -inf]"],
    ),
    "a value model in the params alone": (
        lambda: call(config=config_of(value=None), threshold=INF),
        ["value model", "params", "config", "both or neither"],
    ),
    "a value model in the config alone": (
        lambda: call(params=params_of(value=None)),
        ["value model", "params", "config", "both or neither"],
    ),
    "a vocab head for a scalar one": (
        lambda: call(config=config_of(value=other_head("vocab"))),
        ["value model", "missing", "value_head.down.weight", "one model"],
    ),
    "a scalar head for a vocab one": (
        lambda: call(params=params_of(value=tiny_value_model(models()[0], head="vocab").params)),
        ["value model", "unexpected", "value_head.down.weight", "one model"],
    ),
    "an adapter for own weights": (
        lambda: call(config=config_of(value=ValueConfig(models()[0].config))),
        ["value model", "missing", "model.embed_tokens.weight", "unexpected", "lora."],
    ),
    "another policy's config": (
        lambda: call(config=config_of(policy=tiny_config(num_layers=1, vocab_size=80), num_tokens=64)),
        ["policy", "model.embed_tokens.weight (64, 24) instead of (80, 24)"],
    ),
    "a policy without its layers": (
        lambda: call(params=params_of(policy={"lm_head": {"weight": np.ones((V, 24))}})),
        ["policy", "missing", "model.embed_tokens.weight", "one model"],
    ),
    "an untied policy without its lm_head": (
        lambda: call(params=params_of(policy={"model": models()[0].params["model"]})),
        ["policy", "missing", "lm_head.weight"],
    ),
    "a value model without its head": (
        lambda: call(params=params_of(value={"lora": models()[1].params["lora"]})),
        ["value model", "missing", "value_head.weight"],
    ),
    "a head of another width": (
        lambda: call(
            params=params_of(
                value=models()[1].params | {"value_head": {"weight": np.ones((1, 8)), "bias": np.ones(1)}}
            )
        ),
        ["value model", "value_head.weight (1, 8) instead of (1, 24)"],
    ),
    "an adapter of another rank": (
        lambda: call(
            config=config_of(value=ValueConfig(models()[0].config, lora=LoraConfig(rank=5, alpha=8.0)))
        ),
        ["value model", "k_proj.lora_A.weight (4, 24) instead of (5, 24)"],
    ),
    "an adapter on a projection that is none": (
        lambda: call(
            params=params_of(
                value=models()[1].params
                | {"lora": {"norm_2": {"lora_A": {"weight": np.ones((4, 24))}}}}
            )
        ),
        ["value model", "unexpected", "lora.norm_2.lora_A.weight"],
    ),
    "an adapter on a norm": (
        lambda: call(
            params=params_of(
                value=models()[1].params | {"lora": {"norm": {"lora_A": {"weight": np.ones((4, 24))}}}}
            )
        ),
        ["value model", "unexpected", "lora.norm.lora_A.weight"],
    ),
    "an adapter on the embedding": (
        lambda: call(
            params=params_of(
                value=models()[1].params
                | {"lora": {"embed_tokens": {"lora_A": {"weight": np.ones((4, 24))}}}}
            )
        ),
        ["value model", "unexpected", "lora.embed_tokens.lora_A.weight"],
    ),
    "a kind of head that there is not": (
        lambda: ValueConfig(models()[0].config, head="Scalar"),
        ["head", "'scalar'", "'vocab'", "'Scalar'"],
    ),
    "a family that there is not": (
        lambda: tiny_config(family="qwen2"),
        ["family", "'qwen3'", "'llama'", "'qwen2'"],
    ),
    "an adapter over another backbone": (
        lambda: call(
            config=config_of(
                value=replace(models()[1].config, backbone=tiny_config(num_layers=1, rms_norm_eps=0.1))
            )
        ),
        ["adapter", "policy's", "rms_norm_eps=0.1", "merge"],
    ),
    "vocabularies that differ": (
        lambda: config_of(value=ValueConfig(tiny_config(vocab_size=50))),
        ["value model", "50", "64", "tokenizer", "num_tokens"],
    ),
    "more candidates than ids": (
        lambda: config_of(steering=SteeringConfig(num_candidates=65)),
        ["num_candidates", "64", "65", "lower"],
    ),
    "more candidates than ids with a token": (
        lambda: config_of(num_tokens=2),
        ["num_candidates", "at most 2", "3"],
    ),
    "more ids with a token than ids": (
        lambda: config_of(num_tokens=65),
        ["num_tokens", "1 .. 64", "vocabulary", "65"],
    ),
    "no ids with a token": (lambda: config_of(num_tokens=0), ["num_tokens", "1 .. 64", "0"]),
    "a negative size": (lambda: config_of(slots=-1), ["slots", "-1", "positive"]),
    "no new tokens": (lambda: config_of(max_new_tokens=0), ["max_new_tokens", "0", "positive"]),
    "a negative max_wait": (lambda: config_of(schedule=Burst(max_wait=-1)), ["max_wait", "-1"]),
    "a pass for less than the candidates": (
        lambda: config_of(pass_tokens=C),
        ["pass_tokens", "at least 4", "3"],
    ),
    "a row's tokens for less than the candidates": (lambda: config_of(row_tokens=C), ["row_tokens", "4"]),
    "more likely ids than there are": (lambda: config_of(top_logprobs=99), ["top_logprobs", "0 .. ", "99"]),
    "fewer likely ids than none": (lambda: config_of(top_logprobs=-1), ["top_logprobs", "0 .. ", "-1"]),
    "an unknown record": (lambda: config_of(record="logits"), ["record", "'logits'", "'candidates'"]),
    "no candidates": (lambda: SteeringConfig(num_candidates=0), ["num_candidates", "1 or more", "0"]),
    "an unknown entropy": (lambda: SteeringConfig(entropy="top"), ["entropy", "'top'", "'candidates'"]),
    "an unknown source": (lambda: SteeringConfig(unsteered="top"), ["unsteered", "'top'", "'policy'"]),
    "a gate's number of NaN": (lambda: SteeringConfig(gate=Bernoulli(NAN)), ["gate", "NaN", "nan"]),
    "a share in percent": (lambda: SteeringConfig(gate=Bernoulli(20)), ["gate", "0 .. 1", "20"]),
    "a budget below nothing": (lambda: SteeringConfig(gate=~Budget(-0.2)), ["gate", "0 .. 1", "-0.2"]),
    "a bound below zero": (lambda: SteeringConfig(tilt=Clipped(-1.0)), ["tilt", "0 .. inf", "-1.0"]),
    "auto for no rows": (lambda: SamplerConfig.auto(0, policy=models()[0].config), ["batch", "0"]),
    "auto for no junctions": (
        lambda: SamplerConfig.auto(2, 0.0, policy=models()[0].config),
        ["0 < expected_ratio <= 1", "0.0"],
    ),
    # knobs
    "beta": (knob(beta=INF), ["beta", "finite", "inf"]),
    "temperature": (knob(temperature=-0.1), ["temperature", "0 (greedy)", "-0.1"]),
    "temperature that overflows logits": (knob(temperature=1e-31), ["temperature", "1e-30", "1e-31"]),
    "temperature of NaN": (knob(temperature=NAN), ["temperature", "nan"]),
    "infinite temperature": (knob(temperature=INF), ["temperature", "finite", "inf"]),
    "top_k": (knob(top_k=-1), ["top_k", "0 (all)", "-1"]),
    "top_p of nothing": (knob(top_p=0.0), ["top_p", "(0, 1]", "0.0"]),
    "top_p of too much": (knob(top_p=[0.5, 1.1]), ["top_p", "(0, 1]", "[0.5, 1.1]"]),
    "repetition_penalty": (knob(repetition_penalty=0), ["repetition_penalty", "in [1e-30, 1e30]", "0"]),
    "negative repetition_penalty": (knob(repetition_penalty=-1.0), ["repetition_penalty", "-1.0"]),
    "presence_penalty": (knob(presence_penalty=NAN), ["presence_penalty", "finite", "nan"]),
    "frequency_penalty": (knob(frequency_penalty=-INF), ["frequency_penalty", "finite", "-inf"]),
    "min_new_tokens": (knob(min_new_tokens=-1), ["min_new_tokens", "0 or more", "-1"]),
    "min_new_tokens over the buffer": (
        knob(min_new_tokens=11),
        ["min_new_tokens", "at most max_new_tokens", "11", "10"],
    ),
    "min_new_tokens over a row's max_new_tokens": (
        knob(min_new_tokens=[2, 3], max_new_tokens=[9, 2]),
        ["min_new_tokens", "at most max_new_tokens", "[2, 3]", "[9, 2]", "raise max_new_tokens"],
    ),
    "a default of min_new_tokens over the buffer": (
        lambda: config_of(steering=SteeringConfig(num_candidates=C, min_new_tokens=11)),
        ["min_new_tokens", "at most max_new_tokens", "11", "10"],
    ),
    "max_new_tokens of none": (knob(max_new_tokens=0), ["max_new_tokens", "1 .. 10", "buffer", "0"]),
    "max_new_tokens over the buffer": (
        knob(max_new_tokens=[10, 11]),
        ["max_new_tokens", "1 .. 10", "buffer", "configuration", "[10, 11]"],
    ),
    "a stop id outside the vocabulary": (knob(stop_ids=[2, V]), ["stop_ids", "0 .. 63", "-1", "[2, 64]"]),
    "a stop id under -1": (knob(stop_ids=[-2]), ["stop_ids", "0 .. 63", "[-2]"]),
    "a stop id that is no integer": (knob(stop_ids=[1.5]), ["stop_ids", "[1.5]"]),
    "stop ids that are words": (knob(stop_ids=["</s>"]), ["stop_ids", "numbers"]),
    "stop ids of other rows": (knob(stop_ids=np.ones((3, 1), int)), ["stop_ids", "(2, 1)", "(3, 1)"]),
    "one stop id without a list": (knob(stop_ids=2), ["stop_ids", "shape"]),
    "banned_ids": (knob(banned_ids=[V]), ["banned_ids", "0 .. 63", "[64]"]),
    "bias_ids": (knob(bias_ids=[V], bias=[1.0]), ["bias_ids", "0 .. 63", "[64]"]),
    "an infinite bias": (knob(bias_ids=[1], bias=[-INF]), ["bias", "finite", "banned_ids", "-inf"]),
    "a bias for other ids": (knob(bias_ids=[1, 2], bias=[1.0]), ["bias", "bias_ids", "(1,)", "(2,)"]),
    "a bias without ids": (knob(bias=[1.0]), ["bias", "bias_ids", "(1,)"]),
    "a number of the gate": (knob(gate=gate(NAN)), ["gate", "NaN", "nan"]),
    "another gate than the program's": (
        knob(gate=Budget(0.1)),
        ["knobs.gate", "Entropy() | Bernoulli", "Budget"],
    ),
    "a gate's number of other rows": (knob(gate=gate(np.ones(3))), ["gate", "(2,)", "(3,)"]),
    "a gate's share in percent": (knob(gate=gate(20.0)), ["gate", "0 .. 1", "20.0"]),
    "a tilt's bound below zero": (knob(tilt=Clipped(np.array([1.0, -1.0]))), ["tilt", "0 .. inf", "-1."]),
    "a number of the tilt": (knob(tilt=Clipped(NAN)), ["tilt", "NaN"]),
    "another tilt than the program's": (knob(tilt=Additive()), ["knobs.tilt", "Clipped", "Additive()"]),
    "min_waiting": (knob(schedule=Burst(0)), ["min_waiting", "1 or more", "0"]),
    "a min_waiting for each row": (knob(schedule=Burst([1, 2])), ["min_waiting", "scalar", "(2,)"]),
    "max_wait": (knob(schedule=Burst(max_wait=-1)), ["max_wait", "0 or more", "-1"]),
    "a knob of other rows": (knob(beta=np.ones(3)), ["beta", "() or (2,)", "(3,)"]),
    "a knob of two axes": (knob(beta=np.ones((2, 1))), ["beta", "(2, 1)"]),
    "a knob that is a word": (knob(top_p="most"), ["top_p", "numbers"]),
    "keys of other rows": (
        lambda: call(rng_key=jax.random.split(jax.random.key(0, impl="threefry2x32"), 3)),
        ["rng_key", "2", "(3,)"],
    ),
}  # fmt: skip

WRONG_TYPES = {
    "a seed for a key": (lambda: call(rng_key=0), ["rng_key", "jax.random.key", "0"]),
    "a raw key": (lambda: call(rng_key=old_key()), ["rng_key", "jax.random.key", "threefry2x32"]),
    "a key of another generator": (
        lambda: call(rng_key=jax.random.key(0, impl="rbg")),
        ["rng_key", "threefry2x32", "rbg", "impl='threefry2x32'"],
    ),
    "a gate that is none": (lambda: SteeringConfig(gate=Additive()), ["gate", "Gate", "Additive"]),
    "a tilt that is none": (lambda: SteeringConfig(tilt=Always()), ["tilt", "Tilt", "Always"]),
    "knobs that are a dict": (lambda: call(knobs={"beta": 1.0}), ["knobs", "Knobs", "dict"]),
    "a tree that is a model": (
        lambda: call(params=params_of(value=models()[1])),
        ["value model", "ValueModel", ".params"],
    ),
    "a prompt of floats": (lambda: Prompt.pack([[5.0]]), ["policy prompt 0", "integer"]),
}


@pytest.fixture
def untraced(monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the jitted function was called")

    monkeypatch.setattr(module, "_sample", refuse)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_value_error_that_says_what_was_got_and_what_was_expected(name):
    attempt, telling = MISTAKES[name]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        attempt()
    for part in telling:
        assert part in str(caught.value)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("name", WRONG_TYPES)
def test_a_wrong_type_is_a_type_error_that_says_what_was_expected(name):
    attempt, telling = WRONG_TYPES[name]
    with pytest.raises(TypeError) as caught:
        attempt()
    for part in telling:
        assert part in str(caught.value)


@pytest.mark.usefixtures("untraced")
def test_the_call_that_the_mistakes_start_from_is_right():
    with pytest.raises(AssertionError, match="jitted"):
        call()
    with pytest.raises(AssertionError, match="jitted"):
        call(threshold=[-INF, INF], knobs=Knobs(stop_ids=[], gate=gate(0.5), tilt=Clipped(1), top_k=[0, 5]))


# What is not finite. Of hidden states the first two numbers are zero, except after the token X. So weights on
# them are without effect until X has been read, and then overflow.

X, BANNED, ORDINARY, NO_TOKEN = 40, 9, 7, 62
HUGE = 3e38
LENGTHS = [5, 3, 4, 2, 6, 1]
THRESHOLDS = np.array([INF, -INF, 1.0, INF, 1.0, -INF])
POISONS = {"inf": [HUGE, 0], "-inf": [-HUGE, 0], "NaN": [HUGE, -HUGE]}


def marked(model: Params) -> Params:
    """A backbone in whose hidden states X leaves a mark."""
    model = jax.tree.map(np.array, model)
    model["embed_tokens"]["weight"][:, :2] = 0
    model["embed_tokens"]["weight"][X, :2] = 30
    for layer in model["layers"].values():
        layer["self_attn"]["o_proj"]["weight"][:2] = 0
        layer["mlp"]["down_proj"]["weight"][:2] = 0
    return model


@functools.cache
def clean(head: str = "scalar") -> SteeringParams:
    """Networks of their own, in which the mark has no effect yet."""
    policy, other = models()[0], tiny_policy(num_layers=1, seed=1)
    value = tiny_value_model(policy, head=head)
    params = {
        "model": marked(policy.params["model"]),
        "lm_head": jax.tree.map(np.array, policy.params["lm_head"]),
    }
    params["lm_head"]["weight"][:, :2] = 0
    value_head = jax.tree.map(np.array, value.params["value_head"])
    (value_head if head == "scalar" else value_head["down"])["weight"][:, :2] = 0
    return SteeringParams(params, {"model": marked(other.params["model"]), "value_head": value_head})


def run(
    params: SteeringParams, thresholds: np.ndarray = THRESHOLDS, head: str = "scalar", **knobs: Any
) -> Any:
    """Six rows that like X, of which the last two may not say it; the first has just heard it."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(10, 38, n).tolist() for n in LENGTHS]
    heard = [[*prompts[0][:-1], X], *prompts[1:]]
    config = config_of(
        value=ValueConfig(models()[0].config, head, 3 if head == "vocab" else None),
        num_tokens=REAL,
        slots=2,
        record="candidates",
    )
    banned = np.full((ROWS, 2), [BANNED, -1])
    banned[4:, 1] = X
    standard = Knobs(stop_ids=[], banned_ids=banned, bias_ids=[X], bias=[4.0], beta=0.2).override(**knobs)
    samples = module.sample(
        params,
        Prompt.pack(heard, prompts, policy_length=8, value_length=8),
        thresholds,
        rng_key=jax.random.key(0, impl="threefry2x32"),
        config=config,
        knobs=standard,
    )
    return jax.tree.map(np.asarray, samples)


def assert_stopped(actual: Samples, expected: Samples, lengths: list[int]) -> None:
    """Rows end at `lengths`; up to there, and in all other rows, every bit is that of `expected`."""
    stopped = np.array(lengths) < T
    assert stopped.sum() >= 2
    assert (~stopped).sum() >= 2
    np.testing.assert_array_equal(actual.lengths, lengths)
    reasons = np.where(stopped, FinishReason.NON_FINITE, FinishReason.LENGTH)
    np.testing.assert_array_equal(actual.finish_reason, reasons)
    np.testing.assert_array_equal(expected.finish_reason, FinishReason.LENGTH)
    real = np.arange(T) < np.array(lengths)[:, None]
    np.testing.assert_array_equal(actual.policy_tokens, np.array(LENGTHS) + lengths - ~stopped)
    np.testing.assert_array_equal(actual.value_tokens[~stopped], expected.value_tokens[~stopped])

    def same(one: np.ndarray, other: np.ndarray) -> None:
        if one.ndim > 1:
            np.testing.assert_array_equal(one[real], other[real])
            padding = np.unique(one[~real])
            assert len(padding) == 1
            assert np.isnan(padding[0]) or padding[0] in (0, -1)

    jax.tree.map(same, actual, expected)


@pytest.mark.parametrize("token", [ORDINARY, BANNED, NO_TOKEN])
@pytest.mark.parametrize("poison", POISONS)
def test_a_logit_that_is_not_finite_ends_its_row_even_at_an_id_that_cannot_be_drawn(poison, token):
    params = clean()
    weight = params.policy["lm_head"]["weight"].copy()
    weight[token, :2] = POISONS[poison]
    poisoned = replace(params, policy=params.policy | {"lm_head": {"weight": weight}})
    expected = run(params)
    assert_stopped(run(poisoned), expected, after_x(expected))


def after_x(samples: Samples) -> list[int]:
    """Where rows end if they fail as soon as X has been read; the first row's prompt ends in X."""
    says = [(row == X).tolist() for row in samples.tokens]
    return [0] + [says[row].index(True) + 1 if True in says[row][:-1] else T for row in range(1, ROWS)]


def test_a_token_whose_embedding_is_nan_ends_the_row_that_says_it():
    params = clean()
    model = jax.tree.map(np.array, params.policy["model"])
    model["embed_tokens"]["weight"][X] = np.nan
    expected = run(params)
    assert_stopped(run(replace(params, policy=params.policy | {"model": model})), expected, after_x(expected))


def where_x_is_judged(samples: Samples) -> list[int]:
    """The first junction of each row at which X is a candidate."""
    judged = (samples.candidates.ids == X).any(axis=-1) & samples.junction
    return [int(np.argmax(row)) if row.any() else T for row in judged]


def assert_stopped_at_junctions(actual: Samples, expected: Samples, candidates: int) -> None:
    lengths = where_x_is_judged(expected)
    # Policy and value model have both been asked once more than there are tokens.
    assert_stopped(actual, expected, lengths)
    for row, t in enumerate(lengths):
        if t < T:
            before = expected.junction[row, :t].sum()
            needed = (
                LENGTHS[row] + (t - before) + candidates * (before + 1) if candidates else LENGTHS[row] + t
            )
            assert actual.value_tokens[row] == needed


@pytest.mark.parametrize("top_k", [0, 1])
@pytest.mark.parametrize("poison", POISONS)
def test_a_value_that_is_read_and_not_finite_ends_its_row_even_of_a_filtered_candidate(poison, top_k):
    params, thresholds = clean(), np.array([-INF, -INF, 1.0, INF, 1.0, -INF])
    head = params.value["value_head"]
    weight = head["weight"].copy()
    weight[0, :2] = POISONS[poison]
    poisoned = replace(params, value=params.value | {"value_head": head | {"weight": weight}})
    knobs = {"top_k": top_k, "bias": [2.0], "read_all": 1}
    expected = run(params, thresholds, **knobs)
    assert_stopped_at_junctions(run(poisoned, thresholds, **knobs), expected, C)
    at = [(row, t) for row, t in enumerate(where_x_is_judged(expected)) if t < T]
    assert any(expected.candidates.ids[row, t, 0] != X for row, t in at)


@pytest.mark.parametrize("poison", [NAN, INF, -INF])
def test_a_value_of_a_vocab_head_that_is_not_finite_ends_its_row(poison):
    params, thresholds = clean("vocab"), np.array([-INF, -INF, 1.0, INF, 1.0, -INF])
    head = params.value["value_head"]
    bias = head["up"]["bias"].copy()
    bias[X] = poison
    up = head["up"] | {"bias": bias}
    poisoned = replace(params, value=params.value | {"value_head": head | {"up": up}})
    expected = run(params, thresholds, "vocab", bias=[2.0])
    assert_stopped_at_junctions(run(poisoned, thresholds, "vocab", bias=[2.0]), expected, 0)
