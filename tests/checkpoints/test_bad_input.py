"""What does not fit is refused, in a message that says what was got, what was expected and what to do."""

import json
import shutil
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sia_jax
from sia_jax.checkpoints.config_json import parse_config
from sia_jax.checkpoints.torch_pickle import read_torch_file, write_torch_file
from sia_jax.parallel.mesh import make_mesh, shard_params
from tests.support.checkpoints import (
    assert_same_trees,
    config_json,
    edit_json,
    edit_tensors,
    random_tokens,
    save_tiny_policy,
    save_tiny_value_model,
    tiny_config,
    tiny_policy,
    tiny_reward_model,
    tiny_value_model,
)
from tests.support.tokenizers import save_qwen3_tokenizer

UP = "model.layers.0.mlp.up_proj.weight"


@contextmanager
def refused(kind, *telling):
    """The block raises `kind` with a message that contains all of `telling`."""
    with pytest.raises(kind) as caught:
        yield
    for part in telling:
        assert str(part) in str(caught.value)


@pytest.fixture
def base(tmp_path):
    """A folder with an untied policy."""
    save_tiny_policy(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def shards(tmp_path):
    """A folder with the same policy in some ten shards."""
    sia_jax.save_policy(tiny_policy(), tmp_path / "shards", max_shard_bytes=5000)
    return tmp_path / "shards"


# --- files of tensors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["empty", 5, 8, 100, "header", "data", "last byte"])
def test_truncated_weights_are_refused(base, where):
    path = base / "model.safetensors"
    size, header = path.stat().st_size, 8 + int.from_bytes(path.read_bytes()[:8], "little")
    cut = {"empty": 0, "header": header - 1, "data": (header + size) // 2, "last byte": size - 1}.get(
        where, where
    )
    with open(path, "r+b") as file:
        file.truncate(cut)
    with refused(ValueError, path, "truncated"):
        sia_jax.load_policy(base)


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04" + bytes(99)]
)
def test_other_files_are_no_safetensors(base, content):
    (base / "model.safetensors").write_bytes(content)
    with refused(ValueError, base / "model.safetensors", "is not a safetensors file"):
        sia_jax.load_policy(base)


def test_every_missing_shard_is_named(shards):
    names = sorted(path.name for path in shards.glob("*.safetensors"))
    assert len(names) > 3
    for name in (names[0], names[2]):
        (shards / name).unlink()
    with refused(FileNotFoundError, "index.json", f"missing: {[names[0], names[2]]}"):
        sia_jax.load_policy(shards)


def test_truncated_shard_is_named(shards):
    path = sorted(shards.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-1])
    with refused(ValueError, path, "truncated"):
        sia_jax.load_policy(shards)


def test_index_and_shards_that_disagree_are_refused(shards):
    path = shards / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    weight_map = index["weight_map"]
    names = sorted(set(weight_map.values()))
    moved, dropped = sorted(weight_map)[:2]
    weight_map[moved] = next(name for name in names if name != weight_map[moved])
    del weight_map[dropped]
    weight_map["model.extra.weight"] = names[0]
    path.write_text(json.dumps(index))
    absent, unlisted = sorted([moved, "model.extra.weight"]), sorted([moved, dropped])
    with refused(ValueError, path, "disagree", f"listed for: {absent}", f"not listed for it: {unlisted}"):
        sia_jax.load_policy(shards)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "\xff"])
def test_index_that_is_none_is_refused(shards, text):
    path = shards / "model.safetensors.index.json"
    path.write_bytes(text.encode("latin-1"))
    with refused(ValueError, path, "not an index of safetensors shards"):
        sia_jax.load_policy(shards)


@pytest.mark.parametrize("shard", ["../other/model.safetensors", "/etc/model.safetensors", "model.bin"])
def test_index_that_leaves_its_folder_or_names_another_kind_of_file_is_refused(shards, shard):
    path = shards / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = shard
    path.write_text(json.dumps(index))
    with refused(ValueError, path, shard, "files of its own folder"):
        sia_jax.load_policy(shards)


def test_surplus_missing_and_misshapen_tensors_come_in_one_report(base):
    edit_tensors(
        base / "model.safetensors",
        remove=("model.norm.weight", "model.layers.1.self_attn.q_norm.weight"),
        **{
            UP: np.zeros((7, 24), np.float32),
            "model.layers.2.mlp.up_proj.weight": np.zeros((40, 24), np.float32),
        },
    )
    with refused(
        ValueError,
        base,
        "config.json (4 differ)",
        "missing: model.norm.weight (24,)",
        "missing: model.layers.1.self_attn.q_norm.weight (8,)",
        "surplus: model.layers.2.mlp.up_proj.weight (40, 24)",
        f"shape: {UP} is (7, 24), expected (40, 24)",
    ):
        sia_jax.load_policy(base)


def test_transposed_weight_is_refused(base):
    weight = load_file(base / "model.safetensors")[UP]
    edit_tensors(base / "model.safetensors", **{UP: np.ascontiguousarray(weight.T)})
    with refused(ValueError, f"shape: {UP} is (24, 40), expected (40, 24)"):
        sia_jax.load_policy(base)


def test_untied_policy_without_a_head_is_refused(base):
    edit_tensors(base / "model.safetensors", remove=("lm_head.weight",))
    with refused(ValueError, "missing: lm_head.weight (64, 24)"):
        sia_jax.load_policy(base)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, ml_dtypes.float8_e4m3fn])
@pytest.mark.parametrize("asked", [None, jnp.float32])
def test_quantised_tensors_are_refused(base, dtype, asked):
    edit_tensors(base / "model.safetensors", **{UP: np.ones((40, 24), dtype)})
    stored = {"int8": "I8", "int64": "I64", "float8_e4m3fn": "F8_E4M3"}[np.dtype(dtype).name]
    with refused(ValueError, base, f"{UP} has dtype {stored}", "expected one of", "BF16"):
        sia_jax.load_policy(base, dtype=asked)


def test_head_of_a_tied_model_must_be_the_embedding(tmp_path):
    policy = save_tiny_policy(tmp_path / "tied", "llama")
    path = tmp_path / "tied/model.safetensors"
    head = np.array(policy.params["model"]["embed_tokens"]["weight"])
    edit_tensors(path, **{"lm_head.weight": head})
    loaded = sia_jax.load_policy(tmp_path / "tied")
    assert "lm_head" not in loaded.params
    assert_same_trees(loaded.params, policy.params)

    head[-1, -1] += 1e-3
    edit_tensors(path, **{"lm_head.weight": head})
    with refused(
        ValueError, tmp_path / "tied", "another lm_head.weight", '"tie_word_embeddings": false', "remove"
    ):
        sia_jax.load_policy(tmp_path / "tied")
    edit_json(tmp_path / "tied/config.json", tie_word_embeddings=False)  # the remedy
    np.testing.assert_array_equal(
        np.asarray(sia_jax.load_policy(tmp_path / "tied").params["lm_head"]["weight"]), head
    )


def test_pickled_weights_are_refused_with_the_way_out(base):
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with refused(
        FileNotFoundError, base, "pytorch_model.bin", "save the model as safetensors with transformers"
    ):
        sia_jax.load_policy(base)


def test_folder_without_weights_is_refused(base):
    (base / "model.safetensors").unlink()
    with refused(FileNotFoundError, base, "no model.safetensors", "model.safetensors.index.json"):
        sia_jax.load_policy(base)


# --- config.json --------------------------------------------------------------------------------------------

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
    ("text", "telling"), [("{", "not JSON"), ("[1]", "JSON object, got a list"), ("\xff", "not JSON")]
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


# --- adapters -----------------------------------------------------------------------------------------------

PREFIX = "base_model.model.model.layers"


@pytest.fixture
def policy():
    return tiny_policy()


@pytest.fixture
def value(tmp_path, policy):
    """A folder with a value model over `policy`, in our layout."""
    save_tiny_value_model(tmp_path / "value", policy)
    return tmp_path / "value"


@pytest.fixture
def official(tmp_path, policy):
    """The same in the official layout."""
    save_tiny_value_model(tmp_path / "official", policy, layout="official")
    return tmp_path / "official"


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


# --- value models -------------------------------------------------------------------------------------------


def test_base_of_another_size_is_refused_as_another_base(value, tmp_path):
    """Not as a hundred tensors of the wrong shape."""
    wide = tiny_policy(hidden_size=48)
    with refused(ValueError, value, "other weights (tiny)", "pass the backbone it was trained on"):
        sia_jax.load_value_model(value, backbone=wide)


def test_folder_of_several_value_models_is_refused_with_their_names(value, tmp_path):
    shutil.copytree(value, tmp_path / "several" / "VM-one")
    shutil.copytree(value, tmp_path / "several" / "VM-two")
    with refused(FileNotFoundError, "it holds ['VM-one', 'VM-two']: name one of them", "several/VM-one"):
        sia_jax.load_value_model(tmp_path / "several", backbone=tmp_path / "tiny")


def test_base_with_other_weights_is_refused_and_can_be_insisted_on(value, tmp_path):
    other = save_tiny_policy(tmp_path / "other", seed=1)
    for backbone in (other, tmp_path / "other"):
        with refused(ValueError, value, "other weights (tiny) than other", "trained on", "check_base=False"):
            sia_jax.load_value_model(value, backbone=backbone)
        sia_jax.load_value_model(value, backbone=backbone, check_base=False)


@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj.weight", "model.norm.weight"])
def test_base_of_which_one_number_differs_is_refused(value, tmp_path, name):
    save_tiny_policy(tmp_path / "tuned")
    weights = load_file(tmp_path / "tuned/model.safetensors")[name].copy()
    weights[..., 5] *= 1.02
    edit_tensors(tmp_path / "tuned/model.safetensors", **{name: weights})
    with refused(ValueError, "other weights"):
        sia_jax.load_value_model(value, backbone=tmp_path / "tuned")


def test_base_of_another_name_is_refused_in_the_official_layout(official, tmp_path, policy):
    save_tiny_policy(tmp_path / "other")
    with refused(ValueError, official, "trained on 'tiny'", "the backbone is 'other'", "check_base=False"):
        sia_jax.load_value_model(official, backbone=tmp_path / "other")
    sia_jax.load_value_model(official, backbone=tmp_path / "other", check_base=False)
    sia_jax.load_value_model(official, backbone=policy)


def test_base_recorded_as_a_folder_at_hand_is_compared_by_weights(official, tmp_path):
    save_tiny_policy(tmp_path / "a" / "tiny", seed=0)
    save_tiny_policy(tmp_path / "b" / "tiny", seed=1)
    edit_json(official / "model_config.json", base_model_path=str(tmp_path / "a/tiny"))
    sia_jax.load_value_model(official, backbone=tmp_path / "a/tiny")
    with refused(ValueError, "other weights", str(tmp_path / "a/tiny"), "check_base=False"):
        sia_jax.load_value_model(official, backbone=tmp_path / "b/tiny")


def test_head_of_another_width_is_refused(value, official, policy):
    head = {"weight": np.zeros((1, 48), np.float32), "bias": np.zeros(1, np.float32)}
    write_torch_file(official / "token_reward_head.pt", {"token_reward_head": head, "hidden_size": 48})
    with refused(ValueError, official / "token_reward_head.pt", "(1, 48)", "expected weight (1, 24)"):
        sia_jax.load_value_model(official, backbone=policy)
    edit_json(official / "model_config.json", hidden_size=48)
    with refused(ValueError, official, "hidden_size is 48", "the backbone's is 24"):
        sia_jax.load_value_model(official, backbone=policy)
    save_file(head, value / "value_head.safetensors")
    with refused(ValueError, value / "value_head.safetensors", "weight is (1, 48), expected (1, 24)"):
        sia_jax.load_value_model(value, backbone=policy)


@pytest.mark.parametrize("change", [{"head_type": "mlp"}, {"token_reward_head": None}])
def test_head_with_other_keys_is_refused(official, policy, change):
    path = official / "token_reward_head.pt"
    write_torch_file(path, read_torch_file(path) | change)
    with refused(
        ValueError, path, *(change if "head_type" in change else ()), "expected", "token_reward_head"
    ):
        sia_jax.load_value_model(official, backbone=policy)


def test_head_with_further_tensors_is_refused(official, policy):
    path = official / "token_reward_head.pt"
    tree = read_torch_file(path)
    tree["token_reward_head"] = dict(tree["token_reward_head"], scale=np.ones(1, np.float32))
    write_torch_file(path, tree)
    with refused(ValueError, path, "expected", "scale"):
        sia_jax.load_value_model(official, backbone=policy)


@pytest.mark.parametrize("name", ["token_reward_head.pt", "value_head.safetensors"])
def test_missing_head_is_named(value, official, policy, name):
    folder = official if name.endswith(".pt") else value
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        sia_jax.load_value_model(folder, backbone=policy)


@pytest.mark.parametrize("change", [{"head": "ensemble"}, {"head": "vocab"}, {"head": None}])
def test_unknown_kind_of_head_is_refused(value, policy, change):
    edit_json(value / "value_model.json", **change)
    with refused(ValueError, value / "value_model.json", f"head {change['head']!r} of rank None"):
        sia_jax.load_value_model(value, backbone=policy)


@pytest.mark.parametrize("version", [2, None])
def test_format_version_that_is_not_ours_is_refused(value, policy, version):
    edit_json(value / "value_model.json", format_version=version)
    with refused(ValueError, value / "value_model.json", f"format_version is {version}", "reads 1"):
        sia_jax.load_value_model(value, backbone=policy)


def test_folder_that_is_no_value_model_is_refused(base, value, policy):
    with refused(
        FileNotFoundError, base, "is no value model", "value_model.json", "model_config.json", "neither"
    ):
        sia_jax.load_value_model(base, backbone=policy)
    (value / "model_config.json").write_text("{}")
    with refused(
        FileNotFoundError, value, "expected one of", "found ['value_model.json', 'model_config.json']"
    ):
        sia_jax.load_value_model(value, backbone=policy)


@pytest.mark.parametrize(("text", "telling"), [("{", "not JSON"), ("[]", "JSON object")])
def test_description_that_is_no_json_object_is_refused(value, policy, text, telling):
    (value / "value_model.json").write_text(text)
    with refused(ValueError, value / "value_model.json", telling):
        sia_jax.load_value_model(value, backbone=policy)


def test_value_model_that_reads_other_tokens_is_refused(tmp_path):
    tokenizer = save_qwen3_tokenizer(tmp_path / "base")
    policy = save_tiny_policy(tmp_path / "base", vocab_size=len(tokenizer), tokenizer=tokenizer)
    save_tiny_value_model(tmp_path / "value", policy)
    save_qwen3_tokenizer(tmp_path / "value")
    sia_jax.load_value_model(tmp_path / "value", backbone=policy)  # as it should be

    path = tmp_path / "value/tokenizer.json"
    raw = json.loads(path.read_text())
    vocab = raw["model"]["vocab"]
    first, second = (token for token, index in vocab.items() if index in (70, 71))
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(raw))
    telling = (
        "policy base",
        "value model value",
        "2 of the policy's",
        f"70: {first!r} != {second!r}",
        "71: ",
    )
    with refused(ValueError, *telling):
        sia_jax.load_value_model(tmp_path / "value", backbone=policy)
    with refused(ValueError, *telling):
        sia_jax.load_value_model(tmp_path / "value", backbone=tmp_path / "base", policy=policy)


def test_merged_value_model_is_not_saved(tmp_path):
    policy = save_tiny_policy(tmp_path / "base")
    save_tiny_value_model(tmp_path / "value", policy)
    merged = sia_jax.load_value_model(tmp_path / "value", backbone=tmp_path / "base")
    with refused(ValueError, "merged value model", "load it with backbone="):
        sia_jax.save_value_model(merged, tmp_path / "again", base_model="base")
    assert not (tmp_path / "again").exists()


def test_vocab_head_is_not_saved_in_the_official_layout(tmp_path, policy):
    value = tiny_value_model(policy, head="vocab")
    with refused(ValueError, "scalar head", "'vocab'", 'layout="sia_jax"'):
        sia_jax.save_value_model(value, tmp_path / "saved", base_model="tiny", layout="official")
    assert not (tmp_path / "saved/token_reward_head.pt").exists()


# --- meshes and calls ---------------------------------------------------------------------------------------


def test_mesh_must_have_as_many_places_as_there_are_devices():
    with refused(ValueError, "'data': 2", "'fsdp': 2", "'tensor': 3", "needs 12 devices", "got 8"):
        make_mesh(2, 2, 3)
    with refused(ValueError, "needs 4 devices", "got 2"):
        make_mesh(4, devices=jax.devices()[:2])


@pytest.mark.parametrize("name", ["rotary", "q_proj_extra", "lm_head"])
def test_parameter_without_a_partition_rule_is_refused(name):
    params = {"model": {"layers": {0: {name: {"weight": jnp.zeros((8, 4))}}}}}
    full = f"model.layers.0.{name}.weight"
    with refused(ValueError, f"{full!r} of shape (8, 4)", "PARTITION_RULES"):
        shard_params(params, make_mesh(data=8))


BAD_BATCHES = {
    "one row without its axis": ([1, 2, 3], [3], ("tokens [B, L]", "(3,)")),
    "three axes": ([[[1]]], [1], ("tokens [B, L]", "(1, 1, 1)")),
    "lengths of other rows": ([[1, 2]], [1, 2], ("lengths [B]", "(1, 2) and (2,)")),
    "one length for all": ([[1, 2]], 2, ("lengths [B]", "()")),
    "float tokens": ([[1.0, 2.0]], [2], ("tokens must be integers", "float64")),
    "float lengths": ([[1, 2]], [2.0], ("lengths must be integers", "float64")),
    "boolean tokens": ([[True, False]], [2], ("tokens must be integers", "bool")),
    "no rows": (np.zeros((0, 3), int), np.zeros(0, int), ("1 .. 3", "got []")),
    "no tokens": (np.zeros((1, 0), int), [0], ("lengths must lie in", "got [0]")),
    "length 0": ([[1, 2], [1, 2]], [2, 0], ("lengths must lie in 1 .. 2", "got [2, 0]")),
    "length beyond the row": ([[1, 2]], [3], ("lengths must lie in 1 .. 2", "got [3]")),
    "id beyond the vocabulary": ([[1, 64, 99]], [3], ("0 .. 63", "the vocabulary", "got [64, 99]")),
    "negative id": ([[1, -1]], [2], ("0 .. 63", "got [-1]")),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_batch_that_does_not_fit_is_refused(policy, name):
    tokens, lengths, telling = BAD_BATCHES[name]
    for call in (policy.logits, tiny_value_model(policy).values, tiny_reward_model().score):
        with refused(ValueError, *telling):
            call(tokens, lengths)


def test_what_stands_at_padding_is_not_checked_and_does_not_matter(policy):
    tokens = random_tokens(policy.config, 2, 5)
    spoiled = tokens.copy()
    spoiled[1, 3:] = [-100, 10**6]
    expected = np.asarray(policy.logits(tokens, [5, 3]))
    actual = np.asarray(policy.logits(spoiled, [5, 3]))
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1, :3], expected[1, :3])


def test_prompts_need_a_tokenizer(policy):
    messages = [{"role": "user", "content": "Hello"}]
    answered = [*messages, {"role": "assistant", "content": "Good morning"}]
    with refused(ValueError, "tiny was loaded from a folder without a tokenizer", "pass token ids"):
        policy.prompt_ids(messages)
    with refused(ValueError, "without a tokenizer"):
        tiny_value_model(policy).prompt_ids(messages)
    with refused(ValueError, "without a tokenizer"):
        tiny_reward_model().conversation_ids(answered)


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
