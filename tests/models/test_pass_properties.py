"""What the passes promise to the programs that will be built on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from sia_jax.models import attention, passes
from sia_jax.models.cache import KVCache
from sia_jax.models.lora import Adapter, LoraConfig, check_adapter, lora_delta, merge_lora
from sia_jax.models.transformer import forward
from sia_jax.parallel.mesh import make_mesh
from tests.support.checkpoints import assert_close, random_lora, random_tokens, tiny_config, tiny_policy

LAYOUTS = ["BKHS", "BSKH"]


def decode_two(params, tokens, lengths, *, config, layout):
    """Prefill, then two cached steps: the hidden states of the second [B, D]."""
    cache = KVCache.zeros(config, tokens.shape[0], tokens.shape[1] + 2, jnp.float32, layout)
    _, cache = passes.prefill(params["model"], tokens, lengths, cache, config=config)
    for step in range(2):
        hidden, cache = passes.decode_step(
            params["model"], tokens[:, step], lengths + step, cache, config=config
        )
    return hidden


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float32_products_of_a_cached_step_are_all_of_the_highest_precision(layout):
    policy = tiny_policy()
    tokens, lengths = jnp.asarray(random_tokens(policy.config, 2, 4)), jnp.array([4, 3])
    step = functools.partial(decode_two, config=policy.config, layout=layout)
    products = [
        equation.params["precision"]
        for equation in jax.make_jaxpr(step)(policy.params, tokens, lengths).eqns
        if equation.primitive.name == "dot_general"
    ]
    assert len(products) > 20
    assert set(products) == {(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_under_shard_map_compute_what_they_compute_together(layout):
    policy = tiny_policy()
    mesh = make_mesh(data=8)
    tokens = jnp.asarray(random_tokens(policy.config, 16, 6))
    lengths = jnp.asarray(np.random.default_rng(0).integers(1, 7, 16), jnp.int32)
    step = functools.partial(decode_two, config=policy.config, layout=layout)
    rows = P(("data", "fsdp"))
    by_shard = jax.shard_map(step, mesh=mesh, in_specs=(P(), rows, rows), out_specs=rows, check_vma=False)
    expected = jax.jit(step)(policy.params, tokens, lengths)
    assert_close(jax.jit(by_shard)(policy.params, tokens, lengths), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cache_made_outside_crosses_shard_map_with_its_shard_s_rows(layout):
    policy = tiny_policy()
    config, mesh, rows = policy.config, make_mesh(data=8), P(("data", "fsdp"))
    tokens, lengths = jnp.asarray(random_tokens(config, 16, 1))[:, 0], jnp.zeros((16,), jnp.int32)
    step = functools.partial(passes.decode_step, config=config)
    cache = KVCache.zeros(config, 16, 4, jnp.float32, layout)

    def on_shard(model, tokens, lengths, cache):
        assert cache.batch == 2
        return step(model, tokens, lengths, cache)

    specs = jax.tree.map(lambda _: rows, cache)
    by_shard = jax.shard_map(
        on_shard, mesh=mesh, in_specs=(P(), rows, rows, specs), out_specs=(rows, specs), check_vma=False
    )
    hidden, filled = jax.jit(by_shard)(policy.params["model"], tokens, lengths, cache)
    expected_hidden, expected = jax.jit(step)(policy.params["model"], tokens, lengths, cache)
    assert_close(hidden, expected_hidden)
    assert_close(filled.keys[1], expected.keys[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 3])
def test_tokens_with_a_negative_row_or_column_are_dropped(layout, batch):
    config = tiny_config()
    cache = KVCache.zeros(config, batch, 4, jnp.float32, layout)
    ones = jnp.ones((2, config.num_kv_heads, config.head_dim))
    written = cache.write(0, ones, ones, rows=jnp.array([-1, 0]), columns=jnp.array([1, -1]))
    assert not np.any(written.keys[0])
    assert not np.any(written.values[0])


def test_empty_places_of_a_flat_pass_may_name_any_row_outside():
    policy = tiny_policy()
    config = policy.config
    cache = KVCache.zeros(config, 2, 4, jnp.float32)
    mask = jnp.zeros((2, 1, 4), bool).at[:, :, 0].set(True)

    @jax.jit
    def flat(rows):
        attend = attention.FlatAttention(rows, slots=jnp.zeros(4, int), columns=jnp.zeros(4, int), mask=mask)
        tokens, positions = jnp.array([5, 6, 7, 7]), jnp.zeros(4, int)
        return forward(policy.params["model"], tokens, positions, cache, attend, config=config)

    hidden, filled = flat(jnp.array([0, 1, 2, 2]))
    other_hidden, other = flat(jnp.array([0, 1, -1, 9]))
    np.testing.assert_array_equal(hidden[:2], other_hidden[:2])
    np.testing.assert_array_equal(filled.keys[1], other.keys[1])


def test_gradients_through_attention_in_blocks_are_those_of_the_whole(monkeypatch):
    policy = tiny_policy()
    tokens = jnp.asarray(random_tokens(policy.config, 2, 24))

    def loss(model):
        return jnp.sum(jnp.square(passes.hidden_states(model, tokens, config=policy.config)))

    whole = jax.jit(jax.grad(loss))(policy.params["model"])
    monkeypatch.setattr(attention, "BLOCK", {"cpu": 7})
    in_blocks = jax.jit(jax.grad(lambda model: loss(model)))(policy.params["model"])
    jax.tree.map(functools.partial(assert_close, tolerance=1e-4), in_blocks, whole)


def test_a_mesh_attends_in_blocks_for_its_own_devices_whatever_else_the_machine_has(monkeypatch):
    mesh = make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert attention.block_length() == 512
    assert attention.block_length(mesh) == attention.BLOCK["cpu"]


@pytest.mark.parametrize(
    ("change", "telling"),
    [
        (lambda lora: {"model": lora}, "no projection in the backbone"),
        (lambda lora: {"layers": {9: lora["layers"][0]}}, "layers.9"),
        (
            lambda lora: {"layers": {0: {"mlp": {"up_proj": lora["layers"][0]["self_attn"]["o_proj"]}}}},
            "on a",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_the_backbone_is_refused(change, telling):
    policy, config = tiny_policy(), LoraConfig(rank=4, alpha=8.0)
    lora = change(random_lora(policy.config, config))
    with pytest.raises(ValueError, match=telling):
        check_adapter(policy.params["model"], lora)
    with pytest.raises(ValueError, match=telling):
        merge_lora(policy.params["model"], lora, config)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rank": 0}, "rank must be 1 or more, got 0"),
        ({"rank_pattern": (("q_proj", 0),)}, "rank_pattern 'q_proj' must be 1 or more, got 0"),
        ({"alpha": float("nan")}, "alpha must be finite, got nan"),
        ({"alpha_pattern": (("q_proj", float("inf")),)}, "alpha_pattern 'q_proj' must be finite, got inf"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_a_lora_config_with_impossible_numbers_is_refused(wrong, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        LoraConfig(**wrong)


def test_an_adapter_of_bfloat16_activations_adds_up_in_float32():
    lora = {"lora_A": {"weight": jnp.ones((1, 512))}, "lora_B": {"weight": jnp.full((2, 1), 2.0**-9)}}
    x = jnp.concatenate([jnp.ones(511, jnp.bfloat16), jnp.full((1,), 0.5, jnp.bfloat16)])
    delta = lora_delta(x, Adapter(lora, LoraConfig(rank=1, alpha=1.0), path="layers.0.mlp.up_proj"))
    np.testing.assert_array_equal(delta, np.full(2, 511.5 / 512, np.float32))
