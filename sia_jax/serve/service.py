"""What the routes of a server share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sia_jax.serve.limits import Admission
from sia_jax.serve.metrics import Metrics
from sia_jax.serve.settings import Settings, State


@dataclass(kw_only=True, eq=False)
class Service:
    """What the routes share; they run in one event loop."""

    engine: Any
    presets: Mapping[str, Any]
    """By the names of models."""
    settings: Settings
    metrics: Metrics
    admission: Admission
    created: int
    """Seconds of Unix."""
    state: State = State.STARTING
