"""The sampler on a mesh: the replies of one device, every device with rows of its own."""

import functools
import re
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

import sia_jax
from sia_jax.costs.compiled import collectives
from sia_jax.costs.sampler import COUNTS, unexpected_exchanges
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.rows import cache_columns
from sia_jax.decoding.sample import lower
from sia_jax.decoding.schedule import make_schedule
from sia_jax.decoding.search import last_values
from sia_jax.models.lora import ATTENTION_PROJECTIONS, MLP_PROJECTIONS, LoraConfig
from sia_jax.parallel.mesh import ROW_AXES, make_mesh, shard_params
from sia_jax.types import flatten_names
from tests.support.checkpoints import assert_close, tiny_policy, tiny_value_model
from tests.support.marks import long

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 40, "num_heads": 4, "num_kv_heads": 2}
RANK, LENGTH, ROWS = 4, 20, 8  # columns of the caches, 48, are like no other size
LORA = LoraConfig(rank=RANK, alpha=8.0, target_modules=ATTENTION_PROJECTIONS + MLP_PROJECTIONS)
PROMPT = sia_jax.Prompt.pack([[5, 9, 12], [7, 3, 40, 41]] * (ROWS // 2))
TOKENS = PROMPT.policy_ids.shape[1] + LENGTH
THRESHOLD = 1.9
KEY = jax.random.key(1, impl="threefry2x32")


def setup(kind: str) -> tuple[sia_jax.SteeringParams, sia_jax.SamplerConfig]:
    policy = tiny_policy(num_layers=1, **SIZES)
    if kind == "adapter":
        value = tiny_value_model(policy, lora=LORA)
    else:  # a vocab head over weights of its own, and two replies to each prompt
        value = tiny_value_model(policy, head="vocab")
        params = {"model": policy.params["model"], "value_head": value.params["value_head"]}
        value = replace(value, config=replace(value.config, lora=None), params=params, base=None)
    branches = 1 if kind == "adapter" else 2
    config = sia_jax.SamplerConfig(policy.config, value.config, max_new_tokens=LENGTH, branches=branches)
    return sia_jax.SteeringParams(policy.params, value.params), config


def placed(params: sia_jax.SteeringParams, mesh: Mesh) -> sia_jax.SteeringParams:
    if params.value is None:
        return replace(params, policy=shard_params(params.policy, mesh))
    value = dict(params.value)
    head = shard_params({"value_head": value.pop("value_head")}, mesh)
    value = head | {name: shard_params({"model": tree}, mesh)["model"] for name, tree in value.items()}
    return sia_jax.SteeringParams(shard_params(params.policy, mesh), value)


def reply(params: sia_jax.SteeringParams, config: sia_jax.SamplerConfig) -> sia_jax.Samples:
    return sia_jax.sample(params, PROMPT, THRESHOLD, rng_key=KEY, config=config)


def assert_same_replies(spread: sia_jax.Samples, alone: sia_jax.Samples) -> None:
    steered = np.asarray(alone.junction)
    assert 0.1 < steered.mean() < 0.9, "tokens of both kinds are seen"
    for name in (
        "tokens",
        "junction",
        "shifted",
        "lengths",
        "finish_reason",
        "policy_tokens",
        "value_tokens",
    ):
        np.testing.assert_array_equal(getattr(spread, name), getattr(alone, name), err_msg=name)
    real = np.arange(LENGTH) < np.asarray(alone.lengths)[:, None]
    for name, where in {"entropy": real, "policy_logprob": real, "logprob": real, "value": steered}.items():
        assert_close(np.asarray(getattr(spread, name))[where], np.asarray(getattr(alone, name))[where])


@dataclass(frozen=True)
class Compiled:
    """The sampler of an adapter, compiled for a mesh: its text, and what it replies."""

    mesh: Mesh
    config: sia_jax.SamplerConfig
    text: str
    samples: sia_jax.Samples

    @property
    def rows(self) -> int:
        return ROWS // self.config.row_groups


@functools.cache
def compiled(shape: tuple[int, int, int]) -> Compiled:
    params, config = setup("adapter")
    mesh = make_mesh(*shape)
    config = replace(config, mesh=mesh).resolve(ROWS)
    numbers = make_row_params(THRESHOLD, KEY, sia_jax.Knobs(), ROWS, config)
    arguments = (
        placed(params, mesh),
        jax.tree.map(jnp.asarray, PROMPT),
        numbers,
        make_schedule(None, config.schedule),
    )
    program = lower(*arguments, config=config).compile()
    return Compiled(mesh, config, program.as_text(), program(*arguments))


@pytest.fixture(scope="module")
def on_one_device() -> sia_jax.Samples:
    return reply(*setup("adapter"))


def test_one_row_a_device_and_no_value_model_reply_as_on_one_device():
    """Where a cache of one row leaves that axis out."""
    params, config = setup("adapter")
    mesh = make_mesh(4, 1, 2)
    prompt = sia_jax.Prompt.pack([[5, 9, 12], [7, 3, 40, 41], [3], [8, 8]])
    params, config = replace(params, value=None), replace(config, value=None)
    spread, alone = (
        sia_jax.sample(p, prompt, np.inf, rng_key=KEY, config=c)
        for p, c in ((placed(params, mesh), replace(config, mesh=mesh)), (params, config))
    )
    np.testing.assert_array_equal(spread.tokens, alone.tokens)
    assert_close(spread.entropy, alone.entropy)


@pytest.mark.parametrize("shape", [(2, 2, 2), long((1, 8, 1))])
def test_replies_on_a_mesh_are_those_of_one_device(on_one_device, shape):
    spread = compiled(shape)
    assert_same_replies(spread.samples, on_one_device)
    assert {shard.data.shape[0] for shard in spread.samples.tokens.addressable_shards} == {spread.rows}


@pytest.mark.long
def test_branches_a_vocab_head_and_candidates_are_those_of_one_device():
    params, config = setup("vocab")
    config, mesh = replace(config, record="candidates"), make_mesh(4, 1, 2)
    spread, alone = reply(placed(params, mesh), replace(config, mesh=mesh)), reply(params, config)
    assert_same_replies(spread, alone)
    assert spread.candidates is not None
    assert alone.candidates is not None
    np.testing.assert_array_equal(spread.candidates.ids, alone.candidates.ids)


def test_values_of_last_tokens_on_a_mesh_are_those_of_one_device():
    params, config = setup("adapter")
    samples, mesh = reply(params, config), make_mesh(2, 2, 2)
    alone = last_values(params, PROMPT, samples, config)
    assert_close(last_values(placed(params, mesh), PROMPT, samples, replace(config, mesh=mesh)), alone)


def test_computed_tokens_are_counted_on_all_devices():
    found = compiled((2, 2, 2))
    samples, places = found.samples, found.config.pass_tokens
    assert places is not None
    assert samples.policy_computed == PROMPT.policy_ids.size + samples.policy_steps * ROWS
    assert samples.value_computed == PROMPT.value_ids.size + samples.value_calls * places * 4


def test_within_the_loop_devices_exchange_counts_and_activations_and_no_cache():
    found = compiled((2, 2, 2))
    v, d = SIZES["vocab_size"], SIZES["hidden_size"]
    rows, places = found.rows, found.config.pass_tokens
    prompts = f"f32[{rows},{PROMPT.value_ids.shape[1]},{d}]"  # read when first a row comes to a junction
    activations = {
        prompts,
        f"f32[{rows},1,{d}]",
        f"f32[{places},{d}]",
        f"f32[{places},{RANK}]",
        f"f32[{rows},{v}]",
        f"f32[{d},{rows}]",  # products with the weights on the left
        f"f32[{d},{places}]",
    }
    within = [one for one in collectives(found.text, found.mesh.shape) if one.loops]
    between_rows = [one for one in within if set(one.axes) & set(ROW_AXES)]
    assert {(one.kind, one.shapes) for one in between_rows} == {("all-reduce", shapes) for shapes in COUNTS}
    assert unexpected_exchanges(within, cache_columns(found.config, TOKENS, TOKENS)) == []
    assert {shape for one in within if one not in between_rows for shape in one.shapes} == activations


def test_a_device_holds_the_caches_of_its_own_rows_and_heads():
    found = compiled((2, 2, 2))
    head_dim, (columns,) = 8, set(cache_columns(found.config, TOKENS, TOKENS))
    shapes = re.findall(r"f32\[(\d+),(\d+),(\d+),(\d+)\]", found.text)
    caches = {(int(b), int(k)) for b, k, *rest in shapes if sorted(map(int, rest)) == [head_dim, columns]}
    rows, heads = found.rows, SIZES["num_kv_heads"] // 2
    assert (rows, heads) in caches
    assert all(b <= rows and k <= heads for b, k in caches)


@pytest.mark.long
def test_weights_are_gathered_once_and_not_in_the_loop():
    found = compiled((1, 8, 1))
    exchanged = collectives(found.text, found.mesh.shape)
    assert {one.shapes for one in exchanged if one.loops} == set(COUNTS)
    gathered = [one for one in exchanged if one.kind == "all-gather"]
    leaves = flatten_names(shard_params(setup("adapter")[0].policy, found.mesh)) | flatten_names(
        placed(setup("adapter")[0], found.mesh).value
    )
    split = [leaf for leaf in leaves.values() if leaf.addressable_shards[0].data.size < leaf.size]
    assert sum(len(one.shapes) for one in gathered) == len(split) > 8


def test_slots_are_of_each_device_and_the_schedule_is_of_all():
    _, config = setup("adapter")
    mesh = make_mesh(2, 2, 2)
    alone, spread = config.resolve(4), replace(config, mesh=mesh).resolve(16)
    assert (spread.slots, spread.pass_tokens, spread.row_tokens) == (
        alone.slots,
        alone.pass_tokens,
        alone.row_tokens,
    )
    assert spread.schedule.min_waiting == config.resolve(16).schedule.min_waiting
    assert (
        sia_jax.SamplerConfig.auto(16, policy=config.policy, value=config.value, mesh=mesh).slots
        == spread.slots
    )


def other_axes() -> Mesh:
    return jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))


def test_what_does_not_fit_a_mesh_is_refused_before_anything_is_traced():
    params, config = setup("adapter")
    mesh = make_mesh(2, 2, 2)
    on_mesh, with_mesh = placed(params, mesh), replace(config, mesh=mesh)
    with pytest.raises(ValueError, match=r"weights lie on .*'tensor': 2.*, and config\.mesh is None"):
        reply(on_mesh, config)
    with pytest.raises(ValueError, match=r"weights lie on device \[0\], and config\.mesh is \{'data': 2"):
        reply(params, with_mesh)
    with pytest.raises(ValueError, match=r"lie on \{'data': 2.*, and config\.mesh is \{'data': 1, 'fsdp': 8"):
        reply(on_mesh, replace(config, mesh=make_mesh(1, 8, 1)))
    with pytest.raises(ValueError, match="prompts in multiples of 4, which the mesh splits them into, got 3"):
        sia_jax.sample(
            on_mesh, sia_jax.Prompt.pack([[1], [2], [3]]), THRESHOLD, rng_key=KEY, config=with_mesh
        )
    with pytest.raises(ValueError, match="make it with make_mesh"):
        replace(config, mesh=other_axes())
