"""What is saved is what is loaded, bit for bit; and a write that fails leaves the old file whole."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

import sia_jax
from sia_jax.checkpoints import tensors
from sia_jax.checkpoints.huggingface import save_backbone
from sia_jax.checkpoints.value_model import own_backbone
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.models.lora import ATTENTION_PROJECTIONS, MLP_PROJECTIONS, LoraConfig
from tests.support.checkpoints import (
    assert_close,
    assert_same_trees,
    random_tokens,
    save_tiny_policy,
    tiny_config,
    tiny_policy,
    tiny_reward_model,
    tiny_value_model,
)
from tests.support.tokenizers import save_qwen3_tokenizer


@pytest.mark.parametrize("max_shard_bytes", [5 << 30, 4 << 10])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_policy_reads_back_bit_for_bit(tmp_path, family, dtype, max_shard_bytes):
    policy = tiny_policy(family, dtype=jnp.dtype(dtype))
    sia_jax.save_policy(policy, tmp_path / "saved", max_shard_bytes=max_shard_bytes)
    assert (tmp_path / "saved/model.safetensors").is_file() == (max_shard_bytes > 1 << 20)
    loaded = sia_jax.load_policy(tmp_path / "saved")
    assert_same_trees(loaded.params, policy.params)
    assert loaded.config == policy.config
    assert loaded.name == "saved"
    assert loaded.tokenizer is None


@pytest.mark.parametrize("max_shard_bytes", [5 << 30, 4 << 10])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_reward_model_reads_back_bit_for_bit(tmp_path, family, max_shard_bytes):
    reward = tiny_reward_model(family, dtype=jnp.bfloat16)
    sia_jax.save_reward_model(reward, tmp_path / "saved", max_shard_bytes=max_shard_bytes)
    loaded = sia_jax.load_reward_model(tmp_path / "saved")
    assert_same_trees(loaded.params, reward.params)
    assert loaded.config == reward.config
    assert loaded.tokenizer is None


VALUE_MODELS = {
    "official": ("official", "scalar", LoraConfig(rank=4, alpha=8.0)),
    "scalar": ("sia_jax", "scalar", LoraConfig(rank=4, alpha=8.0, use_rslora=True, dropout=0.0)),
    "vocab": ("sia_jax", "vocab", LoraConfig(rank=2, alpha=3.0, target_modules=("q_proj", "down_proj"))),
    "patterns": (
        "official",
        "scalar",
        LoraConfig(
            rank=4,
            alpha=8.0,
            target_modules=ATTENTION_PROJECTIONS + MLP_PROJECTIONS,
            rank_pattern=(("q_proj", 2), (r"layers\.0\..*", 3)),
            alpha_pattern=(("v_proj", 1.5),),
        ),
    ),
}


@pytest.mark.parametrize("name", VALUE_MODELS)
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_value_model_reads_back_bit_for_bit(tmp_path, family, name):
    layout, head, lora = VALUE_MODELS[name]
    policy = save_tiny_policy(tmp_path / "base", family)
    value = tiny_value_model(policy, head=head, lora=lora)
    sia_jax.save_value_model(value, tmp_path / "value", base_model="base", layout=layout)
    loaded = sia_jax.load_value_model(tmp_path / "value", backbone=policy)
    assert_same_trees(loaded.params, value.params)
    assert loaded.config == value.config
    assert loaded.base is policy.params["model"]
    assert loaded.name == "value"


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_a_head_on_the_policys_states_reads_back_bit_for_bit(tmp_path, family):
    policy = save_tiny_policy(tmp_path / "base", family)
    value = tiny_value_model(policy, head="states")
    sia_jax.save_value_model(value, tmp_path / "value", base_model="base")
    assert {path.name for path in (tmp_path / "value").iterdir()} == {
        "value_head.safetensors",
        "value_model.json",
    }
    assert json.loads((tmp_path / "value/value_model.json").read_text())["states"] == "policy"
    for given in ({"backbone": policy}, {"policy": policy}, {"backbone": policy, "policy": policy}):
        loaded = sia_jax.load_value_model(tmp_path / "value", **given)
        assert_same_trees(loaded.params, value.params)
        assert loaded.config == value.config
        assert loaded.base is policy.params["model"]
    tokens, lengths = random_tokens(policy.config, 2, 9), [9, 6]
    expected = value.values(tokens, lengths)
    assert expected.shape == (2, 9, policy.config.vocab_size)
    np.testing.assert_array_equal(loaded.values(tokens, lengths), expected)
    rounded = sia_jax.load_policy(tmp_path / "base", dtype=jnp.bfloat16)
    loaded = sia_jax.load_value_model(tmp_path / "value", rounded)  # the same weights by their fingerprint
    assert_same_trees(loaded.params, value.params)


@pytest.mark.parametrize("name", VALUE_MODELS)
def test_value_model_over_a_policy_and_merged_agree(tmp_path, name):
    layout, head, lora = VALUE_MODELS[name]
    policy = save_tiny_policy(tmp_path / "base", "qwen3", num_layers=1)
    value = tiny_value_model(policy, head=head, lora=lora)
    sia_jax.save_value_model(value, tmp_path / "value", base_model="base", layout=layout)
    over = sia_jax.load_value_model(tmp_path / "value", backbone=policy)
    merged = sia_jax.load_value_model(tmp_path / "value", backbone=tmp_path / "base")
    assert merged.base is None
    assert merged.config.lora is None
    assert sorted(merged.params) == ["model", "value_head"]
    tokens, lengths = random_tokens(policy.config, 2, 9), [9, 6]
    expected = value.values(tokens, lengths)
    assert expected.shape == ((2, 9) if head == "scalar" else (2, 9, policy.config.vocab_size))
    assert expected.dtype == over.values(tokens, lengths).dtype == jnp.float32
    np.testing.assert_array_equal(over.values(tokens, lengths), expected)
    assert_close(merged.values(tokens, lengths)[0], expected[0])
    assert_close(merged.values(tokens, lengths)[1, :6], expected[1, :6])


def test_adapter_stays_float32_over_a_bfloat16_backbone(tmp_path):
    policy = save_tiny_policy(tmp_path / "base", dtype=jnp.bfloat16)
    value = tiny_value_model(policy)
    sia_jax.save_value_model(value, tmp_path / "value", base_model="base")
    assert_same_trees(sia_jax.load_value_model(tmp_path / "value", backbone=policy).params, value.params)
    merged = sia_jax.load_value_model(tmp_path / "value", backbone=tmp_path / "base")
    assert merged.params["model"]["embed_tokens"]["weight"].dtype == jnp.bfloat16
    assert merged.params["value_head"]["weight"].dtype == jnp.float32


def test_value_model_over_a_reward_model_s_backbone(tmp_path):
    policy = tiny_policy()
    reward = tiny_reward_model()
    sia_jax.save_reward_model(reward, tmp_path / "reward")
    value = tiny_value_model(policy)
    sia_jax.save_value_model(value, tmp_path / "value", base_model="reward", layout="official")
    merged = sia_jax.load_value_model(tmp_path / "value", backbone=tmp_path / "reward")
    tokens, lengths = random_tokens(policy.config, 2, 9), [9, 9]
    assert_close(merged.values(tokens, lengths), value.values(tokens, lengths))


def test_dtype_asked_for_is_rounded_to_once(tmp_path):
    policy = save_tiny_policy(tmp_path / "base")
    loaded = sia_jax.load_policy(tmp_path / "base", dtype=jnp.bfloat16)
    expected = policy.params["model"]["layers"][1]["mlp"]["up_proj"]["weight"].astype(jnp.bfloat16)
    actual = loaded.params["model"]["layers"][1]["mlp"]["up_proj"]["weight"]
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected))


def test_without_a_dtype_anywhere_weights_stay_as_stored(tmp_path):
    policy = save_tiny_policy(tmp_path / "base", dtype=jnp.bfloat16)
    path = tmp_path / "base/config.json"
    raw = json.loads(path.read_text())
    assert raw.pop("torch_dtype") == "bfloat16"
    path.write_text(json.dumps(raw))
    assert_same_trees(sia_jax.load_policy(tmp_path / "base").params, policy.params)


def test_weights_are_read_in_chunks_without_a_seam(tmp_path, monkeypatch):
    policy = save_tiny_policy(tmp_path / "base")
    for size in (1, 100, 1000):
        monkeypatch.setattr(tensors, "CHUNK_BYTES", size)
        assert_same_trees(sia_jax.load_policy(tmp_path / "base").params, policy.params)


def test_files_are_those_that_transformers_expects(tmp_path):
    sia_jax.save_policy(tiny_policy(), tmp_path / "one")
    with safe_open(tmp_path / "one/model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}
    assert json.loads((tmp_path / "one/generation_config.json").read_text()) == {
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "pad_token_id": 0,
    }
    sia_jax.save_policy(tiny_policy(), tmp_path / "many", max_shard_bytes=8 << 10)
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    config = tiny_config()
    assert index["metadata"]["total_size"] == 4 * config.num_parameters
    shards = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == shards
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert list(index["weight_map"]) == sorted(index["weight_map"])


@pytest.mark.parametrize(("before", "after"), [(5 << 30, 4 << 10), (4 << 10, 5 << 30), (4 << 10, 9 << 10)])
def test_saving_over_another_number_of_shards_leaves_only_the_new_weights(tmp_path, before, after):
    sia_jax.save_policy(tiny_policy(seed=1), tmp_path, max_shard_bytes=before)
    new = tiny_policy(seed=2)
    sia_jax.save_policy(new, tmp_path, max_shard_bytes=after)
    assert_same_trees(sia_jax.load_policy(tmp_path).params, new.params)
    # transformers looks for model.safetensors first, and would take the old one beside a new index.
    assert (tmp_path / "model.safetensors").is_file() != (tmp_path / "model.safetensors.index.json").is_file()


def test_the_single_file_is_the_model_where_an_index_was_left_beside_it(tmp_path):
    """As transformers has it, which leaves the index behind when it saves one file over shards."""
    sia_jax.save_policy(tiny_policy(seed=1), tmp_path, max_shard_bytes=4 << 10)
    new = tiny_policy(seed=2)
    sia_jax.save_policy(new, tmp_path / "new")
    shutil.copy(tmp_path / "new" / "model.safetensors", tmp_path)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert_same_trees(sia_jax.load_policy(tmp_path).params, new.params)
    for shard in tmp_path.glob("model-*.safetensors"):
        shard.unlink()
    assert_same_trees(sia_jax.load_policy(tmp_path).params, new.params)


class DiskFullError(OSError):
    pass


def test_a_tokenizer_that_is_being_saved_leaves_the_old_one_whole_and_no_config(tmp_path, monkeypatch):
    """config.json comes back last: what was saved in part does not load, and the tokenizer's files do."""
    tokenizer = save_qwen3_tokenizer(tmp_path / "tokenizer")
    policy = replace(tiny_policy(), tokenizer=tokenizer)
    folder = tmp_path / "policy"
    sia_jax.save_policy(policy, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "config.json"}

    def fail(self, folder):
        (Path(folder) / "tokenizer.json").write_text('{"half')
        raise DiskFullError("no space left")

    monkeypatch.setattr(type(tokenizer), "save_pretrained", fail)
    with pytest.raises(OSError, match=r"tokenizer\.json cannot be written: no space left"):
        sia_jax.save_policy(policy, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert load_tokenizer(folder).get_vocab() == tokenizer.get_vocab()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        sia_jax.load_policy(folder)


def test_a_tokenizer_with_further_chat_templates_is_saved_with_them(tmp_path):
    tokenizer = save_qwen3_tokenizer(tmp_path / "tokenizer")
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    policy = replace(tiny_policy(), tokenizer=tokenizer)
    for _ in range(2):
        sia_jax.save_policy(policy, tmp_path / "policy")
    assert load_tokenizer(tmp_path / "policy").chat_template == tokenizer.chat_template


@pytest.mark.parametrize("when", ["before", "in the middle"])
def test_write_that_fails_leaves_the_old_weights_whole(tmp_path, monkeypatch, when):
    old = save_tiny_policy(tmp_path / "base", seed=1)
    write = tensors.save_file

    def fail(arrays, path, metadata):
        if when == "in the middle":
            write(arrays, path, metadata=metadata)
            with open(path, "r+b") as file:
                file.truncate(1000)
        raise DiskFullError("no space left")

    monkeypatch.setattr(tensors, "save_file", fail)
    with pytest.raises(OSError, match=r"safetensors cannot be written: no space left"):
        sia_jax.save_policy(tiny_policy(seed=2), tmp_path / "base")
    assert_same_trees(sia_jax.load_policy(tmp_path / "base").params, old.params)
    assert not [path.name for path in (tmp_path / "base").iterdir() if path.name.startswith(".")]


def test_value_model_whose_saving_was_cut_off_is_not_taken_for_one(tmp_path, monkeypatch):
    policy = tiny_policy()
    value = tiny_value_model(policy)

    def fail(*_args, **_options):
        raise DiskFullError("no space left")

    for layout, name in (("official", "write_torch_file"), ("sia_jax", "save_adapter")):
        folder = tmp_path / layout
        with monkeypatch.context() as patch:
            patch.setattr(f"sia_jax.checkpoints.value_model.{name}", fail)
            with pytest.raises(DiskFullError):
                sia_jax.save_value_model(value, folder, base_model="tiny", layout=layout)
        with pytest.raises(FileNotFoundError, match="is no value model"):
            sia_jax.load_value_model(folder, backbone=policy)


def test_further_entries_stand_in_the_json_file(tmp_path):
    value = tiny_value_model(tiny_policy())
    extra = {"best_val_r2": 0.5, "best_epoch": 3}
    for layout, name in (("official", "model_config.json"), ("sia_jax", "value_model.json")):
        sia_jax.save_value_model(value, tmp_path / layout, base_model="tiny", layout=layout, extra=extra)
        saved = json.loads((tmp_path / layout / name).read_text())
        assert extra.items() <= saved.items()
    official = json.loads((tmp_path / "official/model_config.json").read_text())
    assert official["base_model_path"] == "tiny"
    assert (official["lora_r"], official["lora_alpha"], official["lora_dropout"]) == (4, 8.0, 0.1)
    assert official["hidden_size"] == value.config.backbone.hidden_size
    assert official["model_type"] == "causal_lm"


@pytest.mark.parametrize("layout", ["official", "sia_jax"])
def test_download_nested_in_a_folder_of_the_same_name_is_found(tmp_path, layout):
    policy = tiny_policy()
    value = tiny_value_model(policy)
    sia_jax.save_value_model(value, tmp_path / "VM-tiny" / "VM-tiny", base_model="tiny", layout=layout)
    loaded = sia_jax.load_value_model(tmp_path / "VM-tiny", backbone=policy)
    assert_same_trees(loaded.params, value.params)


def test_tokenizer_is_saved_along_and_loaded(tmp_path):
    tokenizer = save_qwen3_tokenizer(tmp_path / "tokenizer")
    policy = tiny_policy(vocab_size=len(tokenizer) + 2, tokenizer=tokenizer)
    sia_jax.save_policy(policy, tmp_path / "saved")
    loaded = sia_jax.load_policy(tmp_path / "saved")
    assert loaded.tokenizer.get_vocab() == tokenizer.get_vocab()
    messages = [{"role": "user", "content": "How long should I boil an egg?"}]
    ids = loaded.prompt_ids(messages)
    assert ids == policy.prompt_ids(messages)
    assert messages[0]["content"] in loaded.tokenizer.decode(ids)


def test_value_model_without_a_tokenizer_takes_its_backbone_s(tmp_path):
    tokenizer = save_qwen3_tokenizer(tmp_path / "tokenizer")
    policy = tiny_policy(vocab_size=len(tokenizer) + 2, tokenizer=tokenizer, name="base")
    sia_jax.save_policy(policy, tmp_path / "base")
    sia_jax.save_value_model(tiny_value_model(policy), tmp_path / "value", base_model="base")
    over = sia_jax.load_value_model(tmp_path / "value", backbone=policy)
    assert over.tokenizer is tokenizer
    merged = sia_jax.load_value_model(tmp_path / "value", backbone=tmp_path / "base", policy=policy)
    assert merged.tokenizer.get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("kind", ["policy", "tied policy", "reward"])
def test_a_backbone_that_was_trained_is_saved_as_what_it_was_with_its_base_s_head(tmp_path, kind):
    family = "llama" if kind == "tied policy" else "qwen3"
    if kind == "reward":
        base, load = tiny_reward_model(vocab_size=400, dtype=jnp.bfloat16), sia_jax.load_reward_model
        sia_jax.save_reward_model(base, tmp_path / "base")
    else:
        base, load = tiny_policy(family, vocab_size=400, dtype=jnp.bfloat16), sia_jax.load_policy
        sia_jax.save_policy(base, tmp_path / "base")
    save_qwen3_tokenizer(tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").write_text("{{ messages }}")
    model = tiny_policy(family, seed=1, vocab_size=400).params["model"]
    save_backbone(model, tmp_path / "new", base=tmp_path / "base")
    loaded = load(tmp_path / "new")
    head = {name: tree["weight"].astype(jnp.float32) for name, tree in base.params.items() if name != "model"}
    assert_same_trees(loaded.params, {"model": model} | {name: {"weight": w} for name, w in head.items()})
    assert loaded.config.network == base.config
    copied = [path for path in (tmp_path / "base").iterdir() if "token" in path.name or "chat" in path.name]
    assert {"tokenizer.json", "chat_template.jinja"} <= {path.name for path in copied}
    for path in copied:
        assert (tmp_path / "new" / path.name).read_bytes() == path.read_bytes()


def test_a_backbone_that_is_saved_over_its_base_keeps_the_tokenizer(tmp_path):
    base = save_tiny_policy(tmp_path, vocab_size=400)
    save_qwen3_tokenizer(tmp_path, jinja_file=True)
    before = load_tokenizer(tmp_path)
    save_backbone(tiny_policy(seed=1, vocab_size=400).params["model"], tmp_path, base=tmp_path)
    loaded = sia_jax.load_policy(tmp_path)
    assert loaded.tokenizer.get_vocab() == before.get_vocab()
    assert loaded.tokenizer.chat_template == before.chat_template
    assert_same_trees(loaded.params["lm_head"], base.params["lm_head"])


OVER = {
    "a policy without a tokenizer": (sia_jax.save_policy, tiny_policy),
    "a reward model": (sia_jax.save_reward_model, tiny_reward_model),
}


@pytest.mark.parametrize(("save", "make"), OVER.values(), ids=OVER)
def test_of_a_checkpoint_that_was_in_the_folder_nothing_stays(tmp_path, save, make):
    """Neither its tokenizer, nor the stop ids of a policy that a reward model takes the place of."""
    tokenizer = save_qwen3_tokenizer(tmp_path / "tokenizer")
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    old = tiny_policy(vocab_size=400, tokenizer=tokenizer, eos_token_ids=(7,))
    for folder in ("over", "fresh"):
        if folder == "over":
            sia_jax.save_policy(old, tmp_path / folder)
            (tmp_path / folder / "README.md").write_text("Mine.")
        save(make(vocab_size=400, eos_token_ids=(2,)), tmp_path / folder)
    over, fresh = (
        {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*.*")}
        for name in ("over", "fresh")
    )
    assert over.pop("README.md") == b"Mine."
    assert over == fresh


def test_a_backbone_of_other_shapes_than_its_base_is_not_written(tmp_path):
    save_tiny_policy(tmp_path / "base")
    other = tiny_policy(intermediate_size=48).params["model"]
    with pytest.raises(ValueError, match=r"not those of the config.*mlp"):
        save_backbone(other, tmp_path / "new", base=tmp_path / "base")
    assert not (tmp_path / "new" / "config.json").exists()


@pytest.mark.parametrize("layout", ["official", "sia_jax"])
def test_a_value_model_finds_the_backbone_beside_it(tmp_path, layout):
    policy = save_tiny_policy(tmp_path / "base")
    value = tiny_value_model(policy)
    folder = tmp_path / "value"
    sia_jax.save_value_model(value, folder, base_model="elsewhere/backbone", layout=layout)
    with pytest.raises(
        ValueError, match=r"no backbone/ of its own; pass the backbone .*'elsewhere/backbone'"
    ):
        sia_jax.load_value_model(folder)
    expected = sia_jax.load_value_model(folder, tmp_path / "base", check_base=False).params
    (tmp_path / "base").rename(folder / "backbone")
    assert own_backbone(folder) == folder / "backbone"
    for path in (folder, tmp_path):  # as it lies, and nested in another folder
        assert_same_trees(sia_jax.load_value_model(path).params, expected)


def test_copied_base_of_another_name_is_known_by_its_weights(tmp_path):
    policy = save_tiny_policy(tmp_path / "base")
    value = tiny_value_model(policy)
    sia_jax.save_value_model(value, tmp_path / "ours", base_model="base")
    base = str(tmp_path / "base")
    sia_jax.save_value_model(value, tmp_path / "official", base_model=base, layout="official")
    shutil.copytree(tmp_path / "base", tmp_path / "copy")
    for folder in ("ours", "official"):
        for dtype in (None, jnp.bfloat16):
            sia_jax.load_value_model(tmp_path / folder, backbone=tmp_path / "copy", dtype=dtype)
