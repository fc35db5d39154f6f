"""config.json of Qwen3 and Llama-3 checkpoints, in the three spellings that transformers has used.

transformers up to 4.55 writes `torch_dtype`, `rope_theta` and `rope_scaling`; later 4.x `dtype`; 5.x folds
the rope into `rope_parameters`. A reader that knows only its own spelling falls back to theta = 10000 without
a word; this one takes any of them, and raises where there is none.
"""

import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.models.config import Family, Llama3Scaling, ModelConfig, RopeConfig

ARCHITECTURES: dict[str, tuple[Family, str]] = {
    "Qwen3ForCausalLM": ("qwen3", "policy"),
    "LlamaForCausalLM": ("llama", "policy"),
    "Qwen3ForSequenceClassification": ("qwen3", "reward"),
    "LlamaForSequenceClassification": ("llama", "reward"),
}
"""Class named in `architectures` -> (family, what kind of model it is)."""

DTYPES = ("float32", "bfloat16", "float16")
"""What weights may be computed in."""

_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "rms_norm_eps",
    "max_position_embeddings",
)

# Keys that say nothing about what the network computes, or that are checked by name below.
_KNOWN = frozenset(_REQUIRED) | {
    *("architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path"),
    *("num_key_value_heads", "head_dim", "tie_word_embeddings", "initializer_range", "use_cache"),
    *("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id", "num_labels", "problem_type"),
    *("hidden_act", "attention_bias", "mlp_bias", "attention_dropout", "pretraining_tp"),
    *("sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "quantization_config"),
    *("output_attentions", "output_hidden_states", "return_dict", "chunk_size_feed_forward"),
    *("is_encoder_decoder", "is_decoder", "cross_attention_hidden_size", "add_cross_attention"),
    *("finetuning_task", "task_specific_params", "tokenizer_class", "prefix", "sep_token_id"),
    *("decoder_start_token_id", "tie_encoder_decoder", "torchscript", "pruned_heads", "classifier_dropout"),
}


@dataclass(frozen=True)
class CheckpointConfig:
    """What a checkpoint's config.json (and generation_config.json) says."""

    model: ModelConfig
    architecture: str
    kind: str
    """"policy" or "reward"."""
    dtype: str | None
    """The dtype named in the file: "bfloat16", "float32", ...; None if it names none."""


def read_config(folder: Path) -> CheckpointConfig:
    """Read config.json, and the stop ids of generation_config.json, of a checkpoint folder.

    Raises:
      FileNotFoundError: the folder has no config.json.
      ValueError: not JSON, an unknown architecture, missing sizes, no rope theta, or a field that changes
        the network in a way that is not supported. All problems of a file come in one report.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: a checkpoint folder needs a config.json")
    raw = read_json(path)
    generation_path = folder / "generation_config.json"
    generation = read_json(generation_path) if generation_path.is_file() else {}
    try:
        return parse_config(raw, generation)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_config(raw: dict[str, Any], generation: dict[str, Any] | None = None) -> CheckpointConfig:
    """`read_config` on parsed JSON."""
    named = raw.get("architectures") or []
    if not isinstance(named, list) or len(named) != 1 or named[0] not in list(ARCHITECTURES):
        raise ValueError(f"architectures {named} not supported, expected one of {sorted(ARCHITECTURES)}")
    architecture = named[0]
    family, kind = ARCHITECTURES[architecture]

    problems = [f"{key} is missing" for key in _REQUIRED if raw.get(key) is None]
    wrong = _wrong_values(raw)
    if wrong:  # what follows relies on the kinds of the values
        raise ValueError("; ".join(problems + wrong))
    if raw.get("model_type", family) != family:
        problems.append(f"model_type is {raw['model_type']!r}, expected {family!r}")
    if family == "qwen3" and raw.get("num_key_value_heads") is None:
        problems.append("num_key_value_heads is missing")
    problems += _unsupported(raw, family)
    rope, rope_problems = _parse_rope(raw)
    problems += rope_problems
    labels = raw.get("id2label")
    if kind == "reward" and labels is not None and len(labels) != 1:
        problems.append(f"id2label names {len(labels)} labels, a reward model has 1")
    if problems:
        raise ValueError("; ".join(problems))
    assert rope is not None
    unknown = sorted(
        key for key, value in raw.items() if key not in _KNOWN and value not in (None, False, [], {})
    )
    if unknown:
        warnings.warn(
            f"config.json has fields that are not known here and are not used: {unknown}", stacklevel=3
        )

    heads = raw["num_attention_heads"]
    head_dim = raw.get("head_dim") or (128 if family == "qwen3" else raw["hidden_size"] // heads)
    generation = generation or {}
    eos = [*_ids(generation.get("eos_token_id")), *_ids(raw.get("eos_token_id"))]
    model = ModelConfig(
        family=family,
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        rope=rope,
        rms_norm_eps=raw["rms_norm_eps"],
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        max_position_embeddings=raw["max_position_embeddings"],
        eos_token_ids=tuple(dict.fromkeys(eos)),
        bos_token_id=raw.get("bos_token_id"),
        pad_token_id=raw.get("pad_token_id"),
        initializer_range=raw.get("initializer_range", 0.02),
    )
    return CheckpointConfig(model, architecture, kind, raw.get("dtype") or raw.get("torch_dtype"))


def config_dict(config: ModelConfig, architecture: str, dtype: str) -> dict[str, Any]:
    """config.json for `config`, in the oldest spelling: every version of transformers reads it right.

    Args:
      config: the network.
      architecture: one of `ARCHITECTURES`, of the config's family.
      dtype: "float32", "bfloat16", ...
    """
    family, kind = ARCHITECTURES[architecture]
    if family != config.family:
        raise ValueError(f"architecture {architecture} is of family {family}, the config is {config.family}")
    scaling = config.rope.scaling
    raw: dict[str, Any] = {
        "architectures": [architecture],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": _id_or_list(config.eos_token_ids),
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "model_type": family,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "pad_token_id": config.pad_token_id,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_scaling": None if scaling is None else {"rope_type": "llama3", **vars(scaling)},
        "rope_theta": config.rope.theta,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }
    if family == "qwen3":
        raw |= {"sliding_window": None, "use_sliding_window": False, "max_window_layers": config.num_layers}
    if kind == "reward":
        raw |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return raw


def _parse_rope(raw: dict[str, Any]) -> tuple[RopeConfig | None, list[str]]:
    new, old = raw.get("rope_parameters") or {}, raw.get("rope_scaling") or {}
    differ = sorted(key for key in set(new) & set(old) if new[key] != old[key])
    if differ or (new and old and set(old) - set(new)):
        return None, [f"rope_scaling and rope_parameters disagree: {old} and {new}"]
    fields: dict[str, Any] = {**old, **new}
    thetas = {t for t in (raw.get("rope_theta"), fields.get("rope_theta")) if t is not None}
    if not thetas:
        return None, ["rope theta is missing: neither rope_parameters.rope_theta nor rope_theta is present"]
    if len(thetas) > 1:
        return None, [f"rope_theta and rope_parameters disagree: {sorted(thetas)}"]
    theta = thetas.pop()
    if not _is_positive(theta):
        return None, [f"rope theta is {theta!r}, expected a number above 0"]
    theta = float(theta)
    rope_type = fields.get("rope_type", fields.get("type", "default"))
    if rope_type == "default":
        return RopeConfig(theta), []
    if rope_type != "llama3":
        return None, [f"rope type {rope_type!r} is not supported, expected 'default' or 'llama3'"]
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    missing = [name for name in names if fields.get(name) is None]
    if missing:
        return None, [f"llama3 rope scaling lacks {missing}"]
    factor, low, high, context = (fields[name] for name in names)
    if not (all(map(_is_positive, (factor, low, high, context))) and factor >= 1 and low < high):
        impossible = {name: fields[name] for name in names}
        return None, [f"llama3 rope scaling has impossible values: {impossible}"]
    return RopeConfig(theta, Llama3Scaling(float(factor), float(low), float(high), int(context))), []


def _wrong_values(raw: dict[str, Any]) -> list[str]:
    """Fields that are there but are not of their kind."""
    counts = (*_REQUIRED, "num_key_value_heads", "head_dim")
    tests: list[tuple[Iterable[str], Callable[[Any], bool], str]] = [
        ((key for key in counts if key != "rms_norm_eps"), _is_count, "an integer above 0"),
        (("rms_norm_eps", "initializer_range"), _is_positive, "a number above 0"),
        (
            ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window"),
            _is_bool,
            "true or false",
        ),
        (("bos_token_id", "pad_token_id"), _is_id, "an id"),
        (("eos_token_id",), lambda value: all(map(_is_id, _ids(value))), "an id or a list of ids"),
        (("dtype", "torch_dtype"), lambda value: value in DTYPES, f"one of {DTYPES}"),
        (("layer_types",), lambda value: isinstance(value, list), "a list"),
        (("id2label", "rope_parameters", "rope_scaling"), lambda value: isinstance(value, dict), "an object"),
    ]
    return [
        f"{key} is {raw[key]!r}, expected {expected}"
        for keys, holds, expected in tests
        for key in keys
        if raw.get(key) is not None and not holds(raw[key])
    ]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _unsupported(raw: dict[str, Any], family: Family) -> list[str]:
    """Fields that would change what the network computes in a way that it does not implement."""
    sliding = bool(raw.get("use_sliding_window")) or (family == "llama" and raw.get("sliding_window"))
    layer_types = [kind for kind in raw.get("layer_types") or [] if kind != "full_attention"]
    rope = raw.get("rope_parameters") or {}
    partial = raw.get("partial_rotary_factor", rope.get("partial_rotary_factor"))
    experts = [key for key in raw if "expert" in key and raw[key]]
    tests = {
        "sliding window attention": sliding or layer_types,
        "attention_bias": raw.get("attention_bias"),
        "mlp_bias": raw.get("mlp_bias"),
        f"hidden_act {raw.get('hidden_act')!r} (only 'silu')": raw.get("hidden_act", "silu") != "silu",
        f"partial_rotary_factor {partial}": partial not in (None, 1),
        f"mixture of experts ({', '.join(experts)})": experts,
        "quantization_config (only unquantised weights)": raw.get("quantization_config"),
    }
    return [f"{name} is not supported" for name, present in tests.items() if present]


def _ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _id_or_list(ids: tuple[int, ...]) -> int | list[int] | None:
    return None if not ids else ids[0] if len(ids) == 1 else list(ids)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ValueError if it holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got a {type(value).__name__}")
    return value
