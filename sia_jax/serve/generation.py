"""The requests of one body under way: handed in together, listened to together, ended together."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from sia_jax.engine import aio
from sia_jax.engine.engine import Engine
from sia_jax.engine.handle import EngineClosed, Handle, Piece, told_of
from sia_jax.engine.request import Request
from sia_jax.serve.errors import ApiError, refusal
from sia_jax.serve.limits import Ticket
from sia_jax.serve.responses import REASONS
from sia_jax.serve.service import Service
from sia_jax.serve.settings import State

_Heard = tuple[int, Piece | BaseException]


class _Marked(asyncio.Queue[Any]):
    """What one request says, into the queue of all, with its place."""

    def __init__(self, heard: "asyncio.Queue[_Heard]", place: int):
        super().__init__()
        self._heard, self._place = heard, place

    def put_nowait(self, item: Any) -> None:
        """Hand it on."""
        self._heard.put_nowait((self._place, item))


class Generation:
    """Replies that are being written, n to each request.

    Args:
      service: whose engine writes them.
      requests: what was asked.
      ticket: left once the last reply has ended.
    """

    def __init__(self, service: Service, requests: Sequence[Request], ticket: Ticket):
        self._service, self._requests, self._ticket = service, tuple(requests), ticket
        self._heard: asyncio.Queue[_Heard] = asyncio.Queue()
        self._handles: list[Handle] = []
        self._begun: set[int] = set()
        self._open: dict[tuple[int, int], tuple[float, int]] = {}
        """Of each reply that is not whole: when it last said something, and its tokens."""
        self._closed = False

    async def begin(self) -> None:
        """Hand in the requests; of what cannot be, nothing goes on.

        Raises:
          ApiError: 400, the engine has no room or use for one; 503, it takes none.
        """
        engine = cast(Engine, self._service.engine)
        try:
            for place, request in enumerate(self._requests):
                handle = await aio.submit(engine, request, _Marked(self._heard, place))
                self._handles.append(handle)
                now = time.monotonic()
                self._open |= {(place, choice): (now, 0) for choice in range(request.n)}
                self._service.metrics.arrived(request.n, request.max_new_tokens)
        except EngineClosed:
            self.close()
            raise ended(self._service) from None
        except (ValueError, TypeError) as error:
            self.close()
            raise refusal(error) from None
        except BaseException:
            self.close()
            raise

    @property
    def done(self) -> bool:
        """Whether all replies are whole."""
        return not self._open

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """What comes: the place of a request, and a piece of one of its replies.

        Raises:
          ApiError: 503, the engine has ended.
        """
        while self._open:
            place, what = await self._heard.get()
            if isinstance(what, BaseException):
                self._forget(place)
                error = told_of(what)
                raise ended(self._service) if isinstance(error, EngineClosed) else error
            self._count(place, what)
            yield place, what

    def close(self) -> None:
        """Cancel what goes on. The ticket is left once the engine has let go of it."""
        if self._closed:
            return
        self._closed = True
        for handle in self._handles:
            handle.cancel()
        if self._open:
            self._service.keep(self._drain())
        else:
            self._ticket.leave()

    async def _drain(self) -> None:
        try:
            while self._open:
                place, what = await self._heard.get()
                if isinstance(what, BaseException):
                    self._forget(place)
                else:
                    self._count(place, what)
        finally:
            self._ticket.leave()

    def _count(self, place: int, piece: Piece) -> None:
        key, metrics, now = (place, piece.choice), self._service.metrics, time.monotonic()
        if key not in self._open:  # its hand-in was broken off, and it was cancelled
            return
        last, told = self._open[key]
        new = len(piece.tokens) if piece.reply is None else len(piece.reply.tokens) - told
        if new > 0:
            metrics.piece(now - last, new, told == 0)
            self._open[key] = now, told + new
        if place not in self._begun:
            self._begun.add(place)
            if len(self._begun) == len(self._requests):
                self._ticket.admitted()
        if piece.reply is not None:
            del self._open[key]
            metrics.finished(piece.reply, REASONS[piece.reply.finish_reason])

    def _forget(self, place: int) -> None:
        """Of a request that failed there will be no replies."""
        for key in [key for key in self._open if key[0] == place]:
            del self._open[key]
            self._service.metrics.finished(None, "error")


def ended(service: Service) -> ApiError:
    """A 503: the engine takes nothing any more. If nobody told it to end, the server is dead."""
    if service.state == State.READY:
        service.state = State.DEAD
    return ApiError(
        503, "the engine has ended; try again later", code="engine_ended", headers={"Retry-After": "10"}
    )
