"""CSV and its kin: which mark parts a text into cells, its rows, and whether a header is the first."""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from sia_jax.data.columns import OTHER_COLUMNS, PROMPT_COLUMNS, has_column
from sia_jax.files.strict_json import MAX_LINE

SEPARATOR = re.compile(r"sep=([,;\t|])\r?(\n|$)")
"""What Excel writes above a table."""

DELIMITERS = (",", "\t", ";", "|")

_HEAD = 1000  # rows that tell the delimiter
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_WORD = re.compile(r"\s*[\w\-]+\s*")
_TITLE = re.compile(r"[\w\-]+(?: [\w\-]+){1,2}")
_TITLE_ENDS = frozenset((*PROMPT_COLUMNS, *OTHER_COLUMNS, "text", "sentence", "message"))
_NO_TITLE = frozenset(("a", "an", "the", "this", "that", "my", "your", "me", "us", "one", "some", "to", "of"))


def rows_of(text: str, delimiter: str, name: str = "", form: str = "CSV") -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of the line that it begins at.

    Args:
      text: of a whole file.
      delimiter: between cells.
      name: of the file, which errors begin with.
      form: what errors call it.

    Raises:
      ValueError: a cell whose quotes are not closed, or are not doubled, or that is too long.
    """
    reader = csv.reader((match.group() for match in _LINE.finditer(text)), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        place = f"{name}, line {number}"
        before = csv.field_size_limit(MAX_LINE)  # the interpreter's own, of 131,072, is any caller's to set
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "field limit" in str(error):
                raise ValueError(
                    f"{place}: a cell of more than {MAX_LINE:,} characters is not read; split it, or "
                    "close its quotes"
                ) from None
            raise ValueError(
                f'{place}: not {form} ({error}); quote cells with " and double the quotes within'
            ) from None
        finally:
            csv.field_size_limit(before)
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield number, cells


def delimiter_of(text: str, delimiters: Sequence[str], column: str | None = None) -> str:
    """The delimiter of a table, by its first rows.

    The first under which they begin with a header, of a prompt's column or of the one asked for; else the
    first that parts all of them into one number of cells, two or more; else the first that parts the first
    and most others, the reading of which then says what is wrong with the rest. The form's own if there is
    none: it has one column.

    Args:
      text: of a whole file.
      delimiters: those that are tried, the form's own first.
      column: that is asked for, by its name.
    """
    heads = {delimiter: _head(text, delimiter) for delimiter in delimiters}
    for delimiter, rows in heads.items():
        names = rows[0] if rows and len(rows[0]) > 1 else []
        if is_header(names) or (column is not None and has_column(column, names)):
            return delimiter
    tables = {delimiter: rows for delimiter, rows in heads.items() if _are_parted(delimiter, rows)}
    for delimiter, rows in tables.items():
        if len({len(cells) for cells in rows}) == 1:
            return delimiter
    return next(iter(tables), delimiters[0])


def tabulated(text: str) -> str | None:
    """The delimiter that makes lines of text a table although no name of theirs says so; None: they are text.

    That is a tab between cells of every line; or a comma, a semicolon or a bar, if the first line is single
    words between them, and nothing else.

    Args:
      text: the beginning of a file, in whole lines.
    """
    for delimiter in DELIMITERS:
        try:
            rows = [cells for _, cells in rows_of(text, delimiter)]
        except ValueError:
            continue
        if len(rows) < 2 or len({len(cells) for cells in rows}) != 1 or len(rows[0]) < 2:
            continue
        if all(cell.strip() if delimiter == "\t" else re.fullmatch(r"[\w\-]+", cell) for cell in rows[0]):
            return delimiter
    return None


def is_header(cells: Sequence[str]) -> bool:
    """Whether cells are names of columns, one of them a prompt's."""
    names = [cell.strip().strip('"').lower() for cell in cells]
    if not all(re.fullmatch(r"[\w .\-/()]{0,40}", name) for name in names):
        return False
    return bool({*PROMPT_COLUMNS, *OTHER_COLUMNS} & set(names))


def may_be_title(cell: str) -> bool:
    """Whether the first cell of one column may be its name: 'Harmful behavior', 'User prompt'."""
    words = cell.strip().lower().split(" ")
    ends = {words[-1], words[-1].removesuffix("s")}
    return bool(_TITLE.fullmatch(cell.strip()) and ends & _TITLE_ENDS and not _NO_TITLE & set(words))


def _head(text: str, delimiter: str) -> list[list[str]]:
    """The first rows, up to one that cannot be read under this delimiter."""
    found: list[list[str]] = []
    try:
        for _, cells in islice(rows_of(text, delimiter), _HEAD):
            found.append(cells)
    except ValueError:  # told when the table is read, if this is its delimiter
        pass
    return found


def _are_parted(delimiter: str, rows: Sequence[Sequence[str]]) -> bool:
    """Whether a delimiter parts the first row and most others, and not as a comma parts a sentence."""
    parted = [cells for cells in rows if len(cells) > 1]
    if len(rows) < 2 or len(rows[0]) < 2 or 2 * len(parted) <= len(rows):
        return False
    is_prose = delimiter in ",;" and all(cell.startswith(" ") for cells in parted for cell in cells[1:])
    return not is_prose or all(_WORD.fullmatch(cell) for cell in rows[0])
