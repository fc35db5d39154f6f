"""peft and our reader and writer of adapter_config.json agree, on the file and on the scales it means."""

import json
from dataclasses import replace

import peft
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sia_jax.checkpoints.adapter_config import AdapterFile, read_adapter_config, write_adapter_config
from sia_jax.checkpoints.adapter_targets import Targets
from sia_jax.models.lora import LoraConfig

# What peft says of settings that are meant here: "_proj" matches no module, lora_bias cannot be merged, ...
pytestmark = [
    pytest.mark.filterwarnings("ignore:The following alpha_pattern keys did not match any targeted module"),
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed but the targeted layer"),
    pytest.mark.filterwarnings("ignore:Adapter 'default'. 8 LoRA tensor.s. have invalid shape.*lora_B.bias"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`"),
]

CONFIGS = {
    "official": LoraConfig(),
    "rslora": LoraConfig(rank=3, alpha=5.5, dropout=0.0, use_rslora=True),
    "mlp": LoraConfig(rank=2, target_modules=("q_proj", "gate_proj", "up_proj", "down_proj")),
    "patterns": LoraConfig(
        rank=4,
        alpha=8.0,
        rank_pattern=(("k_proj|proj", 5), (r"layers\.1\..*_proj", 2), ("q_proj", 3)),
        alpha_pattern=((r"^model\.layers\.0\.self_attn\.k_proj", 7.0), ("_proj", 9.0), ("v_proj", 0.5)),
    ),
    "unsorted patterns": LoraConfig(alpha_pattern=(("v_proj", 0.5), (r"layers\.0\..*", 9.0), (".*", 3.0))),
    "rslora with patterns": LoraConfig(use_rslora=True, rank_pattern=((".*", 2), ("q_proj", 3))),
}


def tiny_model():
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return Qwen3ForCausalLM(config).eval()


def of_peft(config, **changes):
    fields = {
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.target_modules),
        "use_rslora": config.use_rslora,
        "rank_pattern": dict(config.rank_pattern),
        "alpha_pattern": dict(config.alpha_pattern),
        "task_type": "FEATURE_EXTRACTION",
        "init_lora_weights": False,
    }
    return peft.LoraConfig(**{**fields, **changes})


def with_adapter(config, **changes):
    """A tiny model with a random adapter, so that it does change the outputs."""
    return peft.get_peft_model(tiny_model(), of_peft(config, **changes))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_peft_saves_is_read_as_it_was_meant(tmp_path, config):
    with_adapter(config).save_pretrained(tmp_path)
    # peft sorts the keys of the file, and so changes which of two patterns comes first.
    config = replace(config, alpha_pattern=tuple(sorted(config.alpha_pattern)))
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    targets = Targets(names=tuple(sorted(config.target_modules)))
    expected = AdapterFile(config, saved["base_model_name_or_path"], "FEATURE_EXTRACTION", targets)
    assert read_adapter_config(tmp_path) == expected


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_module_has_the_rank_and_scale_that_peft_gives_it_on_loading(tmp_path, config):
    with_adapter(config).save_pretrained(tmp_path)
    model = peft.PeftModel.from_pretrained(tiny_model(), tmp_path)
    read = read_adapter_config(tmp_path).config
    modules = {
        name.removeprefix("base_model.model.model."): module
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }
    assert len(modules) == 2 * len(config.target_modules)
    for path, module in modules.items():
        assert read.rank_of(path) == module.r["default"]
        assert read.scale(path) == pytest.approx(module.scaling["default"], rel=1e-12)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("task_type", ["FEATURE_EXTRACTION", "CAUSAL_LM"])
def test_peft_reads_what_we_write(tmp_path, config, task_type):
    write_adapter_config(tmp_path, config, "Qwen/Qwen3-0.6B-Base", task_type)
    read = peft.LoraConfig.from_pretrained(tmp_path)
    expected = of_peft(config, task_type=task_type, init_lora_weights=True)
    expected.base_model_name_or_path, expected.inference_mode = "Qwen/Qwen3-0.6B-Base", True
    assert read == expected
    assert list(read.rank_pattern) == list(expected.rank_pattern)
    assert list(read.alpha_pattern) == list(expected.alpha_pattern)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("task_type", ["FEATURE_EXTRACTION", "CAUSAL_LM"])
def test_a_peft_model_with_our_config_computes_the_same(tmp_path, config, task_type):
    model = with_adapter(config).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    write_adapter_config(tmp_path, config, "base", task_type)
    reloaded = peft.PeftModel.from_pretrained(tiny_model(), tmp_path).eval()
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        expected, plain = model(input_ids=tokens).logits, tiny_model()(input_ids=tokens).logits
        assert torch.equal(reloaded(input_ids=tokens).logits, expected)
        assert not torch.allclose(plain, expected)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias"),
        ({"task_type": "SEQ_CLS"}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"exclude_modules": ["k_proj"]}, "exclude_modules"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "target_modules"),
        ({"target_modules": ["q_proj"], "trainable_token_indices": [1]}, "trainable_token_indices"),
    ],
)
def test_a_variant_that_peft_saved_is_refused_by_name(tmp_path, changes, name):
    with_adapter(LoraConfig(), **changes).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"(?m)^  {name} is "):
        read_adapter_config(tmp_path)


def test_layers_to_transform_is_left_to_the_tensors(tmp_path):
    with_adapter(LoraConfig(), layers_to_transform=[1]).save_pretrained(tmp_path)
    assert read_adapter_config(tmp_path).config == LoraConfig()
