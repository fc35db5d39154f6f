"""Hugging Face checkpoints of policies and reward models, read and written without torch."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sia_jax.checkpoints.adapter_config import check_no_adapter
from sia_jax.checkpoints.config_json import (
    CONFIG,
    DTYPES,
    GENERATION,
    CheckpointConfig,
    config_dict,
    read_config,
)
from sia_jax.checkpoints.hub import checkpoint_name, resolve_checkpoint
from sia_jax.checkpoints.tensors import (
    TensorFile,
    check_tensors,
    open_checkpoint,
    place_tensors,
    same_numbers,
    save_tensors,
    with_embedding,
)
from sia_jax.checkpoints.tokenizer_files import copy_tokenizer
from sia_jax.checkpoints.vocabulary import load_tokenizer, save_tokenizer
from sia_jax.files.writing import write_text
from sia_jax.models.config import ModelConfig
from sia_jax.models.shapes import Shapes, backbone_shapes
from sia_jax.pretrained import Policy, RewardModel
from sia_jax.text.token_ids import with_tokens
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
      The policy; its tokenizer is None if the folder has none. Its config says which ids have a token, so
      that no other is drawn.

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
    file, expected = _open_weights(folder, checkpoint.model)
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
    return Policy(with_tokens(checkpoint.model, tokenizer), params, tokenizer, checkpoint_name(path))


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
    file, expected = _open_weights(folder, checkpoint.model)
    expected["score.weight"] = (1, checkpoint.model.hidden_size)
    # A head for tokens may be left over beside that of the rewards; in place of it, it makes a policy.
    check_tensors(file, expected, ignored=("lm_head.weight",) if "score.weight" in file.slices else ())
    tokenizer = load_tokenizer(folder)
    params = place_tensors(file, expected, _dtype(checkpoint, dtype), mesh)
    return RewardModel(checkpoint.model, params, tokenizer, checkpoint_name(path))


def load_backbone(folder: Path, *, dtype: Any = None, mesh: Mesh | None = None) -> tuple[ModelConfig, Params]:
    """The backbone alone of a policy's or reward model's folder: its head, whichever it is, is not read."""
    checkpoint, file, expected = _open_backbone(folder)
    return checkpoint.model, place_tensors(file, expected, _dtype(checkpoint, dtype), mesh)["model"]


def read_backbone_config(folder: Path) -> ModelConfig:
    """The network of a policy's or reward model's folder, once its tensors are known to be that network's.

    Nothing of them is read. What is made by the sizes of a foreign config.json, such as the shapes of an
    adapter, takes them from here: they are then those of a file that is there.

    Raises:
      FileNotFoundError, ValueError: as `load_policy`.
    """
    checkpoint, _, _ = _open_backbone(folder)
    return checkpoint.model


def read_embedding(folder: Path, rows: slice) -> np.ndarray:
    """Rows of the embedding of a policy's or reward model's folder, as stored."""
    file = with_embedding(open_checkpoint(folder))
    return file.read("model.embed_tokens.weight", (rows, slice(None)))


def save_policy(policy: Policy, folder: str | Path, *, max_shard_bytes: int = 5 << 30) -> None:
    """Write a policy as a folder that transformers (4.51 or later) loads.

    Args:
      policy: what to save; its tokenizer, if any, is saved along.
      folder: made if need be; of a checkpoint that was in it, neither weights nor a tokenizer stay.
      max_shard_bytes: size from which the weights are split into shards.

    Raises:
      ValueError: the tree is not that of the config; nothing is written then.
    """
    _write_policy(policy, Path(folder), max_shard_bytes, functools.partial(save_tokenizer, policy.tokenizer))


def save_reward_model(reward: RewardModel, folder: str | Path, *, max_shard_bytes: int = 5 << 30) -> None:
    """Write a reward model as a ForSequenceClassification folder, as `save_policy` writes a policy."""
    write = functools.partial(save_tokenizer, reward.tokenizer)
    _write_reward_model(reward, Path(folder), max_shard_bytes, write)


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
    checkpoint = read_config(source)
    file, expected = _open_weights(source, checkpoint.model)
    config, dtype = checkpoint.model, model["embed_tokens"]["weight"].dtype
    head = {"score.weight": (1, config.hidden_size)}
    if checkpoint.kind == "policy":
        head = {} if config.tie_word_embeddings else {"lm_head.weight": _head_shape(config)}
    check_tensors(file, {**expected, **head}, ignored=("lm_head.weight",))
    params = {"model": model} | place_tensors(file, head, dtype, None)
    write = functools.partial(copy_tokenizer, source)
    if checkpoint.kind == "policy":
        _write_policy(Policy(config, params), Path(folder), max_shard_bytes, write)
    else:
        _write_reward_model(RewardModel(config, params), Path(folder), max_shard_bytes, write)


def _write_policy(
    policy: Policy, folder: Path, max_shard_bytes: int, write_tokenizer: Callable[[Path], None]
) -> None:
    tied = policy.config.tie_word_embeddings
    head = {} if tied else {"lm_head.weight": _head_shape(policy.config)}
    with _saved_model(folder, policy.config, "policy", policy.params, head, max_shard_bytes):
        generation = {
            "bos_token_id": policy.config.bos_token_id,
            "eos_token_id": list(policy.config.eos_token_ids) or None,
            "pad_token_id": policy.config.pad_token_id,
        }
        text = json.dumps({key: value for key, value in generation.items() if value is not None}, indent=2)
        write_text(folder / GENERATION, text + "\n")
        write_tokenizer(folder)


def _write_reward_model(
    reward: RewardModel, folder: Path, max_shard_bytes: int, write_tokenizer: Callable[[Path], None]
) -> None:
    head = {"score.weight": (1, reward.config.hidden_size)}
    with _saved_model(folder, reward.config, "reward", reward.params, head, max_shard_bytes):
        (folder / GENERATION).unlink(missing_ok=True)  # of a policy that was there
        write_tokenizer(folder)


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
    config_path = folder / CONFIG
    without_config = functools.partial(config_path.unlink, missing_ok=True)
    save_tensors(folder, params, max_shard_bytes, before_replacing=without_config)
    yield
    dtype = jnp.dtype(params["model"]["embed_tokens"]["weight"].dtype).name
    text = json.dumps(config_dict(config, _CLASSES[config.family, kind], dtype), indent=2) + "\n"
    write_text(config_path, text)


def _head_shape(config: ModelConfig) -> tuple[int, int]:
    return config.vocab_size, config.hidden_size


def _backbone_shapes(config: ModelConfig, layers: int | None = None) -> Shapes:
    return {f"model.{name}": shape for name, shape in backbone_shapes(config, layers).items()}


def _open_backbone(folder: Path) -> tuple[CheckpointConfig, TensorFile, Shapes]:
    """A checkpoint whose backbone is whole: its config, its tensors, and which of them are the backbone's."""
    checkpoint = read_config(folder)
    file, expected = _open_weights(folder, checkpoint.model)
    check_tensors(file, expected, ignored=("lm_head.weight", "score.weight"))
    return checkpoint, file, expected


def _open_weights(folder: Path, config: ModelConfig) -> tuple[TensorFile, Shapes]:
    """The tensors of a checkpoint, and those that its backbone has by its config.json.

    Here the two files meet for the first time, so here the number of layers is found to be made up or not. Of
    two tensors that are tied, the file may have either.

    Raises:
      FileNotFoundError: there are no weights.
      ValueError: the file's layers are fewer than config.json says; all that is missing is not listed then.
        Or an adapter stands beside them.
    """
    merge = "merge it (merge_and_unload() of peft, then save_pretrained)"
    check_no_adapter(folder, f"{merge}, or remove its files if the weights have it already")
    file = open_checkpoint(folder)
    found = {name.split(".")[2] for name in file.slices if name.startswith("model.layers.")}
    if found and config.num_layers > len(found):
        raise ValueError(
            f"{file.source}: config.json says num_hidden_layers {config.num_layers}, the tensors are those "
            f"of {len(found)} layers; copy config.json and the weights from one checkpoint"
        )
    # Without any layer under its name, the names are to be reported, and one layer shows what they lack.
    expected = _backbone_shapes(config, None if found else 1)
    return with_embedding(file) if config.tie_word_embeddings else file, expected


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
    embedding = functools.partial(file.read, "model.embed_tokens.weight")
    if not same_numbers(file, "lm_head.weight", lambda rows: embedding((rows, slice(None)))):
        raise ValueError(
            f"{file.source}: config.json ties lm_head to the embedding, but the file holds another "
            'lm_head.weight; set "tie_word_embeddings": false to use it, or remove the tensor'
        )
