"""Adapters that do not fit their base or their own config are refused."""

import numpy as np
import pytest
from safetensors.numpy import load_file

import sia_jax
from tests.support.checkpoints import (
    edit_json,
    edit_tensors,
    save_tiny_value_model,
    tiny_policy,
)
from tests.support.refusals import refused

PREFIX = "base_model.model.model.layers"


def test_rank_that_is_not_the_config_s_is_refused(value, policy):
    edit_json(value / "lora_weights/adapter_config.json", r=16)
    telling = (
        "layers.1.self_attn.q_proj.lora_A.weight is (4, 24), expected (16, 24)",
        "(32, 4), expected (32, 16)",
    )
    with refused(ValueError, value / "lora_weights", *telling):
        sia_jax.load_value_model(value, backbone=policy)


def test_adapter_of_a_wider_base_is_refused(tmp_path, policy):
    save_tiny_value_model(tmp_path / "wide", tiny_policy(hidden_size=48))
    with refused(ValueError, "layers.0.self_attn.q_proj.lora_A.weight is (4, 48), expected (4, 24)", "24"):
        sia_jax.load_value_model(tmp_path / "wide", backbone=policy, check_base=False)


@pytest.mark.parametrize(("layers", "telling"), [(3, "surplus: layers.2."), (1, "missing: layers.1.")])
def test_adapter_of_a_deeper_or_shallower_base_is_refused(tmp_path, policy, layers, telling):
    save_tiny_value_model(tmp_path / "other", tiny_policy(num_layers=layers))
    with refused(ValueError, telling, "2 layers"):
        sia_jax.load_value_model(tmp_path / "other", backbone=policy, check_base=False)


def test_half_a_pair_and_surplus_tensors_come_in_one_report(value, policy):
    edit_tensors(
        value / "lora_weights/adapter_model.safetensors",
        remove=(f"{PREFIX}.0.self_attn.q_proj.lora_B.weight", f"{PREFIX}.1.self_attn.o_proj.lora_A.weight"),
        **{
            f"{PREFIX}.0.mlp.up_proj.lora_A.weight": np.zeros((4, 24), np.float32),
            "base_model.model.score.weight": np.zeros((1, 24), np.float32),
        },
    )
    with refused(
        ValueError,
        value / "lora_weights",
        "missing: layers.0.self_attn.q_proj.lora_B.weight",
        "missing: layers.1.self_attn.o_proj.lora_A.weight",
        "surplus: layers.0.mlp.up_proj.lora_A.weight (4, 24)",
        "surplus: score.weight (1, 24)",
    ):
        sia_jax.load_value_model(value, backbone=policy)


def test_target_without_tensors_is_refused(value, policy):
    edit_json(
        value / "lora_weights/adapter_config.json", target_modules=["q_proj", "k_proj", "v_proj", "up_proj"]
    )
    with refused(ValueError, "up_proj", "surplus: layers.0.self_attn.o_proj.lora_A.weight"):
        sia_jax.load_value_model(value, backbone=policy)


def test_pickled_adapter_is_refused_with_the_way_out(value, policy):
    path = value / "lora_weights/adapter_model.safetensors"
    path.rename(path.with_name("adapter_model.bin"))
    with refused(FileNotFoundError, value / "lora_weights", "adapter_model.bin", "as safetensors with peft"):
        sia_jax.load_value_model(value, backbone=policy)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_missing_file_of_an_adapter_is_named(value, policy, name):
    (value / "lora_weights" / name).unlink()
    with refused(FileNotFoundError, value / "lora_weights", name):
        sia_jax.load_value_model(value, backbone=policy)


def test_truncated_adapter_is_refused(value, policy):
    path = value / "lora_weights/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with refused(ValueError, path, "truncated"):
        sia_jax.load_value_model(value, backbone=policy)


def test_adapter_of_some_layers_is_accepted_where_its_config_says_so(value, policy):
    path = value / "lora_weights"
    kept = load_file(path / "adapter_model.safetensors")
    removed = tuple(name for name in kept if ".layers.0." in name)
    edit_tensors(path / "adapter_model.safetensors", remove=removed)
    with refused(ValueError, "missing: layers.0."):
        sia_jax.load_value_model(value, backbone=policy)
    edit_json(path / "adapter_config.json", layers_to_transform=[1])
    loaded = sia_jax.load_value_model(value, backbone=policy)
    assert list(loaded.params["lora"]["layers"]) == [1]
