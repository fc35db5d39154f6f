"""What is noted of every request of HTTP: its id, how it was answered, and what its route told of it."""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from sia_jax.serve.access_log import FACTS
from sia_jax.serve.asgi import App, Message, Receive, Scope, Send, header_of
from sia_jax.serve.metrics import Metrics
from sia_jax.serve.settings import Settings

_FACTS = "sia_jax.facts"
_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")
CLIENT_LEFT = 499
"""The status that is noted of a request whose client left before an answer began."""


def note(scope: Scope, **facts: Any) -> None:
    """For a route: tell the log of a request.

    Args:
      scope: of the request.
      **facts: model, tokens, steered (tokens of all its replies), prompt, which is written only if the server
        is set to.

    Raises:
      TypeError: another fact.
    """
    unknown = set(facts) - set(FACTS)
    if unknown:
        raise TypeError(f"the log knows {FACTS}, got {sorted(unknown)}")
    scope.get(_FACTS, {}).update(facts)


def request_id(scope: Scope) -> str:
    """The id of a request: the client's, if it sent a sane one; "" where none was given."""
    found: str = scope.get(_FACTS, {}).get("id", "")
    return found


class Observed:
    """ASGI middleware: gives each request an id, counts it by its route, and writes a line about it.

    The id is that of the header X-Request-Id, if that is at most 64 letters, digits, - and _; else a new one.
    The answer has it too.

    Args:
      app: what answers.
      metrics: counts.
      settings: whether prompts may be written.
      write: gets the facts of each request when it has ended.
      clock: seconds.
    """

    def __init__(
        self,
        app: App,
        metrics: Metrics,
        settings: Settings,
        write: Callable[[Mapping[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._app, self._metrics, self._settings, self._write = app, metrics, settings, write
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and note it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._clock()
        told = header_of(scope, b"x-request-id")
        own = told if told is not None and _ID.fullmatch(told) else secrets.token_hex(16).encode()
        facts: dict[str, Any] = {"id": own.decode()}
        scope[_FACTS] = facts
        status: int | None = None
        whole = False

        async def noting(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", own)]}
            await send(message)
            if message["type"] == "http.response.body":
                whole = not message.get("more_body", False)

        failed = False
        try:
            await self._app(scope, receive, noting)
        except Exception:
            failed = True
            raise
        finally:
            seconds = self._clock() - began
            if status is None:
                status = 500 if failed else CLIENT_LEFT
            route = getattr(scope.get("route"), "path", None)
            self._metrics.answered(scope["method"], route, status, seconds)
            if not self._settings.log_prompts:
                facts.pop("prompt", None)
            line = {"method": scope["method"], "route": route or scope["path"], "status": status}
            line |= {"seconds": seconds, "whole": None if whole else False}
            self._write(line | {name: facts.get(name) for name in (*FACTS, "id")})
