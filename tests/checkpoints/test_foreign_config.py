"""Every field of config.json and generation_config.json, of any JSON type: refused by name, or right."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sia_jax
from sia_jax.checkpoints.config_json import parse_config, read_config
from sia_jax.models.config import Llama3Scaling, ModelConfig
from tests.support.checkpoints import (
    config_json,
    edit_json,
    save_tiny_policy,
    save_tiny_value_model,
    tiny_config,
    tiny_reward_model,
)
from tests.support.refusals import refused

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
FIELDS = (
    *sorted(config_json("llama")),
    *(
        "rope_parameters",
        "original_max_position_embeddings",
        "partial_rotary_factor",
        "layer_types",
        "mlp_bias",
    ),
    *("dtype", "id2label", "num_experts", "quantization_config", "rope_interleaved", "something_new"),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    scalars | st.sampled_from([10**12, -1, 64, 10**400, 1e-300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:config.json has fields")
@given(st.sampled_from(FIELDS), anything, st.sampled_from(["qwen3", "llama"]))
def test_field_of_any_type_is_refused_by_name_or_right(field, value, family):
    raw = config_json(family) | {field: value}
    told = config = None
    try:
        config = parse_config(raw).model
    except ValueError as error:
        told = str(error)
    if config is None:
        renamed = {"num_attention_heads": "num_heads", "num_key_value_heads": "num_kv_heads"}.get(
            field, field
        )
        assert any(name in told for name in (field, field.replace("_", " "), renamed, "rope", "head_dim"))
        return
    changed = {
        name
        for name in ModelConfig.__dataclass_fields__
        if getattr(config, name) != getattr(tiny_config(family), name)
    }
    assert changed <= {field, "num_layers", "num_heads", "num_kv_heads", "rope", "head_dim", "eos_token_ids"}
    if field in SIZES[:3] and field in changed:
        assert type(value) is int
        assert getattr(config, field) == value


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(
    "ids", [6.5, "6", True, [[6]], {}, {"a": 6}, [6, None], [6, "7"], 10**12, 64, -2, [6, -1]]
)
def test_stop_ids_that_are_none_are_refused_with_file_field_and_remedy(base, file, ids):
    edit_json(base / file, eos_token_id=ids)
    shown = "eos_token_id is " + repr(ids)
    with refused(ValueError, base / file, shown, "an id or a list of ids in 0 .. 63", "copy the file"):
        sia_jax.load_policy(base)


@pytest.mark.parametrize("field", ["bos_token_id", "pad_token_id"])
@pytest.mark.parametrize("ids", [1.0, "1", False, [1], {}, 64])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_other_ids_are_refused_likewise(base, file, field, ids):
    edit_json(base / file, **{field: ids})
    with refused(ValueError, base / file, f"{field} is {ids!r}", "an id in 0 .. 63"):
        read_config(base)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (5, 6, (5, 6)),
        ([5, 6], 6, (5, 6)),
        ([7, 5, 7], [5, 8], (7, 5, 8)),
        (None, [3], (3,)),
        ([], 3, (3,)),
        (3, None, (3,)),
        (-1, 3, (3,)),
        (None, None, ()),
    ],
)
def test_stop_ids_are_those_of_both_files_united(base, generation, config, expected):
    edit_json(base / "generation_config.json", eos_token_id=generation)
    edit_json(base / "config.json", eos_token_id=config)
    assert read_config(base).model.eos_token_ids == expected


def test_stop_ids_of_config_json_count_where_there_is_no_generation_config(base):
    (base / "generation_config.json").unlink()
    assert read_config(base).model.eos_token_ids == (2, 3)


UNFOLLOWED = {
    "stop_strings": ["Human:"],
    "suppress_tokens": [5, 6],
    "begin_suppress_tokens": [7],
    "bad_words_ids": [[5]],
    "forced_eos_token_id": 0,
}


@pytest.mark.parametrize("name", UNFOLLOWED)
def test_field_of_generation_config_that_is_not_followed_is_a_warning(base, name):
    edit_json(base / "generation_config.json", **{name: UNFOLLOWED[name]})
    with pytest.warns(UserWarning, match=rf"generation_config.json .* not followed here: \['{name}'\]"):
        config = sia_jax.load_policy(base).config
    assert config == tiny_config()


@pytest.mark.parametrize("value", [None, [], False, "", {}])
def test_field_of_generation_config_that_says_nothing_is_passed_over_in_silence(base, value):
    edit_json(base / "generation_config.json", **dict.fromkeys(UNFOLLOWED, value), temperature=0.6, top_k=20)
    assert sia_jax.load_policy(base).config == tiny_config()


def test_pad_id_of_minus_one_says_that_there_is_none():
    assert parse_config(config_json(pad_token_id=-1, bos_token_id=-1)).model.pad_token_id is None


SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("inside", [None, 16])
def test_original_context_at_the_top_counts_before_that_of_the_scaling(spelling, inside):
    scaling = SCALING | ({} if inside is None else {"original_max_position_embeddings": inside})
    raw = config_json("llama", rope_scaling=None) | {
        spelling: scaling,
        "original_max_position_embeddings": 48,
    }
    assert parse_config(raw).model.rope.scaling == Llama3Scaling(8.0, 1.0, 4.0, 48)


@pytest.mark.parametrize("context", [None, 0, -16, 32.5, "32", True, [32], {}])
def test_original_context_at_the_top_that_is_none_is_refused(context):
    with pytest.raises(ValueError, match="original_max_position_embeddings"):
        parse_config(config_json("llama", original_max_position_embeddings=context))


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": {}},
        {"rope_theta": [10_000.0]},
        {"rope_theta": 10**400},
        {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4.0}}},
        {"rope_scaling": {"rope_type": "default", "attention_factor": 2.0}},
        {"rope_scaling": {"partial_rotary_factor": 0.5}},
        {"rope_scaling": {"rope_type": ["llama3"]}},
        {"rope_interleaved": True},
        {"rotary_pct": 0.25},
        {"rope_scaling": SCALING | {"original_max_position_embeddings": 16.5}},
        # Two types, or numbers of a scaling without its type.
        {"rope_scaling": SCALING | {"rope_type": "default", "type": "llama3"}},
        {"rope_scaling": SCALING | {"type": "default"}},
        {"rope_scaling": {"rope_type": "default", "type": "linear", "factor": 4.0}},
        {"rope_scaling": {"rope_type": None, "type": "llama3"}},
        {"rope_scaling": {name: number for name, number in SCALING.items() if name != "rope_type"}},
        {"rope_scaling": {"factor": 4.0}},
        {"rope_scaling": {"low_freq_factor": 1.0, "high_freq_factor": 4.0}},
        {"rope_scaling": {"factor": True}},
        {"rope_scaling": None, "rope_parameters": {"rope_theta": 10_000.0, "factor": 4.0}},
    ],
)
def test_rotation_that_this_network_does_not_do_is_refused(changes):
    with pytest.raises(ValueError, match=r"rope|rotary"):
        parse_config(config_json(**changes))


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "default", "type": "default"},
        {"rope_type": "default", "factor": 4.0},
        {"factor": 1.0},
        {"factor": 1, "low_freq_factor": 1.0, "high_freq_factor": None},
        {"rope_type": "default", "original_max_position_embeddings": 32},
        {"factor": None, "high_freq_factor": None},
    ],
)
def test_scaling_by_nothing_is_none(scaling):
    assert parse_config(config_json("llama", rope_scaling=scaling)).model.rope.scaling is None


def test_type_of_a_scaling_under_both_its_names_is_read():
    """As transformers 4.43 and later save a config that has it under the older one."""
    raw = config_json("llama")
    raw["rope_scaling"]["type"] = "llama3"
    assert parse_config(raw).model == tiny_config("llama")


@pytest.mark.filterwarnings("ignore:config.json has fields")
def test_config_of_a_small_llama_with_tied_embeddings_is_read():
    """As conversions from nanotron and GGUF write it."""
    raw = config_json("llama", rope_scaling=None, rope_theta=100000, rms_norm_eps=1e-05, pad_token_id=2)
    raw |= {"is_llama_config": True, "rope_interleaved": False, "pretraining_tp": 1, "mlp_bias": False}
    del raw["head_dim"]
    config = parse_config(raw | {"hidden_size": 32}).model
    assert (config.head_dim, config.rms_norm_eps, config.tie_word_embeddings) == (8, 1e-5, True)
    assert config.rope.scaling is None


@pytest.mark.parametrize("size", [10**5, 10**12])
@pytest.mark.parametrize("field", [*SIZES, "num_hidden_layers"])
def test_size_that_the_files_do_not_have_is_refused_at_once(tmp_path, field, size):
    save_tiny_policy(tmp_path / "base", "llama")
    edit_json(tmp_path / "base/config.json", **{field: size})
    start = time.monotonic()
    with refused(ValueError, tmp_path / "base", "multiple of" if field == "num_key_value_heads" else "00000"):
        sia_jax.load_policy(tmp_path / "base")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("layers", [3, 10**9])
@pytest.mark.parametrize("kind", ["policy", "reward model", "backbone of a value model", "its own backbone"])
def test_layers_that_the_tensors_do_not_have_are_refused_at_once_with_both_numbers(tmp_path, kind, layers):
    value = tmp_path / "value"
    folder = value / "backbone" if kind == "its own backbone" else tmp_path / "base"
    load = {
        "policy": lambda: sia_jax.load_policy(folder),
        "reward model": lambda: sia_jax.load_reward_model(folder),
        "backbone of a value model": lambda: sia_jax.load_value_model(value, folder),
        "its own backbone": lambda: sia_jax.load_value_model(value),
    }[kind]
    save_tiny_value_model(value, save_tiny_policy(folder))
    if kind == "reward model":
        sia_jax.save_reward_model(tiny_reward_model(), folder)
    load()  # as it should be
    edit_json(folder / "config.json", num_hidden_layers=layers)
    start = time.monotonic()
    with refused(ValueError, folder, f"num_hidden_layers {layers}", "those of 2 layers"):
        load()
    assert time.monotonic() - start < 5


def test_adapter_without_a_base_is_told_to_be_merged(value):
    with refused(FileNotFoundError, "config.json", "this is a PEFT adapter", "merge it into its base"):
        sia_jax.load_policy(value / "lora_weights")
