"""How often Python runs a layer: once for all that differ in their arrays alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sia_jax.models import passes, rope, transformer
from sia_jax.models.cache import KVCache
from sia_jax.models.lora import Adapter, LoraConfig, descend
from tests.support.checkpoints import random_lora, random_tokens, tiny_policy
from tests.support.marks import long

LAYERS = 3
PLAIN = LoraConfig(rank=4, alpha=8.0)
BY_LAYER = LoraConfig(rank=4, alpha=8.0, alpha_pattern=((r"layers\.1\..*", 20.0),))
POLICY = tiny_policy(num_layers=LAYERS)
CONFIG = POLICY.config
TOKENS = jnp.asarray(random_tokens(CONFIG, 2, 8))


def adapter_of(lora: LoraConfig, *, dropout: bool = False, layers: tuple[int, ...] = ()) -> Adapter:
    tree = random_lora(CONFIG, lora)
    if layers:
        tree = {"layers": {i: tree["layers"][i] for i in layers}}
    keys = jax.random.key_data(jax.random.split(jax.random.key(1), TOKENS.shape)) if dropout else None
    return Adapter(tree, lora, dropout_keys=keys)


def decode(model, adapter, layout="BKHS"):
    """Prefill and two steps: their hidden states, and the cache."""
    cache = KVCache.zeros(CONFIG, 2, 10, jnp.float32, layout)
    lengths = jnp.array([8, 5])
    hidden, cache = passes.prefill(model, TOKENS, lengths, cache, config=CONFIG, adapter=adapter)
    found = [hidden]
    for step in range(2):
        hidden, cache = passes.decode_step(
            model, TOKENS[:, step], lengths + step, cache, config=CONFIG, adapter=adapter
        )
        found.append(hidden)
    return found, cache


def full(model, adapter):
    return passes.hidden_states(model, TOKENS, config=CONFIG, adapter=adapter)


def remat(model, adapter):
    return passes.hidden_states(model, TOKENS, config=CONFIG, adapter=adapter, remat=True)


@pytest.fixture
def count_layers(monkeypatch):
    """f, model, adapter -> how often a layer's Python runs while f is traced."""
    original = transformer.Block.__call__
    calls = []

    def counted(self, *args):
        calls.append(1)
        return original(self, *args)

    monkeypatch.setattr(transformer.Block, "__call__", counted)

    def count(f, adapter=None):
        calls.clear()
        jax.make_jaxpr(lambda *args: f(*args))(POLICY.params["model"], adapter)
        return len(calls)

    return count


def test_a_layer_is_run_once_in_each_pass(count_layers):
    assert count_layers(full) == 1
    assert count_layers(full) == 1  # no trace is kept from pass to pass
    assert count_layers(decode) == 3
    assert count_layers(decode, adapter_of(PLAIN)) == 3


def test_layers_with_and_without_an_adapter_are_two_kinds(count_layers):
    assert count_layers(full, adapter_of(PLAIN, layers=(0, 2))) == 2


def test_where_the_layers_number_decides_each_is_run(count_layers):
    assert count_layers(full, adapter_of(BY_LAYER)) == LAYERS
    assert count_layers(full, adapter_of(PLAIN, dropout=True)) == LAYERS
    assert count_layers(remat) == LAYERS  # as before in training


def forward_layer_by_layer(model, tokens, positions, cache, attend, *, config, adapter=None, **_):
    """`forward` as a loop over the modules, each with its number, its adapter and the whole cache."""
    shapes = nnx.eval_shape(lambda: transformer.Transformer(config, rngs=nnx.Rngs(0)))
    network = nnx.merge(nnx.split(shapes)[0], model)
    angles = rope.rotary_angles(positions, rope.inverse_frequencies(config.rope, config.head_dim))
    x = network.embed_tokens(tokens)
    for i, block in enumerate(network.layers):
        x, cache = block(x, angles, i, attend, cache, descend(descend(adapter, "layers"), i))
    return network.norm(x), cache


CASES = {
    "full, plain": (full, adapter_of(PLAIN)),
    "full, of some layers": (full, adapter_of(PLAIN, layers=(0, 2))),
    "full, patterns": (full, adapter_of(BY_LAYER)),
    "full, dropout": (full, adapter_of(PLAIN, dropout=True)),
    "decode, none": (decode, None),
    "decode, patterns": (decode, adapter_of(BY_LAYER)),
    "decode, BSKH, plain": (functools.partial(decode, layout="BSKH"), adapter_of(PLAIN)),
}
LONG = ("full, patterns", "decode, none", "decode, BSKH, plain")


@pytest.mark.parametrize("case", [long(case) if case in LONG else case for case in CASES])
def test_numbers_are_those_of_layers_that_are_run_one_by_one(case, monkeypatch):
    f, adapter = CASES[case]
    ours = jax.jit(lambda *args: f(*args))(POLICY.params["model"], adapter)
    monkeypatch.setattr(passes, "forward", forward_layer_by_layer)
    expected = jax.jit(lambda *args: f(*args))(POLICY.params["model"], adapter)
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_a_tree_of_other_layers_than_the_configs_is_refused():
    model = POLICY.params["model"]
    for layers in ({0: model["layers"][0]}, model["layers"] | {LAYERS: model["layers"][0]}):
        with pytest.raises(ValueError, match=f"the config has {LAYERS} layers, the tree {len(layers)}"):
            full(model | {"layers": layers}, None)
