"""What we save, transformers, peft and torch load again, bit for bit."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

import sia_jax
from sia_jax.checkpoints.config_json import config_dict, read_config
from sia_jax.models.config import ValueConfig
from sia_jax.models.lora import init_lora
from sia_jax.models.value_model import init_value_head
from sia_jax.types import flatten_names
from tests.support import compare, reference
from tests.support.compare import TOLERANCE, relative_errors
from tests.support.reference import LLAMA3, Shape

QWEN3 = Shape("qwen3", 119, 32, 44, heads=4, head_dim=12, theta=5e6)
QWEN3_TIED = Shape("qwen3", 101, 24, 36, heads=4, head_dim=8, tied=True)
LLAMA = Shape("llama", 103, 36, 28, heads=3, kv_heads=3, theta=1e5, scaling=LLAMA3)
LLAMA_TIED = Shape("llama", 127, 24, 32, heads=4, kv_heads=1, head_dim=8, tied=True, theta=5e5)

CLASSES = {
    "Qwen3ForCausalLM": ("policy", QWEN3),
    "Qwen3ForCausalLM, tied": ("policy", QWEN3_TIED),
    "LlamaForCausalLM": ("policy", LLAMA),
    "LlamaForCausalLM, tied": ("policy", LLAMA_TIED),
    "Qwen3ForSequenceClassification": ("reward", QWEN3),
    "LlamaForSequenceClassification": ("reward", LLAMA),
}


def save_with_transformers(name: str, folder: Path, seed: int, **options: str) -> None:
    kind, shape = CLASSES[name]
    save = reference.save_policy if kind == "policy" else reference.save_reward_model
    save(folder, shape, seed, **options)


def load_with_transformers(name: str, folder: Path) -> tuple[transformers.PreTrainedModel, dict]:
    model_class = getattr(transformers, name.split(",")[0])
    return model_class.from_pretrained(folder, output_loading_info=True)


def copy_through_ours(name: str, folder: Path, target: Path, **options: int) -> None:
    if CLASSES[name][0] == "policy":
        sia_jax.save_policy(sia_jax.load_policy(folder), target, **options)
    else:
        sia_jax.save_reward_model(sia_jax.load_reward_model(folder), target, **options)


def comparable(config: transformers.PreTrainedConfig) -> dict:
    ignored = ("_name_or_path", "transformers_version")
    return {key: value for key, value in config.to_dict().items() if key not in ignored}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("max_shard_bytes", [5 << 30, 20_000], ids=["one file", "shards"])
def test_transformers_loads_what_we_saved_with_equal_tensors_config_and_outputs(
    name, dtype, max_shard_bytes, tmp_path
):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    save_with_transformers(name, theirs, seed=0, dtype=dtype, max_shard_size="30KB")
    copy_through_ours(name, theirs, ours, max_shard_bytes=max_shard_bytes)
    assert (ours / "model.safetensors.index.json").exists() == (max_shard_bytes == 20_000)

    before, _ = load_with_transformers(name, theirs)
    after, report = load_with_transformers(name, ours)
    assert not any(report.values()), report
    tensors_before, tensors_after = before.state_dict(), after.state_dict()
    assert tensors_before.keys() == tensors_after.keys()
    for key, tensor in tensors_before.items():
        assert tensor.dtype == tensors_after[key].dtype == getattr(torch, dtype)
        assert torch.equal(tensor, tensors_after[key]), key
    assert comparable(before.config) == comparable(after.config)
    ids = torch.from_numpy(reference.random_rows(CLASSES[name][1], 0, (20, 20))["tokens"]).long()
    with torch.no_grad():
        assert torch.equal(before(ids).logits, after(ids).logits)
    if CLASSES[name][0] == "policy":
        stops = (before.generation_config.eos_token_id, after.generation_config.eos_token_id)
        assert stops == ([2, 4], [2, 4])


@pytest.mark.parametrize("name", CLASSES)
def test_we_load_what_we_saved_with_equal_tensors_and_config(name, tmp_path):
    save_with_transformers(name, tmp_path / "theirs", seed=1)
    copy_through_ours(name, tmp_path / "theirs", tmp_path / "ours", max_shard_bytes=20_000)
    load = sia_jax.load_policy if CLASSES[name][0] == "policy" else sia_jax.load_reward_model
    before, after = load(tmp_path / "theirs"), load(tmp_path / "ours")
    assert before.config == after.config
    assert_equal_trees(before.params, after.params)


def assert_equal_trees(before: dict, after: dict) -> None:
    flat_before, flat_after = flatten_names(before), flatten_names(after)
    assert flat_before.keys() == flat_after.keys()
    for name, leaf in flat_before.items():
        assert leaf.dtype == flat_after[name].dtype
        np.testing.assert_array_equal(leaf, flat_after[name])


# Value models


def peft_state(folder: Path, base: Path) -> dict[str, torch.Tensor]:
    """The adapter's tensors as PEFT holds them after loading; warns, which is an error, if any is missing."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    return get_peft_model_state_dict(PeftModel.from_pretrained(model, folder / "lora_weights"))


def values_by_torch(folder: Path, base: Path, shape: Shape, **options: bool) -> np.ndarray:
    inputs = reference.random_inputs(shape, 0)
    return reference.token_outputs(reference.value_outputs(folder, base, **options), inputs)["rows"]


@pytest.mark.parametrize("layout", ["official", "sia_jax"])
def test_peft_and_torch_load_the_value_model_that_we_saved_with_equal_tensors_and_values(layout, tmp_path):
    base, theirs, ours = tmp_path / "base", tmp_path / "theirs", tmp_path / "ours"
    reference.save_policy(base, QWEN3, 0)
    reference.save_value_model(theirs, base, 0)
    value = sia_jax.load_value_model(theirs, sia_jax.load_policy(base))
    sia_jax.save_value_model(value, ours, base_model=str(base), layout=layout)

    before, after = peft_state(theirs, base), peft_state(ours, base)
    assert before.keys() == after.keys()
    assert len(before) == 2 * 4 * QWEN3.layers
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert torch.equal(tensor, after[name]), name
    if layout == "official":
        head_before, head_after = reference.load_head(theirs), reference.load_head(ours)
        assert torch.equal(head_before.weight, head_after.weight)
        assert torch.equal(head_before.bias, head_after.bias)
        expected = values_by_torch(theirs, base, QWEN3)
        np.testing.assert_array_equal(values_by_torch(ours, base, QWEN3), expected)
    # And back.
    again = sia_jax.load_value_model(ours, sia_jax.load_policy(base))
    assert again.config == value.config
    assert_equal_trees(again.params, value.params)


def test_the_official_files_that_we_write_say_what_the_official_code_says(tmp_path):
    base, theirs, ours = tmp_path / "base", tmp_path / "theirs", tmp_path / "ours"
    reference.save_policy(base, QWEN3, 0)
    reference.save_value_model(theirs, base, 0)
    value = sia_jax.load_value_model(theirs, sia_jax.load_policy(base))
    extra = {"best_val_r2": 0.5, "best_epoch": 1}
    sia_jax.save_value_model(value, ours, base_model=str(base), layout="official", extra=extra)
    assert read_json(ours / "model_config.json") == read_json(theirs / "model_config.json")
    loaded_before = torch.load(theirs / "token_reward_head.pt", weights_only=True)
    loaded_after = torch.load(ours / "token_reward_head.pt", weights_only=True)
    assert loaded_before["hidden_size"] == loaded_after["hidden_size"] == QWEN3.hidden
    assert loaded_before.keys() == loaded_after.keys()
    assert type(loaded_before["token_reward_head"]) is type(loaded_after["token_reward_head"])
    tensors = load_file(ours / "lora_weights" / "adapter_model.safetensors")
    assert tensors.keys() == load_file(theirs / "lora_weights" / "adapter_model.safetensors").keys()


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def test_peft_loads_a_fresh_adapter_which_changes_nothing(tmp_path):
    base, folder = tmp_path / "base", tmp_path / "value"
    reference.save_policy(base, LLAMA, 0)
    policy = sia_jax.load_policy(base)
    config = ValueConfig(policy.config, lora=sia_jax.LoraConfig(rank=4, alpha=8.0))
    lora = init_lora(policy.params["model"], config.lora, jax.random.key(0))
    head = init_value_head(config, jax.random.key(1))
    params = {"lora": lora, "value_head": head}
    value = sia_jax.ValueModel(config, params, policy.params["model"], None, "fresh")
    sia_jax.save_value_model(value, folder, base_model=str(base), layout="official")

    state = peft_state(folder, base)
    names = {f"base_model.model.model.{name}": leaf for name, leaf in flatten_names(lora).items()}
    assert state.keys() == names.keys()
    for name, leaf in names.items():
        np.testing.assert_array_equal(state[name].numpy(), leaf, err_msg=name)
    assert all(bool(tensor.any()) == ("lora_A" in name) for name, tensor in state.items())
    with_adapter = values_by_torch(folder, base, LLAMA)
    np.testing.assert_array_equal(with_adapter, values_by_torch(folder, base, LLAMA, without_adapter=True))


LORA_VARIANTS = {
    "rsLoRA": {"use_rslora": True},
    "all projections": {
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    },
    "two projections": {"target_modules": ["q_proj", "v_proj"]},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.self_attn\.v_proj": 6},
        "alpha_pattern": {"o_proj": 3, r"layers\.0\.self_attn\.q_proj": 16},
    },
    "patterns and rsLoRA": {
        "rank_pattern": {"k_proj": 1},
        "alpha_pattern": {"k_proj": 2},
        "use_rslora": True,
    },
}


@pytest.mark.parametrize("variant", LORA_VARIANTS)
def test_values_equal_those_of_peft_for_every_kind_of_adapter_before_and_after_we_save_it(variant, tmp_path):
    base, theirs, ours = tmp_path / "base", tmp_path / "theirs", tmp_path / "ours"
    reference.save_policy(base, QWEN3, 0)
    reference.save_value_model(theirs, base, 0, **LORA_VARIANTS[variant])
    inputs = reference.random_inputs(QWEN3, 0)
    arrays = reference.value_case(theirs, base, inputs).arrays
    policy = sia_jax.load_policy(base)
    runs = {"BKHS, batch 3": compare.RUNS["BKHS, batch 3"]}
    value = sia_jax.load_value_model(theirs, policy)
    for loaded in (value, sia_jax.load_value_model(theirs, base)):
        errors = relative_errors(compare.full_pairs(compare.network_of(loaded), arrays, runs))
        assert all(error <= TOLERANCE for error in errors.values()), errors
    sia_jax.save_value_model(value, ours, base_model=str(base), layout="official")
    np.testing.assert_array_equal(values_by_torch(ours, base, QWEN3), arrays["rows"])
    # The adapter matters.
    assert np.abs(arrays["rows"] - arrays["base_rows"]).max() > 1


# The three spellings of config.json


def spell_as_4_51(raw: dict) -> dict:
    """`torch_dtype`, `rope_theta`, `rope_scaling`; a tied or unset field is left out."""
    rope = dict(raw["rope_parameters"])
    theta = rope.pop("rope_theta")
    scaling = None if rope == {"rope_type": "default"} else rope
    left_out = {"dtype", "rope_parameters", "layer_types", "transformers_version"}
    kept = {key: value for key, value in raw.items() if key not in left_out}
    spelled = {"torch_dtype": raw["dtype"], "rope_theta": theta, "rope_scaling": scaling}
    return kept | spelled | {"transformers_version": "4.51.0"}


def spell_as_4_57(raw: dict) -> dict:
    """As before with `dtype`, and the type of every layer."""
    spelled = spell_as_4_51(raw)
    spelled["dtype"] = spelled.pop("torch_dtype")
    if raw["model_type"] == "qwen3":
        spelled["layer_types"] = ["full_attention"] * raw["num_hidden_layers"]
    return spelled | {"transformers_version": "4.57.6"}


@pytest.mark.parametrize("name", CLASSES)
def test_all_spellings_of_a_config_are_read_alike(name, tmp_path):
    save_with_transformers(name, tmp_path, seed=0)
    path = tmp_path / "config.json"
    raw = read_json(path)
    assert "rope_parameters" in raw
    as_written = read_config(tmp_path)
    theirs = comparable(transformers.AutoConfig.from_pretrained(tmp_path))
    assert as_written.model.rope.theta == CLASSES[name][1].theta
    for spell in (spell_as_4_51, spell_as_4_57):
        path.write_text(json.dumps(spell(raw)))
        assert "rope_theta" in read_json(path)
        assert read_config(tmp_path) == as_written
        # The spelling is one that transformers understands.
        assert comparable(transformers.AutoConfig.from_pretrained(tmp_path)) == theirs


@pytest.mark.parametrize("name", CLASSES)
def test_transformers_reads_the_config_that_we_write_as_its_own(name, tmp_path):
    save_with_transformers(name, tmp_path, seed=0)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    ours = read_config(tmp_path)
    written = config_dict(ours.model, ours.architecture, ours.dtype)
    (tmp_path / "config.json").write_text(json.dumps(written))
    again = transformers.AutoConfig.from_pretrained(tmp_path)
    assert comparable(again) == comparable(theirs)
    assert again.rope_parameters == theirs.rope_parameters
    assert again.rope_parameters["rope_theta"] == CLASSES[name][1].theta
    assert again.eos_token_id == [2, 4]
    assert again.tie_word_embeddings == CLASSES[name][1].tied
