"""The arithmetic of a training step, against numbers by hand and what a CPU's compiler makes of one."""

import functools
import re
from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

import configs.qwen3_1_7b
from sia_jax.costs.compiled import Collective, collectives
from sia_jax.costs.compiled_step import compile_step
from sia_jax.costs.training_step import Exchange, step_exchanges, step_memory, unexpected
from sia_jax.models.config import ValueConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.parallel.mesh import make_mesh
from sia_jax.training.config import TrainConfig
from tests.support.checkpoints import tiny_config
from tests.support.marks import long
from train.compile_tpu import train_config

pytestmark = pytest.mark.optimised

MESH = (2, 2, 2)
LENGTH = 96
"""Two blocks of attention on a CPU."""
LAYERS = 2
BACKBONE = tiny_config(hidden_size=32, intermediate_size=48, num_heads=8, num_kv_heads=8, num_layers=LAYERS)
GATHERED = {"f16[32,32]": 4, "f16[24,32]": 2, "f16[32,24]": 1}
"""Weights of a layer, halved by "tensor": q, k, v and o; gate and up; down. A CPU does not widen float16."""
LAYER_BYTES = 2 * (4 * 32 * 32 + 3 * 24 * 32)


def test_on_one_device_the_memory_is_what_the_configuration_says():
    mesh = make_mesh(devices=jax.devices()[:1])
    memory = step_memory(train_config(28), mesh, rows=1, row_length=1024)
    says = " ".join((configs.qwen3_1_7b.__doc__ or "").split())
    assert f"weights {memory.weights / 1e9:.2f} GB in bfloat16" in says
    assert f"{memory.gradient // 4:,} trained parameters" in says
    trained = f"{(memory.trained + memory.gradient) / 1e6:.0f} MB in float32"
    assert f"{trained} with two moments and a gradient" in says
    assert f"inputs of the layers {memory.layer_inputs / 1e6:.0f} MB" in says
    assert f"one layer at work {memory.layer / 1e6:.0f} MB" in says


def test_a_device_holds_its_part_of_what_is_split_and_all_of_the_rest():
    mesh = make_mesh(2, 2, 2)
    one, two = (step_memory(train_config(layers), mesh, rows=3, row_length=1024) for layers in (1, 2))
    matrices = 2 * 2048 * 128 * (16 + 8) + 3 * 2048 * 6144  # q, k, v, o; gate, up, down: split over 4
    assert two.weights - one.weights == 2 * (matrices // 4 + 2 * 2048 + 2 * 128)
    by_fsdp = 16 * 2048 * 4  # A of q, k, v and B of o
    by_tensor = 16 * (2048 + 1024 + 1024 + 2048)  # B of q, k, v and A of o
    assert two.gradient - one.gradient == 4 * (by_fsdp + by_tensor) // 2
    assert two.trained == 3 * two.gradient
    assert two.layer_inputs - one.layer_inputs == 3 * 1024 * 2048 * 2
    features = 2 * (16 + 8) * 128 + 3 * 6144
    assert two.layer == 3 * 1024 * (2 * (4 * 2048 + features // 2) + 2 * 512 * 4 * 16 // 2)
    assert two.layer_weights == 2 * (matrices // 2 + 2 * 2048 + 2 * 128)


def tiny(remat: bool) -> TrainConfig:
    return TrainConfig(
        ValueConfig(BACKBONE, lora=LoraConfig(rank=4, dropout=0.0)), batch_size=16, remat=remat
    )


@functools.cache
def program(remat: bool) -> str:
    mesh = make_mesh(*MESH)
    return compile_step(tiny(remat), mesh, rows=1, row_length=LENGTH, dtype=jnp.float16).as_text()


def exchanged(remat: bool) -> list[Collective]:
    return collectives(program(remat), make_mesh(*MESH).shape)


@pytest.mark.long
def test_devices_send_each_other_what_the_formulas_say_and_nothing_else():
    expected = step_exchanges(tiny(True), make_mesh(*MESH), rows=1, row_length=LENGTH, dtype="f16")
    wrong = unexpected(exchanged(True), expected, most=LAYER_BYTES)
    # A CPU sends the embedding's rows in two arrays, and does not leave out the sums of the first layer's
    # backward pass that nothing needs; a TPU's compiler does (`make tpu`).
    assert [line for line in wrong if not line.startswith(("embedding: expected 1 arrays", "sums:"))] == []


@pytest.mark.parametrize("remat", [long(True), False])
def test_a_layers_weights_are_gathered_for_its_forward_and_again_for_its_backward_pass(remat):
    gathers = [
        one for one in exchanged(remat) if one.kind == "all-gather" and one.shapes[0].startswith("f16")
    ]
    counts = {shape: 2 * LAYERS * count for shape, count in GATHERED.items()}
    if not remat:
        counts["f16[32,32]"] -= 3  # q, k and v of the first layer, below which nothing is trained
    assert Counter(one.shapes[0] for one in gathers) == counts
    # Within the loop over micro-batches: before it, all layers would be held whole throughout.
    assert {one.loops for one in gathers} == {1}


@pytest.mark.parametrize("remat", [long(True), False])
def test_no_part_of_a_weight_is_cut_out_of_the_gathered_one_which_would_have_to_stay_until_then(remat):
    assert "f16[32,32]" in program(remat)
    assert re.findall(r"= f16\[(?:32,16|16,32|24,16|16,24)\]\S* dynamic-slice\(.*", program(remat)) == []


ROWS = ("data", "fsdp")
EXPECTED = [
    Exchange("numbers", ("all-reduce",), (*ROWS, "tensor"), ("s32", "f32"), 0, sizes="[]", loops=None),
    Exchange("predictions", ("all-gather",), ROWS, ("f32",), 1024, 1, "[2,8,16]", loops=0),
    Exchange("adapter", ("all-gather",), ("fsdp",), ("f32",), 2_000_000, 2),
    Exchange("gradient", ("all-reduce", "reduce-scatter"), ROWS, ("f32",), 4_000_000, loops=None),
]
PREDICTIONS = Collective("all-gather", ("f32[2,8,16]",), ("fsdp",), 0, "")
ADAPTER = Collective("all-gather", ("f32[500,500]", "f32[500,500]"), ("fsdp",), 1, "")
GRADIENT = Collective("all-reduce", ("f32[500,2000]",), ROWS, 1, "")
NORM = Collective("all-reduce", ("f32[]", "f32[]"), ("tensor",), 0, "")
ALL = [PREDICTIONS, ADAPTER, GRADIENT, NORM]


def complaints(*found: Collective) -> str:
    return "\n".join(unexpected(found, EXPECTED, 2_000_000))


def test_what_is_sent_as_expected_leaves_nothing_to_say():
    assert complaints(*ALL) == ""
    half = replace(ADAPTER, shapes=("f32[500,500]",))
    assert complaints(PREDICTIONS, half, half, GRADIENT) == ""  # joined or not
    scattered = replace(GRADIENT, kind="reduce-scatter", shapes=("f32[1000,1000]",), axes=("fsdp",))
    assert complaints(PREDICTIONS, ADAPTER, scattered, replace(NORM, loops=1)) == ""
    after = replace(GRADIENT, shapes=("f32[500,1000]", "f32[]"), loops=0)  # added up over micro-batches first
    assert complaints(PREDICTIONS, ADAPTER, after, replace(after, loops=1)) == ""


@pytest.mark.parametrize(
    ("missing", "more", "complaint"),
    [
        (ADAPTER, [], "adapter: expected 2,000,000 bytes, got 0"),
        (None, [ADAPTER], "adapter: expected 2,000,000 bytes, got 4,000,000"),
        (ADAPTER, [replace(ADAPTER, shapes=("f32[500,1000]",))], "adapter: expected 2 arrays, got 1"),
        (ADAPTER, [replace(ADAPTER, shapes=("bf16[500,500]",) * 2)], "nothing explains .*bf16"),
        (ADAPTER, [replace(ADAPTER, axes=("tensor",))], "nothing explains .*'tensor'"),
        (ADAPTER, [replace(ADAPTER, loops=0)], "nothing explains .*loops=0"),
        (ADAPTER, [replace(ADAPTER, loops=2)], "nothing explains .*loops=2"),
        (None, [replace(NORM, loops=2)], "nothing explains .*loops=2"),
        (None, [replace(GRADIENT, kind="all-to-all")], "nothing explains .*all-to-all"),
        (None, [replace(GRADIENT, axes=())], "nothing explains"),
        (None, [replace(PREDICTIONS, shapes=("f32[8,16]",))], "nothing explains .*8,16"),
        (
            ADAPTER,
            [replace(ADAPTER, shapes=("f32[500,1001]",))],
            "at most 2,000,000 bytes gathered at a time",
        ),
    ],
)
def test_what_is_missing_larger_wider_elsewhere_or_of_another_kind_is_told(missing, more, complaint):
    assert re.search(complaint, complaints(*(one for one in ALL if one is not missing), *more))
