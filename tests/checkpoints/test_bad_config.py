"""A config.json that this network does not follow is refused by the field."""

import numpy as np
import pytest

import sia_jax
from sia_jax.checkpoints.config_json import parse_config
from tests.support.checkpoints import (
    config_json,
    edit_json,
    edit_tensors,
    tiny_config,
    tiny_reward_model,
)
from tests.support.refusals import refused

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
UNSUPPORTED = {
    "unknown architecture": (
        {"architectures": ["GemmaForCausalLM"]},
        ("GemmaForCausalLM", "Qwen3ForCausalLM"),
    ),
    "no architectures": (
        {"architectures": None},
        ("architectures []", "expected one of", "LlamaForCausalLM"),
    ),
    "two architectures": ({"architectures": ["Qwen3ForCausalLM"] * 2}, ("architectures ['Qwen3",)),
    "other model_type": ({"model_type": "qwen2"}, ("model_type is 'qwen2'", "'qwen3'")),
    "no vocab_size": ({"vocab_size": None}, ("vocab_size is missing",)),
    "no key/value heads": ({"num_key_value_heads": None}, ("num_key_value_heads is missing",)),
    "no theta": ({"rope_theta": None}, ("rope theta is missing", "rope_parameters.rope_theta", "rope_theta")),
    "two thetas": (
        {"rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000}},
        ("rope_theta and rope_parameters disagree", "10000.0", "1000000"),
    ),
    "yarn": ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, ("'yarn'", "'default' or 'llama3'")),
    "yarn, new spelling": (
        {"rope_theta": None, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}},
        ("'yarn'", "'default' or 'llama3'"),
    ),
    "linear, oldest spelling": ({"rope_scaling": {"type": "linear", "factor": 2.0}}, ("'linear'",)),
    "llama3 without a factor": (
        {"rope_scaling": {k: v for k, v in LLAMA3.items() if k not in ("factor", "low_freq_factor")}},
        ("llama3 rope scaling lacks", "['factor', 'low_freq_factor']"),
    ),
    "llama3 upside down": (
        {"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0, "high_freq_factor": 1.0}},
        ("impossible values", "'low_freq_factor': 4.0"),
    ),
    "sliding window": ({"use_sliding_window": True, "sliding_window": 4096}, ("sliding window attention",)),
    "sliding layers": (
        {"layer_types": ["full_attention", "sliding_attention"]},
        ("sliding window attention is not supported",),
    ),
    "attention bias": ({"attention_bias": True}, ("attention_bias is not supported",)),
    "mlp bias": ({"mlp_bias": True}, ("mlp_bias is not supported",)),
    "experts": ({"num_experts": 128, "num_experts_per_tok": 8}, ("mixture of experts", "num_experts")),
    "gelu": ({"hidden_act": "gelu"}, ("hidden_act 'gelu'", "'silu'")),
    "partial rotation": ({"partial_rotary_factor": 0.5}, ("partial_rotary_factor 0.5",)),
    "quantised": (
        {"quantization_config": {"quant_method": "fp8"}},
        ("quantization_config (only unquantised weights)",),
    ),
    "no whole groups": ({"num_key_value_heads": 3}, ("multiple of num_kv_heads", "4 and 3")),
    "odd head": ({"head_dim": 7}, ("head_dim must be even", "7")),
    "no layers": ({"num_hidden_layers": 0}, ("above 0", "num_hidden_layers")),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_config_that_changes_the_network_is_refused(base, name):
    changes, telling = UNSUPPORTED[name]
    edit_json(base / "config.json", **changes)
    with refused(ValueError, base / "config.json", *telling):
        sia_jax.load_policy(base)


def test_llama_with_a_sliding_window_is_refused():
    with refused(ValueError, "sliding window attention"):
        parse_config(config_json("llama", sliding_window=4096))


def test_all_problems_of_a_config_come_in_one_report(base):
    edit_json(
        base / "config.json",
        remove=("rope_theta", "hidden_size"),
        attention_bias=True,
        hidden_act="relu",
        layer_types=["sliding_attention"],
    )
    telling = (
        "hidden_size is missing",
        "attention_bias",
        "'relu'",
        "sliding window",
        "rope theta is missing",
    )
    with refused(ValueError, base / "config.json", *telling):
        sia_jax.load_policy(base)


@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 1},
        {"layer_types": ["full_attention", "full_attention"]},
        {"rope_scaling": None, "num_experts": 0, "quantization_config": None, "partial_rotary_factor": 1.0},
        {"use_cache": False, "attention_dropout": 0, "transformers_version": "4.51.2", "pad_token_id": None},
        {"some_new_field": None, "another_new_field": False, "a_third": []},
    ],
)
def test_config_that_changes_nothing_is_accepted_without_a_word(base, changes):
    expected = sia_jax.load_policy(base).config
    edit_json(base / "config.json", **changes)
    config = sia_jax.load_policy(base).config
    assert config == (expected if "pad_token_id" not in changes else tiny_config(pad_token_id=None))


def test_unknown_field_that_is_set_is_a_warning(base):
    edit_json(base / "config.json", some_new_field=3, another_new_field="x")
    with pytest.warns(UserWarning, match=r"\['another_new_field', 'some_new_field'\]"):
        sia_jax.load_policy(base)


@pytest.mark.parametrize(
    ("text", "telling"),
    [("{", "not JSON"), ("[1]", "got a list of 1"), ("\xff", "not UTF-8"), ("", "is empty")],
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_config_that_is_no_json_object_is_refused(base, name, text, telling):
    (base / name).write_bytes(text.encode("latin-1"))
    with refused(ValueError, base / name, telling):
        sia_jax.load_policy(base)


def test_folder_without_a_config_is_refused(base):
    (base / "config.json").unlink()
    with refused(FileNotFoundError, base / "config.json", "needs a config.json"):
        sia_jax.load_policy(base)


def test_reward_model_with_two_labels_is_refused(tmp_path):
    sia_jax.save_reward_model(tiny_reward_model(), tmp_path)
    edit_json(tmp_path / "config.json", id2label={"0": "bad", "1": "good"})
    with refused(ValueError, tmp_path / "config.json", "id2label names 2 labels", "has 1"):
        sia_jax.load_reward_model(tmp_path)


def test_policy_and_reward_model_are_not_taken_for_each_other(base, tmp_path):
    sia_jax.save_reward_model(tiny_reward_model(), tmp_path / "reward")
    with refused(ValueError, "Qwen3ForSequenceClassification", "ForCausalLM", "sia_jax.load_reward_model"):
        sia_jax.load_policy(tmp_path / "reward")
    with refused(ValueError, "Qwen3ForCausalLM", "ForSequenceClassification", "sia_jax.load_policy"):
        sia_jax.load_reward_model(base)


def test_reward_model_without_its_score_is_refused(tmp_path):
    sia_jax.save_reward_model(tiny_reward_model(), tmp_path)
    head = np.zeros((64, 24), np.float32)
    edit_tensors(tmp_path / "model.safetensors", remove=("score.weight",), **{"lm_head.weight": head})
    with refused(ValueError, "missing: score.weight (1, 24)", "surplus: lm_head.weight (64, 24)"):
        sia_jax.load_reward_model(tmp_path)
