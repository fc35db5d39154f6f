"""LoRA adapters in PEFT's files: adapter_config.json and adapter_model.safetensors."""

from dataclasses import replace
from pathlib import Path

from jax.sharding import Mesh

from sia_jax.checkpoints.adapter_config import read_adapter_config, write_adapter_config
from sia_jax.checkpoints.tensors import TensorFile, open_file, place_tensors, save_file_atomically
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
      (its config, its tree in the stored dtype, the name of the base that its config gives or None).

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
    file = _strip_prefix(open_file(weights))
    _check(file, adapter.config, config)
    lora = place_tensors(file, file.slices, None, mesh)
    return adapter.config, lora, adapter.base_model


def save_adapter(folder: Path, lora: Params, config: LoraConfig, base_model: str) -> None:
    """Write an adapter as PEFT does: both files, keys under "base_model.model.model." as for a ForCausalLM.

    Args:
      folder: made if need be.
      lora: the adapter's tree.
      config: its config.
      base_model: name or path of the base, for `base_model_name_or_path`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{_PREFIX}model.{name}": leaf for name, leaf in flatten_names(lora).items()}
    save_file_atomically(folder / "adapter_model.safetensors", tensors)
    write_adapter_config(folder, config, base_model)


def _strip_prefix(file: TensorFile) -> TensorFile:
    """Names as the backbone has them: PEFT adds a prefix, and a causal LM or classifier its "model."."""
    names = {}
    for name in file.slices:
        stripped = name.removeprefix(_PREFIX)
        names[stripped.removeprefix("model.") if stripped != name else name] = file.slices[name]
    return replace(file, slices=names)


def _check(file: TensorFile, lora: LoraConfig, config: ModelConfig) -> None:
    modules = {
        name.removesuffix(".weight"): leaf.shape
        for name, leaf in flatten_names(abstract_model(config)).items()
        if name.split(".")[-2] in lora.target_modules
    }
    adapted = {
        name.rsplit(".lora_", 1)[0]
        for name in file.slices
        if name.endswith((".lora_A.weight", ".lora_B.weight"))
    }
    problems = []
    for module in sorted(adapted & set(modules)):
        out_features, in_features = modules[module]
        rank = lora.rank_of(module)
        for part, shape in (("lora_A", (rank, in_features)), ("lora_B", (out_features, rank))):
            name = f"{module}.{part}.weight"
            if name not in file.slices:
                problems.append(f"missing: {name}")
            elif file.shape(name) != shape:
                problems.append(f"shape: {name} is {file.shape(name)}, expected {shape} (rank {rank})")
    absent = [name for name in lora.target_modules if not any(m.endswith(f".{name}") for m in adapted)]
    problems += [f"missing: no tensors for the target module {name}" for name in absent]
    known = {f"{module}.{part}.weight" for module in modules for part in ("lora_A", "lora_B")}
    problems += [f"surplus: {name} {file.shape(name)}" for name in sorted(set(file.slices) - known)]
    if problems:
        raise ValueError(
            f"{file.source}: the adapter does not fit its config and the backbone "
            f"(hidden size {config.hidden_size}, {config.num_layers} layers); {len(problems)} problems\n  "
            + "\n  ".join(problems[:100])
        )
