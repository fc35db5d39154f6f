"""Ctrl-C that is always heard, and, with SIGTERM, as a question that a long run asks where it can stop."""

import signal
import sys
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

    Args:
      ends: the first one, either of them, ends what the `with` holds, and the program goes on behind it.
    """

    def __init__(self, *, ends: bool = False) -> None:
        self.signal: signal.Signals | None = None
        """The one that came."""
        self._ends = ends
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
    ) -> bool:
        self._restore()
        return self._ends and self.wanted and kind is KeyboardInterrupt

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()
        if self._ends:
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def interruptions_heard() -> Iterator[None]:
    """Within it Ctrl-C ends what the main thread does, wherever that stands.

    Python drops what is raised in a callback of its garbage collector or of a weak reference, and in
    `__del__`. JAX has such callbacks, and a Ctrl-C that came while one ran was lost. Here it comes again,
    until it is heard. Nothing changes in another thread than the main one, which no signal reaches.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    main, before, waiting = threading.get_ident(), sys.unraisablehook, list[threading.Timer]()

    def dropped(what: Any) -> None:
        if what.exc_type is None or not issubclass(what.exc_type, KeyboardInterrupt):
            before(what)
            return
        # A signal of its own, which ends a sleep too.
        again = threading.Timer(_AGAIN_AFTER, signal.pthread_kill, (main, signal.SIGINT))
        again.daemon = True
        again.start()
        waiting.append(again)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before
        for again in waiting:
            again.cancel()
