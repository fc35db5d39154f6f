"""Eight devices compute what one computes, and hold an eighth each of what is split."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

import sia_jax
from sia_jax.models.batches import pad_batch
from sia_jax.models.cache import KVCache
from sia_jax.models.config import ValueConfig
from sia_jax.models.lora import ATTENTION_PROJECTIONS, MLP_PROJECTIONS, LoraConfig
from sia_jax.models.passes import decode_step, prefill
from sia_jax.models.transformer import abstract_model
from sia_jax.models.value_model import init_value_head
from sia_jax.parallel.mesh import (
    PARTITION_RULES,
    make_mesh,
    partition_spec,
    row_sharding,
    row_shards,
    shard_params,
)
from sia_jax.pretrained import Policy, RewardModel, ValueModel
from sia_jax.types import flatten_names
from tests.support.checkpoints import (
    assert_close,
    assert_same_trees,
    random_lora,
    random_tokens,
    tiny_config,
    tiny_policy,
    tiny_reward_model,
    tiny_value_model,
)
from tests.support.marks import long

MESHES = [(2, 2, 2), (1, 4, 2), (8, 1, 1), (1, 1, 8)]  # data, fsdp, tensor
ALL = LoraConfig(rank=4, alpha=8.0, target_modules=ATTENTION_PROJECTIONS + MLP_PROJECTIONS)

DIVIDING = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "num_kv_heads": 2}
"""Every dimension is a multiple of 8: with head_dim 8, N * H = 32 and K * H = 16."""
ODD = {
    "vocab_size": 65,
    "hidden_size": 30,
    "intermediate_size": 42,
    "num_heads": 3,
    "num_kv_heads": 1,
    "head_dim": 6,
}
"""2 divides D, F and N * H = 18; 4 and 8 divide nothing."""


def models(family: str, sizes: dict) -> tuple[Policy, RewardModel, ValueModel, ValueModel]:
    """A policy, a reward model, a scalar value model over the policy, and a merged one with a vocab head."""
    policy = tiny_policy(family, num_layers=1, **sizes)
    reward = tiny_reward_model(family, num_layers=1, **sizes)
    vocab = tiny_value_model(policy, head="vocab")
    params = {"model": policy.params["model"], "value_head": vocab.params["value_head"]}
    merged = ValueModel(replace(vocab.config, lora=None), params)
    return policy, reward, tiny_value_model(policy, lora=ALL), merged


def sharded(model, mesh: Mesh):
    """The same model with its parameters on the mesh."""
    if not isinstance(model, ValueModel) or model.base is None:
        return replace(model, params=shard_params(model.params, mesh))
    lora = shard_params({"model": model.params["lora"]}, mesh)["model"]
    head = shard_params({"value_head": model.params["value_head"]}, mesh)
    base = shard_params({"model": model.base}, mesh)["model"]
    return replace(model, params={"lora": lora, **head}, base=base)


def outputs(policy: Policy, reward: RewardModel, *values: ValueModel) -> list[jax.Array]:
    """Rewards, logits, and values, of the real tokens of a padded batch."""
    tokens, lengths = random_tokens(policy.config, 8, 6), np.array([6, 3, 1, 5, 6, 2, 4, 6])
    real = np.arange(6) < lengths[:, None]
    by_token = [policy.logits(tokens, lengths), *(value.values(tokens, lengths) for value in values)]
    return [reward.score(tokens, lengths), *(x[real] for x in by_token)]


@pytest.fixture(scope="module")
def on_one_device():
    """The models of dimensions that divide, and what one device computes with them."""
    tiny = models("qwen3", DIVIDING)[:3]
    return tiny, outputs(*tiny)


def assert_same_on(mesh: Mesh, tiny, expected) -> None:
    for actual, alone in zip(outputs(*(sharded(model, mesh) for model in tiny)), expected, strict=True):
        assert len(actual.sharding.device_set) == 8
        assert_close(actual, alone)


@pytest.mark.parametrize("shape", [(2, 2, 2), long((1, 4, 2)), long((8, 1, 1)), (1, 1, 8)])
def test_eight_devices_compute_what_one_computes(on_one_device, shape):
    assert_same_on(make_mesh(*shape), *on_one_device)


@pytest.mark.long
def test_eight_devices_compute_what_one_computes_where_dimensions_do_not_divide():
    tiny = models("llama", ODD)
    assert_same_on(make_mesh(1, 4, 2), tiny, outputs(*tiny))


@pytest.mark.parametrize("shape", [(2, 2, 2), long((1, 4, 2))])
def test_prefill_and_steps_of_sharded_rows_compute_what_one_device_computes(shape):
    policy = tiny_policy("qwen3", num_layers=1, **DIVIDING)
    tokens, new = random_tokens(policy.config, 8, 6), random_tokens(policy.config, 8, 2, seed=1)
    lengths = np.array([6, 3, 1, 5, 6, 2, 4, 6])
    run_prefill = jax.jit(prefill, static_argnames="config")
    run_step = jax.jit(decode_step, static_argnames="config")

    def run(model, put):
        cache = KVCache.zeros(policy.config, 8, 8, jnp.float32)
        cache = jax.tree.map(put, cache)
        hidden, cache = run_prefill(model, put(tokens), put(lengths), cache, config=policy.config)
        states = [hidden]
        for i in range(2):
            hidden, cache = run_step(model, put(new[:, i]), put(lengths + i), cache, config=policy.config)
            states.append(hidden)
        return np.stack([np.asarray(x) for x in states]), cache

    expected, expected_cache = run(policy.params["model"], jnp.asarray)
    mesh = make_mesh(*shape)
    rows = row_sharding(mesh)
    actual, cache = run(shard_params(policy.params, mesh)["model"], lambda x: jax.device_put(x, rows))
    assert_close(actual, expected)
    for sharded, alone in zip(jax.tree.leaves(cache), jax.tree.leaves(expected_cache), strict=True):
        assert_close(sharded, alone)


@pytest.mark.parametrize("shape", MESHES)
def test_rows_lie_over_data_and_fsdp(shape):
    mesh = make_mesh(*shape)
    placed = jax.device_put(np.arange(16).reshape(8, 2), row_sharding(mesh))
    data, fsdp, _ = shape
    assert {shard.data.shape for shard in placed.addressable_shards} == {(8 // (data * fsdp), 2)}
    assert (row_shards(mesh), row_shards(None)) == (data * fsdp, 1)


def expected_split(name: str) -> tuple[str | None, ...]:
    """Which axis splits each dimension, written down by hand."""
    *_, module, _ = name.split(".")
    if module in ("embed_tokens", "lm_head", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"):
        return ("tensor", "fsdp")
    if module in ("o_proj", "down_proj"):
        return ("fsdp", "tensor")
    return (None, None) if module == "score" else (None,)


@pytest.mark.parametrize("shape", MESHES)
@pytest.mark.parametrize("max_shard_bytes", [5 << 30, 4 << 10])
def test_loading_onto_a_mesh_gives_each_device_its_own_part(tmp_path, shape, max_shard_bytes):
    policy = tiny_policy("qwen3", num_layers=1, **DIVIDING)
    sia_jax.save_policy(policy, tmp_path, max_shard_bytes=max_shard_bytes)
    mesh = make_mesh(*shape)
    loaded = sia_jax.load_policy(tmp_path, mesh=mesh)
    assert_same_trees(loaded.params, policy.params)
    placed = flatten_names(shard_params(policy.params, mesh))
    for name, leaf in flatten_names(loaded.params).items():
        assert leaf.sharding == placed[name].sharding, name
        parts = [1 if axis is None else mesh.shape[axis] for axis in expected_split(name)]
        local = tuple(size // part for size, part in zip(leaf.shape, parts, strict=True))
        assert {shard.data.shape for shard in leaf.addressable_shards} == {local}, name
        assert len(leaf.addressable_shards) == 8
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), np.asarray(leaf)[shard.index])


def test_dimension_that_the_axis_does_not_divide_stays_whole(tmp_path):
    policy = tiny_policy("llama", num_layers=1, **ODD)
    sia_jax.save_policy(policy, tmp_path)
    loaded = sia_jax.load_policy(tmp_path, mesh=make_mesh(1, 4, 2))
    assert_same_trees(loaded.params, policy.params)
    local = {
        name: leaf.addressable_shards[0].data.shape for name, leaf in flatten_names(loaded.params).items()
    }
    assert local["model.embed_tokens.weight"] == (65, 30)  # 2 does not divide 65, nor 4 30
    assert local["model.layers.0.mlp.up_proj.weight"] == (21, 30)
    assert local["model.layers.0.mlp.down_proj.weight"] == (30, 21)
    assert local["model.layers.0.self_attn.q_proj.weight"] == (9, 30)


def test_reward_and_value_models_load_onto_a_mesh(tmp_path):
    policy, reward, scalar, _ = models("qwen3", DIVIDING)
    vocab = tiny_value_model(policy, lora=ALL, head="vocab")
    mesh = make_mesh(2, 2, 2)
    sia_jax.save_policy(policy, tmp_path / "tiny")
    sia_jax.save_reward_model(reward, tmp_path / "reward")
    loaded_reward = sia_jax.load_reward_model(tmp_path / "reward", mesh=mesh)
    assert_same_trees(loaded_reward.params, reward.params)
    loaded_policy = sia_jax.load_policy(tmp_path / "tiny", mesh=mesh)
    trees = [loaded_reward.params, loaded_policy.params]
    for name, value in (("scalar", scalar), ("vocab", vocab)):
        sia_jax.save_value_model(value, tmp_path / name, base_model="tiny")
        over = sia_jax.load_value_model(tmp_path / name, backbone=loaded_policy)
        assert_same_trees(over.params, value.params)
        merged = sia_jax.load_value_model(tmp_path / name, backbone=tmp_path / "tiny", mesh=mesh)
        trees += [over.params, merged.params]
    for tree in trees:
        for name, leaf in flatten_names(tree).items():
            name = f"model.{name.removeprefix('lora.')}" if name.startswith("lora.") else name
            assert leaf.sharding.mesh == mesh, name
            spec = partition_spec(name, leaf.shape, mesh)
            assert leaf.sharding.is_equivalent_to(jax.NamedSharding(mesh, spec), leaf.ndim), name


REPLICATED = ("norm.weight", "score.weight", "value_head.weight", "value_head.bias", "value_head.down.weight")


@pytest.mark.parametrize("head", ["scalar", "vocab"])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_every_parameter_has_a_rule_and_every_matrix_is_split(family, head):
    config = tiny_config(family, **DIVIDING)
    value_config = ValueConfig(config, head, 8 if head == "vocab" else None)  # type: ignore[arg-type]
    model = abstract_model(config)
    tree = {
        "model": model,
        "lm_head": {"weight": model["embed_tokens"]["weight"]},
        "score": {"weight": jax.ShapeDtypeStruct((1, config.hidden_size), jnp.float32)},
        "value_head": jax.eval_shape(lambda: init_value_head(value_config, jax.random.key(0))),
    }
    leaves = flatten_names(tree) | flatten_names(random_lora(config, ALL), "model.")
    assert len(leaves) == len(flatten_names(tree)) + 2 * 7 * config.num_layers
    mesh = make_mesh(1, 2, 4)
    for name, leaf in leaves.items():
        spec = partition_spec(name, leaf.shape, mesh)
        axes = {axis for axis in spec if axis is not None}
        if name.endswith(REPLICATED):
            assert not axes, name
        elif "lora_" in name or "value_head" in name:
            assert axes in ({"tensor"}, {"fsdp"}), name
        else:
            assert axes == {"fsdp", "tensor"}, name


def test_every_rule_is_used():
    config = tiny_config()
    names = {
        *flatten_names({"model": abstract_model(config)}),
        *flatten_names(random_lora(config, ALL), "model."),
        *("lm_head.weight", "score.weight", "value_head.weight", "value_head.bias"),
        *("value_head.down.weight", "value_head.up.weight", "value_head.up.bias"),
    }
    mesh = make_mesh(8)
    used = set()
    for name in names:
        for i, rule in enumerate(PARTITION_RULES):
            try:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("sia_jax.parallel.mesh.PARTITION_RULES", (rule,))
                    partition_spec(name, (8, 8), mesh)
            except ValueError:
                continue
            used.add(i)
            break
    assert used == set(range(len(PARTITION_RULES)))


def test_adapter_lies_as_the_projection_it_is_added_to():
    """B's outputs lie as W's outputs, A's inputs as W's inputs: adding them moves nothing."""
    mesh = make_mesh(1, 2, 4)
    for name in ATTENTION_PROJECTIONS + MLP_PROJECTIONS:
        weight = partition_spec(f"model.layers.0.x.{name}.weight", (32, 32), mesh)
        a = partition_spec(f"model.layers.0.x.{name}.lora_A.weight", (4, 32), mesh)
        b = partition_spec(f"model.layers.0.x.{name}.lora_B.weight", (32, 4), mesh)
        assert (b[0], a[1]) == tuple(weight)
        assert (a[0], b[1]) == (None, None)


def test_rule_names_the_whole_parameter():
    mesh = make_mesh(8)
    for name in (
        "lm_head.weight.extra",
        "other.lm_head.weight",
        "model.q_proj.bias",
        "value_head.up.weights",
    ):
        with pytest.raises(ValueError, match="no partition rule matches"):
            partition_spec(name, (8, 8), mesh)
    assert partition_spec("lm_head.weight", (64, 32), mesh) == P("tensor", "fsdp")


def test_mesh_of_other_axes_is_refused_by_name():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    with pytest.raises(
        ValueError, match=r"axes \('x',\), expected \('data', 'fsdp', 'tensor'\): make it with"
    ):
        shard_params(tiny_policy(num_layers=1, **DIVIDING).params, mesh)
    with pytest.raises(ValueError, match="make it with make_mesh"):
        pad_batch(np.ones((1, 4), np.int32), [4], tiny_config(**DIVIDING), mesh)


def test_mesh_takes_the_devices_it_is_given():
    devices = jax.devices()[2:6]
    mesh = make_mesh(2, 1, 2, devices=devices)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "tensor": 2}
    assert set(mesh.devices.flat) == set(devices)
    assert dict(make_mesh(tensor=8).shape) == {"data": 1, "fsdp": 1, "tensor": 8}


def test_batches_are_spread_over_the_rows_of_the_mesh_whatever_their_size():
    policy = tiny_policy(num_layers=1)
    mesh = make_mesh(data=4, fsdp=2)
    on_mesh = sharded(policy, mesh)
    for batch in (1, 5, 8):
        tokens = random_tokens(policy.config, batch, 6)
        lengths = np.full(batch, 6)
        padded, _ = pad_batch(tokens, lengths, policy.config, mesh)
        assert padded.shape[0] == 8
        assert {shard.data.shape[0] for shard in padded.addressable_shards} == {1}
        assert_close(on_mesh.logits(tokens, lengths), policy.logits(tokens, lengths))
