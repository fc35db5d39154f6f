"""adapter_config.json of PEFT LoRA.

PEFT's LoRA has some forty fields. The few that say which projections change, and by how much, become a
`LoraConfig`; those that only describe training or the file are accepted; whatever else is set would change
what the network computes, and is refused.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.checkpoints.config_json import read_json
from sia_jax.files.writing import write_text
from sia_jax.models.lora import ATTENTION_PROJECTIONS, MLP_PROJECTIONS, LoraConfig

_FILE_NAME = "adapter_config.json"
TASK_TYPES = ("FEATURE_EXTRACTION", "CAUSAL_LM")
"""The task types under which PEFT saves LoRA matrices alone; the others come with a head."""

_PROJECTIONS = ATTENTION_PROJECTIONS + MLP_PROJECTIONS

# Whatever their value, they do not change what the network computes: they describe the file, or have effect
# only with a field that is refused.
_INERT = {
    *("auto_mapping", "inference_mode", "peft_version", "revision"),
    *("megatron_core", "qalora_group_size"),
}

_REMEDIES = {
    "use_dora": "its magnitudes are not computed here: merge_and_unload() it with peft, and load the result",
    "lora_bias": "only the matrices A and B are read: merge_and_unload() it with peft, and load the result",
    "modules_to_save": "only LoRA matrices are read: save the adapter with task_type FEATURE_EXTRACTION",
    "fan_in_fan_out": "the projections of Qwen3 and Llama are [out, in]: set it to false",
    "exclude_modules": "list the adapted projections in target_modules, without exceptions",
    "layers_pattern": "the layers are known from the names of the tensors: remove it",
}


@dataclass(frozen=True)
class AdapterFile:
    """What an adapter_config.json says."""

    config: LoraConfig
    base_model: str | None
    """Name or path of the model that the adapter was trained on."""
    task_type: str | None
    """PEFT's task type, such as "FEATURE_EXTRACTION" or "CAUSAL_LM"."""
    layers: tuple[int, ...] | None = None
    """The layers that it adapts; None: all of the base's."""


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
    if not path.is_file():
        raise FileNotFoundError(f"{path}: a PEFT adapter needs an {_FILE_NAME}")
    raw = read_json(path)
    problems = _problems(raw)
    if problems:
        raise ValueError(f"{path}: not a LoRA adapter that can be used here\n  " + "\n  ".join(problems))
    targets = _listed(raw["target_modules"])
    config = LoraConfig(
        rank=raw["r"],
        alpha=float(raw["lora_alpha"]),
        target_modules=tuple(name for name in _PROJECTIONS if name in targets),
        dropout=float(raw.get("lora_dropout", 0.0)),
        use_rslora=raw.get("use_rslora", False),
        rank_pattern=tuple((raw.get("rank_pattern") or {}).items()),
        alpha_pattern=tuple((key, float(alpha)) for key, alpha in (raw.get("alpha_pattern") or {}).items()),
    )
    layers = raw.get("layers_to_transform")
    return AdapterFile(
        config,
        base_model=raw.get("base_model_name_or_path"),
        task_type=raw.get("task_type"),
        layers=None if layers is None else tuple(_listed(layers)),
    )


def write_adapter_config(
    path: str | Path,
    config: LoraConfig,
    base_model_name_or_path: str,
    task_type: str = "FEATURE_EXTRACTION",
    layers: Sequence[int] | None = None,
) -> None:
    """Write an adapter_config.json that `peft.LoraConfig.from_pretrained` reads.

    Args:
      path: of the file, or of the adapter's folder, which exists.
      config: of the adapter.
      base_model_name_or_path: the model that it was trained on.
      task_type: one of `TASK_TYPES`.
      layers: those that are adapted; None: all of the base's.

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
        "target_modules": list(config.target_modules),
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
            problems.append(f"{name} is {raw[name]!r}, expected {expected}")
    for name in sorted(set(raw) - set(_EXPECTED) - _INERT):
        # Identity for false, because 0 equals it.
        if not (raw[name] is None or raw[name] is False or raw[name] in ("", [], {})):
            remedy = _REMEDIES.get(name, "train the adapter without it, or merge it with peft")
            problems.append(f"{name} is {raw[name]!r}, which is not supported; {remedy}")
    return problems


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_name(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _are_projections(value: Any) -> bool:
    return value != [] and all(name in _PROJECTIONS for name in _listed(value))


def _are_patterns(value: Any, holds: Callable[[Any], bool]) -> bool:
    if not isinstance(value, dict):
        return value is None
    try:
        for key in value:
            re.compile(rf"(.*\.)?({key})")  # as PEFT completes it
    except re.error:
        return False
    # A file from elsewhere must not make matching take for ever: few repetitions, and none of a group.
    if any(len(re.findall(r"[*+{]", key)) > 3 or re.search(r"\)[*+{]", key) for key in value):
        return False
    return all(holds(entry) for entry in value.values())


def _listed(targets: Any) -> list[Any]:
    return targets if isinstance(targets, list) else [targets]


def _whole(number: float) -> float:
    """`number` as PEFT writes it: without a point where it is whole."""
    return int(number) if float(number).is_integer() else number


_PATTERNS = "regular expressions with at most 3 repetitions and none of a group"

_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "peft_type": (lambda value: value == "LORA", "'LORA': other methods are not supported"),
    "base_model_name_or_path": (_is_name, "a string or null"),
    "task_type": (_is_name, "a string or null"),
    "r": (_is_rank, "an integer above 0"),
    "lora_alpha": (_is_number, "a finite number"),
    "lora_dropout": (lambda value: _is_number(value) and 0 <= value < 1, "a number in [0, 1)"),
    "use_rslora": (lambda value: isinstance(value, bool), "true or false"),
    "target_modules": (_are_projections, f"a list out of {', '.join(_PROJECTIONS)}: name the adapted ones"),
    "rank_pattern": (lambda value: _are_patterns(value, _is_rank), f"{_PATTERNS}: integers above 0"),
    "alpha_pattern": (lambda value: _are_patterns(value, _is_number), f"{_PATTERNS}: finite numbers"),
    "layers_to_transform": (
        lambda value: value is None or all(_is_index(layer) for layer in _listed(value)),
        "null, a layer or a list of layers",
    ),
    "bias": (lambda value: value == "none", "'none': biases of the base are not read from an adapter"),
    "init_lora_weights": (
        lambda value: isinstance(value, bool) or value == "gaussian",
        "true, false or 'gaussian': other methods may change the base weights; save the adapter with PEFT's "
        "path_initial_model_for_weight_conversion, or merge it there",
    ),
}
"""Field -> (what its value must satisfy where it is present, the same in words)."""
