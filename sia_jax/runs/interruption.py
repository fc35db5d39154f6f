"""Ctrl-C that is always heard, and, with SIGTERM, as a question that a long run asks where it can stop."""

import gc
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_AGAIN_AFTER = 0.05
"""Seconds after which an interruption that would be lost comes again."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Inside `with`, the first Ctrl-C or SIGTERM is only noted; a second one acts as it always does.

    To be entered in the main thread, where Python takes signals.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The one that came."""
        self._before: dict[signal.Signals, Any] = {}

    @property
    def wanted(self) -> bool:
        """Whether the run is to stop."""
        return self.signal is not None

    @property
    def exit_status(self) -> int:
        """What a shell expects of a program that stopped for the signal: 130 or 143."""
        assert self.signal is not None
        return 128 + self.signal

    def __enter__(self) -> "Interruption":
        self._before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def interruptions_heard() -> Iterator[None]:
    """Within it Ctrl-C raises KeyboardInterrupt, wherever the main thread stands.

    Python drops what is raised in a callback of its garbage collector, or in `__del__`, and JAX has such a
    callback: a Ctrl-C that came while it ran was lost. There it waits until that is over. Nothing changes in
    another thread than the main one, or where SIGINT has a handler of its own.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _raise(number: int, frame: FrameType | None) -> None:
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    below = frame
    while below is not None:
        if below.f_code in callbacks or below.f_code.co_name == "__del__":
            main = threading.main_thread().ident  # a signal of its own, which also ends a sleep
            again = threading.Timer(_AGAIN_AFTER, signal.pthread_kill, (main, signal.SIGINT))
            again.daemon = True
            again.start()
            return
        below = below.f_back
    signal.default_int_handler(number, frame)
