"""Whoever reads what a program prints may leave early (`... | head`): that is no error."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NoReturn


def leave(stream: IO[str]) -> NoReturn:
    """End as SIGPIPE ends others, with 141 and without a word.

    Args:
      stream: that nobody reads any more; what it still holds goes nowhere.
    """
    _empty(stream)
    sys.exit(128 + signal.SIGPIPE)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Around what prints and ends: standard output is written here, and it is no error that nobody reads it.

    Raises:
      SystemExit: that of `leave`, if there is no other error.
    """
    try:
        yield
    except SystemExit as end:
        if _is_written() or end.code:
            raise
    except BrokenPipeError:
        pass
    else:
        if _is_written():
            return
    leave(sys.stdout)


def _is_written() -> bool:
    """Whether somebody reads standard output; if not, it is empty now."""
    try:
        if sys.stdout is not None:  # which it is where it was closed from the first
            sys.stdout.flush()
    except BrokenPipeError:
        _empty(sys.stdout)
        return False
    return True


def _empty(stream: IO[str]) -> None:
    """Python would write the rest at its end, and say that it cannot."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
