"""What is refused before anything is done for it: too much, too large, too early, too late."""

import asyncio
import math
import time
from collections.abc import Callable
from types import TracebackType

from sia_jax.serve.asgi import App, Message, Receive, Scope, Send, header_of, send_error
from sia_jax.serve.keys import LIVENESS
from sia_jax.serve.settings import Settings, State

_LONGEST_WAIT = 60
"""Seconds that a client is asked to wait at most; clients of OpenAI heed no more."""
_WAIT = {State.STARTING: 5, State.DRAINING: 5, State.DEAD: 10}
"""Seconds after which to ask again, this server or another in its place."""
_CROWDED = 1
"""Seconds after which to ask again where there were too many connections."""
_SHARE = 0.1
"""Of the newest in a running mean."""
_DROPPED = 4
"""Times the limit that is read of a body at most."""


class Refused(Exception):
    """A request that is not taken.

    Args:
      status: of HTTP.
      retry_after: seconds after which it may be taken; None: never.
      message: why, for the client.
    """

    def __init__(self, status: int, retry_after: int | None, message: str):
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class Ticket:
    """The place of a request that was taken. Inside `with`, or until `leave`.

    Args:
      admission: that gave it.
      requests: replies.
      tokens: of its prompts.
      entered: seconds, on the clock of the admission.
    """

    def __init__(self, admission: "Admission", requests: int, tokens: int, entered: float):
        self._admission, self.requests, self.tokens, self.entered = admission, requests, tokens, entered
        self._queued = self._open = True

    def admitted(self) -> None:
        """Its prompts are read: they wait no more. Again, it does nothing."""
        if self._queued:
            self._queued = False
            self._admission._read(self)

    def leave(self) -> None:
        """It has ended, however. Again, it does nothing."""
        self.admitted()
        if self._open:
            self._open = False
            self._admission._left(self)

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


class Admission:
    """Counts what runs and waits, and refuses what would be too much. For one event loop, and no thread.

    Args:
      settings: its limits.
      clock: seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic):
        self._settings, self._clock = settings, clock
        self.requests = 0
        """Replies that are written or waited for."""
        self.tokens = 0
        """Of prompts that wait to be read."""
        self._stay = self._wait = 0.0
        """Seconds from entering to leaving and to being read, on average over the last requests."""

    def enter(self, requests: int, tokens: int) -> Ticket:
        """Take a request, or do not; before its prompts are tokenised.

        Args:
          requests: replies that it asks for, n of each prompt.
          tokens: of all its prompts, estimated.

        Raises:
          Refused: with 503 and the seconds until there may be room; with 400 where there never will be.
        """
        most = self._settings.max_queued_requests
        if requests > most:
            raise Refused(
                400,
                None,
                f"{requests} replies are asked for at once, and this server takes {most} at a time; split "
                "the request",
            )
        too_many = self.requests + requests - most
        if too_many > 0:
            raise Refused(
                503,
                _seconds(self._stay * too_many / self.requests),
                f"{self.requests} replies are written or waited for, of at most {most}; try again later",
            )
        over = self.tokens + tokens - self._settings.max_queued_tokens
        if self.tokens and over > 0:  # alone, any prompt is read at once
            raise Refused(
                503,
                _seconds(self._wait * over / self.tokens),
                f"{self.tokens} tokens of prompts wait to be read, and with {tokens} more they would be over "
                f"{self._settings.max_queued_tokens}; try again later",
            )
        self.requests += requests
        self.tokens += tokens
        return Ticket(self, requests, tokens, self._clock())

    def _read(self, ticket: Ticket) -> None:
        self.tokens -= ticket.tokens
        self._wait += _SHARE * (self._clock() - ticket.entered - self._wait)

    def _left(self, ticket: Ticket) -> None:
        self.requests -= ticket.requests
        self._stay += _SHARE * (self._clock() - ticket.entered - self._stay)


def _seconds(estimate: float) -> int:
    return min(max(1, math.ceil(estimate)), _LONGEST_WAIT)


class ConnectionLimit:
    """ASGI middleware: while there are too many connections, a request is answered 503, and its own closed.

    Args:
      app: what it guards.
      connections: how many there are, with that of the request.
      most: of them.
      refused: told the status of each refusal.
    """

    def __init__(self, app: App, connections: Callable[[], int], most: int, refused: Callable[[int], None]):
        self._app, self._connections, self._most, self._refused = app, connections, most, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass; whoever asks whether the server lives may."""
        if scope["type"] != "http" or scope["path"] in LIVENESS or self._connections() <= self._most:
            await self._app(scope, receive, send)
            return
        self._refused(503)
        message = f"there are more than {self._most} connections; try again later"
        headers = {"retry-after": str(_CROWDED), "connection": "close"}
        await send_error(send, 503, message, "too_many_connections", headers)


class ReadyOnly:
    """ASGI middleware: what asks for work is answered 503 while the server starts, drains or is dead.

    Args:
      app: what it guards.
      state: of the server, now.
    """

    def __init__(self, app: App, state: Callable[[], State]):
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        state = self._state()
        asks = scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith("/v1/")
        if state == State.READY or not asks:
            await self._app(scope, receive, send)
            return
        what = "the engine has failed" if state == State.DEAD else f"the server is {state.value}"
        headers = {"retry-after": str(_WAIT[state]), "connection": "close"}
        await send_error(send, 503, f"{what}; try again later", f"server_{state.value}", headers)


class BodyLimit:
    """ASGI middleware: reads the whole body of a request before it is passed on, and not too much of it.

    A body that is too long is answered 413, whether or not its length was told first; one that comes too
    slowly 408.

    Args:
      app: gets the body in one piece.
      settings: bytes and seconds.
    """

    def __init__(self, app: App, settings: Settings):
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        most, close = self._settings.max_body_bytes, {"connection": "close"}
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                body = await _read(receive, most, header_of(scope, b"content-length"))
        except TimeoutError:
            message = f"the body was not there within {self._settings.body_seconds:g} seconds"
            await send_error(send, 408, message, "body_timeout", close)
            return
        except _TooLargeError:
            message = f"the body is larger than {most} bytes, which are the most that is taken"
            await send_error(send, 413, message, "body_too_large", close)
            return
        if body is None:
            return  # who sent it has left
        left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return left.pop() if left else await receive()

        await self._app(scope, replay, send)


class _TooLargeError(Exception):
    """A body is."""


def _has_body(scope: Scope) -> bool:
    names = {name.lower() for name, _ in scope["headers"]}
    return b"content-length" in names or b"transfer-encoding" in names


async def _read(receive: Receive, most: int, told: bytes | None) -> bytes | None:
    """The body; None: its sender left.

    One that is too large, though not by far, is read to its end and dropped: a client that still sends when
    its connection is closed sees that, and not the answer.
    """
    length = int(told[:20]) if told is not None and told.isdigit() else 0
    if length > _DROPPED * most:
        raise _TooLargeError
    body, read = bytearray(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        read += len(part)
        if read > _DROPPED * most:
            raise _TooLargeError
        if max(read, length) > most:
            body.clear()
        else:
            body += part
        if not message.get("more_body", False):
            break
    if read > most:
        raise _TooLargeError
    return bytes(body)
