"""The weights of a sampler."""

from dataclasses import dataclass

import jax

from sia_jax.decoding.config import SamplerConfig
from sia_jax.models.value_model import ValueNet, value_net
from sia_jax.reprs import weights
from sia_jax.types import Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class SteeringParams:
    """The weights of a sampler."""

    policy: Params
    """{"model": ..., "lm_head": ...}."""
    value: Params | None = None
    """{"model" or "lora": ..., "value_head": ...}, or {"value_head": ...} on the policy's hidden states;
    None: nothing is steered."""

    def __repr__(self) -> str:
        return f"SteeringParams(policy: {weights(self.policy)}; value: {weights(self.value)})"

    def value_net(self, config: SamplerConfig) -> ValueNet | None:
        """The value model, over its own weights or the policy's; None if there is none."""
        if self.value is None or config.value is None:
            return None
        return value_net(self.value, config.value, self.policy)

    def pass_net(self, config: SamplerConfig) -> ValueNet | None:
        """The value model, if it runs passes of its own; else None."""
        return self.value_net(config) if config.value_passes else None
