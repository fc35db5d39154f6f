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
"""Told each piece, or why there will be no more; on the engine's thread, which it must not hold up."""


class Handle:
    """A request that was handed in. All methods are safe from any thread.

    Args:
      request: as it was handed in.
      cancel: asks the engine to end the replies.
      listener: told of everything as it comes; None: nobody is.
    """

    def __init__(self, request: Request, cancel: Callable[[], None], listener: Listener | None = None):
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
        self._cancel()

    def result(self, timeout: float | None = None) -> Reply:
        """The reply; of n, the first, whose `choices` are all.

        Args:
          timeout: seconds to wait for it; None: as long as it takes.

        Raises:
          TimeoutError: it is not there by then; the request goes on.
          EngineClosed: the engine ended first; the cause is chained.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"no reply within {timeout} seconds; wait longer, or cancel the request")
        if self._error is not None:
            raise closed(self._error) from self._error
        return with_choices([self._replies[j] for j in range(self.request.n)])

    def __iter__(self) -> Iterator[Piece]:
        """The pieces, as they come; each is handed out once.

        Raises:
          EngineClosed: the engine ended first; the cause is chained.
        """
        while True:
            piece = self._pieces.get()
            if piece is None:
                self._pieces.put(None)  # who asks again gets nothing more, and does not wait
                return
            if isinstance(piece, BaseException):
                self._pieces.put(None)
                raise closed(piece) from piece
            yield piece

    def keep(self, owner: object) -> None:
        """For the engine: it is not to be collected before this request has ended."""
        self._owner = owner

    def say(self, piece: Piece) -> None:
        """For the engine: hand out a piece."""
        if piece.reply is not None:
            self._replies[piece.choice] = piece.reply
        whole = len(self._replies) == self.request.n
        if whole:
            self._ended.set()
        self._tell(piece)
        if whole:
            self._pieces.put(None)

    def fail(self, error: BaseException) -> None:
        """For the engine: there will be no more."""
        if not self._ended.is_set():
            self._error = error
            self._ended.set()
            self._tell(error)

    def _tell(self, what: Piece | BaseException) -> None:
        if self._listener is None:
            self._pieces.put(what)
            return
        try:
            self._listener(what)
        except Exception as error:  # of the listener's own making, which no other request is to suffer from
            self._listener = None
            self._error = error
            self._cancel()


def closed(cause: BaseException) -> EngineClosed:
    """What a request is told that is not replied to."""
    return EngineClosed(f"the engine ended before the reply was whole: {cause}")
