"""What the routes of a server share: its engine, its models by name, its limits and what it counts."""

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from sia_jax.engine.handle import Handle, Listener
from sia_jax.engine.job import Terms
from sia_jax.engine.statistics import Statistics
from sia_jax.pretrained import Policy, ValueModel
from sia_jax.serve.errors import ApiError
from sia_jax.serve.limits import Admission
from sia_jax.serve.metrics import Metrics
from sia_jax.serve.names import TokenNames
from sia_jax.serve.presets import Preset
from sia_jax.serve.settings import Settings, State


class EngineLike(Protocol):
    """What a server asks of an engine: `sia_jax.engine.engine.Engine`."""

    policy: Policy
    value: ValueModel | None

    @property
    def terms(self) -> Terms:
        """What it was made for."""

    @property
    def tokenizing(self) -> threading.Lock:
        """Held by whoever uses a tokenizer."""

    def submit(self, asked: Any, *, listener: Listener | None = None, **fields: Any) -> Handle:
        """Hand in a request."""

    def submit_score(self, prompts: Sequence[Sequence[int]], top: int = 0) -> "Future[list[Any]]":
        """What the policy makes of each id of prompts: `ids`, `logprobs`, `top_ids`, `top_logprobs`."""

    def statistics(self) -> Statistics:
        """Totals so far."""

    @property
    def failure(self) -> BaseException | None:
        """Why it failed; None: it has not."""

    def warmup(self, *, scoring: bool) -> None:
        """Compile all that requests and echoes need."""

    def cancel_all(self) -> None:
        """End all replies as they are."""

    def close(self) -> None:
        """End it."""


@dataclass(kw_only=True, eq=False)
class Service:
    """What the routes share; they run in one event loop."""

    engine: EngineLike
    presets: Mapping[str, Preset]
    """By the names of models."""
    settings: Settings
    metrics: Metrics
    admission: Admission
    created: int
    """Seconds of Unix."""
    state: State = State.STARTING
    names: TokenNames = field(init=False)
    _tasks: set[asyncio.Task[Any]] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.names = TokenNames(self.engine.policy.tokenizer, self.engine.tokenizing)

    @property
    def terms(self) -> Terms:
        """Of the engine."""
        return self.engine.terms

    @property
    def max_length(self) -> int:
        """Tokens of the longest prompt with its reply."""
        return self.terms.lengths[-1]

    @property
    def max_top_logprobs(self) -> int:
        """How many of the likeliest ids the engine records."""
        config: Any = self.terms.config
        return int(config.top_logprobs)

    def preset(self, model: str) -> Preset:
        """The numbers that a name of a model stands for.

        Raises:
          ApiError: 404, there is no such name.
        """
        if model not in self.presets:
            known = ", ".join(self.presets)
            raise ApiError(
                404,
                f"there is no model {model[:80]!r}; this server has {known}",
                param="model",
                code="model_not_found",
            )
        return self.presets[model]

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on behind an answer."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
