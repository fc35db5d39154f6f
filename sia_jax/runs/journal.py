"""A JSONL file that a run adds to line by line, and that the same run, started again, goes on with."""

import fcntl
import json
import os
from collections.abc import Callable, Collection, Hashable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import parse_object
from sia_jax.files.writing import make_folder, writing
from sia_jax.steering.numbers import with_absent
from sia_jax.text.forms import unsettled

_MOST = 60
"""Characters of a value that an error shows."""


class Journal:
    """Records of a run, one strict JSON line each, written and flushed one at a time, inside `with journal:`.

    Every record carries the run's settings. A file of other settings is refused, where a sampling number that
    is absent stands at its default; the last line, if it was cut
    short by a crash, is dropped. The file is read when the journal is made, and touched only by the `with`,
    which one run enters at a time.

    Args:
      path: the file; made, with its folder, if need be.
      settings: what all its records depend on; JSON.
      key: what tells one record from the others; may raise ValueError for a record that does not belong here.
      overwrite: begin anew, whatever the file holds.
      varying: settings that may differ from record to record, because `key` looks at what they stand for.

    Raises:
      ValueError: the file holds something else, or records of other settings, and which they are.
    """

    def __init__(
        self,
        path: Path,
        settings: dict[str, Any],
        key: Callable[[dict[str, Any]], Hashable],
        *,
        overwrite: bool = False,
        varying: Collection[str] = (),
    ):
        self.path, self._varying = path, frozenset(varying)
        self.settings: dict[str, Any] = json.loads(json.dumps(settings, allow_nan=False))
        self.done: set[Hashable] = set()
        """Keys of the records that the file holds."""
        self.begun = False
        """Whether the file was touched: with `overwrite`, what it held is gone from then on."""
        self._key = key
        self._found = path.stat().st_size if path.exists() else 0
        self._size = self._read() if path.exists() and not overwrite else 0
        self._file: FileIO | None = None

    def write(self, record: dict[str, Any]) -> None:
        """Add a record, with the settings as its last field; inside `with journal:`.

        Raises:
          ValueError: a NaN or an infinity, which JSON has not.
          OSError: the line cannot be written; the file ends with the line before.
        """
        assert self._file is not None, "write inside `with journal:`"
        line = json.dumps(record | {"settings": self.settings}, allow_nan=False, ensure_ascii=False)
        rest = memoryview(line.encode() + b"\n")
        with writing(self.path):
            size = os.fstat(self._file.fileno()).st_size
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                os.ftruncate(self._file.fileno(), size)
                raise
        self.done.add(self._key(record))

    def take(self, record: dict[str, Any], place: str) -> None:
        """Take in a record that another file of the run holds; it is not written.

        Args:
          record: of the run.
          place: what errors call it.

        Raises:
          ValueError: it is of other settings, or does not belong here.
        """
        try:
            self.done.add(self._check(record, place))
        except ValueError as error:
            raise ValueError(f"{error}; name another file, or pass --overwrite") from None

    def __enter__(self) -> "Journal":
        make_folder(self.path.parent)
        with writing(self.path):
            file = self.path.open("ab", buffering=0)  # what is written is with the system, whatever comes
        try:
            self._own(file)
        except ValueError:
            file.close()
            raise
        file.truncate(self._size)
        self._file, self.begun = file, True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()

    def _own(self, file: FileIO) -> None:
        """Keep other runs from the file until it is closed.

        Raises:
          ValueError: another run is writing it, or has written it since it was read.
        """
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.path}: another run is writing it; wait for its end, or end it") from None
        except OSError:
            pass  # a file system without locks
        if file.seek(0, os.SEEK_END) != self._found:
            raise ValueError(f"{self.path}: another run has written it meanwhile; start this one again")

    def _read(self) -> int:
        """Take in the file's records; how many bytes they are."""
        size = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                is_whole = line.endswith(b"\n")
                if not is_whole and _is_torn(line):
                    break
                place = f"{self.path}, line {number}"
                try:
                    key = self._check(parse_object(line.rstrip(b"\n"), place, is_line=True), place)
                except ValueError as error:
                    raise ValueError(f"{error}; name another file, or pass --overwrite") from None
                if is_whole:
                    self.done.add(key)
                    size += len(line)
        return size

    def _check(self, record: dict[str, Any], place: str) -> Hashable:
        if not isinstance(record.get("settings"), dict):
            raise ValueError(f"{place}: this is no record of such a run")
        theirs, ours = with_absent(record["settings"]), with_absent(self.settings)
        differing = [
            name
            for name in {**theirs, **ours}
            if name not in self._varying and theirs.get(name) != ours.get(name)
        ]
        if differing:
            changes = ", ".join(
                f"{n[:60]} {shown_value(theirs.get(n), _MOST)} (now {shown_value(ours.get(n), _MOST)})"
                for n in differing[:10]
            )
            raise ValueError(f"{place}: it was written with other settings: {changes}{unsettled(theirs)}")
        try:
            key = self._key(record)
            hash(key)
        except KeyError as error:
            raise ValueError(f"{place}: no {error} in it") from None
        except (AttributeError, IndexError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"{place}: {error}") from None
        return key


def _is_torn(line: bytes) -> bool:
    """Whether a line without an end is the beginning of a record, which a crash has cut."""
    if not line.startswith(b'{"'[: len(line)]):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def is_finite(number: Any) -> bool:
    """Whether a value is a number of JSON, of which thousands can be summed."""
    return type(number) in (int, float) and abs(number) < 1e300


def number_in(record: dict[str, Any], name: str) -> float:
    """A finite number.

    Raises:
      KeyError: there is none.
      ValueError: something else.
    """
    value = record[name]
    if not is_finite(value):
        raise ValueError(f"{name} must be a number, got {shown_value(value, _MOST)}")
    return float(value)


def place_in(record: dict[str, Any], name: str) -> int:
    """A whole number from 0 on, which tells a record from others.

    Raises:
      KeyError: there is none.
      ValueError: something else.
    """
    value = record[name]
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} must be a whole number from 0 on, got {shown_value(value, _MOST)}")
    return value
