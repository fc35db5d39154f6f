"""What a server allows, and where it stands between its start and its end."""

import enum
import math
from dataclasses import dataclass, fields


class State(enum.Enum):
    """Of a server. It takes requests only when it is ready."""

    STARTING = "starting"
    """The engine compiles."""
    READY = "ready"
    DRAINING = "draining"
    """It was told to end: requests that run go on, others are refused."""
    DEAD = "dead"
    """The engine has failed."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits and times of a server.

    Raises:
      ValueError: a number that is none, or too small.
    """

    max_body_bytes: int = 4_194_304
    """Bytes of the body of a request."""
    max_prompt_tokens: int | None = None
    """Tokens of a prompt. Without: what the engine's rows hold."""
    max_new_tokens: int | None = None
    """Most that a request may ask for as max_tokens. Without: what the engine's rows hold."""
    max_n: int = 16
    """Replies to a prompt, n."""
    max_batch_prompts: int = 256
    """Prompts of a request of /v1/completions."""
    max_queued_requests: int = 256
    """Replies that are written or waited for at a time; a request of n replies counts n. More are refused
    with status 503."""
    max_queued_tokens: int = 65_536
    """Tokens of prompts that wait to be read; a text counts a token for each 4 bytes. More are refused with
    status 503, unless nothing waits."""
    max_connections: int = 1024
    """Connections at a time, idle ones too; of more, each is refused."""
    body_seconds: float = 30.0
    """Seconds that the body of a request may take to come."""
    request_seconds: float = 600.0
    """Seconds after which a reply ends as it is, with the reason abort."""
    drain_seconds: float = 30.0
    """Seconds that replies have to end after SIGTERM; 0: none."""
    dead_seconds: float = 10.0
    """Seconds that a server whose engine has failed tells so before it ends."""
    keep_alive_seconds: float = 5.0
    """Seconds that an idle connection is kept."""
    log_prompts: bool = False
    """Whether the log has the prompts."""
    page_open: bool = True
    """Whether the page can be seen without a key; what it asks of the server takes one."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), 0 if one.name in _MAY_BE_ZERO else 1
            if isinstance(value, bool) or value is None:
                continue
            if one.name.endswith("_seconds"):
                if not (math.isfinite(value) and (value >= 0 if least == 0 else value > 0)):
                    over = "0 or more" if least == 0 else "over 0"
                    raise ValueError(f"{one.name} must be a number of seconds, {over}, got {value}")
            elif value < least:
                raise ValueError(f"{one.name} must be {least} or more, got {value}")


_MAY_BE_ZERO = frozenset({"drain_seconds", "dead_seconds"})
