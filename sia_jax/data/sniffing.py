"""What form a file of rows has. The content decides; the name only where the content cannot."""

import json
import re
from pathlib import PurePath
from typing import Literal

from sia_jax.data.columns import CONVERSATIONS, OTHER_COLUMNS, PROMPT_COLUMNS
from sia_jax.data.delimited import SEPARATOR, is_header, tabulated
from sia_jax.files.reading import GZIP
from sia_jax.files.strict_json import BOM

Form = Literal["JSONL", "JSON", "CSV", "TSV", "Parquet", "text"]
"""JSON: one list of all rows. text: a prompt a line."""

HEAD = 65_536
"""Bytes from the beginning of a file that tell its form."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive (.xlsx, .ods, .docx); save the table as CSV, or unpack it"),
    (b"\xd0\xcf\x11\xe0", "an old Office document (.xls, .doc); save the table as CSV"),
    (b"ARROW1", "an Arrow or Feather file; write it as Parquet or JSONL"),
    (b"\xff\xff\xff\xff", "an Arrow stream, as `datasets` caches them; write it with to_json or to_parquet"),
    (b"SQLite format 3", "a SQLite database; export the table as CSV"),
    (b"\x93NUMPY", "a NumPy array; write the texts as JSONL"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it with zstd -d"),
    (b"\x04\x22\x4d\x18", "compressed with lz4; unpack it with lz4 -d"),
    (b"BZh", "compressed with bzip2; unpack it with bzip2 -d"),
    (b"\xfd7zXZ", "compressed with xz; unpack it with xz -d"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"\x80\x04\x95", "a Python pickle, which is not opened; write the rows as JSONL"),
    (b"%PDF", "a PDF document; save its text"),
    (b"{\\rtf", "an RTF document; save its text"),
    (b"Obj\x01", "an Avro file; write it as Parquet or JSONL"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file; fetch it with git lfs pull"),
)
_MARKUP = re.compile(rb"\s*<(!--|(!doctype|html|\?xml|head|body)\b)", re.IGNORECASE)

_SUFFIXES: dict[str, Form] = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "JSONL"),
    ".csv": "CSV",
    **dict.fromkeys((".tsv", ".tab"), "TSV"),
    **dict.fromkeys((".parquet", ".pq"), "Parquet"),
}
SUFFIXES = tuple(_SUFFIXES)
"""Of the forms that are read, each with or without .gz behind it."""

_OTHER_SUFFIXES = {
    **dict.fromkeys((".yaml", ".yml"), "YAML"),
    **dict.fromkeys((".html", ".htm", ".xml"), "HTML or XML"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet"),
    **dict.fromkeys((".doc", ".docx", ".odt", ".rtf", ".pdf"), "a document"),
    **dict.fromkeys((".toml", ".ini", ".cfg"), "settings"),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".bin", ".npy", ".npz", ".arrow", ".feather"), "binary data"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z"), "an archive"),
    ".ipynb": "a notebook",
    ".py": "a program",
}
UNREAD = frozenset(
    [
        *(suffix for suffix, what in _OTHER_SUFFIXES.items() if what in ("a spreadsheet", "an archive")),
        *(".arrow", ".feather"),
    ]
)
"""Of files that are likely to hold rows, in forms that are not read."""

_RULE = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*")
"""The line under the header of a table of Markdown."""
_PYTHON = re.compile(r"\{\s*'[^']*'\s*:.*\},?|\[\s*\{\s*'[^']*'\s*:.*|\[\s*'.*'\s*\],?")
_BARE_KEYS = re.compile(r"\{\s*[A-Za-z_]\w*\s*:\s*[\"'\[{0-9].*\},?")
_YAML = re.compile(
    rf"-\s+(['\"]?)({'|'.join((*PROMPT_COLUMNS, *OTHER_COLUMNS, *CONVERSATIONS, 'id'))})\1\s*:(\s|$)"
)
_JSON = re.compile(r'\{\s*("|\}|$)|\[\s*(["\[{\]]|$)')


def form_of(name: str, head: bytes) -> Form:
    """The form of a file.

    Args:
      name: its path; what errors begin with.
      head: the first `HEAD` bytes, not compressed.

    Raises:
      ValueError: a form that is not read, by its name, and what to do about it.
    """
    if head.startswith(b"PAR1"):
        return "Parquet"
    for magic, what in _MAGIC:
        if head.startswith(magic):
            raise ValueError(f"{name}: this is {what}")
    suffix = suffix_of(name)
    if _MARKUP.match(head):
        raise ValueError(f"{name}: this is HTML or XML, perhaps a page about the file; save the file itself")
    text = head.removeprefix(BOM).decode(errors="replace")
    lines = [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]
    first = lines[0].strip() if lines else ""
    known = _SUFFIXES.get(suffix)
    if known == "Parquet":
        return known
    if _looks_like_json(first, known):
        return "JSON" if first.startswith("[") else "JSONL"
    if known is not None:
        return known
    if suffix in _OTHER_SUFFIXES:
        raise ValueError(
            f"{name}: {suffix} is {_OTHER_SUFFIXES[suffix]}, which is not read; write JSONL, CSV, or a .txt "
            "file with a prompt on each line"
        )
    _refuse_other_text(name, lines)
    if SEPARATOR.match(first):
        return "CSV"
    tables: dict[str, Form] = {",": "CSV", "\t": "TSV", ";": "CSV", "|": "CSV"}
    for delimiter, form in tables.items():
        if is_header(first.split(delimiter)):
            return form
    if len(lines) > 1 and all(_is_json_text(line) for line in lines[:2]):
        return "JSONL"
    for number, line in enumerate(lines[1:], start=2):
        if line.lstrip().startswith("{") and _is_json_object(line):
            raise ValueError(
                f"{name}: line {number} of those that are not blank is JSON, and the first is not; write all "
                "lines in one form"
            )
    whole = lines if len(head) < HEAD else lines[:-1]
    mark = tabulated("\n".join(whole))
    if mark is not None:
        return tables[mark]
    return "text"


def _refuse_other_text(name: str, lines: list[str]) -> None:
    """Raise ValueError for text whose lines are no prompts, but rows of a form that is not read."""
    first, second = (line.strip() for line in (*lines[:2], "", "")[:2])
    tests = {
        "a table of Markdown; save it as CSV": "|" in first and "|" in second and _RULE.fullmatch(second),
        "what Python prints, not JSON; write the rows with json.dumps": _PYTHON.fullmatch(first),
        "JSON without quotes around its keys; write the rows with json.dumps": _BARE_KEYS.fullmatch(first),
        "YAML, which is not read; write the rows as JSONL or CSV": _YAML.match(first)
        or (first == "---" and re.match(r"(-\s+)?[\w\"']+\s*:(\s|$)", second)),
    }
    for what, holds in tests.items():
        if holds:
            raise ValueError(f"{name}: this is {what}")


def suffix_of(name: str) -> str:
    """'.csv' of 'a.CSV.gz'; '' of a name without a suffix."""
    path = PurePath(name)
    return PurePath(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def is_gzip(head: bytes) -> bool:
    """Whether bytes are the beginning of a gzip file."""
    return head.startswith(GZIP)


def _looks_like_json(first: str, known: Form | None) -> bool:
    if _JSON.match(first):
        return True
    if known in ("CSV", "TSV") or first[:1] not in ("{", "["):
        return False
    return known == "JSONL" and first.startswith("[")


def _is_json_text(line: str) -> bool:
    try:
        return line.lstrip().startswith('"') and isinstance(json.loads(line), str)
    except (ValueError, RecursionError):
        return False


def _is_json_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
