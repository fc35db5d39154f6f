"""Tiny models with random weights, and folders of them: what the tests load, spoil and compare.

Nothing here needs torch. Every leaf is random, norms and biases included, so that no weight can be left out
or swapped unnoticed; two seeds give two models of the same shapes.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

import sia_jax
from sia_jax.checkpoints.config_json import config_dict
from sia_jax.models.config import Family, Llama3Scaling, ModelConfig, RopeConfig, ValueConfig
from sia_jax.models.lora import LoraConfig, init_lora
from sia_jax.models.transformer import abstract_model
from sia_jax.models.value_model import init_value_head
from sia_jax.pretrained import Policy, RewardModel, ValueModel
from sia_jax.types import Params, flatten_names, unflatten_names

TINY_SCALING = Llama3Scaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
)
"""With head_dim 8 and theta 10000: one frequency kept, one in between, two slowed."""


def tiny_config(family: Family = "qwen3", **changes: Any) -> ModelConfig:
    """A network of two layers in which N * H, D, F and V are four different numbers.

    Args:
      family: "qwen3" is untied here and "llama" is tied, with scaled frequencies.
      **changes: fields of ModelConfig to set otherwise.
    """
    fields: dict[str, Any] = {
        "family": family,
        "vocab_size": 64,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "rope": RopeConfig(10_000.0, TINY_SCALING if family == "llama" else None),
        "rms_norm_eps": 1e-6 if family == "qwen3" else 1e-5,
        "tie_word_embeddings": family == "llama",
        "max_position_embeddings": 256,
        "eos_token_ids": (2, 3),
        "bos_token_id": 1,
        "pad_token_id": 0,
    }
    return ModelConfig(**(fields | changes))


_abstract_model = functools.cache(abstract_model)  # the tests describe a few networks some hundred times


def random_like(tree: Params, seed: int, scale: float = 0.3) -> Params:
    """A tree of the same names, shapes and dtypes: scale * normal noise, around 1 in the norms, else 0.

    Args:
      tree: arrays or ShapeDtypeStructs; their values, if any, play no part.
      seed: each leaf has a stream of its own.
      scale: large enough that every weight matters in a tiny network.
    """
    noisy = {}
    for i, (name, leaf) in enumerate(flatten_names(tree).items()):
        noise = scale * np.random.default_rng([seed, i]).standard_normal(leaf.shape)
        noisy[name] = jnp.asarray((noise + name.endswith("norm.weight")).astype(leaf.dtype))
    return unflatten_names(noisy)


def tiny_policy(
    family: Family = "qwen3",
    seed: int = 0,
    *,
    dtype: Any = jnp.float32,
    tokenizer: Any = None,
    name: str = "tiny",
    **changes: Any,
) -> Policy:
    """A policy with random weights; `changes` go to `tiny_config`."""
    config = tiny_config(family, **changes)
    params = {"model": random_like(_abstract_model(config, dtype), seed)}
    if not config.tie_word_embeddings:
        head = jax.ShapeDtypeStruct((config.vocab_size, config.hidden_size), dtype)
        params["lm_head"] = random_like({"weight": head}, seed + 1000)
    return Policy(config, params, tokenizer, name)


def tiny_reward_model(
    family: Family = "qwen3", seed: int = 0, *, dtype: Any = jnp.float32, **changes: Any
) -> RewardModel:
    """A reward model with random weights; the same seed gives the backbone of `tiny_policy`."""
    policy = tiny_policy(family, seed, dtype=dtype, **changes)
    score = random_like({"weight": jax.ShapeDtypeStruct((1, policy.config.hidden_size), dtype)}, seed + 2000)
    return RewardModel(policy.config, {"model": policy.params["model"], "score": score}, None, policy.name)


def random_lora(config: ModelConfig, lora: LoraConfig, seed: int = 0) -> Params:
    """An adapter for a backbone in which lora_B is not zero."""
    model = _abstract_model(config, jnp.float32)
    fresh = jax.eval_shape(lambda: init_lora(model, lora, jax.random.key(0)))
    return random_like(fresh, seed, 0.2)


def tiny_value_model(
    policy: Policy, seed: int = 0, *, head: str = "scalar", lora: LoraConfig | None = None
) -> ValueModel:
    """A value model over a policy's weights, whose adapter (no zero lora_B) and head are random.

    Args:
      policy: gives the backbone.
      seed: of adapter and head.
      head: a kind of head; "states": a vocab head on the policy's own hidden states, without an adapter.
      lora: of the adapter; None: of rank 4.
    """
    if head == "states":
        config = ValueConfig(policy.config, "vocab", 3, states="policy")
    else:
        lora = lora or LoraConfig(rank=4, alpha=8.0)
        config = ValueConfig(policy.config, head, 3 if head == "vocab" else None, lora)  # type: ignore[arg-type]
    value_head = jax.eval_shape(lambda: init_value_head(config, jax.random.key(0)))
    params = {"value_head": random_like(value_head, seed + 4000)}
    if config.lora is not None:
        params["lora"] = random_lora(policy.config, config.lora, seed + 3000)
    return ValueModel(config, params, policy.params["model"], policy.tokenizer, "tiny-value")


def save_tiny_policy(folder: Path, family: Family = "qwen3", seed: int = 0, **options: Any) -> Policy:
    """Write `tiny_policy(family, seed, **options)` to a folder, under whose name the policy is returned."""
    policy = tiny_policy(family, seed, name=folder.name, **options)
    sia_jax.save_policy(policy, folder)
    return policy


def save_tiny_value_model(folder: Path, policy: Policy, seed: int = 0, **options: Any) -> ValueModel:
    """Write a value model over `policy` to a folder.

    Args:
      folder: made if need be.
      policy: its name is recorded as the base's.
      seed: of adapter and head.
      **options: those of `tiny_value_model`, and `layout`, "sia_jax" by default.
    """
    layout = options.pop("layout", "sia_jax")
    value = tiny_value_model(policy, seed, **options)
    sia_jax.save_value_model(value, folder, base_model=policy.name, layout=layout)
    return value


def random_tokens(config: ModelConfig, batch: int, length: int, seed: int = 0) -> np.ndarray:
    """[batch, length] ids, int32."""
    return np.random.default_rng(seed).integers(0, config.vocab_size, (batch, length)).astype(np.int32)


def edit_json(path: Path, remove: tuple[str, ...] = (), **changes: Any) -> None:
    """Set and remove fields of a JSON file."""
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in fields.items() if key not in remove}))


def edit_tensors(path: Path, remove: tuple[str, ...] = (), **changes: np.ndarray) -> None:
    """Set and remove tensors of a safetensors file; names with dots go in as **{"a.b": array}."""
    # From a copy: load_file may map the file, which is written in place.
    tensors = {name: array.copy() for name, array in load_file(path).items()} | changes
    kept = {name: array for name, array in tensors.items() if name not in remove}
    save_file(kept, path, metadata={"format": "pt"})


def config_json(family: Family = "qwen3", kind: str = "policy", **changes: Any) -> dict[str, Any]:
    """The config.json of `tiny_config(family)` as a dict; `changes` are its fields."""
    prefix = {"qwen3": "Qwen3", "llama": "Llama"}[family]
    suffix = {"policy": "ForCausalLM", "reward": "ForSequenceClassification"}[kind]
    return config_dict(tiny_config(family), prefix + suffix, "float32") | changes


def assert_same_trees(actual: Params, expected: Params) -> None:
    """The same names, dtypes, and bits."""
    actual, expected = flatten_names(actual), flatten_names(expected)
    assert actual.keys() == expected.keys()
    for name, leaf in expected.items():
        assert actual[name].dtype == leaf.dtype, name
        np.testing.assert_array_equal(np.asarray(actual[name]), np.asarray(leaf), err_msg=name)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Equal within `tolerance` of the largest magnitude expected: float32 of another order of summation."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())
