"""What a server is set to, and how it stands."""

import enum
from dataclasses import dataclass


class State(enum.Enum):
    """How a server stands."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits and times of a server."""

    max_body_bytes: int = 4_194_304
    max_prompt_tokens: int | None = None
    max_new_tokens: int | None = None
    max_n: int = 16
    max_queued_requests: int = 256
    max_queued_tokens: int = 65_536
    max_batch_prompts: int = 256
    request_seconds: float = 600.0
    drain_seconds: float = 30.0
    keep_alive_seconds: float = 5.0
    log_prompts: bool = False
    page_open: bool = True
