"""A value model as a network, against NumPy in float64: every kind of head, with an adapter and without."""

import functools
from dataclasses import replace
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.models.config import HeadKind, ValueConfig
from sia_jax.models.heads import HEADS
from sia_jax.models.lora import LoraConfig
from sia_jax.models.passes import hidden_states
from sia_jax.models.transformer import init_model
from sia_jax.models.value_model import abstract_value, init_value_head, value_net
from sia_jax.types import flatten_names
from tests.support.checkpoints import assert_close, random_tokens, tiny_policy, tiny_value_model
from tests.support.oracle_network import NumpyModel
from tests.support.sampling import merged_value

KINDS = [(head, adapted) for head in get_args(HeadKind) for adapted in (True, False)]
every_kind = pytest.mark.parametrize(("head", "adapted"), KINDS)


@functools.cache
def setup(head, adapted):
    """A network over [2, 5] tokens: it, the tokens, its hidden states, and the oracle of the same weights."""
    policy = tiny_policy()
    value = tiny_value_model(policy, head=head)
    oracle = NumpyModel(value.params, value.config, value.base)
    if adapted:
        net = value_net(value.params, value.config, policy.params)
    else:
        config, params = merged_value(value)
        net = value_net(params, config)
    tokens = random_tokens(policy.config, 2, 5)
    hidden = hidden_states(net.model, jnp.asarray(tokens), config=net.config.backbone, adapter=net.adapter)
    return net, tokens, hidden, oracle


def next_values(oracle, prefix):
    """[V] of every token that may follow, each read alone."""
    return oracle.candidate_values(list(prefix), range(oracle.config.vocab_size))


def test_every_kind_that_a_configuration_names_is_there():
    assert set(HEADS) == set(get_args(HeadKind))


@every_kind
def test_values_are_those_of_each_token_or_of_all_that_may_follow(head, adapted):
    net, tokens, hidden, oracle = setup(head, adapted)
    if head == "vocab":
        expected = [[next_values(oracle, row[: t + 1]) for t in range(5)] for row in tokens]
    else:
        expected = [[next_values(oracle, row[:t])[row[t]] for t in range(5)] for row in tokens]
    found = net.values(hidden)
    assert found.dtype == jnp.float32
    assert_close(found, np.array(expected))


@every_kind
def test_values_of_candidates_are_their_entries_among_those_of_the_whole_vocabulary(head, adapted):
    net, tokens, hidden, oracle = setup(head, adapted)
    ids = np.array([[3, 0, 7], [tokens[1, 0], 3, 3]])
    expected = [next_values(oracle, row)[own] for row, own in zip(tokens, ids, strict=True)]
    at = hidden[:, -1]
    if net.config.reads_candidates:
        texts = jnp.array([[*row, a] for row, own in zip(tokens, ids, strict=True) for a in own])
        at = hidden_states(net.model, texts, config=net.config.backbone, adapter=net.adapter)[:, -1]
        at = at.reshape(2, 3, -1)
    assert_close(net.values_of(at, jnp.asarray(ids)), np.array(expected))


@every_kind
def test_token_and_last_values_are_those_of_the_tokens_that_are_there(head, adapted):
    net, tokens, hidden, oracle = setup(head, adapted)
    expected = np.array([[next_values(oracle, row[:t])[row[t]] for t in range(1, 5)] for row in tokens])
    assert_close(net.token_values(hidden, jnp.asarray(tokens))[:, 1:], expected)
    last = np.array([4, 2])
    found = net.last_values(hidden, jnp.asarray(tokens), jnp.asarray(last))
    assert_close(found, expected[[0, 1], last - 1])


@pytest.mark.parametrize("head", get_args(HeadKind))
def test_a_read_of_candidates_or_tokens_never_makes_values_of_the_whole_vocabulary(head):
    net, tokens, hidden, _ = setup(head, True)
    tokens = jnp.asarray(tokens)
    reads = {
        "values_of": lambda net, h: net.values_of(h[:, :3] if head == "scalar" else h[:, 0], tokens[:, :3]),
        "token_values": lambda net, h: net.token_values(h, tokens),
    }
    vocab = net.config.backbone.vocab_size
    for read in reads.values():
        equations = jax.make_jaxpr(read)(net, hidden).jaxpr.eqns
        shapes = [x.aval.shape for equation in equations for x in equation.outvars]
        assert not any(vocab in shape for shape in shapes)


def test_the_kind_of_head_and_the_adapter_s_configuration_are_static_under_jit():
    compiled = []

    @jax.jit
    def read(net, hidden):
        compiled.append(net.config)
        return net.values(hidden)

    for head in get_args(HeadKind):
        net, _, hidden, _ = setup(head, True)
        more = jax.tree.map(lambda x: 2 * x, net)
        assert read(net, hidden).shape == read(more, hidden).shape == net.values(hidden).shape
        assert jax.tree.structure(more) == jax.tree.structure(net)
    assert [config.head for config in compiled] == list(get_args(HeadKind))


def test_one_s_own_backbone_goes_before_the_policy_s():
    policy, value = tiny_policy(), tiny_value_model(tiny_policy())
    over = value_net(value.params, value.config, policy.params)
    assert over.model is policy.params["model"]
    assert over.adapter is not None
    assert over.adapter.params is value.params["lora"]
    config, params = merged_value(value)
    own = value_net(params, config, policy.params)
    assert own.model is params["model"]
    assert own.adapter is None
    trained = value_net(value.params | {"model": policy.params["model"]}, value.config)
    assert trained.model is policy.params["model"]
    with pytest.raises(ValueError, match="lies over the policy's, got \\['lora', 'value_head'\\]; give pol"):
        value_net(value.params, value.config)


def test_dropout_is_the_adapter_s_and_only_with_keys():
    policy, value = tiny_policy(), tiny_value_model(tiny_policy(), lora=LoraConfig(rank=4, dropout=0.4))
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), (2, 5)))
    tokens = jnp.asarray(random_tokens(policy.config, 2, 5))
    make = functools.partial(value_net, value.params, value.config, policy.params)
    nets = [make(), make(dropout_keys=keys)]
    hidden = [
        hidden_states(net.model, tokens, config=net.config.backbone, adapter=net.adapter) for net in nets
    ]
    assert float(jnp.max(jnp.abs(hidden[0] - hidden[1]))) > 1e-3


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=3, target_modules=("q_proj", "down_proj"))])
@pytest.mark.parametrize("head", get_args(HeadKind))
def test_the_abstract_tree_has_the_shapes_and_dtypes_of_a_real_one(head, lora):
    config = ValueConfig(tiny_policy().config, head, 3 if head == "vocab" else None, lora)
    key = jax.random.key(0)
    abstract = flatten_names(abstract_value(config, jnp.bfloat16))
    fresh = flatten_names(init_value_head(config, key))
    assert {name: (x.shape, x.dtype) for name, x in fresh.items()} == {
        name.removeprefix("value_head."): (x.shape, x.dtype)
        for name, x in abstract.items()
        if name.startswith("value_head.")
    }
    if lora is None:
        model = flatten_names({"model": init_model(config.backbone, key, jnp.bfloat16)})
        assert {name: (x.shape, x.dtype) for name, x in model.items()}.items() <= {
            name: (x.shape, x.dtype) for name, x in abstract.items()
        }.items()
    else:
        layers, d, f = (
            config.backbone.num_layers,
            config.backbone.hidden_size,
            config.backbone.intermediate_size,
        )
        assert sum(name.startswith("lora.") for name in abstract) == layers * 2 * 2
        assert abstract["lora.layers.0.mlp.down_proj.lora_A.weight"].shape == (3, f)
        assert abstract["lora.layers.0.mlp.down_proj.lora_B.weight"].shape == (d, 3)
        assert not any(name.startswith("model.") for name in abstract)
    assert replace(config, lora=None).reads_candidates == (head == "scalar")


@pytest.mark.parametrize("head", get_args(HeadKind))
def test_a_fresh_head_is_uniform_or_steers_nothing(head):
    config = ValueConfig(tiny_policy().config, head, 3 if head == "vocab" else None)
    params = init_value_head(config, jax.random.key(1))
    bound = config.backbone.hidden_size**-0.5
    drawn = params["weight"] if head == "scalar" else params["down"]["weight"]
    assert 0.8 * bound < float(jnp.max(jnp.abs(drawn))) <= bound
    if head == "vocab":
        net = value_net({"model": {}, "value_head": params}, config)
        assert not np.any(net.values(jnp.ones((2, config.backbone.hidden_size))))
