"""Rows of JSONL and Parquet files, one after the other, and what is wrong with files that are none."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.extras import installed_with

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
"""Of the files that are read from a folder."""

_BATCH = 1024  # rows of a Parquet file that are in memory at a time


@dataclass(frozen=True)
class Row:
    """One object of a JSONL file, or one row of a Parquet file."""

    file: str
    """The file's name, without its folder."""
    number: int
    """From 1."""
    place: str
    """'flan.jsonl, line 12' or 'train.parquet, row 12'."""
    fields: dict[str, Any]

    @property
    def name(self) -> str:
        """'flan.jsonl:12', for ids."""
        return f"{self.file}:{self.number}"

    def text(self, field: str) -> str | None:
        """A field that is text or null.

        Raises:
          ValueError: it is something else.
        """
        value = self.fields.get(field)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{self.place}: {field!r} must be a text or null, got {type(value).__name__}")
        return value


class RowFiles:
    """The rows of files in order, read once; they say how far that has come.

    JSONL may be compressed with gzip. A file with the suffix .parquet, or that begins like one, is Parquet.

    Args:
      files: at least one.
      what: what the rows should be, for errors: "UltraFeedback".
      required: fields that every row must have.
      optional: further columns that are wanted of a Parquet file; others are not read.

    Raises:
      ValueError: while iterating: a file that is not what it claims, with its name and the line or row.
    """

    def __init__(
        self, files: Sequence[Path], what: str, required: Sequence[str], optional: Sequence[str] = ()
    ):
        self.files = tuple(files)
        self.current = self.files[0].name
        """The file that is being read."""
        self.place = ""
        """The row that was read last: 'flan.jsonl, line 12'."""
        self.fraction = 0.0
        """How much is read."""
        self._what, self._required, self._optional = what, tuple(required), tuple(optional)
        self._sizes = [path.stat().st_size for path in self.files]

    def __iter__(self) -> Iterator[Row]:
        for index, path in enumerate(self.files):
            self.current = path.name
            rows = self._parquet(index, path) if _is_parquet(path) else self._jsonl(index, path)
            yield from rows
        self.fraction = 1.0

    def _jsonl(self, index: int, path: Path) -> Iterator[Row]:
        number = 0
        with path.open("rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            try:
                for number, line in enumerate(gzip.GzipFile(fileobj=file) if is_gzip else file, start=1):
                    self._move(index, file.tell())
                    content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                    if not content.strip():
                        continue
                    self.place = f"{path.name}, line {number}"
                    try:
                        fields = parse_object(content)
                        self._check(fields)
                    except ValueError as error:
                        raise ValueError(f"{path}, line {number}: {error}") from None
                    yield Row(path.name, number, self.place, fields)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(
                    f"{path}, after line {number}: the compressed file is broken or cut short ({error}); "
                    "copy it again"
                ) from None

    def _parquet(self, index: int, path: Path) -> Iterator[Row]:
        with installed_with("train"):
            import pyarrow as pa
            import pyarrow.parquet as pq

        number = 0
        try:
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                total = max(file.metadata.num_rows, 1)
                try:
                    self._check(dict.fromkeys(names))
                except ValueError as error:
                    raise ValueError(f"{path}, row 1: {error}") from None
                columns = [name for name in names if name in (*self._required, *self._optional)]
                for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                    for fields in batch.to_pylist():
                        number += 1
                        self._move(index, self._sizes[index] * number / total)
                        self.place = f"{path.name}, row {number}"
                        yield Row(path.name, number, self.place, fields)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            first = str(error).splitlines()[0]
            where = f"{path}, after row {number}" if number else f"{path}"
            raise ValueError(f"{where}: cannot be read as Parquet ({first}); copy the file again") from None

    def _check(self, fields: dict[str, Any]) -> None:
        missing = [name for name in self._required if name not in fields]
        if missing:
            raise ValueError(f"{self._what} has the fields {missing}, found only {sorted(fields)[:20]}")

    def _move(self, index: int, position: float) -> None:
        self.fraction = (sum(self._sizes[:index]) + position) / max(sum(self._sizes), 1)


def files_of(path: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """A file, or the files of a folder in the order of their names (not those of its subfolders).

    Raises:
      FileNotFoundError: neither, or a folder without such files.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder")
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name.endswith(tuple(suffixes)))
    if not files:
        raise FileNotFoundError(f"{path}: there are no files {', '.join('*' + s for s in suffixes)} in it")
    return files


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
      ValueError: not UTF-8, not JSON, or something else than an object.
    """
    try:
        value = json.loads(content.decode().rstrip("\r\n"))  # or the error's column is that of the next line
    except UnicodeDecodeError as error:
        raise ValueError(
            f"not UTF-8 (byte {error.start + 1} of the line is 0x{content[error.start]:02x})"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise ValueError(f"not JSON that can be read ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object like {{...}}, got {content[:40].decode(errors='replace')!r}")
    return value


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix == ".parquet" or file.read(4) == b"PAR1"
