"""adapter_config.json of PEFT LoRA.

PEFT's LoRA has some forty fields. The few that say which projections change, and by how much, become a
`LoraConfig`; those that only describe training or the file are accepted; whatever else is set would change
what the network computes, and is refused.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.checkpoints.adapter_targets import Targets, are_layer_names, are_layers, target_problems
from sia_jax.checkpoints.files import is_there, read_json
from sia_jax.checkpoints.values import (
    as_list,
    is_bool,
    is_count,
    is_number,
    is_set,
)
from sia_jax.files.shown import shown_value
from sia_jax.files.writing import write_text
from sia_jax.models.lora import LoraConfig
from sia_jax.models.patterns import check_pattern, check_patterns

_FILE_NAME = "adapter_config.json"
_FILES = (_FILE_NAME, "adapter_model.safetensors", "adapter_model.bin")
MERGE = (
    "merge_and_unload() it with peft, save_pretrained() the result as backbone/ of the value model, remove "
    "lora_weights/, and load the value model"
)
"""What to do with an adapter that is not computed here."""
TASK_TYPES = ("FEATURE_EXTRACTION", "CAUSAL_LM")
"""The task types under which PEFT saves LoRA matrices alone; the others come with a head."""

# Whatever their value, they do not change what the network computes: they describe the file, or have effect
# only with a field that is refused.
_INERT = {
    *("auto_mapping", "inference_mode", "peft_version", "revision"),
    *("megatron_core", "qalora_group_size"),
}

_REMEDIES = {
    "use_dora": f"its magnitudes are not computed here: {MERGE}",
    "lora_bias": "the projections of Qwen3 and Llama have no bias to take it: train the adapter without it",
    "fan_in_fan_out": "the projections of Qwen3 and Llama are [out, in]: set it to false",
    "exclude_modules": f"list the adapted projections in target_modules, without exceptions, or {MERGE}",
}


@dataclass(frozen=True)
class AdapterFile:
    """What an adapter_config.json says."""

    config: LoraConfig
    base_model: str | None
    """Name or path of the model that the adapter was trained on."""
    task_type: str | None
    """PEFT's task type, such as "FEATURE_EXTRACTION" or "CAUSAL_LM"."""
    targets: Targets
    """Which modules it adapts; `config.target_modules` are the kinds of projections that they may be of."""


def read_adapter_config(path: str | Path) -> AdapterFile:
    """Read adapter_config.json.

    Args:
      path: of the file, or of the adapter's folder.

    Returns:
      The config, its target modules in the order of the network (PEFT writes a set, in any order) and its
      patterns in that of the file (the first that matches counts); and what the file says of the base model.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: not JSON, not LoRA, a missing or impossible value, or a variant that is not supported; all
        problems of the file come in one report.
    """
    path = Path(path)
    path = path / _FILE_NAME if path.is_dir() else path
    if not is_there(path):
        raise FileNotFoundError(f"{path}: a PEFT adapter needs an {_FILE_NAME}")
    raw = read_json(path)
    problems = _problems(raw)
    if problems:
        raise ValueError(f"{path}: not a LoRA adapter that can be used here\n  " + "\n  ".join(problems))
    targets = Targets.of(raw)
    config = LoraConfig(
        rank=raw["r"],
        alpha=float(raw["lora_alpha"]),
        target_modules=targets.kinds,
        dropout=float(raw.get("lora_dropout", 0.0)),
        use_rslora=raw.get("use_rslora", False),
        rank_pattern=tuple((raw.get("rank_pattern") or {}).items()),
        alpha_pattern=tuple((key, float(alpha)) for key, alpha in (raw.get("alpha_pattern") or {}).items()),
    )
    return AdapterFile(config, raw.get("base_model_name_or_path"), raw.get("task_type"), targets)


def check_no_adapter(folder: Path, remedy: str) -> None:
    """The folder of a model that is loaded without an adapter has none, which would be left out unsaid.

    Args:
      folder: of the model.
      remedy: what to do with an adapter that stands there.

    Raises:
      ValueError: files of an adapter stand in it, and which.
    """
    found = [name for name in _FILES if is_there(folder / name)]
    if found:
        raise ValueError(
            f"{folder}: {' and '.join(found)} {'stand' if found[1:] else 'stands'} beside the model, and no "
            f"adapter is read there; {remedy}"
        )


def write_adapter_config(
    path: str | Path,
    config: LoraConfig,
    base_model_name_or_path: str,
    task_type: str = "FEATURE_EXTRACTION",
    layers: Sequence[int] | None = None,
    modules: Sequence[str] | None = None,
) -> None:
    """Write an adapter_config.json that `peft.LoraConfig.from_pretrained` reads.

    Args:
      path: of the file, or of the adapter's folder, which exists.
      config: of the adapter.
      base_model_name_or_path: the model that it was trained on.
      task_type: one of `TASK_TYPES`.
      layers: those that are adapted; None: all of the base's.
      modules: the paths of the adapted modules, where they are not all of some kinds in all of some layers.

    Raises:
      ValueError: `config` has a value that `read_adapter_config` refuses, or a pattern twice, or `task_type`
        is another; no file is written then.
    """
    path = Path(path)
    path = path / _FILE_NAME if path.is_dir() else path
    raw = {
        "alpha_pattern": {key: _whole(alpha) for key, alpha in config.alpha_pattern},
        "auto_mapping": None,
        "base_model_name_or_path": base_model_name_or_path,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None if layers is None else list(layers),
        "lora_alpha": _whole(config.alpha),
        "lora_dropout": config.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": dict(config.rank_pattern),
        "revision": None,
        "target_modules": list(config.target_modules if modules is None else modules),
        "task_type": task_type,
        "use_dora": False,
        "use_rslora": config.use_rslora,
    }
    problems = _problems(raw)
    for pattern in (config.rank_pattern, config.alpha_pattern):
        if len(dict(pattern)) < len(pattern):
            problems.append(f"{pattern} has a key twice, expected once; the first counts")
    if task_type not in TASK_TYPES:
        problems.append(
            f"task_type is {task_type!r}, expected one of {TASK_TYPES}: the others come with a head"
        )
    if problems:
        raise ValueError(f"{path}: not written\n  " + "\n  ".join(problems))
    write_text(path, json.dumps(raw, indent=2) + "\n")


def _problems(raw: dict[str, Any]) -> list[str]:
    """What in a parsed file is missing, impossible or not supported, one line each."""
    missing = [name for name in ("peft_type", "r", "lora_alpha", "target_modules") if raw.get(name) is None]
    problems = [f"{name} is missing; a file that PEFT wrote has it" for name in missing]
    for name, (holds, expected) in _EXPECTED.items():
        if name in raw and name not in missing and not holds(raw[name]):
            problems.append(f"{name} is {shown_value(raw[name])}, expected {expected}")
    if "target_modules" not in missing:
        problems += target_problems(raw)
    for name in ("rank_pattern", "alpha_pattern"):
        problems += _wrong_patterns(name, raw.get(name))
    for name in sorted(set(raw) - set(_EXPECTED) - _INERT - {"target_modules"}):
        if is_set(raw[name]):
            remedy = _REMEDIES.get(name, f"train the adapter without it, or {MERGE}")
            shown = shown_value(name)[1:-1]
            problems.append(f"{shown} is {shown_value(raw[name])}, which is not supported; {remedy}")
    return problems


def _is_name(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _are_patterns(value: Any, holds: Callable[[Any], bool]) -> bool:
    return value is None or (isinstance(value, dict) and all(holds(entry) for entry in value.values()))


def _wrong_patterns(name: str, value: Any) -> list[str]:
    """What keeps the keys of rank_pattern or alpha_pattern from being matched."""
    problems = []
    for key in value if isinstance(value, dict) else ():
        try:
            check_pattern(key)
        except ValueError as error:
            problems.append(
                f"{name} is keyed by {shown_value(key)}, which cannot be matched here: {error}; write the "
                f"paths of the modules, or {MERGE}"
            )
    if isinstance(value, dict) and not problems:
        try:
            check_patterns(value)
        except ValueError as error:
            problems.append(f"{name} has {len(value):,} keys: {error}; write the paths of the modules")
    return problems[:10]


def _whole(number: float) -> float:
    """`number` as PEFT writes it: without a point where it is whole."""
    return int(number) if float(number).is_integer() else number


_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "peft_type": (lambda value: value == "LORA", "'LORA': other methods are not supported"),
    "base_model_name_or_path": (_is_name, "a string or null"),
    "task_type": (_is_name, "a string or null"),
    "r": (is_count, "an integer above 0"),
    "lora_alpha": (is_number, "a finite number"),
    "lora_dropout": (lambda value: is_number(value) and 0 <= value < 1, "a number in [0, 1)"),
    "use_rslora": (is_bool, "true or false"),
    "rank_pattern": (lambda value: _are_patterns(value, is_count), "patterns with integers above 0"),
    "alpha_pattern": (lambda value: _are_patterns(value, is_number), "patterns with finite numbers"),
    "layers_to_transform": (are_layers, "null, a layer or a list of layers"),
    "layers_pattern": (are_layer_names, "null, or what holds the layers of Qwen3 and Llama: 'layers'"),
    "modules_to_save": (
        lambda value: all(name in ("embed_tokens", "lm_head") for name in as_list(value)),
        "null, or embed_tokens and lm_head where they were not trained: other modules are not read; "
        "save the adapter with task_type FEATURE_EXTRACTION",
    ),
    "bias": (lambda value: value == "none", "'none': biases of the base are not read from an adapter"),
    "init_lora_weights": (
        lambda value: isinstance(value, bool) or value == "gaussian",
        "true, false or 'gaussian': other methods may change the base weights; save the adapter with PEFT's "
        "path_initial_model_for_weight_conversion, or merge it there",
    ),
}
"""Field -> (what its value must satisfy where it is present, the same in words)."""
