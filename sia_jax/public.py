"""The names that `import sia_jax` offers; all are imported when the first is asked for."""

from sia_jax.checkpoints.huggingface import load_policy, load_reward_model, save_policy, save_reward_model
from sia_jax.checkpoints.value_model import load_value_model, save_value_model
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.sample import sample
from sia_jax.decoding.schedule import Burst, Shared
from sia_jax.decoding.search import BestOfN, best_of_n
from sia_jax.decoding.state import FinishReason, Samples
from sia_jax.engine.engine import Engine
from sia_jax.engine.handle import EngineClosed, Handle, Piece
from sia_jax.engine.reply import Reply
from sia_jax.engine.request import Request
from sia_jax.engine.scoring import Scored
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.parallel.mesh import make_mesh
from sia_jax.pretrained import Policy, RewardModel, ValueModel
from sia_jax.steering.config import Knobs, SteeringConfig

__all__ = [
    "BestOfN",
    "Burst",
    "Engine",
    "EngineClosed",
    "FinishReason",
    "Handle",
    "Knobs",
    "LoraConfig",
    "ModelConfig",
    "Piece",
    "Policy",
    "Prompt",
    "Reply",
    "Request",
    "RewardModel",
    "SamplerConfig",
    "Samples",
    "Scored",
    "Shared",
    "SteeringConfig",
    "SteeringParams",
    "ValueConfig",
    "ValueModel",
    "best_of_n",
    "load_policy",
    "load_reward_model",
    "load_value_model",
    "make_mesh",
    "sample",
    "save_policy",
    "save_reward_model",
    "save_value_model",
]
