"""What JSON of others is taken, and that errors name the place."""

import io
import json
import math
import re
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sia_jax.files.strict_json import (
    MAX_DEPTH,
    check_text,
    decode,
    kind_of,
    parse_json,
    parse_object,
    stream_lines,
)

BOM = b"\xef\xbb\xbf"
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda values: st.lists(values) | st.dictionaries(TEXT, values),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.booleans(), st.sampled_from([None, 1]))
def test_every_value_that_json_has_is_read_as_it_was_written(
    value: Any, ascii_only: bool, mark: bool, indent: int | None
) -> None:
    content = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert parse_json((BOM if mark else b"") + content, "x.json") == value


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_an_error_that_names_the_file(content: bytes) -> None:
    why = None
    try:
        parse_json(content, "x.json")
    except ValueError as error:
        why = str(error)
    assert why is None or why.startswith("x.json")


@pytest.mark.parametrize(
    ("content", "place", "why"),
    [
        (b'{"a": 1,\n "b": nan}', "line 2, column 7", "not JSON"),
        (b'{"a": 1,\n "b": NaN}', "line 2, column 7", "NaN is not a finite number"),
        (b'["NaN", Infinity]', "line 1, column 9", "Infinity is not a finite number"),
        (b"[\n-Infinity]", "line 2, column 1", "-Infinity is not a finite number"),
        (b"[1, 1e400]", "line 1, column 5", "1e400 is not a finite number"),
        (b"[1, -" + b"7" * 5000 + b"]", "line 1, column 5", "a number of 5,001 digits"),
        (b"[1, " + b"7" * 400 + b".5]", "line 1, column 5", "a number of 402 digits"),
        (b'{"a": 1}\n{"a": 2}', "line 2, column 1", "more stands there after the first value"),
        (b'{"a": "\\ud83d"}', "line 1, column 7", "half a surrogate pair (\\ud83d at character 1)"),
        (b'{\n"x\\uDE00": 1}', "line 2, column 1", "half a surrogate pair (\\ude00 at character 2)"),
        (b'["\\ude00\\ud83d"]', "line 1, column 2", "half a surrogate pair"),
        ('["é", "'.encode() + b'\xe9"]', "line 1, column 8", "not UTF-8 (byte 0xe9;"),
        (b"[\n" * (MAX_DEPTH + 1), f"line {MAX_DEPTH + 1}, column 1", f"more than {MAX_DEPTH} deep"),
        (b'{"a":' * 10**5, "line 1, column 501", "deep"),
        (b'["' + b"\x00" + b'"]', "line 1, column 3", "byte 0x00"),
        (b'{"a": "open', "line 1, column 7", "not JSON"),
    ],
)
def test_what_is_refused_names_line_and_column(content: bytes, place: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as error:
        parse_json(content, "x.json")
    assert str(error.value).startswith(f"x.json, {place}: ")
    if place.startswith("line 1,"):
        with pytest.raises(ValueError, match=re.escape(why)) as error:
            parse_json(content, "x.jsonl, line 7", is_line=True)
        assert str(error.value).startswith(f"x.jsonl, line 7, {place.removeprefix('line 1, ')}: ")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_of_unicode_are_named(encoding: str) -> None:
    with pytest.raises(ValueError, match=r"UTF-16.*save it as UTF-8"):
        parse_json('{"a": 1}'.encode(encoding), "x.json")


def test_a_key_that_stands_twice_is_refused_at_any_depth() -> None:
    for content in (b'{"a": 1, "a": 1}', b'[{"b": {"a": 1, "c": 2, "\\u0061": 3}}]'):
        with pytest.raises(ValueError, match=r"x.json: the fields 'a' stand there twice"):
            parse_json(content, "x.json")


def test_brackets_and_large_numbers_within_texts_are_text() -> None:
    value = ["[{" * 500 + '\\"' * 3, "1e400", "9" * 5000, "\\ud83d", "NaN", "😀"]
    assert parse_json(json.dumps(value).encode(), "x.json") == value


def test_numbers_keep_their_value_up_to_the_largest() -> None:
    largest = 10**308 - 1
    found = parse_json(f"[{largest}, 1e308, 1e-400, -0.0, 5e-324]".encode(), "x.json")
    assert found == [largest, 1e308, 0.0, 0.0, 5e-324]
    assert math.copysign(1, found[3]) == -1


def test_the_deepest_that_is_taken_is_taken_whatever_the_stack() -> None:
    content = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    limit = sys.getrecursionlimit()
    assert limit > MAX_DEPTH
    value = parse_json(content, "x.json")
    for _ in range(MAX_DEPTH - 1):
        (value,) = value
    assert value == []


def test_the_time_is_linear_in_what_is_refused() -> None:
    for content in (b'"\\"' * 200_000, b'["\\ud800' * 100_000, b"[" * 500_000, b"-" * 500_000 + b"NaN"):
        begin = time.perf_counter()
        with pytest.raises(ValueError, match=r"x\.json"):
            parse_json(content, "x.json")
        assert time.perf_counter() - begin < 5


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"[1, 2]", "a list of 2"),
        (b'"a"', "a text"),
        (b"null", "null"),
        (b"1.5", "a number"),
        (b"true", "true"),
    ],
)
def test_what_is_no_object_is_called_what_it_is(content: bytes, got: str) -> None:
    with pytest.raises(ValueError, match=rf'^x.json: expected an object like {{"a": 1}}, got {got}$'):
        parse_object(content, "x.json", like='{"a": 1}')
    assert kind_of({}) == "an object"


@pytest.mark.parametrize("content", [b"", BOM, b" \n\t "])
def test_an_empty_file_is_called_empty(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^x.json: .* it is empty$"):
        parse_json(content, "x.json")


def test_lines_have_their_numbers_and_no_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO(BOM + b'{"a": 1}\r\n\n  \n\xef\xbb\xbf\n{"a": "\xe2\x80\xa8"}\n7')
    lines = list(stream_lines(stream, "x.jsonl"))
    assert [number for number, _ in lines] == [1, 5, 6]
    found = [parse_json(line, f"x.jsonl, line {number}", is_line=True) for number, line in lines]
    assert found == [{"a": 1}, {"a": "\u2028"}, 7]
    monkeypatch.setattr("sia_jax.files.strict_json.MAX_LINE", 8)
    assert len(list(stream_lines(io.BytesIO(b"1234567\n1234567\n"), "x.jsonl"))) == 2
    with pytest.raises(ValueError, match=r"x\.jsonl, line 2: a line of more than"):
        list(stream_lines(io.BytesIO(b"1\n123456789\n"), "x.jsonl"))


@given(st.text())
def test_a_text_is_taken_exactly_if_utf_8_has_it(text: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        with pytest.raises(ValueError, match="--stop holds half a surrogate pair") as error:
            check_text(text, "--stop")
        str(error.value).encode()
    else:
        assert check_text(text, "--stop") == text


def test_decode_takes_the_mark_off_and_nothing_else() -> None:
    assert decode(BOM + b" a\r\n", "x") == " a\r\n"
    assert decode(BOM + BOM, "x") == "\ufeff"


def test_keys_that_stand_twice_are_found_at_once_in_a_large_object() -> None:
    keys = [f"k{i}" for i in range(20_000)]
    content = ("{" + ",".join(f'"{key}":0' for key in [*keys, *keys]) + "}").encode()
    start = time.process_time()
    with pytest.raises(ValueError, match=r"x\.json: the fields 'k0', 'k1', .* stand there twice"):
        parse_json(content, "x.json")
    assert time.process_time() - start < 2
