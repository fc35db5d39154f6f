"""LoRA adapters in PEFT's files: adapter_config.json and adapter_model.safetensors."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
from jax.sharding import Mesh

from sia_jax.checkpoints.adapter_config import AdapterFile, read_adapter_config, write_adapter_config
from sia_jax.checkpoints.tensors import (
    TensorFile,
    check_tensors,
    open_file,
    place_tensors,
    save_file_atomically,
)
from sia_jax.models.config import ModelConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.models.transformer import abstract_model
from sia_jax.types import Params, flatten_names

_PREFIX = "base_model.model."


def load_adapter(
    folder: Path, config: ModelConfig, mesh: Mesh | None = None
) -> tuple[LoraConfig, Params, str | None]:
    """Read an adapter for a backbone.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      config: the backbone that it is for.
      mesh: shard it by the partition rules; None: the default device.

    Returns:
      (its config, its tree in float32, the name of the base that its config gives or None).

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a variant that is not supported, or tensors that do not fit the config or the backbone: all
        of them in one report.
    """
    adapter = read_adapter_config(folder)
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file() and (folder / "adapter_model.bin").is_file():
        raise FileNotFoundError(
            f"{folder}: adapter_model.bin is a pickle; save the adapter as safetensors with peft"
        )
    file = _strip_prefix(open_file(weights), adapter.config)
    _check(file, adapter, config)
    lora = place_tensors(file, file.slices, jnp.float32, mesh)
    return adapter.config, lora, adapter.base_model


def save_adapter(folder: Path, lora: Params, config: LoraConfig, base_model: str, num_layers: int) -> None:
    """Write an adapter as PEFT does: both files, keys under "base_model.model.model." as for a ForCausalLM.

    Args:
      folder: made if need be.
      lora: the adapter's tree.
      config: its config.
      base_model: name or path of the base, for `base_model_name_or_path`.
      num_layers: of the base; an adapter on fewer says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{_PREFIX}model.{name}": leaf for name, leaf in flatten_names(lora).items()}
    save_file_atomically(folder / "adapter_model.safetensors", tensors)
    layers = sorted(lora.get("layers", {}))
    write_adapter_config(folder, config, base_model, layers=layers if len(layers) < num_layers else None)


def _strip_prefix(file: TensorFile, config: LoraConfig) -> TensorFile:
    """Names as the backbone has them, without PEFT's "base_model.model." and a causal LM's "model."."""
    whole = f"{_PREFIX}model."
    bare = not any(name.startswith(whole) for name in file.slices)
    if bare and (config.rank_pattern or config.alpha_pattern):
        raise ValueError(
            f"{file.source}: the adapter was made on a bare backbone, where rank and alpha patterns match "
            "other names than on a causal LM; make it on the causal LM, or merge it with peft"
        )
    stripped = {name.removeprefix(whole).removeprefix(_PREFIX): name for name in file.slices}
    if len(stripped) < len(file.slices):
        twice = sorted(set(file.slices) - set(stripped.values()))
        raise ValueError(f"{file.source}: tensors stand for one module twice, under two prefixes: {twice}")
    return replace(file, slices={short: file.slices[name] for short, name in stripped.items()})


def _check(file: TensorFile, adapter: AdapterFile, config: ModelConfig) -> None:
    """Every adapted module must have both of its matrices, of the rank its config says; there is no other."""
    lora = adapter.config
    layers = range(config.num_layers) if adapter.layers is None else adapter.layers
    expected: dict[str, tuple[int, ...]] = {}
    for name, leaf in flatten_names(abstract_model(config)).items():
        parts = name.split(".")
        if parts[0] == "layers" and int(parts[1]) in layers and parts[-2] in lora.target_modules:
            module = name.removesuffix(".weight")
            out_features, in_features = leaf.shape
            expected[f"{module}.lora_A.weight"] = (lora.rank_of(module), in_features)
            expected[f"{module}.lora_B.weight"] = (out_features, lora.rank_of(module))
    check_tensors(
        file,
        expected,
        source=f"adapter_config.json and of a backbone of width {config.hidden_size} "
        f"with {config.num_layers} layers",
    )
