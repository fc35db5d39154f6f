"""The engine for asyncio: a server awaits pieces and replies, and blocks no loop."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sia_jax.engine.engine import Asked, Engine
from sia_jax.engine.handle import Handle, Piece, told_of
from sia_jax.engine.reply import Reply
from sia_jax.engine.scoring import Scored


async def submit(
    engine: Engine, asked: Asked, pieces: "asyncio.Queue[Piece | BaseException]", **fields: Any
) -> Handle:
    """Hand in a request whose pieces go into a queue; it is checked in a thread of its own.

    Args:
      engine: any.
      asked: a text, a conversation or a `Request`.
      pieces: of the running loop; it gets each `Piece`, or why there will be no more.
      **fields: of the request.

    Raises:
      ValueError, TypeError, EngineClosed: as of `Engine.submit`.
    """
    loop = asyncio.get_running_loop()

    def listen(what: Piece | BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody listens any more
            loop.call_soon_threadsafe(pieces.put_nowait, what)

    handed_in: list[Handle] = []
    left = threading.Event()

    def hand_in() -> Handle:
        handle = engine.submit(asked, listener=listen, **fields)
        handed_in.append(handle)
        if left.is_set():
            handle.cancel()
        return handle

    try:
        return await asyncio.to_thread(hand_in)
    except asyncio.CancelledError:  # the thread goes on
        left.set()
        for handle in handed_in:
            handle.cancel()
        raise


async def stream(engine: Engine, asked: Asked, **fields: Any) -> AsyncIterator[Piece]:
    """The pieces of a request's replies, as they come. Left before its end, the iteration cancels it.

    Args:
      engine: any.
      asked: a text, a conversation or a `Request`.
      **fields: of the request.

    Raises:
      ValueError, TypeError, EngineClosed: as of `Engine.submit`; or the engine ended before the reply did.
    """
    pieces: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
    handle = await submit(engine, asked, pieces, **fields)
    try:
        left = handle.request.n
        while left:
            piece = await pieces.get()
            if isinstance(piece, BaseException):
                raise told_of(piece)
            left -= piece.reply is not None
            yield piece
    finally:
        handle.cancel()


async def generate(engine: Engine, asked: Asked, **fields: Any) -> Reply:
    """The reply to a request; see `stream`. A task that is cancelled cancels the request."""
    pieces: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
    handle = await submit(engine, asked, pieces, **fields)
    try:
        while not handle.done:
            await pieces.get()
        return handle.result()
    finally:
        handle.cancel()


async def score(engine: Engine, prompts: Sequence[Sequence[int]], top: int = 0) -> list[Scored]:
    """How likely the policy finds given prompts; see `Engine.score`.

    A task that is cancelled leaves unread what has not been read.

    Args:
      engine: any.
      prompts: ids of each.
      top: K, at most the engine's `top_logprobs`.

    Raises:
      ValueError, TypeError, EngineClosed: as of `Engine.score`.
    """
    return await asyncio.wrap_future(engine.submit_score(prompts, top))
