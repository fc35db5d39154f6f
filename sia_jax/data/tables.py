"""Files of rows, whatever their form: JSONL, one JSON list, CSV, TSV, Parquet; and text, a prompt a line."""

import gzip
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from sia_jax.data.columns import by_known_names, column_named, prompt_column
from sia_jax.data.delimited import SEPARATOR, delimiter_of, is_header, may_be_title, rows_of
from sia_jax.data.parquet_rows import written_of
from sia_jax.data.sniffing import HEAD, Form, form_of, is_gzip
from sia_jax.extras import installed_with
from sia_jax.files.reading import MAX_BYTES, unpacking
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import decode, kind_of, parse_json, stream_lines

_BATCH = 1024  # rows of a Parquet file that are in memory at a time, at most
_BATCH_BYTES = 2**29  # that they may come to, whatever they are compressed to
_NUMBERS = ("reward", "seed", "threshold")
_DELIMITERS = {"CSV": ",;\t|", "TSV": "\t,;|"}


@dataclass(frozen=True)
class TableRow:
    """A row of a file."""

    number: int
    """Of its line, or of the row where rows are no lines; from 1."""
    place: str
    """'line 12' or 'row 12'."""
    fields: dict[str, Any]
    """By names in lower case, where they mean something here; see `sia_jax.data.columns.by_known_names`."""


class Table:
    """The rows of a file, read once, in order.

    A cell of CSV or TSV is a text; an empty one is null, and "reward", "seed" and "threshold" are numbers,
    "complete" is true or false. A file without a header has one column, called "prompt".

    Args:
      file: at its beginning; gzip is unpacked.
      name: of the file, which errors begin with.
      column: the prompt's, as asked for: by its name, or "1" for the first of a file without a header.
      columns: of a Parquet file, those that are wanted, in lower case; None: all.
      only_rows: every row has fields, and none is a bare text; CSV has a header of any names.

    Raises:
      ValueError: a form that is not read; while iterating, what is wrong with a row.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        *,
        column: str | None = None,
        columns: Sequence[str] | None = None,
        only_rows: bool = False,
    ):
        self.name, self.column, self._columns = name, column, columns
        self._raw = file
        self.is_packed = is_gzip(file.read(2))
        file.seek(0)
        self._file = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if self.is_packed else file
        with unpacking(name):
            head = self._file.read(HEAD)
            self._file.seek(0)
        self.form: Form = form_of(name, head)
        if column is not None and self.form == "text":
            raise ValueError(
                f"{name}: this is text, a prompt a line, and has no column {column[:60]!r}; call a table "
                ".csv or .tsv, or leave --column out"
            )
        if only_rows and self.form == "text":
            self.form = "JSONL"  # whose reader says best what is wrong
        self._only_rows = only_rows
        self.header: list[str] | None = None
        """The columns of CSV, TSV and Parquet, once the first row was read; None: there are none."""
        self.fraction = 0.0
        """How much of a Parquet file is read."""

    @property
    def position(self) -> int:
        """How many bytes of the file are read."""
        return self._raw.tell()

    def __iter__(self) -> Iterator[TableRow]:
        if self.form == "JSONL":
            return self._json_lines()
        if self.form == "JSON":
            return self._json_list()
        if self.form == "Parquet":
            return self._parquet()
        return self._text() if self.form == "text" else self._delimited(_DELIMITERS[self.form])

    def _json_lines(self) -> Iterator[TableRow]:
        number = 0
        lines = stream_lines(self._file, self.name)
        while True:
            with unpacking(f"{self.name}, after line {number}" if number else self.name):
                found = next(lines, None)
            if found is None:
                return
            number, line = found
            if line.strip() == b"{":
                raise ValueError(
                    f"{self.name}, line {number}: here begins an object of several lines; write each on "
                    "one line, or all of them in one list"
                )
            if not self._only_rows:
                self._check_size(self._file.tell())
            value = parse_json(line, f"{self.name}, line {number}", is_line=True)
            yield TableRow(number, f"line {number}", self._fields(value, f"line {number}"))

    def _json_list(self) -> Iterator[TableRow]:
        content = self._whole()
        rows = parse_json(content, self.name)
        if not isinstance(rows, list):
            raise ValueError(
                f"{self.name}: expected a list of rows, or a row on each line, got {kind_of(rows)}"
            )
        for number, value in enumerate(rows, start=1):
            yield TableRow(number, f"row {number}", self._fields(value, f"row {number}"))

    def _fields(self, value: Any, place: str) -> dict[str, Any]:
        if isinstance(value, str) and not self._only_rows:
            return {self.column or "prompt": value}
        if not isinstance(value, dict):
            raise ValueError(
                f'{self.name}, {place}: expected an object like {{"prompt": "..."}}, got {kind_of(value)}'
            )
        return self._known(value, place)

    def _known(self, fields: dict[str, Any], place: str) -> dict[str, Any]:
        try:
            return by_known_names(fields)
        except ValueError as error:
            raise ValueError(f"{self.name}, {place}: {error}") from None

    def _text(self) -> Iterator[TableRow]:
        text = decode(self._whole(), self.name)
        for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
            line = line.removeprefix("\ufeff")  # of files that were put one behind the other
            if line.strip():
                yield TableRow(number, f"line {number}", {"prompt": line})

    def _delimited(self, delimiters: str) -> Iterator[TableRow]:
        text = decode(self._whole(), self.name)
        mark = SEPARATOR.match(text)
        if mark is not None:
            delimiters, text = mark.group(1), "\n" + text[mark.end() :]
        first: list[str] | None = None
        delimiter = delimiter_of(text, delimiters, self.column)
        for number, cells in rows_of(text, delimiter, self.name, self.form):
            place = f"line {number}"
            if first is None:
                first = cells
                self.header = self._header(cells, place)
                if self.header is not None:
                    continue
            names = self.header or [self.column if self.column and len(cells) == 1 else "prompt"]
            if len(cells) != len(first):
                raise ValueError(
                    f"{self.name}, {place}: {len(cells)} cells, the first line has {len(first)}; quote cells "
                    'that hold the delimiter or an end of line with "'
                )
            if self.header is None and self.column is not None:
                yield TableRow(number, place, {self.column: cells[int(self.column) - 1]})
                continue
            try:
                pairs = zip(names, cells, strict=True)
                fields = by_known_names({name: _cell(name, cell) for name, cell in pairs})
            except ValueError as error:
                raise ValueError(f"{self.name}, {place}: {error}") from None
            yield TableRow(number, place, fields)

    def _header(self, cells: list[str], place: str) -> list[str] | None:
        """The names of the columns, if the first line has them."""
        names = [cell.strip() for cell in cells]
        if self.column is not None:
            try:
                column_named(self.column, names)
            except ValueError as error:
                if not re.fullmatch(r"[1-9][0-9]{0,3}", self.column) or int(self.column) > len(cells):
                    raise ValueError(
                        f"{self.name}, {place}: {error}; without a header, name a column by its number"
                    ) from None
                if is_header(names):
                    raise ValueError(
                        f"{self.name}, {place}: a column is asked for by its number, and the first line is a "
                        f"header; name one of {[name[:60] for name in names[:20]]}"
                    ) from None
                return None
        elif not self._only_rows and not is_header(names):
            if len(cells) == 1 and may_be_title(names[0]):
                raise ValueError(
                    f"{self.name}, {place}: {shown_value(names[0])} may be the column's name or a prompt; "
                    "say which: --column with the name, or --column 1 for a file without a header"
                )
            if len(cells) == 1 and not re.fullmatch(r"[\w\-]+", names[0]):
                return None  # HEx-PHI: one column, and no header
            try:
                prompt_column(names)
            except ValueError:
                shown = str([name[:60] for name in names[:20]])
                raise ValueError(
                    f"{self.name}, {place}: no column of prompts among {shown}; name it with --column NAME, "
                    "or by its number, from 1, if the file has no header"
                ) from None
        _check_names(names, f"{self.name}, {place}")
        return names

    def _parquet(self) -> Iterator[TableRow]:
        with installed_with("train"):
            import pyarrow as pa
            import pyarrow.parquet as pq

        number = size = 0
        try:
            with pq.ParquetFile(self._file) as file:
                names = self.header = list(file.schema_arrow.names)
                written = written_of(file.schema_arrow.metadata, self.name)
                _check_names(names, self.name)
                total = max(file.metadata.num_rows, 1)
                columns = [name for name in names if self._is_wanted(name)] or names
                for group in range(file.num_row_groups):
                    rows = _rows_at_once(file.metadata.row_group(group))
                    for batch in file.iter_batches(rows, row_groups=[group], columns=columns):
                        size += batch.nbytes
                        if not self._only_rows:
                            self._check_size(size)
                        for fields in batch.to_pylist():
                            number += 1
                            self.fraction = number / total
                            place = f"row {number}"
                            whole = written.restored(fields, f"{self.name}, {place}")
                            yield TableRow(number, place, self._known(whole, place))
        except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0][:300]
            where = f"{self.name}, after row {number}" if number else f"{self.name}"
            raise ValueError(f"{where}: cannot be read as Parquet ({first}); copy the file again") from None

    def _is_wanted(self, column: str) -> bool:
        return self._columns is None or column.strip().lower() in self._columns

    def _whole(self) -> bytes:
        with unpacking(self.name):
            content = self._file.read(MAX_BYTES + 1)
        self._check_size(len(content))
        return content

    def _check_size(self, size: int) -> None:
        if size > MAX_BYTES:
            raise ValueError(f"{self.name}: more than {MAX_BYTES:,} bytes are not read; split it")


def _rows_at_once(group: Any) -> int:
    """How many rows of a row group memory holds.

    A row is no longer than the group is, unpacked, unless it holds lists; but cells that are alike stand in
    the group once, so that all of its rows may come to far more. (What the group says of its columns is not
    asked: on damaged files that ends the process.)
    """
    return min(max(_BATCH_BYTES // max(group.total_byte_size, 1), 1), _BATCH)


def _check_names(names: Sequence[str], place: str) -> None:
    """Raise ValueError if two columns have one name."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"{place}: columns of one name: {str(twice)[:200]}; rename them")


def _cell(name: str, cell: str) -> Any:
    """What a cell says."""
    word = cell.strip()
    if name.lower() in _NUMBERS:
        if not word:
            return None
        if word in ("inf", "-inf") and name.lower() == "threshold":
            return word
        try:
            number = int(word) if re.fullmatch(r"[+-]?[0-9]{1,300}", word) else float(word)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{name!r} must be a number, got {cell[:40]!r}")
        return number
    if name.lower() == "complete":
        if word.lower() not in ("true", "false", ""):
            raise ValueError(f"{name!r} must be true or false, got {cell[:40]!r}")
        return word.lower() != "false"
    return cell if cell else None
