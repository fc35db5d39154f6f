"""Adapters: what they change, by how much, and on which tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.models.attention import FlatAttention
from sia_jax.models.cache import KVCache
from sia_jax.models.config import ModelConfig
from sia_jax.models.lora import (
    ATTENTION_PROJECTIONS,
    MLP_PROJECTIONS,
    Adapter,
    LoraConfig,
    init_lora,
    lora_delta,
    merge_lora,
)
from sia_jax.models.passes import decode_block, decode_step, hidden_states, prefill
from sia_jax.models.transformer import abstract_model, forward
from sia_jax.types import flatten_names
from tests.support.checkpoints import (
    assert_close,
    assert_same_trees,
    random_lora,
    random_tokens,
    tiny_config,
    tiny_policy,
)

ALL = ATTENTION_PROJECTIONS + MLP_PROJECTIONS
CONFIGS = {
    "attention": LoraConfig(rank=4, alpha=8.0),
    "everything": LoraConfig(rank=3, alpha=5.0, target_modules=ALL),
    "rslora": LoraConfig(rank=4, alpha=3.0, use_rslora=True),
    "rank pattern": LoraConfig(rank=4, alpha=8.0, rank_pattern=((r"layers\.1\..*", 2), ("q_proj", 5))),
    "alpha pattern": LoraConfig(rank=4, alpha=8.0, alpha_pattern=(("v_proj", 1.0), ("o_proj", 20.0))),
    "patterns and rslora": LoraConfig(
        rank=4,
        alpha=8.0,
        target_modules=("q_proj", "down_proj", "up_proj"),
        use_rslora=True,
        rank_pattern=(("mlp.down_proj", 1),),
        alpha_pattern=((r"0\.mlp\.up_proj", 2.0),),
    ),
}


run_full = jax.jit(hidden_states, static_argnames="config")
run_forward = jax.jit(forward, static_argnames="config")
run_prefill = jax.jit(prefill, static_argnames="config")
run_step = jax.jit(decode_step, static_argnames="config")
run_block = jax.jit(decode_block, static_argnames="config")


def tokens_of(config: ModelConfig, batch: int = 2, length: int = 9) -> jax.Array:
    return jnp.asarray(random_tokens(config, batch, length))


def test_fresh_adapter_changes_no_bit():
    policy = tiny_policy("llama", num_layers=1)
    model, config = policy.params["model"], policy.config
    lora_config = CONFIGS["everything"]
    lora = init_lora(model, lora_config, jax.random.key(0))
    assert len(flatten_names(lora)) == 2 * len(ALL) * config.num_layers
    tokens = tokens_of(config)
    base = run_full(model, tokens, config=config)
    adapted = run_full(model, tokens, config=config, adapter=Adapter(lora, lora_config))
    np.testing.assert_array_equal(np.asarray(adapted), np.asarray(base))
    assert_same_trees(merge_lora(model, lora, lora_config), model)


@pytest.mark.parametrize(
    ("family", "name"), [*(("qwen3", name) for name in CONFIGS), ("llama", "everything")]
)
def test_merged_weights_give_what_the_adapter_gives(family, name):
    policy = tiny_policy(family)
    model, config, lora_config = policy.params["model"], policy.config, CONFIGS[name]
    lora = random_lora(config, lora_config)
    tokens = tokens_of(config)
    adapted = run_full(model, tokens, config=config, adapter=Adapter(lora, lora_config))
    merged = run_full(merge_lora(model, lora, lora_config), tokens, config=config)
    assert_close(adapted, merged)
    base = np.asarray(run_full(model, tokens, config=config))
    assert np.abs(np.asarray(adapted) - base).max() > 0.01 * np.abs(base).max()


@pytest.mark.parametrize("name", CONFIGS)
def test_merged_weight_is_w_plus_scale_b_a_in_the_projections_named(name):
    policy = tiny_policy()
    model, lora_config = policy.params["model"], CONFIGS[name]
    lora = random_lora(policy.config, lora_config)
    merged, base = flatten_names(merge_lora(model, lora, lora_config)), flatten_names(model)
    parts = {path: np.asarray(leaf, np.float64) for path, leaf in flatten_names(lora).items()}
    for path, weight in base.items():
        module = path.removesuffix(".weight")
        if module.split(".")[-1] not in lora_config.target_modules:
            assert merged[path] is weight, path
            continue
        a, b = parts[f"{module}.lora_A.weight"], parts[f"{module}.lora_B.weight"]
        assert len(a) == lora_config.rank_of(module)
        assert_close(merged[path], np.asarray(weight, np.float64) + lora_config.scale(module) * (b @ a), 1e-6)


def test_merging_bfloat16_weights_rounds_once():
    policy = tiny_policy(dtype=jnp.bfloat16)
    lora_config = LoraConfig(rank=4, alpha=8.0, target_modules=("q_proj",))
    lora = random_lora(policy.config, lora_config)
    merged = merge_lora(policy.params["model"], lora, lora_config)
    projection = lora["layers"][0]["self_attn"]["q_proj"]
    a, b = (np.asarray(projection[part]["weight"]) for part in ("lora_A", "lora_B"))
    weight = policy.params["model"]["layers"][0]["self_attn"]["q_proj"]["weight"]
    exact = np.asarray(weight, np.float64) + 2.0 * (b.astype(np.float64) @ a.astype(np.float64))
    actual = merged["layers"][0]["self_attn"]["q_proj"]["weight"]
    assert actual.dtype == jnp.bfloat16
    once = exact.astype(np.float32).astype(jnp.bfloat16)
    # A sum within float32 rounding of a tie may round to either side; rounding the delta first moves a third.
    assert (np.asarray(actual) != once).mean() < 0.01
    assert_same_trees(
        {key: value for key, value in merged["layers"][0].items() if key != "self_attn"},
        {key: value for key, value in policy.params["model"]["layers"][0].items() if key != "self_attn"},
    )


def test_delta_of_chosen_tokens_is_that_of_all_and_zero_elsewhere():
    policy = tiny_policy()
    lora_config = LoraConfig(rank=4, alpha=8.0)
    lora = random_lora(policy.config, lora_config)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((7, policy.config.hidden_size)), jnp.float32)
    chosen = jnp.asarray([True, False, False, True, True, False, True])

    def delta(tokens):
        adapter = Adapter(lora, lora_config, tokens)
        for name in ("layers", 1, "self_attn", "q_proj"):
            adapter = adapter.at(name)
        return np.asarray(lora_delta(x, adapter))

    everywhere, somewhere = delta(None), delta(chosen)
    assert everywhere.all()
    np.testing.assert_array_equal(somewhere[chosen], everywhere[chosen])
    assert not somewhere[~chosen].any()
    np.testing.assert_array_equal(delta(jnp.ones(7, bool)), everywhere)


def test_adapter_of_some_rows_leaves_the_others_to_the_base():
    policy = tiny_policy("llama", num_layers=1)
    model, config = policy.params["model"], policy.config
    lora_config = CONFIGS["everything"]
    lora = random_lora(config, lora_config)
    tokens = tokens_of(config, batch=3)
    on = jnp.asarray([True, False, True])[:, None] & jnp.ones(tokens.shape, bool)
    mixed = run_full(model, tokens, config=config, adapter=Adapter(lora, lora_config, on))
    base = run_full(model, tokens, config=config)
    adapted = run_full(model, tokens, config=config, adapter=Adapter(lora, lora_config))
    np.testing.assert_array_equal(np.asarray(mixed)[1], np.asarray(base)[1])
    np.testing.assert_array_equal(np.asarray(mixed)[[0, 2]], np.asarray(adapted)[[0, 2]])


def test_flat_axis_serves_the_base_and_the_adapter_in_one_pass():
    """Row 0 is the policy's and row 1 the value model's, each with its own cache row; one pass over both."""
    policy = tiny_policy("qwen3", num_layers=1)
    model, config = policy.params["model"], policy.config
    lora_config = LoraConfig(rank=4, alpha=8.0)
    lora = random_lora(config, lora_config)
    tokens = tokens_of(config, batch=2, length=4)
    new = jnp.asarray([5, 9, 11, 13])  # one token of row 0, three of row 1
    rows, slots = jnp.asarray([0, 1, 1, 1]), jnp.asarray([0, 0, 1, 2])
    columns = 4 + slots
    mask = jnp.arange(8) <= (4 + jnp.arange(3))[None, :, None] + jnp.zeros((2, 1, 1), int)

    def passes(chosen):
        """chosen(row of each token) -> the mask of the adapter's tokens; None: base."""
        cache = KVCache.zeros(config, 2, 8, jnp.float32, "BKHS")
        block_rows = jnp.broadcast_to(jnp.arange(2)[:, None], (2, 4))
        adapter = Adapter(lora, lora_config, chosen(block_rows))
        _, cache = run_prefill(model, tokens, jnp.full(2, 4), cache, config=config, adapter=adapter)
        adapter = Adapter(lora, lora_config, chosen(rows))
        attend = FlatAttention(rows, slots, columns, mask)
        return np.asarray(run_forward(model, new, columns, cache, attend, config=config, adapter=adapter)[0])

    none = passes(lambda rows: jnp.zeros(rows.shape, bool))
    mixed = passes(lambda rows: rows == 1)
    both = passes(lambda rows: jnp.ones(rows.shape, bool))
    np.testing.assert_array_equal(mixed[0], none[0])
    np.testing.assert_array_equal(mixed[1:], both[1:])
    merged = merge_lora(model, lora, lora_config)
    policy_row = jnp.concatenate([tokens[0], new[:1]])[None]
    value_row = jnp.concatenate([tokens[1], new[1:]])[None]
    assert_close(mixed[0], run_full(model, policy_row, config=config)[0, -1])
    assert_close(mixed[1:], run_full(merged, value_row, config=config)[0, -3:])


def test_adapter_acts_in_prefill_steps_and_blocks():
    policy = tiny_policy("llama", num_layers=1)
    model, config = policy.params["model"], policy.config
    lora_config = CONFIGS["everything"]
    adapter = Adapter(random_lora(config, lora_config), lora_config)
    tokens = tokens_of(config, batch=2, length=8)
    expected = np.asarray(run_full(model, tokens, config=config, adapter=adapter))
    cache = KVCache.zeros(config, 2, 8, jnp.float32)
    lengths = jnp.full(2, 5)
    hidden, cache = run_prefill(model, tokens[:, :5], lengths, cache, config=config, adapter=adapter)
    assert_close(hidden, expected[:, 4])
    hidden, cache = run_step(model, tokens[:, 5], lengths, cache, config=config, adapter=adapter)
    assert_close(hidden, expected[:, 5])
    places = jnp.tile(jnp.arange(6, 8), (2, 1))
    mask = jnp.arange(8) <= places[:, :, None]
    hidden, _ = run_block(model, tokens[:, 6:], places, places, mask, cache, config=config, adapter=adapter)
    assert_close(hidden, expected[:, 6:])


def test_fresh_adapter_is_uniform_in_a_and_zero_in_b():
    config = tiny_config(hidden_size=64)
    lora = init_lora(abstract_model(config), LoraConfig(rank=8, target_modules=ALL), jax.random.key(0))
    leaves = flatten_names(lora)
    assert len(leaves) == 2 * len(ALL) * config.num_layers
    seen = set()
    for path, leaf in leaves.items():
        if path.endswith("lora_B.weight"):
            assert not np.asarray(leaf).any()
            continue
        bound = leaf.shape[1] ** -0.5
        assert np.abs(leaf).max() <= bound
        assert np.abs(leaf).max() > 0.95 * bound
        assert abs(float(leaf.mean())) < 0.2 * bound
        seen.add(np.asarray(leaf)[0, :4].tobytes())
    assert len(seen) == len(leaves) // 2  # no two projections start alike


def test_fresh_projection_does_not_depend_on_the_other_targets():
    model = abstract_model(tiny_config())
    key = jax.random.key(3)
    alone = flatten_names(init_lora(model, LoraConfig(rank=4, target_modules=("v_proj",)), key))
    among = flatten_names(init_lora(model, LoraConfig(rank=4, target_modules=ALL), key))
    assert alone
    for path, leaf in alone.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(among[path]))
    other = flatten_names(init_lora(model, LoraConfig(rank=4, target_modules=("v_proj",)), jax.random.key(4)))
    assert not np.array_equal(*(tree["layers.0.self_attn.v_proj.lora_A.weight"] for tree in (alone, other)))


def test_dtype_of_a_fresh_adapter_is_the_one_asked_for():
    lora = init_lora(abstract_model(tiny_config()), LoraConfig(rank=2), jax.random.key(0), jnp.bfloat16)
    assert {leaf.dtype for leaf in flatten_names(lora).values()} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("q_proj", "layers.0.self_attn.q_proj", True),
        ("proj", "layers.0.self_attn.q_proj", False),  # a suffix begins after a dot
        ("self_attn.q_proj", "layers.0.self_attn.q_proj", True),
        ("self_attn", "layers.0.self_attn.q_proj", False),  # the end of the path, not a part
        ("layers.1.self_attn.q_proj", "layers.1.self_attn.q_proj", True),
        ("layers.1.self_attn.q_proj", "layers.11.self_attn.q_proj", False),
        ("1.self_attn.q_proj", "layers.11.self_attn.q_proj", False),
        ("model.layers.1.self_attn.q_proj", "layers.1.self_attn.q_proj", True),
        ("^model.layers.1.self_attn.q_proj", "layers.1.self_attn.q_proj", True),
        ("^layers.1.self_attn.q_proj", "layers.1.self_attn.q_proj", False),
        (r"layers\.[02]\..*", "layers.2.mlp.up_proj", True),
        (r"layers\.[02]\..*", "layers.1.mlp.up_proj", False),
        ("q_proj|v_proj", "layers.0.self_attn.v_proj", True),
    ],
)
def test_pattern_matches_the_whole_path_or_a_dotted_suffix(pattern, path, matches):
    config = LoraConfig(rank=4, alpha=8.0, rank_pattern=((pattern, 2),), alpha_pattern=((pattern, 6.0),))
    assert config.rank_of(path) == (2 if matches else 4)
    assert config.scale(path) == (3.0 if matches else 2.0)


def test_first_pattern_that_matches_wins():
    config = LoraConfig(
        rank=4,
        alpha=8.0,
        rank_pattern=(("q_proj", 2), (".*", 1)),
        alpha_pattern=((".*", 6.0), ("q_proj", 1.0)),
    )
    assert config.rank_of("layers.0.self_attn.q_proj") == 2
    assert config.rank_of("layers.0.self_attn.k_proj") == 1
    assert config.scale("layers.0.self_attn.q_proj") == 3.0


def test_rank_stabilised_scale_divides_by_the_root_of_the_module_s_own_rank():
    config = LoraConfig(rank=4, alpha=8.0, use_rslora=True, rank_pattern=(("q_proj", 16),))
    assert config.scale("layers.0.self_attn.k_proj") == 4.0
    assert config.scale("layers.0.self_attn.q_proj") == 2.0


@pytest.mark.parametrize("targets", [("lm_head",), ("q_proj", "embed_tokens"), ("self_attn.q_proj",), ()])
def test_targets_that_are_no_projections_are_refused(targets):
    config = LoraConfig(target_modules=targets)
    with pytest.raises(ValueError, match="target_modules must be among") as error:
        init_lora(abstract_model(tiny_config()), config, jax.random.key(0))
    assert str(targets) in str(error.value)
    assert "q_proj" in str(error.value)
