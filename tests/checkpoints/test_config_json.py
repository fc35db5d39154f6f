"""config.json: every spelling of a network gives the same ModelConfig, and a written one reads back."""

import json

import pytest

from sia_jax.checkpoints.config_json import ARCHITECTURES, config_dict, parse_config, read_config
from sia_jax.models.config import Llama3Scaling, RopeConfig
from tests.support.checkpoints import TINY_SCALING, config_json, tiny_config


def respell(raw: dict, spelling: str) -> dict:
    """The fields of transformers 4.51 as another version would write them."""
    raw = dict(raw)
    if spelling == "4.51":
        return raw
    raw["dtype"] = raw.pop("torch_dtype")
    raw["layer_types"] = ["full_attention"] * raw["num_hidden_layers"]
    if spelling == "5":
        scaling = raw.pop("rope_scaling") or {"rope_type": "default"}
        raw["rope_parameters"] = {**scaling, "rope_theta": raw.pop("rope_theta")}
    return raw


@pytest.mark.parametrize("spelling", ["4.51", "4.57", "5"])
@pytest.mark.parametrize("kind", ["policy", "reward"])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_every_spelling_gives_the_same_network(family, kind, spelling):
    raw = config_json(family, kind)
    checkpoint = parse_config(respell(raw, spelling))
    assert checkpoint.model == tiny_config(family)
    assert checkpoint.kind == kind
    assert checkpoint.architecture == raw["architectures"][0]
    assert checkpoint.dtype == "float32"


def test_oldest_key_of_the_scaling_type_is_understood():
    raw = config_json("llama")
    raw["rope_scaling"]["type"] = raw["rope_scaling"].pop("rope_type")
    assert parse_config(raw).model.rope.scaling == TINY_SCALING


def test_rope_of_default_type_in_the_old_place_is_no_scaling():
    raw = config_json("llama", rope_scaling={"rope_type": "default"})
    assert parse_config(raw).model.rope == RopeConfig(10_000.0)


def test_theta_given_twice_the_same_is_accepted():
    raw = respell(config_json("llama"), "5") | {"rope_theta": 10_000}
    assert parse_config(raw).model == tiny_config("llama")


def test_absent_dtype_is_none():
    raw = config_json()
    del raw["torch_dtype"]
    assert parse_config(raw).dtype is None


@pytest.mark.parametrize("written", [None, "absent"])
def test_absent_head_dim_is_128_for_qwen3_and_the_quotient_for_llama(written):
    for family, expected in (("qwen3", 128), ("llama", 6)):
        raw = config_json(family, head_dim=None)  # hidden_size 24, 4 heads
        if written == "absent":
            del raw["head_dim"]
        assert parse_config(raw).model.head_dim == expected


def test_absent_key_value_heads_are_the_query_heads_in_llama():
    raw = config_json("llama")
    del raw["num_key_value_heads"]
    assert parse_config(raw).model.num_kv_heads == 4


def test_absent_tie_is_untied():
    raw = config_json("llama")
    del raw["tie_word_embeddings"]
    assert not parse_config(raw).model.tie_word_embeddings


@pytest.mark.parametrize(
    ("own", "generation", "expected"),
    [
        (7, None, (7,)),
        (None, None, ()),
        ([7, 5], None, (7, 5)),
        (7, {"eos_token_id": [9, 7]}, (9, 7)),
        (7, {"eos_token_id": 9}, (9, 7)),
        ([7, 5], {"eos_token_id": [5, 9, 5]}, (5, 9, 7)),
        (0, {"eos_token_id": 0}, (0,)),
        (None, {"eos_token_id": 9}, (9,)),
        (7, {"temperature": 0.6}, (7,)),
    ],
)
def test_stop_ids_are_those_of_both_files_without_duplicates(tmp_path, own, generation, expected):
    (tmp_path / "config.json").write_text(json.dumps(config_json(eos_token_id=own)))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert read_config(tmp_path).model.eos_token_ids == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True, "head_dim": 16, "num_kv_heads": 1},
        {"tie_word_embeddings": False, "eos_token_ids": (), "bos_token_id": None, "pad_token_id": None},
        {"eos_token_ids": (3,), "initializer_range": 0.1, "rms_norm_eps": 1e-5, "max_position_embeddings": 8},
        {"rope": RopeConfig(500_000.0, Llama3Scaling(32.0, 1.0, 4.0, 8192)), "num_layers": 5},
        {"rope": RopeConfig(12_345.5), "vocab_size": 128_257, "hidden_size": 30, "intermediate_size": 17},
        {"num_heads": 6, "num_kv_heads": 6, "eos_token_ids": (5, 3, 4), "pad_token_id": 0, "bos_token_id": 0},
    ],
)
def test_written_config_reads_back_as_it_was(architecture, changes):
    family, kind = ARCHITECTURES[architecture]
    config = tiny_config(family, **changes)
    raw = json.loads(json.dumps(config_dict(config, architecture, "bfloat16")))
    for spelling in ("4.51", "5"):
        checkpoint = parse_config(respell(raw, spelling))
        assert checkpoint.model == config
        assert (checkpoint.architecture, checkpoint.kind) == (architecture, kind)
        assert checkpoint.dtype == "bfloat16"


def test_architecture_of_the_other_family_is_not_written():
    with pytest.raises(ValueError, match="LlamaForCausalLM is of family llama, the config is qwen3"):
        config_dict(tiny_config("qwen3"), "LlamaForCausalLM", "float32")


def published_qwen3(hidden: int, intermediate: int, layers: int, heads: int, tied: bool) -> dict:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": intermediate,
        "max_position_embeddings": 40960,
        "max_window_layers": layers,
        "model_type": "qwen3",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    }


def published_llama(
    hidden: int, intermediate: int, layers: int, heads: int, tied: bool, factor: float, head_dim: int | None
) -> dict:
    raw = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": intermediate,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": 8,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": factor,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0.dev0",
        "use_cache": True,
        "vocab_size": 128256,
    }
    return raw if head_dim is None else raw | {"head_dim": head_dim}


PUBLISHED = {
    "Qwen3-0.6B": (published_qwen3(1024, 3072, 28, 16, True), 596_049_920, 128),
    "Qwen3-1.7B": (published_qwen3(2048, 6144, 28, 16, True), 1_720_574_976, 128),
    "Qwen3-4B": (published_qwen3(2560, 9728, 36, 32, True), 4_022_468_096, 128),
    "Qwen3-8B": (published_qwen3(4096, 12288, 36, 32, False), 8_190_735_360, 128),
    "Qwen3-14B": (published_qwen3(5120, 17408, 40, 40, False), 14_768_307_200, 128),
    "Llama-3.2-1B": (published_llama(2048, 8192, 16, 32, True, 32.0, 64), 1_235_814_400, 64),
    "Llama-3.2-3B": (published_llama(3072, 8192, 28, 24, True, 32.0, 128), 3_212_749_824, 128),
    "Llama-3.1-8B": (published_llama(4096, 14336, 32, 32, False, 8.0, None), 8_030_261_248, 128),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_config_has_the_published_number_of_parameters(name):
    raw, parameters, head_dim = PUBLISHED[name]
    config = parse_config(raw).model
    assert config.num_parameters == parameters
    assert config.head_dim == head_dim
    assert config.rope.theta == raw["rope_theta"]
    factor = None if config.rope.scaling is None else config.rope.scaling.factor
    assert factor == (raw["rope_scaling"] or {}).get("factor")


def test_separate_head_of_a_tied_size_counts_once_more():
    raw = published_qwen3(1024, 3072, 28, 16, False)
    assert parse_config(raw).model.num_parameters == 596_049_920 + 151_936 * 1024
