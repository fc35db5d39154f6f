"""The public names: what they are, how they show themselves, and what they say to any object in any place."""

import contextlib
import functools
import math
from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sia_jax
from sia_jax.decoding import sample as module
from sia_jax.decoding.state import FinishReason
from sia_jax.models.batches import pad_batch
from sia_jax.steering.gates import Bernoulli, Budget, Entropy, Position
from sia_jax.steering.tilts import Clipped
from tests.support.checkpoints import tiny_config, tiny_policy, tiny_reward_model, tiny_value_model

LONGEST = 400
NAMES = [
    "BestOfN",
    "FinishReason",
    "Knobs",
    "LoraConfig",
    "ModelConfig",
    "Policy",
    "Prompt",
    "RewardModel",
    "SamplerConfig",
    "Samples",
    "SteeringConfig",
    "SteeringParams",
    "ValueConfig",
    "ValueModel",
    "best_of_n",
    "load_policy",
    "load_reward_model",
    "load_value_model",
    "make_mesh",
    "sample",
    "save_policy",
    "save_reward_model",
    "save_value_model",
]


def test_the_public_names_are_all_there_in_order():
    assert sorted(sia_jax.__all__) == list(sia_jax.__all__)
    assert set(sia_jax.__all__) >= set(NAMES)
    assert all(getattr(sia_jax, name) is not None for name in sia_jax.__all__)


# Reprs


@functools.cache
def models():
    policy = tiny_policy(num_layers=1)
    return policy, tiny_value_model(policy), tiny_reward_model(num_layers=1)


def config_of(**changes: Any) -> sia_jax.SamplerConfig:
    policy, value, _ = models()
    steering = sia_jax.SteeringConfig(num_candidates=3, gate=Entropy() | Bernoulli(0.0), tilt=Clipped(9.0))
    arguments = {"policy": policy.config, "value": value.config, "steering": steering, "max_new_tokens": 4}
    return sia_jax.SamplerConfig(**(arguments | changes))


def samples_of(rows: int, length: int) -> sia_jax.Samples:
    lengths = np.arange(rows) % length + 1
    grid = np.zeros((rows, length))
    counts = dict.fromkeys(("policy_steps", "value_calls", "policy_computed", "value_computed"), np.int32(9))
    return sia_jax.Samples(
        tokens=grid.astype(np.int32),
        junction=np.arange(length) < np.minimum(lengths, 2)[:, None],
        shifted=grid.astype(bool),
        **dict.fromkeys(("entropy", "policy_logprob", "logprob", "value"), grid),
        **dict.fromkeys(("contenders", "values_read"), grid.astype(np.int32)),
        lengths=lengths,
        finish_reason=np.where(lengths == length, FinishReason.LENGTH, FinishReason.STOP),
        policy_tokens=lengths,
        value_tokens=lengths,
        candidates=None,
        **counts,
    )


@pytest.mark.parametrize("size", [1, 3000])
def test_every_public_object_shows_itself_in_a_line_or_two(size):
    policy, value, reward = models()
    samples = samples_of(size, size)
    gate = functools.reduce(lambda a, b: a & b, [Position(i) for i in range(min(size, 50))])
    steering = sia_jax.SteeringConfig(gate=gate)
    long = "name" * min(size, 500)
    shown = [
        replace(policy, name=long),
        replace(value, name=long),
        replace(reward, name=long),
        sia_jax.SteeringParams(policy.params, value.params),
        sia_jax.Prompt.pack([[1]] * size),
        samples,
        sia_jax.BestOfN(samples, np.zeros((size, size)), np.zeros(size)),
        steering,
        config_of(steering=steering),
        sia_jax.Knobs(**{f.name: np.ones(size) for f in fields(sia_jax.Knobs)}),
        sia_jax.Knobs(stop_ids=list(range(size)), gate=gate),
        policy.config,
        tiny_config(eos_token_ids=tuple(range(size)), num_tokens=9),
        value.config,
        sia_jax.LoraConfig(rank_pattern=tuple((f"layers.{i}", 4) for i in range(size))),
        FinishReason.STOP,
    ]
    for x in shown:
        assert 0 < len(repr(x)) <= LONGEST, type(x)
        assert "\n" not in repr(x)


def test_reprs_say_how_many_and_how_large():
    policy = replace(models()[0], name="small")
    assert repr(policy).startswith(
        "Policy('small', ModelConfig(qwen3, 1 layers, hidden 24, vocabulary 64, untied,"
    )
    assert repr(sia_jax.Prompt.pack([[1, 2], [3]])) == (
        "Prompt(policy [2, 16], 1 .. 2 ids each; value [2, 16], 1 .. 2 ids each)"
    )
    assert repr(samples_of(3, 2)) == (
        "Samples(3 replies of 1 .. 2 tokens: 4 of 4 tokens steered, 0 shifted; stop 2, length 1; "
        "9 policy steps, 9 value passes)"
    )
    assert repr(sia_jax.Knobs(beta=2.0, stop_ids=np.zeros(3, int))) == "Knobs(beta=2.0, stop_ids=int64[3])"
    assert repr(sia_jax.SamplerConfig(policy=policy.config, branches=4)).endswith(
        "value=None, max_new_tokens=128, branches=4)"
    )
    assert repr(Entropy() & ~Budget(0.2)) == "(Entropy() & ~Budget(rate=0.2))"


def test_an_expression_s_repr_is_the_expression():
    names = {"Entropy": Entropy, "Position": Position, "Budget": Budget}
    for gate in (~(Entropy() | Position(3)) & ~Budget(0.5), Entropy() & (Position(1) | ~Entropy())):
        assert eval(repr(gate), names) == gate


def test_what_is_traced_shows_its_shape():
    shown = []

    @jax.jit
    def trace(prompt, samples):
        shown.extend([repr(prompt), repr(samples), repr(sia_jax.Knobs(beta=prompt.policy_lengths))])
        return 0

    trace(sia_jax.Prompt.pack([[1]]), samples_of(2, 3))
    assert shown == [
        "Prompt(policy [1, 16]; value [1, 16])",
        "Samples(tokens [2, 3])",
        "Knobs(beta=int32[1])",
    ]


# Any object in any place


class Odd:
    """It looks like an array, and raises whatever it is asked."""

    dtype = "float32"
    shape = (2,)

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("no array")


OBJECTS = [
    *(None, True, False, 0, -1, 1, 2, 2.5, -0.5, math.nan, math.inf, -math.inf, 10**30, 1j, "", "text", b"x"),
    *(
        [],
        [[]],
        [1],
        [1, 2],
        [0.5, 1.5],
        [[1, 2], [3]],
        [[1, 2], [3, 4]],
        ["a", "b"],
        [None, 1],
        [[[1]]],
        (),
        (1, 2),
    ),
    *({}, {"a": 1}, {1, 2}, frozenset(), object(), Odd(), int, Odd, len, iter([1, 2]), range(2), slice(1)),
    *(
        np.zeros(0),
        np.ones(2),
        np.ones(3),
        np.ones((2, 1)),
        np.array("x"),
        np.array([None, 1]),
        np.float16(1),
    ),
    *(
        np.datetime64("2026-01-01"),
        np.ones(2, complex),
        np.array([1, 2], np.uint64),
        np.ma.masked,
        np.int8(-3),
    ),
    *(jnp.ones(2), jnp.ones((), jnp.bfloat16), jnp.ones(2, jnp.bfloat16), jnp.zeros((2, 3), jnp.int32)),
    *(jax.ShapeDtypeStruct((2,), np.float32), Entropy(), Entropy, Clipped(1.0), FinishReason.STOP),
    *(sia_jax.Knobs(), sia_jax.SteeringConfig(), sia_jax.LoraConfig(), sia_jax.Prompt.pack([[1], [2]])),
    *(tiny_config(), tiny_policy, jax.devices()[0], jax.random.key(0, impl="rbg"), jax.random.PRNGKey(0)),
]


def any_object() -> st.SearchStrategy:
    simple = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4)
    )
    nested = st.recursive(
        simple, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=2), x, max_size=2)
    )
    return st.sampled_from(OBJECTS) | nested


class ReachedError(Exception):
    """The jitted function would have been called."""


@pytest.fixture
def untraced(monkeypatch):
    def refuse(params, prompts, numbers, schedule, *, config):
        # What is handed over are arrays of numbers, and a configuration that can be looked up.
        assert all(
            isinstance(x, jax.Array | np.ndarray) for x in jax.tree.leaves((prompts, numbers, schedule))
        )
        hash(config)
        raise ReachedError

    monkeypatch.setattr(module, "_sample", refuse)


def right() -> dict[str, Any]:
    policy, value, _ = models()
    return {
        "params": sia_jax.SteeringParams(policy.params, value.params),
        "prompt": sia_jax.Prompt.pack([[5, 6, 7], [8]]),
        "threshold": 1.0,
        "rng_key": jax.random.key(0, impl="threefry2x32"),
        "config": config_of(),
        "knobs": None,
    }


@contextlib.contextmanager
def only_said(*names: str):
    """Nothing is raised, or a ValueError or TypeError whose message has one of the names."""
    try:
        yield
    except ReachedError:
        pass
    except (ValueError, TypeError) as error:
        text = str(error)
        assert any(name in text for name in names), text
        assert len(text) < 2000
        assert not text.endswith("got object")
        assert "<U" not in text


def call(**changes: Any) -> None:
    arguments = right() | changes
    positional = [arguments.pop(name) for name in ("params", "prompt", "threshold")]
    module.sample(*positional, **arguments)


OPTIONS = {"database": None, "derandomize": True, "max_examples": 300}


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("name", list(right()))
def test_any_object_as_an_argument_of_sample_is_right_or_refused_by_name(name):
    for x in OBJECTS:
        with only_said(name):
            call(**{name: x})


@pytest.mark.usefixtures("untraced")
@settings(**OPTIONS)
@given(st.sampled_from([f.name for f in fields(sia_jax.Knobs)]), any_object())
def test_any_object_as_a_knob_is_right_or_refused_by_name(name, x):
    with only_said(name):
        call(knobs=sia_jax.Knobs(**{name: x}))


@pytest.mark.usefixtures("untraced")
@settings(**OPTIONS)
@given(st.sampled_from([f.name for f in fields(sia_jax.Prompt)]), any_object())
def test_any_object_in_a_prompt_made_by_hand_is_right_or_refused_by_name(name, x):
    with only_said(name, name.split("_")[0]):
        call(prompt=replace(right()["prompt"], **{name: x}))


@settings(**OPTIONS)
@given(any_object(), st.sampled_from(["policy_ids", "value_ids", "policy_length", "value_length"]))
def test_any_object_as_a_list_of_prompts_is_right_or_refused_by_name(x, name):
    arguments = {"policy_ids": [[1], [2]]} | {name: x}
    with only_said(name, name.split("_")[0]):
        assert sia_jax.Prompt.pack(**arguments).rows >= 1


@settings(**OPTIONS)
@given(st.sampled_from([f.name for f in fields(sia_jax.SamplerConfig)]), any_object())
def test_any_object_in_a_configuration_is_right_or_refused_by_name(name, x):
    with only_said(name, "num_candidates", "value model"):
        hash(config_of(**{name: x}).resolve(4))


@settings(**OPTIONS)
@given(st.sampled_from([f.name for f in fields(sia_jax.SteeringConfig)]), any_object())
def test_any_object_in_the_steering_is_right_or_refused_by_name(name, x):
    with only_said(name):
        hash(sia_jax.SteeringConfig(**{name: x}))


@settings(**OPTIONS)
@given(any_object(), any_object())
def test_any_batch_of_ids_is_right_or_refused_by_name(tokens, lengths):
    config = models()[0].config
    for batch in ((tokens, lengths), (tokens, [1]), ([[1, 2], [3, 4]], lengths)):
        with only_said("tokens", "lengths", "ids"):
            padded, checked = pad_batch(*batch, config)
            assert padded.dtype == checked.dtype == jnp.int32


@pytest.mark.parametrize("method", ["logits", "values", "score"])
def test_ragged_lists_are_told_from_words_and_floats(method):
    model = {"logits": models()[0], "values": models()[1], "score": models()[2]}[method]
    ask = getattr(model, method)
    with pytest.raises(ValueError, match=r"tokens must be integers, got rows of different lengths.*pad them"):
        ask([[1, 2, 3], [4]], [3, 1])
    with pytest.raises(ValueError, match=r"tokens must be integers, got str 'hello'"):
        ask("hello", [3])
    with pytest.raises(ValueError, match=r"tokens must be integers, got float64 \(1, 2\)"):
        ask([[1.0, 2.0]], [2])
    with pytest.raises(ValueError, match=r"lengths must lie in 1 \.\. 2 .*got \[-1\]"):
        ask([[1, 2]], [-1])


def test_a_loaded_model_in_place_of_a_part_of_it_is_told_which_part():
    policy, value, _ = models()
    with pytest.raises(
        TypeError, match=r"params must be sia_jax.SteeringParams\(policy.params, value.params\), got dict"
    ):
        call(params=policy.params)
    with pytest.raises(TypeError, match=r"policy must be a ModelConfig, such as policy.config, got Policy"):
        sia_jax.SamplerConfig(policy=policy)
    with pytest.raises(
        TypeError, match=r"value must be a ValueConfig, such as value.config, or None, got ValueModel"
    ):
        sia_jax.SamplerConfig(policy=policy.config, value=value)
    with pytest.raises(TypeError, match=r"prompt must be sia_jax.Prompt.pack\(.*got list \[1, 2\]"):
        call(prompt=[1, 2])
    with pytest.raises(
        TypeError, match=r"prompt 0 must be a list of integer ids, got str 'Hi'; a text becomes ids"
    ):
        sia_jax.Prompt.pack(["Hi"])
    with pytest.raises(TypeError, match=r"policy_ids must be a list of prompts.*got str 'Hi'"):
        sia_jax.Prompt.pack("Hi")
    with pytest.raises(TypeError, match=r"got int64 \(\); one prompt is a list in a list: \[\[1, 2, 3\]\]"):
        sia_jax.Prompt.pack([1, 2, 3])
    with pytest.raises(TypeError, match=r"score must be a function"):
        sia_jax.best_of_n(**(right() | {"score": 3}))


@pytest.mark.parametrize(
    "sizes", [{"data": "2"}, {"fsdp": 1.0}, {"tensor": None}, {"devices": 3}, {"devices": [1]}]
)
def test_a_mesh_is_made_of_numbers_and_devices(sizes):
    with pytest.raises(TypeError, match=next(iter(sizes))):
        sia_jax.make_mesh(**sizes)


@pytest.mark.usefixtures("untraced")
def test_layers_named_by_texts_and_weights_that_are_no_floats_are_refused():
    policy, value, _ = models()
    layers = {str(i): layer for i, layer in policy.params["model"]["layers"].items()}
    texts = policy.params | {"model": policy.params["model"] | {"layers": layers}}
    with pytest.raises(ValueError, match=r"layers must be numbered by integers.*got the key '0'"):
        call(params=sia_jax.SteeringParams(texts, value.params))
    integers = policy.params | {"lm_head": {"weight": np.ones((64, 24), int)}}
    with pytest.raises(ValueError, match=r"must be floating-point arrays, got lm_head.weight"):
        call(params=sia_jax.SteeringParams(integers, value.params))
