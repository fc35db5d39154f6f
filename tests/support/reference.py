"""What transformers and peft compute: tiny random checkpoints that they save, and torch's numbers on them.

Nothing of sia_jax is used here, so what comes out is a second opinion. `tests.support.compare` runs our code
on the same inputs; `tests.golden.make` stores cases, for the tests that run where torch is absent.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# torch's vectorised pow is off by a bit here and there, and which bits depends on the CPU. Its plain code is
# exact, so rotary frequencies, which positions in the thousands magnify, are the same on every machine.
os.environ["ATEN_CPU_CAPABILITY"] = "default"

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

torch.set_num_threads(1)  # threads cost more than they bring to networks of this size
transformers.utils.logging.disable_progress_bar()

Arrays = dict[str, np.ndarray]
Outputs = Callable[[np.ndarray, np.ndarray | None, np.ndarray | None], np.ndarray]
"""(ids [L], positions [L] or None, mask [L, L] or None: causal) -> [L, ...] float32."""

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
"""With head_dim 16 and theta 100000 one frequency is kept, one lies in between, six are slowed."""

PAD_ID = 3

TREES = (
    (-1, 0, 1, 2, 2, 2, 4),  # a span of three, then three candidates, then a child of the second of them
    (-1, -1, -1, -1),  # four candidates without a span
    (-1, 0, 0, 1, 1),  # a span of one, two candidates, and two children of the first
)
"""Blocks of tokens, a row each: the index of every token's parent, -1 for the last token of the context."""


@dataclass(frozen=True)
class Shape:
    """A tiny network. Its D, F, V and N * H should differ, so that no two of them can be mixed up."""

    family: str
    vocab: int = 131
    hidden: int = 32
    intermediate: int = 44
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    tied: bool = False
    theta: float = 1_000_000.0
    scaling: Mapping[str, Any] | None = None

    def config(self) -> transformers.PreTrainedConfig:
        """The config of transformers."""
        config_class, fields = {
            "qwen3": (transformers.Qwen3Config, {"max_window_layers": self.layers}),
            "llama": (transformers.LlamaConfig, {}),
        }[self.family]
        return config_class(
            **fields,
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            rms_norm_eps=1e-6 if self.family == "qwen3" else 1e-5,
            rope_parameters={"rope_type": "default", **(self.scaling or {}), "rope_theta": self.theta},
            max_position_embeddings=40960,
            tie_word_embeddings=self.tied,
            initializer_range=0.35,  # logits then spread by several units
            bos_token_id=1,
            eos_token_id=[2, 4],
            pad_token_id=PAD_ID,
        )


@dataclass(frozen=True)
class Case:
    """A checkpoint folder, inputs, and what torch computes from them."""

    name: str
    folder: Path
    arrays: Arrays


# Checkpoints


def save_policy(folder: Path, shape: Shape, seed: int, **options: Any) -> None:
    """A random ForCausalLM, written by transformers; options: dtype, max_shard_size."""
    names = {"qwen3": transformers.Qwen3ForCausalLM, "llama": transformers.LlamaForCausalLM}
    _save_random(names[shape.family], folder, shape.config(), seed, **options)


def save_reward_model(folder: Path, shape: Shape, seed: int, **options: Any) -> None:
    """A random ForSequenceClassification with one label, written by transformers."""
    names = {
        "qwen3": transformers.Qwen3ForSequenceClassification,
        "llama": transformers.LlamaForSequenceClassification,
    }
    config = shape.config()
    config.num_labels = 1
    _save_random(names[shape.family], folder, config, seed, **options)


def _save_random(
    model_class: type[transformers.PreTrainedModel],
    folder: Path,
    config: transformers.PreTrainedConfig,
    seed: int,
    dtype: str = "float32",
    max_shard_size: str = "5GB",
) -> None:
    torch.manual_seed(seed)
    model = model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=max_shard_size)


def save_value_model(
    folder: Path, base_folder: Path, seed: int, *, base_name: str | None = None, **lora: Any
) -> None:
    """A value model in the official layout, made as the official code makes it.

    Args:
      folder: where it goes.
      base_folder: a policy or a reward model of this module.
      seed: of the adapter and the head; neither has a zero.
      base_name: what the files record as the base; default the base's folder.
      **lora: fields of peft's LoraConfig to set otherwise.
    """
    torch.manual_seed(seed)
    base = _load_any(base_folder, torch.float32)
    model = get_peft_model(base, official_lora_config(**lora))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    head = torch.nn.Linear(base.config.hidden_size, 1)
    with torch.no_grad():
        head.weight.normal_(0, 0.7)
        head.bias.normal_(0, 1)
    write_value_model(folder, model, head, base_name or str(base_folder))


def write_value_model(folder: Path, model: Any, head: torch.nn.Linear, recorded: str) -> None:
    """The official layout of an adapter and a head, as the official code writes it.

    Args:
      folder: where it goes.
      model: of peft, around a policy or a reward model.
      head: of the values.
      recorded: what the files record as the base.
    """
    model.save_pretrained(folder / "lora_weights")
    # The README names the folder too. target_modules is a set, whose order changes from run to run.
    (folder / "lora_weights" / "README.md").unlink()
    adapter_config = folder / "lora_weights" / "adapter_config.json"
    fields = json.loads(adapter_config.read_text())
    fields |= {"base_model_name_or_path": recorded, "target_modules": sorted(fields["target_modules"])}
    adapter_config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    config = model.get_base_model().config
    hidden_size = config.hidden_size
    torch.save(
        {"token_reward_head": head.state_dict(), "hidden_size": hidden_size}, folder / "token_reward_head.pt"
    )
    is_policy = config.architectures[0].endswith("ForCausalLM")
    peft_config = model.peft_config["default"]
    saved = {
        "base_model_path": recorded,
        "lora_r": peft_config.r,
        "lora_alpha": peft_config.lora_alpha,
        "lora_dropout": peft_config.lora_dropout,
        "hidden_size": hidden_size,
        "model_type": "causal_lm" if is_policy else "sequence_classification",
        "best_val_r2": 0.5,
        "best_epoch": 1,
    }
    (folder / "model_config.json").write_text(json.dumps(saved, indent=2) + "\n")


def official_lora_config(**changes: Any) -> LoraConfig:
    """The official recipe with a smaller rank."""
    fields: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "bias": "none",
        "task_type": "FEATURE_EXTRACTION",
    }
    return LoraConfig(**(fields | changes))


def round_to_bfloat16(folder: Path, target: Path) -> Path:
    """A copy of a checkpoint in one bfloat16 file."""
    shutil.copytree(folder, target)
    for path in [*target.glob("model*.safetensors*")]:
        path.unlink()
    tensors = {
        name: tensor.to(torch.bfloat16)
        for path in sorted(folder.glob("model*.safetensors"))
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}, indent=2))
    return target


# What torch computes


def policy_outputs(folder: Path, dtype: torch.dtype = torch.float32) -> Outputs:
    """Logits [L, V] of a ForCausalLM."""
    model = _load(AutoModelForCausalLM, folder, dtype)

    def logits(ids: np.ndarray, positions: np.ndarray | None, mask: np.ndarray | None) -> np.ndarray:
        with torch.no_grad():
            return model(**_inputs(ids, positions, mask, dtype), use_cache=False).logits[0].float().numpy()

    return logits


def value_outputs(
    folder: Path,
    base_folder: Path,
    dtype: torch.dtype = torch.float32,
    *,
    merged: bool = False,
    without_adapter: bool = False,
) -> Outputs:
    """Token values [L] of an official value model: a float32 Linear on the last hidden state of PEFT's model.

    Args:
      folder: the value model.
      base_folder: the base under its adapter.
      dtype: of the base; PEFT keeps the adapter in float32.
      merged: merge the adapter into the base, as the official decoder does.
      without_adapter: the head on the bare base.
    """
    base = _load_any(base_folder, dtype)
    model = base if without_adapter else PeftModel.from_pretrained(base, folder / "lora_weights").eval()
    if merged:
        model = model.merge_and_unload()
    head = load_head(folder)

    def values(ids: np.ndarray, positions: np.ndarray | None, mask: np.ndarray | None) -> np.ndarray:
        with torch.no_grad():
            inputs = _inputs(ids, positions, mask, dtype)
            hidden = model(**inputs, use_cache=False, output_hidden_states=True).hidden_states[-1]
            return head(hidden.float())[0, :, 0].numpy()

    return values


def load_head(folder: Path) -> torch.nn.Linear:
    """token_reward_head.pt as the module that the official code makes of it."""
    saved = torch.load(folder / "token_reward_head.pt", map_location="cpu", weights_only=True)
    head = torch.nn.Linear(saved["hidden_size"], 1)
    head.load_state_dict(saved["token_reward_head"])
    return head


def reward_scores(folder: Path, arrays: Mapping[str, np.ndarray], dtype: torch.dtype) -> np.ndarray:
    """[B] logits of a ForSequenceClassification on the right-padded batch; the config names the pad id."""
    model = _load(AutoModelForSequenceClassification, folder, dtype)
    assert model.config.pad_token_id == PAD_ID
    real = np.arange(arrays["tokens"].shape[1]) < arrays["lengths"][:, None]
    ids = torch.from_numpy(np.where(real, arrays["tokens"], PAD_ID)).long()
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.from_numpy(real).long(), use_cache=False).logits
    return logits[:, 0].float().numpy()


def _load(auto_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    return auto_class.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def _load_any(folder: Path, dtype: torch.dtype) -> Any:
    """The model of the class that the folder's config names."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    is_policy = architecture.endswith("ForCausalLM")
    return _load(AutoModelForCausalLM if is_policy else AutoModelForSequenceClassification, folder, dtype)


def _inputs(
    ids: np.ndarray, positions: np.ndarray | None, mask: np.ndarray | None, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    inputs = {"input_ids": torch.from_numpy(ids).long()[None]}
    if positions is not None:
        inputs["position_ids"] = torch.from_numpy(positions).long()[None]
    if mask is not None:
        additive = torch.where(torch.from_numpy(mask), 0.0, torch.finfo(dtype).min)
        inputs["attention_mask"] = additive.to(dtype)[None, None]
    return inputs


# Inputs, and outputs of whole cases


def random_rows(shape: Shape, seed: int, lengths: tuple[int, ...]) -> Arrays:
    """A ragged batch, tokens [B, L] and lengths [B]; the pad id is not among the ids."""
    return {
        "tokens": _random_ids(shape, [seed, 0], (len(lengths), max(lengths))),
        "lengths": np.array(lengths, np.int32),
    }


def random_inputs(
    shape: Shape,
    seed: int,
    lengths: tuple[int, ...] = (41, 18, 7),
    context_lengths: tuple[int, ...] = (23, 18, 1),
    far: int = 3000,
) -> Arrays:
    """A ragged batch, and for each row a block of tokens in the form of a tree that goes on from its context.

    Args:
      shape: gives the vocabulary.
      seed: of the ids.
      lengths: [B] of the rows.
      context_lengths: [B] tokens of each row that the block sees; decoding starts there too.
      far: added to the block's positions for a second run.

    Returns:
      What `random_rows` returns, and context_lengths [B], block_tokens [B, T], block_lengths [B] (what is
      beyond is padding), block_positions [B, T], far_positions [B, T], block_mask [B, T, T]: who sees whom.
    """
    rows, places = len(lengths), max(len(parents) for parents in TREES)
    trees = [TREES[row % len(TREES)] for row in range(rows)]
    block_positions = np.zeros((rows, places), np.int32)
    block_mask = np.zeros((rows, places, places), bool)
    for row, parents in enumerate(trees):
        for i, parent in enumerate(parents):
            if parent >= 0:
                block_mask[row, i] = block_mask[row, parent]
            block_mask[row, i, i] = True
        depths = block_mask[row, : len(parents)].sum(axis=1)
        block_positions[row, : len(parents)] = context_lengths[row] + depths - 1
    return random_rows(shape, seed, lengths) | {
        "context_lengths": np.array(context_lengths, np.int32),
        "block_tokens": _random_ids(shape, [seed, 1], (rows, places)),
        "block_lengths": np.array([len(parents) for parents in trees], np.int32),
        "block_positions": block_positions,
        "far_positions": block_positions + far,
        "block_mask": block_mask,
    }


def _random_ids(shape: Shape, seed: list[int], size: tuple[int, ...]) -> np.ndarray:
    ids = np.setdiff1d(np.arange(shape.vocab), [PAD_ID])
    return np.random.default_rng(seed).choice(ids, size).astype(np.int32)


def token_outputs(outputs: Outputs, arrays: Mapping[str, np.ndarray], prefix: str = "") -> Arrays:
    """`outputs` on every row by itself, unpadded, and on context and block in one pass under a 4D mask.

    Returns:
      {"rows": [sum of lengths, ...], "block" and "far": [sum of block_lengths, ...]}, row after row.
    """
    parts: dict[str, list[np.ndarray]] = {"rows": [], "block": [], "far": []}
    for row, length in enumerate(arrays["lengths"]):
        tokens = arrays["tokens"][row]
        parts["rows"].append(outputs(tokens[:length], None, None))
        context, new = arrays["context_lengths"][row], arrays["block_lengths"][row]
        ids = np.concatenate([tokens[:context], arrays["block_tokens"][row, :new]])
        mask = np.tril(np.ones((context + new, context + new), bool))
        mask[context:, context:] = arrays["block_mask"][row, :new, :new]
        for name in ("block", "far"):
            positions = np.concatenate([np.arange(context), arrays[f"{name}_positions"][row, :new]])
            parts[name].append(outputs(ids, positions, mask)[context:])
    return {prefix + name: np.concatenate(part) for name, part in parts.items()}


def policy_case(folder: Path, inputs: Arrays) -> Case:
    """Logits of a policy's folder, and how far transformers' own bfloat16 is from them."""
    expected = token_outputs(policy_outputs(folder), inputs)
    rounded = token_outputs(policy_outputs(folder, torch.bfloat16), inputs)
    return Case(folder.name, folder, {**inputs, **expected, **bfloat16_errors(rounded, expected)})


def value_case(folder: Path, base_folder: Path, inputs: Arrays, *, merged: bool = False) -> Case:
    """Values of an official value model, and ("base_rows", ...) of its head on the bare base.

    How far PEFT's own bfloat16 is from them is told of the adapter on the way, or else `merged`.
    """
    expected = token_outputs(value_outputs(folder, base_folder), inputs)
    base = token_outputs(value_outputs(folder, base_folder, without_adapter=True), inputs, "base_")
    rounded = token_outputs(value_outputs(folder, base_folder, torch.bfloat16, merged=merged), inputs)
    return Case(folder.name, folder, {**inputs, **expected, **base, **bfloat16_errors(rounded, expected)})


def reward_case(folder: Path, inputs: Arrays) -> Case:
    """Scores of a reward model's folder on a ragged batch."""
    arrays = {name: inputs[name] for name in ("tokens", "lengths")}
    expected = {"scores": reward_scores(folder, arrays, torch.float32)}
    rounded = {"scores": reward_scores(folder, arrays, torch.bfloat16)}
    return Case(folder.name, folder, {**arrays, **expected, **bfloat16_errors(rounded, expected)})


def bfloat16_errors(rounded: Arrays, expected: Arrays) -> Arrays:
    """{"bf16_max_rows", "bf16_mean_rows", ...}: largest and mean distance of each array of outputs."""
    distances = {name: np.abs(rounded[name] - expected[name]) for name in expected}
    return {
        **{f"bf16_max_{name}": distance.max() for name, distance in distances.items()},
        **{f"bf16_mean_{name}": distance.mean() for name, distance in distances.items()},
    }


def write_case(case: Case) -> None:
    """expected.npz beside the checkpoint, which makes its folder a golden case."""
    np.savez_compressed(case.folder / "expected.npz", **case.arrays)
