"""Hugging Face checkpoints of policies and reward models, read and written without torch."""

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sia_jax.checkpoints.config_json import DTYPES, CheckpointConfig, config_dict, read_config
from sia_jax.checkpoints.hub import checkpoint_name, resolve_checkpoint
from sia_jax.checkpoints.tensors import (
    TensorFile,
    check_tensors,
    open_checkpoint,
    place_tensors,
    save_tensors,
)
from sia_jax.checkpoints.vocabulary import copy_tokenizer, load_tokenizer, save_tokenizer
from sia_jax.files.writing import write_text
from sia_jax.models.config import ModelConfig
from sia_jax.models.transformer import abstract_model
from sia_jax.pretrained import Policy, RewardModel
from sia_jax.types import Params, flatten_names

_CLASSES = {
    ("qwen3", "policy"): "Qwen3ForCausalLM",
    ("llama", "policy"): "LlamaForCausalLM",
    ("qwen3", "reward"): "Qwen3ForSequenceClassification",
    ("llama", "reward"): "LlamaForSequenceClassification",
}


def load_policy(path: str | Path, *, dtype: Any = None, mesh: Mesh | None = None) -> Policy:
    """Load a Qwen3ForCausalLM or LlamaForCausalLM checkpoint.

    Args:
      path: a folder, or else a Hub id.
      dtype: of the weights; None: what config.json names. float32 is the fast one on a CPU.
      mesh: shard the weights over it by the partition rules; None: the default device.

    Returns:
      The policy; its tokenizer is None if the folder has none.

    Raises:
      FileNotFoundError: no such folder or Hub id, no config.json, no weights, or shards missing.
      ValueError: an architecture or field that is not supported, tensors missing, surplus or misshapen (all
        in one report), a truncated file, or a tied model whose file holds another lm_head.
    """
    folder = resolve_checkpoint(path)
    checkpoint = read_config(folder)
    if checkpoint.kind != "policy":
        raise ValueError(
            f"{folder} is a {checkpoint.architecture}, a policy is a ForCausalLM; "
            "use sia_jax.load_reward_model for it"
        )
    file = open_checkpoint(folder)
    expected = _backbone_shapes(checkpoint.model)
    tied = checkpoint.model.tie_word_embeddings
    head_shape = _head_shape(checkpoint.model)
    if tied and "lm_head.weight" in file.slices:
        check_tensors(file, {**expected, "lm_head.weight": head_shape})
        _check_tied(file)
    elif not tied:
        expected["lm_head.weight"] = head_shape
        check_tensors(file, expected)
    else:
        check_tensors(file, expected)
    tokenizer = load_tokenizer(folder)  # before the weights, so that what is broken shows at once
    params = place_tensors(file, expected, _dtype(checkpoint, dtype), mesh)
    return Policy(checkpoint.model, params, tokenizer, checkpoint_name(path))


def load_reward_model(path: str | Path, *, dtype: Any = None, mesh: Mesh | None = None) -> RewardModel:
    """Load a Qwen3- or LlamaForSequenceClassification checkpoint with one label (Skywork-Reward-V2).

    Args:
      path: a folder, or else a Hub id.
      dtype: of the weights; None: what config.json names.
      mesh: shard the weights over it by the partition rules; None: the default device.

    Raises:
      FileNotFoundError, ValueError: as `load_policy`.
    """
    folder = resolve_checkpoint(path)
    checkpoint = read_config(folder)
    if checkpoint.kind != "reward":
        raise ValueError(
            f"{folder} is a {checkpoint.architecture}, a reward model is a ForSequenceClassification; "
            "use sia_jax.load_policy for it"
        )
    file = open_checkpoint(folder)
    expected = _backbone_shapes(checkpoint.model) | {"score.weight": (1, checkpoint.model.hidden_size)}
    check_tensors(file, expected)
    tokenizer = load_tokenizer(folder)
    params = place_tensors(file, expected, _dtype(checkpoint, dtype), mesh)
    return RewardModel(checkpoint.model, params, tokenizer, checkpoint_name(path))


def load_backbone(folder: Path, *, dtype: Any = None, mesh: Mesh | None = None) -> tuple[ModelConfig, Params]:
    """The backbone alone of a policy's or reward model's folder: its head, whichever it is, is not read."""
    checkpoint = read_config(folder)
    file = open_checkpoint(folder)
    expected = _backbone_shapes(checkpoint.model)
    check_tensors(file, expected, ignored=("lm_head.weight", "score.weight"))
    return checkpoint.model, place_tensors(file, expected, _dtype(checkpoint, dtype), mesh)["model"]


def save_policy(policy: Policy, folder: str | Path, *, max_shard_bytes: int = 5 << 30) -> None:
    """Write a policy as a folder that transformers (4.51 or later) loads.

    Args:
      policy: what to save; its tokenizer, if any, is saved along.
      folder: made if need be; files of the same names are replaced.
      max_shard_bytes: size from which the weights are split into shards.

    Raises:
      ValueError: the tree is not that of the config; nothing is written then.
    """
    tied = policy.config.tie_word_embeddings
    head = {} if tied else {"lm_head.weight": _head_shape(policy.config)}
    folder = Path(folder)
    with _saved_model(folder, policy.config, "policy", policy.params, head, max_shard_bytes):
        generation = {
            "bos_token_id": policy.config.bos_token_id,
            "eos_token_id": list(policy.config.eos_token_ids) or None,
            "pad_token_id": policy.config.pad_token_id,
        }
        text = json.dumps({key: value for key, value in generation.items() if value is not None}, indent=2)
        write_text(folder / "generation_config.json", text + "\n")
        save_tokenizer(policy.tokenizer, folder)


def save_reward_model(reward: RewardModel, folder: str | Path, *, max_shard_bytes: int = 5 << 30) -> None:
    """Write a reward model as a ForSequenceClassification folder, as `save_policy` writes a policy."""
    head = {"score.weight": (1, reward.config.hidden_size)}
    with _saved_model(Path(folder), reward.config, "reward", reward.params, head, max_shard_bytes):
        save_tokenizer(reward.tokenizer, Path(folder))


def save_backbone(
    model: Params, folder: str | Path, *, base: str | Path, max_shard_bytes: int = 5 << 30
) -> None:
    """Write a backbone that was trained further as a checkpoint of the kind that it was before.

    The head, lm_head or score, is the base's own, in the backbone's dtype, and so are the tokenizer's files.

    Args:
      model: the backbone's tree (`params["model"]`).
      folder: made if need be; files of the same names are replaced.
      base: the checkpoint that it was before, a folder or else a Hub id.
      max_shard_bytes: size from which the weights are split into shards.

    Raises:
      FileNotFoundError, ValueError: the base cannot be read, or is of other shapes; nothing is written then.
    """
    source = resolve_checkpoint(base)
    checkpoint, file = read_config(source), open_checkpoint(source)
    config, dtype = checkpoint.model, model["embed_tokens"]["weight"].dtype
    head = {"score.weight": (1, config.hidden_size)}
    if checkpoint.kind == "policy":
        head = {} if config.tie_word_embeddings else {"lm_head.weight": _head_shape(config)}
    check_tensors(file, {**_backbone_shapes(config), **head}, ignored=("lm_head.weight",))
    params = {"model": model} | place_tensors(file, head, dtype, None)
    if checkpoint.kind == "policy":
        save_policy(Policy(config, params), folder, max_shard_bytes=max_shard_bytes)
    else:
        save_reward_model(RewardModel(config, params), folder, max_shard_bytes=max_shard_bytes)
    copy_tokenizer(source, Path(folder))


@contextmanager
def _saved_model(
    folder: Path,
    config: ModelConfig,
    kind: str,
    params: Params,
    head: Mapping[str, tuple[int, ...]],
    max_shard_bytes: int,
) -> Iterator[None]:
    """Weights, what the caller writes, and config.json, which is away meanwhile: no mixture ever loads."""
    expected = {**_backbone_shapes(config), **head}
    got = {name: tuple(leaf.shape) for name, leaf in flatten_names(params).items()}
    if got != expected:
        differ = sorted(name for name in got.keys() | expected.keys() if got.get(name) != expected.get(name))
        raise ValueError(
            f"the parameters are not those of the config (tied: {config.tie_word_embeddings}): "
            + ", ".join(f"{name} is {got.get(name)}, expected {expected.get(name)}" for name in differ[:20])
        )
    config_path = folder / "config.json"
    without_config = functools.partial(config_path.unlink, missing_ok=True)
    save_tensors(folder, params, max_shard_bytes, before_replacing=without_config)
    yield
    dtype = jnp.dtype(params["model"]["embed_tokens"]["weight"].dtype).name
    text = json.dumps(config_dict(config, _CLASSES[config.family, kind], dtype), indent=2) + "\n"
    write_text(config_path, text)


def _head_shape(config: ModelConfig) -> tuple[int, int]:
    return config.vocab_size, config.hidden_size


def _backbone_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    tree = {"model": abstract_model(config)}
    return {name: leaf.shape for name, leaf in flatten_names(tree).items()}


def _dtype(checkpoint: CheckpointConfig, dtype: Any) -> Any:
    """What the caller asks for, else what config.json names, else None: as stored."""
    named = dtype or checkpoint.dtype
    if named is None:
        return None
    if jnp.dtype(named).name not in DTYPES:
        raise ValueError(f"dtype must be one of {DTYPES}, got {jnp.dtype(named).name}")
    return jnp.dtype(named)


def _check_tied(file: TensorFile) -> None:
    """A tied model may ship its lm_head too: transformers 4 ignores it and 5 uses it, so it must agree."""
    rows = file.shape("lm_head.weight")[0]
    step = max(1, (32 << 20) // (4 * file.shape("lm_head.weight")[1]))
    for start in range(0, rows, step):
        box = (slice(start, min(start + step, rows)), slice(None))
        if not np.array_equal(file.read("lm_head.weight", box), file.read("model.embed_tokens.weight", box)):
            raise ValueError(
                f"{file.source}: config.json ties lm_head to the embedding, but the file holds another "
                'lm_head.weight; set "tie_word_embeddings": false to use it, or remove the tensor'
            )
