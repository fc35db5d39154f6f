"""The static description of a training run: what is trained, on which objective, by which optimiser."""

import math
from dataclasses import dataclass, field
from typing import Literal

from sia_jax.models.config import ValueConfig

Trained = Literal["lora", "head", "full"]
Objective = Literal["mean", "token", "distil"]
Schedule = Literal["constant", "cosine"]
Method = Literal["adamw", "muon"]


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with clipping, or Muon for matrices and AdamW for the rest. The defaults are the paper's."""

    learning_rate: float = 1e-4
    """At its highest."""
    weight_decay: float = 1e-4
    """Decoupled: lr * weight_decay of every trained parameter is taken off in each step."""
    clip_norm: float = 1.0
    """Largest norm of a step's gradient over all trained parameters."""
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    schedule: Schedule = "constant"
    """"cosine" falls from the highest rate to `schedule_end` of it at `total_steps`."""
    warmup_steps: int = 0
    """Steps in which the rate rises linearly from 0, under either schedule."""
    total_steps: int | None = None
    """Steps of the whole run; needed by "cosine"."""
    schedule_end: float = 0.1
    """Share of the highest rate that "cosine" ends at."""
    method: Method = "adamw"
    """"muon" updates the layers' matrices by Muon and the rest, embeddings and heads too, by AdamW."""
    matrix_learning_rate: float = 0.02
    """Of Muon, at its highest; `learning_rate` is then AdamW's."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "matrix_learning_rate", "clip_norm", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be 0 or more and finite, got {self.weight_decay}")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule must be 'constant' or 'cosine', got {self.schedule!r}")
        if self.method not in ("adamw", "muon"):
            raise ValueError(f"method must be 'adamw' or 'muon', got {self.method!r}")
        if not 0 <= self.schedule_end <= 1:
            raise ValueError(f"schedule_end must be a share in [0, 1], got {self.schedule_end}")
        if self.schedule == "cosine" and self.total_steps is None:
            raise ValueError("schedule 'cosine' needs total_steps, the steps of the whole run, got None")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be 0 or more, got {self.warmup_steps}")
        if self.total_steps is not None and self.warmup_steps >= self.total_steps:
            raise ValueError(
                f"warmup_steps must be less than the steps of the whole run, {self.total_steps}, got "
                f"{self.warmup_steps}"
            )


@dataclass(frozen=True)
class TrainConfig:
    """What shapes the compiled training step. Frozen and hashable: a static argument of its programs."""

    value: ValueConfig
    """The value model; its `lora` says which adapter is trained."""
    trained: Trained = "lora"
    """"lora": adapter and head; "head": the head on a frozen backbone; "full": everything."""
    objective: Objective = "mean"
    """"mean": (mean_t V - R)^2, the paper's. "token": mean_t (V_t - R)^2. "distil": to a teacher's V_t."""
    teacher: ValueConfig | None = None
    """The value model that "distil" learns from."""
    batch_size: int = 16
    """Trajectories of a step, however they are packed."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    remat: bool = False
    """The backward pass computes each layer again instead of keeping it: less memory, a third more work."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("trained", ("lora", "head", "full")),
            ("objective", ("mean", "token", "distil")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        if (self.trained == "lora") != (self.value.lora is not None):
            raise ValueError(
                f"trained={self.trained!r} with value.lora={self.value.lora}: give a LoraConfig to train an "
                "adapter, and None to train something else"
            )
        if not self.value.runs_passes and self.trained != "head":
            raise ValueError(
                f"a head on the policy's states leaves the policy as it is, got trained={self.trained!r}; "
                "give trained='head'"
            )
        if (self.objective == "distil") != (self.teacher is not None):
            raise ValueError(
                f"objective {self.objective!r} with teacher {self.teacher}: distil needs one, others none"
            )
        if self.teacher is not None and self.teacher.backbone.vocab_size != self.value.backbone.vocab_size:
            raise ValueError(
                f"teacher and value model need one vocabulary, got {self.teacher.backbone.vocab_size} and "
                f"{self.value.backbone.vocab_size} ids"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {self.batch_size}")
