"""config.json of Qwen3 and Llama-3 checkpoints, in the three spellings that transformers has used.

transformers up to 4.55 writes `torch_dtype`, `rope_theta` and `rope_scaling`; later 4.x `dtype`; 5.x folds
the rope into `rope_parameters`. A reader that knows only its own spelling falls back to theta = 10000 without
a word; this one takes any of them, and raises where there is none.
"""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sia_jax.checkpoints import rope_fields
from sia_jax.checkpoints.files import is_there, read_json
from sia_jax.checkpoints.values import (
    Kinds,
    as_list,
    is_bool,
    is_count,
    is_integer,
    is_number,
    is_object,
    is_positive,
    is_set,
    wrong_values,
)
from sia_jax.files.shown import shown_value
from sia_jax.models.config import Family, ModelConfig

ARCHITECTURES: dict[str, tuple[Family, str]] = {
    "Qwen3ForCausalLM": ("qwen3", "policy"),
    "LlamaForCausalLM": ("llama", "policy"),
    "Qwen3ForSequenceClassification": ("qwen3", "reward"),
    "LlamaForSequenceClassification": ("llama", "reward"),
}
"""Class named in `architectures` -> (family, what kind of model it is)."""

CONFIG = "config.json"
GENERATION = "generation_config.json"

DTYPES = ("float32", "bfloat16", "float16")
"""What weights may be computed in."""

_NO_ID = -1
"""What some files have for the id of a special token that the model lacks."""

_UNFOLLOWED = (
    *("bad_words_ids", "begin_suppress_tokens", "force_words_ids", "forced_bos_token_id"),
    *("forced_eos_token_id", "sequence_bias", "stop_strings", "suppress_tokens"),
)
"""Of generation_config.json: what ends replies, forces tokens or keeps them out, and is not done here."""

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
_KNOWN = (
    frozenset(_REQUIRED)
    | rope_fields.AT_TOP
    | {
        *("architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path"),
        *("num_key_value_heads", "head_dim", "tie_word_embeddings", "initializer_range", "use_cache"),
        *(
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
            "id2label",
            "label2id",
            "num_labels",
            "problem_type",
        ),
        *("hidden_act", "attention_bias", "mlp_bias", "attention_dropout", "pretraining_tp"),
        *("sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "quantization_config"),
        *("output_attentions", "output_hidden_states", "return_dict", "chunk_size_feed_forward"),
        *("is_encoder_decoder", "is_decoder", "cross_attention_hidden_size", "add_cross_attention"),
        *("finetuning_task", "task_specific_params", "tokenizer_class", "prefix", "sep_token_id"),
        *(
            "decoder_start_token_id",
            "tie_encoder_decoder",
            "torchscript",
            "pruned_heads",
            "classifier_dropout",
        ),
    }
)


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

    Fields of either that are set and not followed are a warning.

    Raises:
      FileNotFoundError: the folder has no config.json.
      ValueError: not JSON, an unknown architecture, missing sizes, no rope theta, ids that are none of the
        vocabulary, or a field that changes the network in a way that is not supported. All problems of a file
        come in one report.
    """
    path, generation_path = folder / CONFIG, folder / GENERATION
    if not is_there(path):
        raise FileNotFoundError(f"{path}: a checkpoint folder needs a config.json{_what_it_is(folder)}")
    raw = read_json(path)
    generation = read_json(generation_path) if is_there(generation_path) else {}
    try:
        checkpoint = parse_config(raw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    problems = _wrong_ids(generation, checkpoint.model.vocab_size)
    if problems:
        raise ValueError(f"{generation_path}: " + "; ".join(problems))
    unfollowed = [name for name in _UNFOLLOWED if is_set(generation.get(name))]
    if unfollowed:
        stops = "; the programs take stop strings as --stop" if "stop_strings" in unfollowed else ""
        warnings.warn(
            f"generation_config.json has fields that are not followed here: {shown_value(unfollowed)}{stops}",
            stacklevel=2,
        )
    return _with_stops(checkpoint, generation)


def parse_config(raw: dict[str, Any]) -> CheckpointConfig:
    """`read_config` on the parsed config.json alone."""
    named = raw.get("architectures") or []
    if not isinstance(named, list) or len(named) != 1 or named[0] not in list(ARCHITECTURES):
        raise ValueError(
            f"architectures {shown_value(named)} not supported, expected one of {sorted(ARCHITECTURES)}"
        )
    architecture = named[0]
    family, kind = ARCHITECTURES[architecture]

    problems = [f"{key} is missing" for key in _REQUIRED if raw.get(key) is None]
    wrong = _wrong_values(raw)
    rope, rope_problems = rope_fields.parse_rope(raw)
    if wrong:  # what follows relies on the kinds of the values
        raise ValueError("; ".join(problems + wrong + rope_problems))
    if raw.get("model_type", family) != family:
        problems.append(f"model_type is {shown_value(raw['model_type'])}, expected {family!r}")
    if family == "qwen3" and raw.get("num_key_value_heads") is None:
        problems.append("num_key_value_heads is missing")
    problems += _unsupported(raw, family)
    problems += rope_problems
    problems += _wrong_ids(raw, raw.get("vocab_size"))
    labels = raw.get("id2label")
    if kind == "reward" and labels is not None and len(labels) != 1:
        problems.append(f"id2label names {len(labels)} labels, a reward model has 1")
    kinds = raw.get("layer_types")
    if kinds and raw.get("num_hidden_layers") not in (None, len(kinds)):
        problems.append(
            f"layer_types has {len(kinds)} entries, num_hidden_layers is {raw['num_hidden_layers']}"
        )
    if problems:
        raise ValueError("; ".join(problems))
    assert rope is not None
    unknown = sorted(
        key for key, value in raw.items() if key not in _KNOWN and value not in (None, False, [], {})
    )
    if unknown:
        warnings.warn(
            "config.json has fields that are not known here and are not used: " + shown_value(unknown),
            stacklevel=3,
        )

    heads = raw["num_attention_heads"]
    head_dim = raw.get("head_dim") or (128 if family == "qwen3" else raw["hidden_size"] // heads)
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
        eos_token_ids=_ids(raw.get("eos_token_id")),
        bos_token_id=_id(raw.get("bos_token_id")),
        pad_token_id=_id(raw.get("pad_token_id")),
        initializer_range=0.02 if raw.get("initializer_range") is None else raw["initializer_range"],
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


def _wrong_values(raw: dict[str, Any]) -> list[str]:
    """Fields that are there but are not of their kind."""
    counts = (*_REQUIRED, "num_key_value_heads", "head_dim")
    flags = ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window")
    kinds: Kinds = [
        ((key for key in counts if key != "rms_norm_eps"), is_count, "an integer above 0"),
        (("rms_norm_eps",), is_positive, "a number above 0"),
        (("initializer_range",), lambda value: is_number(value) and value >= 0, "a number from 0"),
        (flags, is_bool, "true or false"),
        (("dtype", "torch_dtype"), lambda value: value in DTYPES, f"one of {DTYPES}"),
        (("layer_types",), lambda value: isinstance(value, list), "a list"),
        (("id2label",), is_object, "an object"),
    ]
    return wrong_values(raw, kinds)


def _wrong_ids(raw: dict[str, Any], vocab_size: int | None) -> list[str]:
    """Ids of special tokens that are none; `vocab_size` is None where config.json lacks it.

    -1 says "none", as transformers' older files do. transformers takes other ids without a row in the
    embedding too; a stop id among them would never end a reply.
    """
    problems = []
    for key in ("eos_token_id", "bos_token_id", "pad_token_id"):
        value = raw.get(key)
        several = key == "eos_token_id" and isinstance(value, list)
        entries: list[Any] = as_list(value) if several else [value]
        expected = "an id or a list of ids" if key == "eos_token_id" else "an id"
        if vocab_size is not None:
            expected += f" in 0 .. {vocab_size - 1} (the vocabulary)"
        for entry in entries:
            absent = entry is None or (is_integer(entry) and entry == _NO_ID)
            if absent and not several:
                continue
            if not is_integer(entry) or entry < 0 or (vocab_size is not None and entry >= vocab_size):
                problems.append(
                    f"{key} is {shown_value(value)}, expected {expected}, or null for none; copy the file "
                    "from the original checkpoint, or correct the field"
                )
                break
    return problems


def _with_stops(checkpoint: CheckpointConfig, generation: dict[str, Any]) -> CheckpointConfig:
    """The stop ids of generation_config.json, which come first, and those of config.json."""
    stops = (*_ids(generation.get("eos_token_id")), *checkpoint.model.eos_token_ids)
    model = replace(checkpoint.model, eos_token_ids=tuple(dict.fromkeys(stops)))
    return replace(checkpoint, model=model)


def _what_it_is(folder: Path) -> str:
    """What a folder without a config.json is instead, where that can be told."""
    if is_there(folder / "adapter_config.json"):
        return (
            "; this is a PEFT adapter: merge it into its base (merge_and_unload() of peft, then "
            "save_pretrained), and load the result"
        )
    inner = sorted(path.parent.name for path in folder.glob("*/config.json"))
    return f"; it holds {inner[:5]}: name one of them, {folder / inner[0]}" if inner else ""


def _unsupported(raw: dict[str, Any], family: Family) -> list[str]:
    """Fields that would change what the network computes in a way that it does not implement."""
    sliding = bool(raw.get("use_sliding_window")) or (family == "llama" and raw.get("sliding_window"))
    other_layers = [kind for kind in raw.get("layer_types") or [] if kind != "full_attention"]
    experts = [key for key in raw if "expert" in key and raw[key]]
    act = raw.get("hidden_act", "silu")
    tests = {
        "sliding window attention (use_sliding_window, sliding_window)": sliding,
        f"layer_types {shown_value(other_layers)}: sliding window attention": other_layers,
        "attention_bias": raw.get("attention_bias"),
        "mlp_bias": raw.get("mlp_bias"),
        f"hidden_act {shown_value(act)} (only 'silu')": act != "silu",
        f"mixture of experts ({shown_value(experts)})": experts,
        "quantization_config (only unquantised weights)": raw.get("quantization_config"),
    }
    return [f"{name} is not supported" for name, present in tests.items() if present]


def _ids(value: int | list[int] | None) -> tuple[int, ...]:
    return tuple(dict.fromkeys(entry for entry in as_list(value) if entry != _NO_ID))


def _id(value: int | None) -> int | None:
    return None if value == _NO_ID else value


def _id_or_list(ids: tuple[int, ...]) -> int | list[int] | None:
    return None if not ids else ids[0] if len(ids) == 1 else list(ids)
