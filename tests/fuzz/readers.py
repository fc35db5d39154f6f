"""What the fuzzing program knows of a reader."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reader:
    """Files of one kind, and what reads them.

    A reader must raise ValueError or OSError, with the changed file's name or its folder's in the message, or
    return; what it returns then is handed to `check`.
    """

    name: str
    write: Callable[[Path], Sequence[Path]]
    """Writes whole files into an empty folder; returns those that are to be changed, one at a time."""
    read: Callable[[Path], Any]
    """Reads the folder's files, all that a program would read of them."""
    check: Callable[[Path, Any], None] = lambda folder, found: None
    """Raises AssertionError if what was read is not what the files say."""
    json_suffixes: tuple[str, ...] = (".json", ".jsonl")
    """Suffixes of files that are JSON, or JSON on each line: they are changed as values too."""
    expected: tuple[type[Exception], ...] = (ValueError, OSError)
    """The errors that are allowed."""
