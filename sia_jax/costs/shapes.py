"""The shapes that figures are quoted for, and random weights of them."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp

import sia_jax
from sia_jax.costs.tpu import QWEN3_1_7B
from sia_jax.models.config import HeadKind, ModelConfig, RopeConfig, ValueConfig
from sia_jax.models.lora import LoraConfig, init_lora
from sia_jax.models.transformer import init_model
from sia_jax.models.value_model import init_value_head
from sia_jax.types import Params

_MINI = ModelConfig(
    family="qwen3",
    vocab_size=32000,
    hidden_size=512,
    intermediate_size=1536,
    num_layers=8,
    num_heads=8,
    num_kv_heads=4,
    head_dim=64,
    rope=RopeConfig(1e6),
    rms_norm_eps=1e-6,
    tie_word_embeddings=False,
    max_position_embeddings=4096,
)
_TINY = replace(
    _MINI,
    vocab_size=320,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
)
NARROW = replace(
    _TINY,
    vocab_size=2048,
    hidden_size=128,
    intermediate_size=384,
    num_layers=28,
    head_dim=32,
    tie_word_embeddings=True,
)
"""As deep as real models, and soon computed: for the time that compiling takes."""
SHAPES = {"mini": _MINI, "tiny": _TINY}
""""tiny" only shows that the programs run."""
ADAPTED_SHAPES = {
    "smollm2-135m": ModelConfig(
        family="llama",
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        rope=RopeConfig(1e5),
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
    )
}
"""Whose value model is timed as an adapter over the policy's own weights: HuggingFaceTB/SmolLM2-135M."""
REAL_SHAPES = {
    "1.7B": QWEN3_1_7B,
    "0.6B": replace(QWEN3_1_7B, hidden_size=1024, intermediate_size=3072),
    "4B": replace(QWEN3_1_7B, hidden_size=2560, intermediate_size=9728, num_layers=36, num_heads=32),
    "8B": replace(
        QWEN3_1_7B,
        hidden_size=4096,
        intermediate_size=12288,
        num_layers=36,
        num_heads=32,
        tie_word_embeddings=False,
    ),
    "14B": replace(
        QWEN3_1_7B,
        hidden_size=5120,
        intermediate_size=17408,
        num_layers=40,
        num_heads=40,
        tie_word_embeddings=False,
    ),
    "tiny": replace(_TINY, tie_word_embeddings=True),
}
"""Of Qwen3 models that there are; "tiny" again only shows that the programs run."""


Head = HeadKind | Literal["states"]
"""A value model's head; "states": one over the policy's own hidden states, and nothing else."""


class Weights(Protocol):
    """What a timed sampler needs of its models."""

    @property
    def config(self) -> ModelConfig:
        """Of the policy."""

    @property
    def policy(self) -> Params:
        """The policy's tree."""

    def value_config(self, head: Head) -> ValueConfig:
        """Of the value model with that head."""

    def params(self, head: Head | None) -> sia_jax.SteeringParams:
        """The weights of a sampler; None: of an unsteered one."""


@dataclass(frozen=True, eq=False)
class Models:
    """A policy and a value model with random weights of its own, of the same shape or another."""

    config: ModelConfig
    policy: Params
    backbone: ModelConfig
    value_model: Params
    heads: dict[Head, Params]

    @staticmethod
    def random(
        config: ModelConfig, backbone: ModelConfig | None = None, dtype: Any = jnp.float32
    ) -> "Models":
        """The same weights every time; the heads are float32.

        Args:
          config: of the policy.
          backbone: of the value model; None: as the policy.
          dtype: of both networks.
        """
        backbone = config if backbone is None else backbone
        policy_key, value_key, head_key, lm_key = jax.random.split(jax.random.key(0), 4)
        policy = {"model": init_model(config, policy_key, dtype)}
        return Models(
            config,
            policy | _random_lm_head(config, lm_key, dtype),
            backbone,
            init_model(backbone, value_key, dtype),
            _random_heads(config, backbone, head_key),
        )

    def value_config(self, head: Head) -> ValueConfig:
        """Of the value model with that head."""
        return _value_config(self.config if head == "states" else self.backbone, head)

    def params(self, head: Head | None) -> sia_jax.SteeringParams:
        """The weights of a sampler; None: of an unsteered one."""
        return sia_jax.SteeringParams(self.policy, _tree(self.heads, head, {"model": self.value_model}))


@dataclass(frozen=True, eq=False)
class AdaptedModels:
    """A policy, and a value model that is an adapter over its weights."""

    config: ModelConfig
    policy: Params
    lora: Params
    heads: dict[Head, Params]

    @staticmethod
    def random(config: ModelConfig, dtype: Any) -> "AdaptedModels":
        """The same weights every time, made on the device; the adapter and the heads are float32."""
        policy_key, lora_key, head_key = jax.random.split(jax.random.key(0), 3)
        model = init_model(config, policy_key, dtype)  # not jitted: on a GPU that took XLA two minutes
        lora = init_lora(model, _ADAPTER, lora_key)
        lm_head = _random_lm_head(config, jax.random.fold_in(policy_key, 1), dtype)
        return AdaptedModels(
            config, {"model": model} | lm_head, lora, _random_heads(config, config, head_key)
        )

    def value_config(self, head: Head) -> ValueConfig:
        """Of the value model with that head."""
        config = _value_config(self.config, head)
        return config if head == "states" else replace(config, lora=_ADAPTER)

    def params(self, head: Head | None) -> sia_jax.SteeringParams:
        """The weights of a sampler; None: of an unsteered one."""
        return sia_jax.SteeringParams(self.policy, _tree(self.heads, head, {"lora": self.lora}))


_ADAPTER = LoraConfig()


def _random_lm_head(config: ModelConfig, key: jax.Array, dtype: Any) -> Params:
    """The output head, unless it is the embedding."""
    if config.tie_word_embeddings:
        return {}
    weight = jax.random.normal(key, (config.vocab_size, config.hidden_size)) * config.initializer_range
    return {"lm_head": {"weight": weight.astype(dtype)}}


def _random_heads(policy: ModelConfig, backbone: ModelConfig, key: jax.Array) -> dict[Head, Params]:
    kinds: dict[Head, ModelConfig] = {"scalar": backbone, "vocab": backbone, "states": policy}
    return {kind: init_value_head(_value_config(config, kind), key) for kind, config in kinds.items()}


def _tree(heads: dict[Head, Params], head: Head | None, backbone: Params) -> Params | None:
    """The value model's tree with a head; one over the policy's states needs no backbone."""
    if head is None:
        return None
    return {"value_head": heads[head]} | ({} if head == "states" else backbone)


def _value_config(config: ModelConfig, head: Head) -> ValueConfig:
    if head == "states":
        return ValueConfig(config, "vocab", 64, states="policy")
    return ValueConfig(config, head, 64 if head == "vocab" else None)
