"""Sparse Inference-time Alignment (SIA) in JAX/Flax: steer a language model at its junctions."""

from sia_jax.checkpoints.huggingface import load_policy, load_reward_model, save_policy, save_reward_model
from sia_jax.checkpoints.value_model import load_value_model, save_value_model
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.parallel.mesh import make_mesh
from sia_jax.pretrained import Policy, RewardModel, ValueModel

__all__ = [
    "LoraConfig",
    "ModelConfig",
    "Policy",
    "RewardModel",
    "ValueConfig",
    "ValueModel",
    "load_policy",
    "load_reward_model",
    "load_value_model",
    "make_mesh",
    "save_policy",
    "save_reward_model",
    "save_value_model",
]
