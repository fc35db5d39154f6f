r"""JSON that others wrote: one rule for what is taken, and an error that names the place.

Taken is UTF-8, with or without a byte order mark, that holds one value. Refused, with the place:

- other encodings, and bytes that are no UTF-8;
- a key that stands twice in one object, because readers differ in which of the two they take;
- NaN, Infinity, -Infinity, and numbers that no float64 holds (1e400, integers of more than 308 digits);
- half a surrogate pair ("\ud83d" alone), in keys too: it is no character, and cannot be written as UTF-8;
- values that are nested more than `MAX_DEPTH` deep.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

MAX_DEPTH = 100
"""Objects and lists within each other."""

MAX_LINE = 64 * 2**20
"""Bytes of one line of a stream."""

BOM = b"\xef\xbb\xbf"

_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_WORD = re.compile(_STRING.pattern + r'|[^\s"\[\]{},:]++', re.DOTALL)
_BRACKET = re.compile(_STRING.pattern + r"|[\[\]{}]", re.DOTALL)
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
_LARGE = re.compile(r"[eE]\+?[0-9]{3}|[0-9]{309}")
_UTF_16_OR_32 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def parse_json(content: bytes, name: str, *, is_line: bool = False) -> Any:
    """The value that a file holds, or a line of one.

    Args:
      content: the whole file, or the whole line.
      name: what errors begin with: the file; for a line, "FILE, line 12".
      is_line: errors then give the column alone.

    Raises:
      ValueError: it is not such JSON; the place, and what is wrong there.
    """
    text = decode(content, name, is_line=is_line)
    if not text.strip():
        raise ValueError(f"{name}: expected a JSON value, and there is none: it is empty")
    _check_depth(text, name, is_line)
    is_large = _LARGE.search(text) is not None

    def refuse(word: str) -> NoReturn:
        _refuse_number(text, word, name, is_line)

    def parse_int(word: str) -> int:
        return int(word) if len(word.lstrip("-")) <= 308 else refuse(word)

    def parse_float(word: str) -> float:
        number = float(word)
        return number if math.isfinite(number) else refuse(word)

    def parse_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = ", ".join(ascii(key)[:60] for key in sorted(k for k in counts if counts[k] > 1)[:5])
            raise ValueError(f"{name}: the fields {twice} stand there twice; keep one of each")
        return fields

    try:
        value = json.loads(
            text,
            parse_int=parse_int if is_large else None,
            parse_float=parse_float if is_large else None,
            parse_constant=refuse,
            object_pairs_hook=parse_pairs,
        )
    except json.JSONDecodeError as error:
        where = _place(text, error.pos, name, is_line)
        if error.msg == "Extra data":
            unit = "line" if is_line else "file"
            raise ValueError(
                f"{where}: not JSON: more stands there after the first value; one value a {unit}"
            ) from None
        raise ValueError(f"{where}: not JSON ({error.msg[:1].lower()}{error.msg[1:]})") from None
    if _HALF_PAIR.search(text):
        _check_pairs(text, name, is_line)
    return value


def parse_object(content: bytes, name: str, *, is_line: bool = False, like: str = "{...}") -> dict[str, Any]:
    """The object that a file or a line holds; see `parse_json`.

    Args:
      content: the whole file, or the whole line.
      name: what errors begin with.
      is_line: see `parse_json`.
      like: what an object might look like, for the error.

    Raises:
      ValueError: what `parse_json` finds, or another value than an object.
    """
    value = parse_json(content, name, is_line=is_line)
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected an object like {like}, got {kind_of(value)}")
    return value


def stream_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a stream that are not blank, each with its number from 1, without its end.

    Args:
      file: where to read; not closed.
      name: of the file, for errors.

    Raises:
      ValueError: a line of more than `MAX_LINE` bytes.
    """
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise ValueError(f"{name}, line {number}: a line of more than {MAX_LINE >> 20} MiB is not read")
        if line.removeprefix(BOM).strip():
            yield number, line.rstrip(b"\r\n")


def decode(content: bytes, name: str, *, is_line: bool = False) -> str:
    """The text of bytes, without a byte order mark.

    Raises:
      ValueError: it is not UTF-8; which byte is not, and which encoding it looks like.
    """
    if content.startswith(_UTF_16_OR_32):
        raise ValueError(
            f"{name}: this is UTF-16 or UTF-32 (it begins with {_hex(content[:2])}); save it as UTF-8"
        )
    try:
        text = content.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        where = _place(before, len(before), name, is_line)
        raise ValueError(
            f"{where}: not UTF-8 (byte {_hex(error.object[error.start : error.start + 1])}; "
            "perhaps Latin-1 or another encoding); save it as UTF-8"
        ) from None
    null = text.find("\0")
    if null >= 0:
        raise ValueError(
            f"{_place(text, null, name, is_line)}: byte 0x00 (UTF-16, or no text at all); save it as UTF-8"
        )
    return text


def check_text(text: str, name: str) -> str:
    """A text that can be written as UTF-8; from JSON, a command line or a program alike.

    Args:
      text: of any origin.
      name: what it is, for the error.

    Raises:
      ValueError: it holds half a surrogate pair, which is no character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} holds half a surrogate pair ({ascii(text[error.start])[1:-1]} at character "
            f"{error.start + 1}), which is no character; write the text again as UTF-8, or replace it"
        ) from None
    return text


def kind_of(value: Any) -> str:
    """'a list of 3', 'a text', ... for errors: what JSON calls a value."""
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return "a number"
    names: dict[type, str] = {str: "a text", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _check_depth(text: str, name: str, is_line: bool) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _BRACKET.finditer(text):
        mark = match.group()
        if mark in ("[", "{"):
            depth += 1
            if depth > MAX_DEPTH:
                where = _place(text, match.start(), name, is_line)
                raise ValueError(f"{where}: nested more than {MAX_DEPTH} deep")
        elif mark in ("]", "}"):
            depth -= 1


def _check_pairs(text: str, name: str, is_line: bool) -> None:
    for match in _STRING.finditer(text):
        if not _HALF_PAIR.search(match.group()):
            continue
        string: str = json.loads(match.group(), strict=False)
        try:
            check_text(string, "a text")
        except ValueError as error:
            raise ValueError(f"{_place(text, match.start(), name, is_line)}: {error}") from None


def _refuse_number(text: str, word: str, name: str, is_line: bool) -> NoReturn:
    places = (match.start() for match in _WORD.finditer(text) if match.group() == word)
    where = _place(text, next(places, 0), name, is_line)
    shown = word if len(word) <= 20 else f"a number of {len(word):,} digits"
    raise ValueError(f"{where}: {shown} is not a finite number; write null where there is none")


def _place(text: str, position: int, name: str, is_line: bool) -> str:
    """'FILE, line 3, column 7', columns in characters from 1."""
    column = position - text.rfind("\n", 0, position)
    line = "" if is_line else f", line {text.count(chr(10), 0, position) + 1}"
    return f"{name}{line}, column {column}"


def _hex(content: bytes) -> str:
    return " ".join(f"0x{byte:02x}" for byte in content)
