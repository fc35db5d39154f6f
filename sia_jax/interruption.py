"""Ctrl-C and SIGTERM as a question that a long run asks where it can stop without loss."""

import signal
from types import FrameType, TracebackType
from typing import Any

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
