"""Readers of checkpoints: policies, reward models, adapters and heads of value models, tokenizers."""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

import sia_jax
from sia_jax.checkpoints.tensors import open_checkpoint
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.models.lora import LoraConfig
from sia_jax.models.shapes import backbone_shapes
from sia_jax.types import flatten_names
from tests.fuzz.readers import Reader
from tests.support.checkpoints import (
    edit_json,
    save_tiny_policy,
    save_tiny_value_model,
    tiny_policy,
    tiny_reward_model,
)
from tests.support.tokenizers import save_qwen3_tokenizer

_SMALL = {"num_layers": 1, "hidden_size": 8, "intermediate_size": 12, "num_heads": 2, "num_kv_heads": 1}


@functools.cache
def _policy() -> sia_jax.Policy:
    return tiny_policy("llama", name="base", head_dim=4, **_SMALL)


def _write_policy(folder: Path) -> list[Path]:
    save_tiny_policy(folder, "llama", head_dim=4, **_SMALL)
    return [folder / name for name in ("config.json", "generation_config.json", "model.safetensors")]


def _write_shards(folder: Path) -> list[Path]:
    sia_jax.save_policy(_policy(), folder, max_shard_bytes=1000)
    return sorted(folder.glob("model*"))


def _write_reward(folder: Path) -> list[Path]:
    sia_jax.save_reward_model(tiny_reward_model("llama", head_dim=4, **_SMALL), folder)
    return [folder / name for name in ("config.json", "model.safetensors")]


def _write_value(folder: Path, *, layout: str, head: str = "scalar") -> list[Path]:
    lora = LoraConfig(2, 4.0, rank_pattern=(("k_proj", 1),), alpha_pattern=((r"layers\.0\..*v_proj", 2.0),))
    save_tiny_value_model(folder, _policy(), layout=layout, head=head, lora=lora)
    if layout == "official":
        edit_json(folder / "lora_weights/adapter_config.json", target_modules=r".*\.(q|k|v|o)_proj")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write_tokenizer(folder: Path) -> list[Path]:
    save_qwen3_tokenizer(folder)
    return sorted(path for path in folder.iterdir() if path.is_file())


def _quietly(load: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """`load` without the warnings of fields that are not known."""

    def read(folder: Path) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load(folder)

    return read


def _check_weights(folder: Path, found: Any) -> None:
    """The tensors are those of the files, of the config's shapes, and the stop ids are rows."""
    flat = flatten_names(found.params)
    for name, shape in backbone_shapes(found.config).items():
        assert flat[f"model.{name}"].shape == shape, name
    stored = open_checkpoint(folder)
    for name, leaf in flat.items():
        expected = stored.read(name).astype(leaf.dtype)
        np.testing.assert_array_equal(np.asarray(leaf), expected, err_msg=name)
    assert all(
        type(stop) is int and 0 <= stop < found.config.vocab_size for stop in found.config.eos_token_ids
    )


def _check_adapter(folder: Path, found: Any) -> None:
    """The adapter's matrices are those of the file, and every module has a finite scale."""
    stored = load_file(folder / "lora_weights/adapter_model.safetensors")
    for name, leaf in flatten_names(found.params["lora"]).items():
        names = [f"base_model.model.{prefix}{name}" for prefix in ("model.", "")]
        expected = next(stored[name] for name in names if name in stored)
        np.testing.assert_array_equal(np.asarray(leaf), expected.astype(np.float32), err_msg=name)
        assert np.isfinite(found.config.lora.scale(name.rpartition(".lora_")[0]))


READERS = (
    Reader("policy", _write_policy, _quietly(sia_jax.load_policy), _check_weights),
    Reader("policy-shards", _write_shards, _quietly(sia_jax.load_policy), _check_weights),
    Reader("reward-model", _write_reward, _quietly(sia_jax.load_reward_model), _check_weights),
    *(
        Reader(
            f"value-model-{layout}-{head}",
            functools.partial(_write_value, layout=layout, head=head),
            lambda folder: sia_jax.load_value_model(folder, _policy(), check_base=False),
            _check_adapter,
        )
        for layout, head in (("official", "scalar"), ("sia_jax", "vocab"))
    ),
    Reader("tokenizer", _write_tokenizer, load_tokenizer),
)
