"""Files of records, JSONL or Parquet: read, written whole, and put in order."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sia_jax.data.parquet_rows import SUFFIXES, write_parquet
from sia_jax.data.tables import Table
from sia_jax.files.reading import check_file
from sia_jax.files.strict_json import parse_object
from sia_jax.files.writing import replacing


def is_parquet(path: Path) -> bool:
    """Whether a file that is written is Parquet, by its name."""
    return path.suffix in SUFFIXES


def json_line(row: dict[str, Any]) -> bytes:
    """A line of JSONL, as a `Journal` writes it.

    Raises:
      ValueError: a NaN or an infinity, which JSON has not.
    """
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, fields) of the rows of a file of JSONL or Parquet; places are 'line 3' or 'row 3'.

    Raises:
      FileNotFoundError, IsADirectoryError: no such file.
      ValueError: another form, or what is wrong with a row; a file that was cut short.
    """
    check_file(path, "file of records")
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        table = Table(file, str(path), only_rows=True)
        if table.form not in ("JSONL", "Parquet") or table.is_packed:
            raise ValueError(f"{path}: expected JSONL or Parquet as it was written, got {table.form}")
        for row in table:
            yield row.place, row.fields


def write_rows(path: Path, rows: Callable[[], Iterable[dict[str, Any]]]) -> None:
    """Write a file, Parquet or JSONL by its name, whole or not at all.

    Args:
      path: replaced if it is there.
      rows: may be called twice, and gives the same rows.

    Raises:
      ValueError: a value that JSON has not.
      WriteError: it cannot be written; what was there is as it was.
    """
    if is_parquet(path):
        write_parquet(path, rows)
        return
    with replacing(path) as new, new.open("wb") as file:
        file.writelines(json_line(row) for row in rows())


def put_in_order(path: Path, place: Callable[[dict[str, Any]], Any]) -> None:
    """Sort the lines of a JSONL file, unless they are in order already; it is replaced whole.

    Args:
      path: a journal that is closed; every line is whole.
      place: of a record in the order. Records of one place stay as they stood.

    Raises:
      ValueError: a line that is no JSON object.
      WriteError: it cannot be written; it is as it was.
    """
    found: list[tuple[Any, int, int]] = []
    with path.open("rb") as file:
        begin = 0
        for number, line in enumerate(file, start=1):
            record = parse_object(line.rstrip(b"\n"), f"{path}, line {number}", is_line=True)
            found.append((place(record), begin, len(line)))
            begin += len(line)
        ordered = sorted(found)
        if ordered == found:
            return
        with replacing(path) as new, new.open("wb") as out:
            for _, start, size in ordered:
                file.seek(start)
                out.write(file.read(size))
