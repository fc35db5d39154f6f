"""LoRA adapters in PEFT's files: adapter_config.json and adapter_model.safetensors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sia_jax.checkpoints.adapter_config import MERGE, AdapterFile, read_adapter_config, write_adapter_config
from sia_jax.checkpoints.adapter_targets import PROJECTIONS
from sia_jax.checkpoints.files import is_there
from sia_jax.checkpoints.tensors import (
    TensorFile,
    check_tensors,
    open_file,
    place_tensors,
    same_numbers,
    save_file_atomically,
)
from sia_jax.files.shown import shown_value
from sia_jax.models.config import ModelConfig
from sia_jax.models.lora import LoraConfig, is_projection
from sia_jax.models.shapes import Shapes, backbone_shapes
from sia_jax.types import Params, flatten_names

_PREFIX = "base_model.model."
_EMBEDDING = "embed_tokens.weight"


def load_adapter(
    folder: Path,
    config: ModelConfig,
    mesh: Mesh | None = None,
    embedding: Callable[[slice], np.ndarray] | None = None,
) -> tuple[LoraConfig, Params, str | None]:
    """Read an adapter for a backbone.

    What is no part of a backbone, an lm_head, is not read.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      config: the backbone that it is for.
      mesh: shard it by the partition rules; None: the default device.
      embedding: rows -> those rows of the backbone's embedding, with which a saved one must agree.

    Returns:
      (its config, its tree in float32, the name of the base that its config gives or None).

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a variant that is not supported, or tensors that do not fit the config or the backbone: all
        of them in one report.
    """
    adapter = read_adapter_config(folder)
    weights = folder / "adapter_model.safetensors"
    if not is_there(weights) and (folder / "adapter_model.bin").is_file():
        raise FileNotFoundError(
            f"{folder}: adapter_model.bin is a pickle; save the adapter as safetensors with peft"
        )
    file, bare = _strip_prefix(open_file(weights), adapter.config)
    file = _without_embeddings(file, config, embedding)
    expected = _expected(file, adapter, config, bare)
    check_tensors(
        file,
        expected,
        source=f"adapter_config.json and of a backbone of width {config.hidden_size} "
        f"with {config.num_layers} layers",
    )
    if not expected:
        raise ValueError(f"{folder}: the adapter changes no projection of a backbone; load the base alone")
    kinds = {name.split(".")[-3] for name in expected}
    lora = replace(adapter.config, target_modules=tuple(name for name in PROJECTIONS if name in kinds))
    return lora, place_tensors(file, expected, jnp.float32, mesh), adapter.base_model


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
    adapted = {name.rpartition(".lora_")[0] for name in flatten_names(lora)}
    whole = {f"layers.{i}.{module.split('.', 2)[2]}" for i in layers for module in adapted}
    write_adapter_config(
        folder,
        config,
        base_model,
        layers=layers if len(layers) < num_layers and adapted == whole else None,
        modules=None if adapted == whole else sorted(f"model.{module}" for module in adapted),
    )


def _strip_prefix(file: TensorFile, config: LoraConfig) -> tuple[TensorFile, bool]:
    """Names as the backbone has them, without PEFT's "base_model.model." and a causal LM's "model.".

    Returns:
      (the file, whether the adapter was made on a bare backbone).
    """
    whole = f"{_PREFIX}model."
    bare = any(name.removeprefix(_PREFIX).startswith("layers.") for name in file.slices)
    bare = bare and not any(name.startswith(whole) for name in file.slices)
    if bare and (config.rank_pattern or config.alpha_pattern):
        raise ValueError(
            f"{file.source}: the adapter was made on a bare backbone, where rank and alpha patterns match "
            f"other names than on a causal LM; make it on the causal LM, or {MERGE}"
        )
    stripped = {name.removeprefix(whole).removeprefix(_PREFIX): name for name in file.slices}
    if len(stripped) < len(file.slices):
        twice = sorted(set(file.slices) - set(stripped.values()))
        raise ValueError(
            f"{file.source}: tensors stand for one module twice, under two prefixes: {shown_value(twice)}"
        )
    return replace(file, slices={short: file.slices[name] for short, name in stripped.items()}), bare


def _without_embeddings(
    file: TensorFile, config: ModelConfig, embedding: Callable[[slice], np.ndarray] | None
) -> TensorFile:
    """An adapter's tensors without its lm_head, and without an embedding that is the base's own.

    Raises:
      ValueError: the adapter's embedding was trained, or resized.
    """
    kept = {name: part for name, part in file.slices.items() if not name.startswith("lm_head.")}
    if _EMBEDDING in kept:
        told = f"{file.source}: the adapter has an embedding of its own"
        if file.shape(_EMBEDDING) != (config.vocab_size, config.hidden_size):
            raise ValueError(
                f"{told} of shape {file.shape(_EMBEDDING)}, the base's is "
                f"{(config.vocab_size, config.hidden_size)}; {MERGE}"
            )
        file.dtype(_EMBEDDING)
        if embedding is None or not same_numbers(file, _EMBEDDING, embedding):
            raise ValueError(f"{told}, which differs from the base's; {MERGE}")
        del kept[_EMBEDDING]
    return replace(file, slices=kept)


def _expected(file: TensorFile, adapter: AdapterFile, config: ModelConfig, bare: bool) -> Shapes:
    """Every target must have both of its matrices, of the rank its config says; there is no other.

    Where a pattern cannot be matched here, the file's own matrices say which modules it means.
    """
    lora, expected = adapter.config, Shapes()
    for name, shape in backbone_shapes(config).items():
        module = name.removesuffix(".weight")
        if not is_projection(module):
            continue
        target = adapter.targets.hold(module, bare=bare)
        if target is None:
            target = any(f"{module}.lora_{part}.weight" in file.slices for part in "AB")
        if target:
            out_features, in_features = shape
            expected[f"{module}.lora_A.weight"] = (lora.rank_of(module), in_features)
            expected[f"{module}.lora_B.weight"] = (out_features, lora.rank_of(module))
    return expected
