"""Files from elsewhere: what is ambiguous, impossible, hostile or half-written is refused, and in time."""

import json
import os
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sia_jax
from sia_jax.checkpoints import huggingface, value_model
from sia_jax.checkpoints.config_json import parse_config
from sia_jax.checkpoints.fingerprint import fingerprint, fingerprint_of_folder
from sia_jax.models.lora import LoraConfig
from tests.support.checkpoints import (
    assert_close,
    config_json,
    edit_json,
    random_tokens,
    save_tiny_policy,
    save_tiny_value_model,
    tiny_policy,
    tiny_value_model,
)


@pytest.fixture
def policy(tmp_path):
    return save_tiny_policy(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path, policy):
    """The adapter's folder of a value model over `policy`."""
    save_tiny_value_model(tmp_path / "value", policy)
    return tmp_path / "value" / "lora_weights"


def rename_tensors(folder, rename):
    path = folder / "adapter_model.safetensors"
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    save_file({new: array for name, array in tensors.items() for new in rename(name)}, path)


def without_model(name):
    return name.replace("base_model.model.model.", "base_model.model.")


def test_adapter_of_a_bare_backbone_is_read(policy, adapter):
    expected = sia_jax.load_value_model(adapter.parent, policy)
    rename_tensors(adapter, lambda name: [without_model(name)])
    loaded = sia_jax.load_value_model(adapter.parent, policy)
    tokens = random_tokens(policy.config, 1, 5)
    np.testing.assert_array_equal(loaded.values(tokens, [5]), expected.values(tokens, [5]))


def test_patterns_of_a_bare_backbone_s_adapter_are_refused_not_matched_otherwise(policy, adapter):
    rename_tensors(adapter, lambda name: [without_model(name)])
    edit_json(adapter / "adapter_config.json", alpha_pattern={"^layers.0.self_attn.q_proj": 64})
    with pytest.raises(ValueError, match="bare backbone"):
        sia_jax.load_value_model(adapter.parent, policy)


def test_adapter_with_a_module_under_two_prefixes_is_refused(policy, adapter):
    rename_tensors(adapter, lambda name: [name, without_model(name)])
    with pytest.raises(ValueError, match="two prefixes"):
        sia_jax.load_value_model(adapter.parent, policy)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_adapter_stored_in_a_narrow_type_computes_in_float32(policy, adapter, dtype):
    path = adapter / "adapter_model.safetensors"
    save_file({name: array.astype(dtype) for name, array in load_file(path).items()}, path)
    loaded = sia_jax.load_value_model(adapter.parent, policy)
    assert loaded.params["lora"]["layers"][1]["self_attn"]["o_proj"]["lora_B"]["weight"].dtype == jnp.float32
    merged = sia_jax.load_value_model(adapter.parent, adapter.parents[1] / "base")
    tokens = random_tokens(policy.config, 2, 6)
    assert_close(loaded.values(tokens, [6, 6]), merged.values(tokens, [6, 6]))


@pytest.mark.parametrize("pattern", ["(([a-z_0-9.])+)+!", "(a*)*b", "a*a*a*a*b", "(x{1,9}){1,9}"])
def test_pattern_that_could_match_for_ever_is_refused_at_once(policy, adapter, pattern):
    edit_json(adapter / "adapter_config.json", alpha_pattern={pattern: 8})
    with pytest.raises(ValueError, match="alpha_pattern is"):
        sia_jax.load_value_model(adapter.parent, policy)  # matched as it is, it would not end


def test_patterns_that_people_write_are_accepted(policy, adapter):
    patterns = {"q_proj": 8, r"model.layers.0.self_attn.k_proj": 8, r".*\.[01]\.self_attn\.v_proj": 8}
    edit_json(adapter / "adapter_config.json", alpha_pattern=patterns)
    loaded = sia_jax.load_value_model(adapter.parent, policy)
    assert loaded.config.lora == LoraConfig(4, 8.0, alpha_pattern=tuple((k, 8.0) for k in patterns))


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_json_nested_without_end_is_refused(tmp_path, policy, file):
    (tmp_path / "base" / file).write_text("[" * 100_000)
    with pytest.raises(ValueError, match=f"{file} is not JSON"):
        sia_jax.load_policy(tmp_path / "base")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "64"),
        ("num_hidden_layers", 2.0),
        ("vocab_size", True),
        ("rms_norm_eps", float("nan")),
        ("rms_norm_eps", -1e-6),
        ("rope_theta", 0),
        ("rope_theta", "1e6"),
        ("rope_scaling", "llama3"),
        ("layer_types", 5),
        ("architectures", [["x"]]),
        ("architectures", "Qwen3ForCausalLM"),
        ("eos_token_id", "x"),
        ("torch_dtype", "int32"),
        ("tie_word_embeddings", "false"),
    ],
)
def test_value_of_another_kind_is_refused_with_its_name(field, value):
    with pytest.raises(ValueError, match=field.removeprefix("rope_")):
        parse_config(config_json(**{field: value}))


def test_two_ropes_that_disagree_are_refused():
    scaling = {"rope_type": "yarn", "factor": 4.0}
    with pytest.raises(ValueError, match="rope_scaling and rope_parameters disagree"):
        parse_config(
            config_json(
                rope_scaling=scaling, rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}
            )
        )


@pytest.mark.parametrize("dtype", ["int32", "complex64", "float64"])
def test_weights_load_as_floats_only(tmp_path, policy, dtype):
    with pytest.raises(ValueError, match="dtype must be one of"):
        sia_jax.load_policy(tmp_path / "base", dtype=dtype)


def test_value_model_with_fewer_ids_than_the_policy_is_refused_before_its_backbone_is_read(
    tmp_path, policy, monkeypatch
):
    small = save_tiny_policy(tmp_path / "small", vocab_size=60)
    save_tiny_value_model(tmp_path / "value", small)
    monkeypatch.setattr(value_model, "load_backbone", None)
    with pytest.raises(ValueError, match="has 64 ids, the value model value knows 60"):
        sia_jax.load_value_model(tmp_path / "value", tmp_path / "small", policy=policy)


@pytest.mark.parametrize("recorded", [5, ["x"], {}, True, None])
def test_value_model_that_names_no_base_is_refused(tmp_path, policy, recorded):
    save_tiny_value_model(tmp_path / "value", policy, layout="official")
    edit_json(tmp_path / "value" / "model_config.json", base_model_path=recorded)
    edit_json(tmp_path / "value" / "lora_weights" / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(ValueError, match="does not say which base"):
        sia_jax.load_value_model(tmp_path / "value", policy)
    assert sia_jax.load_value_model(tmp_path / "value", policy, check_base=False)


@pytest.mark.parametrize("recorded", ["x" * 5000, "/nowhere/base", "\0"])
def test_recorded_base_that_cannot_be_opened_is_known_by_its_name(tmp_path, policy, recorded):
    save_tiny_value_model(tmp_path / "value", policy, layout="official")
    edit_json(tmp_path / "value" / "model_config.json", base_model_path=recorded)
    if recorded.endswith("/base"):
        assert sia_jax.load_value_model(tmp_path / "value", policy)
    else:
        with pytest.raises(ValueError, match="was trained on"):
            sia_jax.load_value_model(tmp_path / "value", policy)


def test_folder_saved_in_one_layout_and_then_the_other_holds_the_later_one(tmp_path, policy):
    for seed, layout in enumerate(("official", "sia_jax", "official")):
        value = tiny_value_model(policy, seed)
        sia_jax.save_value_model(value, tmp_path / "value", base_model="base", layout=layout)
        loaded = sia_jax.load_value_model(tmp_path / "value", policy)
        assert_close(loaded.params["value_head"]["weight"], value.params["value_head"]["weight"], 1e-7)


def test_save_of_a_policy_that_stops_before_its_config_leaves_nothing_that_loads(
    tmp_path, policy, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface, "write_text", stop)
    with pytest.raises(KeyboardInterrupt):
        sia_jax.save_policy(tiny_policy(seed=1), tmp_path / "base")
    with pytest.raises(FileNotFoundError, match=r"config.json"):
        sia_jax.load_policy(tmp_path / "base")


def test_save_of_a_value_model_that_stops_between_its_files_leaves_nothing_that_loads(
    tmp_path, policy, adapter, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(value_model, "save_adapter", stop)
    with pytest.raises(KeyboardInterrupt):
        sia_jax.save_value_model(tiny_value_model(policy, 1), adapter.parent, base_model="base")
    with pytest.raises(FileNotFoundError, match="is no value model"):
        sia_jax.load_value_model(adapter.parent, policy)


def test_policy_whose_tree_is_not_that_of_its_config_is_not_saved(tmp_path):
    policy = tiny_policy()
    headless = sia_jax.Policy(policy.config, {"model": policy.params["model"]})
    with pytest.raises(ValueError, match=r"lm_head.weight is None, expected \(64, 24\)"):
        sia_jax.save_policy(headless, tmp_path / "headless")
    assert not (tmp_path / "headless").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fingerprint_of_a_folder_is_that_of_the_loaded_base(tmp_path, policy, dtype):
    loaded = sia_jax.load_policy(tmp_path / "base", dtype=dtype)
    assert fingerprint(loaded.params["model"]) == fingerprint_of_folder(tmp_path / "base")


def test_fingerprint_sees_a_change_in_the_middle_of_a_matrix(policy):
    weight = policy.params["model"]["embed_tokens"]["weight"]
    changed = {**policy.params["model"], "embed_tokens": {"weight": weight.at[20:40].add(0.5)}}
    assert fingerprint(changed) != fingerprint(policy.params["model"])


def test_config_json_of_a_saved_policy_is_the_last_file_to_appear(tmp_path, policy, monkeypatch):
    appeared, replace_file = [], os.replace

    def replace_and_note(source, target):
        replace_file(source, target)
        appeared.append(Path(target).name)

    monkeypatch.setattr(os, "replace", replace_and_note)
    sia_jax.save_policy(policy, tmp_path / "saved")
    assert "model.safetensors" in appeared
    assert appeared[-1] == "config.json"
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["architectures"] == [
        "Qwen3ForCausalLM"
    ]


def test_adapter_on_some_layers_is_saved_and_read_as_such(tmp_path, policy):
    value = tiny_value_model(policy)
    one_layer = {"layers": {1: value.params["lora"]["layers"][1]}}
    value = replace(value, params={**value.params, "lora": one_layer})
    sia_jax.save_value_model(value, tmp_path / "value", base_model="base")
    loaded = sia_jax.load_value_model(tmp_path / "value", policy)
    assert list(loaded.params["lora"]["layers"]) == [1]
    tokens = random_tokens(policy.config, 1, 5)
    np.testing.assert_array_equal(loaded.values(tokens, [5]), value.values(tokens, [5]))
