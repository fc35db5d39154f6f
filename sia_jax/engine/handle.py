"""What a caller holds of a request that was handed in: its pieces as they come, and its reply."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sia_jax.engine.reply import Reply, with_choices
from sia_jax.engine.request import Request
from sia_jax.steering.types import TokenRecord


class EngineClosed(RuntimeError):
    """The engine takes no requests any more, or ended before the reply was whole."""


@dataclass(frozen=True)
class Piece:
    """What one of a request's replies said in one go."""

    text: str
    """It may be "": a character, or what may be a stop text, is not whole yet."""
    choice: int
    """Which of the n replies."""
    record: TokenRecord
    """[k] of the tokens that came, NumPy. Of a reply that a stop text ends, also those past it."""
    reply: Reply | None
    """The whole reply, with its last piece."""

    @property
    def tokens(self) -> np.ndarray:
        """[k] ids."""
        return np.asarray(self.record.tokens)


Listener = Callable[[Piece | BaseException], None]
"""Told each piece, or why there will be no more; on the engine's thread, which it must not hold up. What it
raises ends its request."""


class Handle:
    """A request that was handed in. All methods are safe from any thread.

    Args:
      request: as it was handed in.
      cancel: asks the engine to end a handle's replies.
      listener: told of everything as it comes, in place of the iteration; None: nobody is.
    """

    def __init__(
        self, request: Request, cancel: Callable[["Handle"], None], listener: Listener | None = None
    ):
        self.request = request
        self.submitted = time.monotonic()
        self._cancel = cancel
        self._listener = listener
        self._pieces: queue.SimpleQueue[Piece | BaseException | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._replies: dict[int, Reply] = {}
        self._error: BaseException | None = None
        self._owner: object = None

    @property
    def done(self) -> bool:
        """Whether all replies are there, or there will be none."""
        return self._ended.is_set()

    def cancel(self) -> None:
        """End the replies; what they have said until then is what they are. Of one that ended, nothing."""
        if not self.done:
            self._cancel(self)

    def result(self, timeout: float | None = None) -> Reply:
        """The reply; of n, the first, whose `choices` are all.

        Args:
          timeout: seconds to wait for it; None: as long as it takes.

        Raises:
          TimeoutError: it is not there by then; the request goes on.
          EngineClosed: the engine ended first; the cause is chained.
          Exception: what the request's own listener raised.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"no reply within {timeout} seconds; wait longer, or cancel the request")
        if self._error is not None:
            raise told_of(self._error)
        return with_choices([self._replies[j] for j in range(self.request.n)])

    def __iter__(self) -> Iterator[Piece]:
        """The pieces, as they come; each is handed out once.

        Raises:
          EngineClosed: the engine ended first; the cause is chained.
          TypeError: the request has a listener, which gets the pieces.
        """
        if self._listener is not None:
            raise TypeError("the pieces of a request with a listener go to that")
        while True:
            piece = self._pieces.get()
            if piece is None or isinstance(piece, BaseException):
                self._pieces.put(None)  # who asks again gets nothing more, and does not wait
                if piece is None:
                    return
                raise told_of(piece)
            yield piece

    def keep(self, owner: object) -> None:
        """For the engine: it is not to be collected before this request has ended."""
        self._owner = owner
        if self.done:
            self._owner = None

    def say(self, piece: Piece) -> None:
        """For the engine: hand out a piece."""
        if self.done:
            return
        if piece.reply is not None:
            self._replies[piece.choice] = piece.reply
        whole = len(self._replies) == self.request.n
        if whole:
            self._end()
        self._tell(piece)
        if whole:
            self._pieces.put(None)

    def fail(self, error: BaseException) -> None:
        """For the engine: there will be no more."""
        if not self.done:
            self._error = error
            self._end()
            self._tell(error)

    def _end(self) -> None:
        self._ended.set()
        self._owner = None

    def _tell(self, what: Piece | BaseException) -> None:
        if self._listener is None:
            self._pieces.put(what)
            return
        try:
            self._listener(what)
        except BaseException as error:  # of the listener's own making, which no other request suffers from
            if not self.done:
                self._error = _ListenerFailed(error)
                self._cancel(self)
                self._end()


class Stream(Iterator[Piece]):
    """The pieces of a request. Left before its end, by `close`, `with` or nobody's holding it, it cancels it.

    Args:
      handle: of a request without a listener.
    """

    def __init__(self, handle: Handle):
        self.handle = handle
        self._pieces = iter(handle)

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """Cancel the request, unless it has ended."""
        self.handle.cancel()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class _ListenerFailed(Exception):
    """What a listener raised."""

    def __init__(self, error: BaseException):
        super().__init__(str(error))
        self.error = error


def told_of(cause: BaseException) -> BaseException:
    """What a caller is told who will get no reply, and why."""
    if isinstance(cause, _ListenerFailed):
        return cause.error
    closed = EngineClosed(f"the engine ended before the reply was whole: {cause}")
    closed.__cause__ = cause
    return closed
