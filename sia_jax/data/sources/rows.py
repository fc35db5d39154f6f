"""Rows of files, one file after the other, and what is wrong with files that are none."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.data.columns import known_name
from sia_jax.data.sniffing import SUFFIXES, UNREAD, suffix_of
from sia_jax.data.tables import Table
from sia_jax.files.reading import check_file
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import kind_of

_NO_ROWS = frozenset(("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"))
"""What the datasets library writes beside the files of a set."""


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
            raise ValueError(f"{self.place}: {field!r} must be a text or null, got {kind_of(value)}")
        return value


class RowFiles:
    """The rows of files in order, read once; they say how far that has come.

    JSONL, one JSON list, CSV and TSV with a header, and Parquet; see `sia_jax.data.tables`.

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
            with path.open("rb") as file:
                table = Table(file, str(path), columns=(*self._required, *self._optional), only_rows=True)
                checked = False
                for row in table:
                    if not (checked and table.header is not None):
                        try:
                            self._check(table.header or row.fields)
                        except ValueError as error:
                            raise ValueError(f"{path}, {row.place}: {error}") from None
                        checked = True
                    done = table.fraction * self._sizes[index] if table.form == "Parquet" else table.position
                    self.fraction = (sum(self._sizes[:index]) + done) / max(sum(self._sizes), 1)
                    self.place = f"{path.name}, {row.place}"
                    yield Row(path.name, row.number, self.place, row.fields)
        self.fraction = 1.0

    def _check(self, fields: Collection[str]) -> None:
        names = {known_name(name) for name in fields}
        missing = [name for name in self._required if name not in names]
        if missing:
            found = sorted(name[:60] for name in fields)[:20]
            raise ValueError(f"{self._what} has the fields {missing}, found only {found}")


def files_of(path: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """A file, or the files of a folder in the order of their names (not those of its subfolders).

    Of a folder those are read whose suffix, in any case of letters, is of a form of rows: what would be read
    if it were named. Hidden files, and what the datasets library says of a set, are passed over.

    Args:
      path: of a file or a folder.
      suffixes: of the files to read, without .gz.

    Raises:
      FileNotFoundError: neither, or a folder without such files; a link to nothing.
      ValueError: a folder with archives or tables that would be left out, or a pipe.
    """
    if not path.is_dir():
        check_file(path, "file or folder")
        return [path]
    found = sorted(file for file in path.iterdir() if not (file.is_dir() or file.name.startswith(".")))
    left = [file.name for file in found if suffix_of(file.name) in UNREAD]
    if left:
        raise ValueError(
            f"{path}: files of forms that are not read would be left out: {shown_value(left)}; unpack them, "
            "or save them as CSV, JSONL or Parquet, and move them out of the folder"
        )
    files = [file for file in found if suffix_of(file.name) in suffixes and file.name.lower() not in _NO_ROWS]
    if not files:
        kinds = ", ".join(f"*{suffix}" for suffix in suffixes)
        raise FileNotFoundError(f"{path}: there are no files {kinds} in it, compressed with gzip or not")
    for file in files:  # a link may lead to nothing
        check_file(file, "file")
    return files
