"""Checkpoints of the many kinds that transformers and peft write and read, against what these compute."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

import sia_jax
from tests.support.markdown_pages import code_blocks

TRAINING = Path(__file__).parents[2] / "docs/training.md"
SIZES = {
    **{"vocab_size": 96, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128},
    **{"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0, "initializer_range": 0.3},
}
SCALING = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3"}
INSIDE = SCALING | {"original_max_position_embeddings": 16}
IDS = np.arange(4, 52).reshape(1, -1)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A folder with a tied Llama, without scaling."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(**SIZES, tie_word_embeddings=True)
    folder = tmp_path_factory.mktemp("llama") / "base"
    transformers.LlamaForCausalLM(config).eval().save_pretrained(folder)
    return folder


def copied(source, target, **changes):
    """A checkpoint's folder with other fields in its config.json; None removes one."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    raw = json.loads((target / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps({key: v for key, v in raw.items() if v is not None}))
    return target


def assert_same_logits(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = model(torch.tensor(IDS)).logits.numpy()
    ours = np.asarray(sia_jax.load_policy(folder, dtype="float32").logits(IDS, [IDS.shape[1]]))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


OLD = {"rope_parameters": None, "rope_theta": 5e5}
ROPES = {
    "new": {"rope_parameters": INSIDE | {"rope_theta": 5e5}},
    "new, theta at the top": {"rope_parameters": INSIDE, "rope_theta": 5e5},
    "new, context at the top": {
        "rope_parameters": INSIDE | {"rope_theta": 5e5},
        "original_max_position_embeddings": 32,
    },
    "old": OLD | {"rope_scaling": INSIDE},
    "old, context at the top": OLD | {"rope_scaling": INSIDE, "original_max_position_embeddings": 64},
    "old, context at the top alone": OLD | {"rope_scaling": SCALING, "original_max_position_embeddings": 32},
    "oldest, by type": OLD
    | {"rope_scaling": {k: v for k, v in INSIDE.items() if k != "rope_type"} | {"type": "llama3"}},
    "plain, context at the top": OLD | {"original_max_position_embeddings": 32},
    "plain, with numbers of a scaling": OLD | {"rope_scaling": {"rope_type": "default", "factor": 4.0}},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ROPES)
def test_rotary_fields_are_followed_as_transformers_does(llama, tmp_path, name):
    assert_same_logits(copied(llama, tmp_path / "model", **ROPES[name]))


@pytest.mark.parametrize("kind", ["bare", "buffers", "lm_head alone"])
def test_names_that_transformers_takes_give_its_logits(llama, tmp_path, kind):
    folder = copied(llama, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    if kind == "bare":
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    elif kind == "buffers":
        tensors |= {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}
    else:
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert_same_logits(folder)


def save_value_model(llama, folder, **options):
    """A value model whose adapter peft made and saved; returns (its adapted model, its head)."""
    torch.manual_seed(5)
    base = transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    options = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "init_lora_weights": False} | options
    saved = options.pop("save_embedding_layers", "auto")
    model = get_peft_model(base, LoraConfig(**options)).eval()
    with torch.no_grad():  # init_lora_weights says how they began, not what they are
        model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(folder / "lora_weights", save_embedding_layers=saved)
    head = torch.nn.Linear(32, 1)
    torch.save({"token_reward_head": head.state_dict(), "hidden_size": 32}, folder / "token_reward_head.pt")
    (folder / "model_config.json").write_text(json.dumps({"base_model_path": str(llama), "hidden_size": 32}))
    return model, head


def assert_same_values(value, model, head):
    with torch.no_grad():
        theirs = head(model(torch.tensor(IDS), output_hidden_states=True).hidden_states[-1])[..., 0].numpy()
    ours = np.asarray(value.values(IDS, [IDS.shape[1]]))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


ADAPTERS = {
    "regex": {"target_modules": r".*\.self_attn\.(q_proj|v_proj)"},
    "regex with a look ahead": {"target_modules": r"^(?!.*lm_head).*(q|up)_proj"},
    "suffix": {"target_modules": ["self_attn.q_proj", "down_proj"]},
    "one layer by regex": {"target_modules": r"model\.layers\.1\.self_attn\.q_proj"},
    "other modules in each layer": {"target_modules": ["layers.0.self_attn.q_proj", "layers.1.mlp.up_proj"]},
    "all-linear": {"target_modules": "all-linear"},
    "some layers": {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "ranks by path": {
        "target_modules": ["q_proj", "k_proj"],
        "rank_pattern": {"model.layers.0.self_attn.q_proj": 2},
    },
    "embedding saved unchanged": {"target_modules": ["q_proj"], "save_embedding_layers": True},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_that_peft_saves_give_its_values(llama, tmp_path, name):
    model, head = save_value_model(llama, tmp_path, **ADAPTERS[name])
    assert_same_values(sia_jax.load_value_model(tmp_path, llama, dtype="float32"), model, head)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "variant",
    [
        {"use_dora": True},
        {"exclude_modules": ["layers.0.self_attn.q_proj"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
    ],
)
def test_adapter_that_is_refused_loads_once_it_is_merged_as_the_page_of_training_does(
    llama, tmp_path, monkeypatch, variant
):
    folder = tmp_path / "VM"
    model, head = save_value_model(llama, folder, **({"target_modules": ["q_proj", "v_proj"]} | variant))
    with pytest.raises(ValueError, match=r"merge_and_unload|target_modules is"):
        sia_jax.load_value_model(folder, llama)
    blocks = code_blocks(TRAINING.read_text(), "python")
    *merge, load = next(code for code in blocks if "merge_and_unload" in code).splitlines()
    base = transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(merge), {"PeftModel": PeftModel, "base": base})
    (folder / "lora_weights").rename(tmp_path / "adapter")
    assert_same_values(eval(load, {"sia_jax": sia_jax}), model, head)
