"""adapter_config.json: PEFT's plain LoRA, rsLoRA and patterns are read; what would change more is refused."""

import json

import pytest

from sia_jax.checkpoints.adapter_config import AdapterFile, read_adapter_config, write_adapter_config
from sia_jax.checkpoints.adapter_targets import Targets
from sia_jax.models.lora import LoraConfig

# As peft 0.21.2 saves LoraConfig(r=16, lora_alpha=32, lora_dropout=0.1, target_modules=[q, k, v, o]_proj).
SAVED = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": {"base_model_class": "Qwen3Model", "parent_library": "transformers"},
    "base_model_name_or_path": "Qwen/Qwen3-0.6B-Base",
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "kasa_config": None,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 32,
    "lora_bias": False,
    "lora_dropout": 0.1,
    "lora_ga_config": None,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "monteclora_config": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "r": 16,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["o_proj", "k_proj", "v_proj", "q_proj"],
    "target_parameters": None,
    "task_type": "FEATURE_EXTRACTION",
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
    "velora_config": None,
}
REQUIRED = ("peft_type", "r", "lora_alpha", "target_modules")


def read(folder, **changes):
    (folder / "adapter_config.json").write_text(json.dumps(SAVED | changes))
    return read_adapter_config(folder)


def refusal(folder, **changes):
    with pytest.raises(ValueError, match=r"adapter_config\.json: not a LoRA adapter") as error:
        read(folder, **changes)
    return str(error.value).splitlines()[1:]


def test_a_file_that_peft_saved_is_read(tmp_path):
    targets = Targets(names=("k_proj", "o_proj", "q_proj", "v_proj"))
    expected = AdapterFile(LoraConfig(), "Qwen/Qwen3-0.6B-Base", "FEATURE_EXTRACTION", targets)
    assert read(tmp_path) == expected
    assert read_adapter_config(str(tmp_path / "adapter_config.json")) == expected


def test_target_modules_come_in_the_order_of_the_network_whatever_that_of_the_file(tmp_path):
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert read(tmp_path, target_modules=list(reversed(names))).config.target_modules == names
    assert read(tmp_path, target_modules=["up_proj", "k_proj"]).config.target_modules == ("k_proj", "up_proj")
    assert read(tmp_path, target_modules="q_proj").config.target_modules == ("q_proj",)


def test_rslora_and_patterns_set_the_scale_of_each_module(tmp_path):
    ranks = {r"layers\.1\..*_proj": 4, "q_proj": 2}
    alphas = {"^model.layers.0.self_attn.k_proj": 8, "q_proj|v_proj": 16}
    config = read(tmp_path, use_rslora=True, rank_pattern=ranks, alpha_pattern=alphas).config
    assert config.rank_pattern == tuple(ranks.items())
    assert config.alpha_pattern == tuple(alphas.items())
    expected = {
        "layers.0.self_attn.q_proj": 16 / 2**0.5,
        "layers.0.self_attn.k_proj": 8 / 16**0.5,
        "layers.0.self_attn.v_proj": 16 / 16**0.5,
        "layers.0.self_attn.o_proj": 32 / 16**0.5,
        "layers.1.self_attn.q_proj": 16 / 4**0.5,
        "layers.1.self_attn.k_proj": 32 / 4**0.5,
    }
    assert {path: config.scale(path) for path in expected} == pytest.approx(expected)


def test_the_order_of_patterns_is_that_of_the_file(tmp_path):
    config = read(tmp_path, rank_pattern={"v_proj": 1, "q_proj": 2, ".*_proj": 3}).config
    assert [key for key, _ in config.rank_pattern] == ["v_proj", "q_proj", ".*_proj"]


@pytest.mark.parametrize(
    "changes",
    [
        {"inference_mode": False, "revision": "main", "peft_version": "0.17.1", "megatron_core": "other"},
        {"layers_to_transform": [0, 2]},
        {"layers_to_transform": 3, "layers_pattern": "layers"},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"rank_pattern": None, "alpha_pattern": None},
        {"a_later_field": None, "another": False, "more": {}, "still": [], "text": ""},
    ],
)
def test_fields_that_change_nothing_are_accepted(tmp_path, changes):
    assert read(tmp_path, **changes).config == LoraConfig()


def test_a_file_with_the_required_fields_alone_has_pefts_defaults(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({name: SAVED[name] for name in REQUIRED}))
    targets = Targets(names=("k_proj", "o_proj", "q_proj", "v_proj"))
    assert read_adapter_config(tmp_path) == AdapterFile(LoraConfig(dropout=0.0), None, None, targets)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_dora", True),
        ("lora_bias", True),
        ("bias", "all"),
        ("bias", "lora_only"),
        ("fan_in_fan_out", True),
        ("modules_to_save", ["classifier", "score"]),
        ("layers_pattern", "blocks"),
        ("peft_type", "LOHA"),
        ("peft_type", None),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "eva"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "lora_ga"),
        ("init_lora_weights", "orthogonal"),
        ("init_lora_weights", None),
        ("loftq_config", {"loftq_bits": 4}),
        ("eva_config", {"rho": 2.0}),
        ("corda_config", {"corda_method": "kpm"}),
        ("target_parameters", ["experts.weight"]),
        ("trainable_token_indices", [0]),
        ("layer_replication", [[0, 2]]),
        ("exclude_modules", ["layers.0.self_attn.q_proj"]),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("alora_invocation_tokens", [1]),
        ("arrow_config", {"top_k": 3}),
        ("kasa_config", {"beta": 1e-4}),
        ("velora_config", {"group": 1}),
        ("monteclora_config", {"samples": 8}),
        ("ensure_weight_tying", True),
        ("megatron_config", {"layers": 1}),
        ("a_later_field", "value"),
        ("a_later_count", 0),
        ("r", 0),
        ("r", -4),
        ("r", 16.0),
        ("r", True),
        ("lora_alpha", "32"),
        ("lora_alpha", True),
        ("lora_dropout", 1.0),
        ("lora_dropout", None),
        ("use_rslora", "yes"),
        ("rank_pattern", {"q_proj": 2.5}),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", ["q_proj"]),
        ("rank_pattern", {"(q_proj": 2}),
        ("alpha_pattern", {"q_proj": None}),
        ("alpha_pattern", {"[": 2}),
        ("target_modules", None),
        ("target_modules", []),
        ("target_modules", ["lm_head"]),
        ("target_modules", ["q_proj", "embed_tokens"]),
        ("target_modules", ["q_proj", 3]),
        ("target_modules", "everything"),
        ("target_modules", {"q_proj": 1}),
        ("layers_to_transform", [0, -1]),
        ("layers_to_transform", "0"),
        ("base_model_name_or_path", 3),
        ("task_type", ["CAUSAL_LM"]),
    ],
)
def test_what_would_change_the_network_otherwise_is_refused_by_name(tmp_path, name, value):
    problems = refusal(tmp_path, **{name: value})
    assert len(problems) == 1
    assert problems[0].startswith(f"  {name} is ")


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_required_field_is_named(tmp_path, name):
    raw = {key: value for key, value in SAVED.items() if key != name}
    (tmp_path / "adapter_config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=f"{name} is missing"):
        read_adapter_config(tmp_path)


def test_all_problems_come_in_one_report(tmp_path):
    changes = {
        "use_dora": True,
        "bias": "all",
        "r": 0,
        "target_modules": ["lm_head"],
        "later": [1],
        "lora_alpha": None,
    }
    problems = refusal(tmp_path, **changes)
    assert sorted(problem.split()[0] for problem in problems) == sorted(changes)


def test_a_missing_file_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json: a PEFT adapter needs"):
        read_adapter_config(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", ".*not JSON"),
        (b"\xff\xfe", ".*UTF-16"),
        (b"[]", ".*expected an object .*got a list"),
        (b"", " is empty"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content, message):
    (tmp_path / "adapter_config.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"adapter_config\.json{message}"):
        read_adapter_config(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(),
        LoraConfig(rank=8, alpha=12.5, dropout=0.0, target_modules=("q_proj", "down_proj"), use_rslora=True),
        LoraConfig(
            rank_pattern=(("q_proj", 2), (".*", 3)), alpha_pattern=((r"layers\.0\..*", 1.0), ("v_proj", 0.5))
        ),
    ],
)
@pytest.mark.parametrize("task_type", ["FEATURE_EXTRACTION", "CAUSAL_LM"])
def test_what_is_written_is_read_back(tmp_path, config, task_type):
    write_adapter_config(tmp_path, config, "base", task_type)
    targets = Targets(names=tuple(sorted(config.target_modules)))
    assert read_adapter_config(tmp_path) == AdapterFile(config, "base", task_type, targets)


def test_whole_alphas_are_written_as_integers(tmp_path):
    write_adapter_config(tmp_path / "named.json", LoraConfig(alpha_pattern=(("q_proj", 8.0),)), "base")
    text = (tmp_path / "named.json").read_text()
    assert '"lora_alpha": 32,' in text
    assert '"q_proj": 8\n' in text


@pytest.mark.parametrize(
    ("config", "task_type", "message"),
    [
        (LoraConfig(), "SEQ_CLS", "task_type is 'SEQ_CLS', expected one of .* come with a head"),
        (LoraConfig(target_modules=("lm_head",)), "CAUSAL_LM", "target_modules is"),
        (LoraConfig(rank=True, use_rslora=1), "CAUSAL_LM", "(?s)r is True.*use_rslora is 1"),
        (LoraConfig(rank_pattern=(("q_proj", 1), ("q_proj", 2))), "CAUSAL_LM", "has a key twice"),
        (LoraConfig(alpha_pattern=(("(", 1.0),)), "CAUSAL_LM", "alpha_pattern is"),
    ],
)
def test_a_config_that_would_not_be_read_back_is_not_written(tmp_path, config, task_type, message):
    with pytest.raises(ValueError, match=message):
        write_adapter_config(tmp_path, config, "base", task_type)
    assert list(tmp_path.iterdir()) == []
