"""Tables whose names nobody knows: no row is a prompt by mistake, and plain files are read."""

import csv
import re

import pytest

from sia_jax.data.delimited import MAX_LINE, delimiter_of, rows_of
from sia_jax.data.prompts import parse_prompts

ROWS = [["ID", "Text", "Label"], ["1", "How do I bake, friend?", "x"], ["2", "Why?", "a b"]]


def texts(content: str, name: str = "p.csv", column: str | None = None) -> list[str]:
    return [prompt.messages[-1]["content"] for prompt in parse_prompts(content.encode(), name, None, column)]


def written(delimiter: str, *, quoted: bool = False) -> str:
    cells = [[f'"{cell}"' if quoted or delimiter in cell else cell for cell in row] for row in ROWS]
    return "".join(delimiter.join(row) + "\n" for row in cells)


@pytest.mark.parametrize("name", ["p.csv", "p.tsv"])
@pytest.mark.parametrize("delimiter", list(",;\t|"))
@pytest.mark.parametrize("quoted", [False, True])
def test_a_table_is_one_whatever_its_delimiter_and_its_names(name: str, delimiter: str, quoted: bool) -> None:
    content = written(delimiter, quoted=quoted)
    with pytest.raises(ValueError, match=rf"^{name}, line 1: no column .* among \['ID', 'Text', 'Label'\]"):
        parse_prompts(content.encode(), name)
    for column in ("Text", "text", "TEXT"):
        assert texts(content, name, column) == ["How do I bake, friend?", "Why?"]
    without = content.split("\n", 1)[1]
    with pytest.raises(ValueError, match=r"no column of prompts .*or by its number"):
        parse_prompts(without.encode(), name)
    assert texts(without, name, "2") == ["How do I bake, friend?", "Why?"]


@pytest.mark.parametrize(
    "content",
    ["id\ttext\n1\tHow?\n2\tWhy, then?\n", "1\tHow?\n2\tWhy?\n", "id,text\n1,How?\n", "id;text\n1;a\n"],
)
def test_a_table_called_text_is_no_list_of_prompts(content: str) -> None:
    for name in ("p.txt", "p"):
        with pytest.raises(ValueError, match="line 1: no column of prompts among"):
            parse_prompts(content.encode(), name)
    assert texts("id\ttext\n1\tHow?\n", "p.txt", "text") == ["How?"]


@pytest.mark.parametrize(
    "lines",
    [
        ["How, and why?", "When, and where?"],
        ["Say a; then b", "Say c; then d"],
        ["How?\tNow", "Why?"],
        ["\tHow?", "\tWhy?"],
        ["a | b?", "c | d?"],
        ["Hello"],
    ],
)
def test_lines_of_prose_are_prompts(lines: list[str]) -> None:
    assert texts("\n".join(lines), "p.txt") == lines


@pytest.mark.parametrize(
    "cells",
    [
        ["How do I bake, friend?", "Why, oh why?"],
        ["Write a poem; keep it short.", "Tell a joke; be kind."],
        ["Say a;b", "Why?", "When?"],
        ["Write a poem;", "Why?"],
        ["Say a;b|c"],
        ["Two\nlines", "a\tb", "c"],
        ["Ask a question", "Why?"],
        ["Explain photosynthesis", "Why is the sky blue?"],
    ],
)
@pytest.mark.parametrize("header", [True, False])
def test_one_column_of_quoted_prompts_is_read_whatever_stands_in_them(cells: list[str], header: bool) -> None:
    content = "prompt\n" * header + "".join(f'"{cell}"\n' for cell in cells)
    assert texts(content) == cells
    if not any("," in cell or "\n" in cell for cell in cells):
        assert texts(content.replace('"', "")) == cells


@pytest.mark.parametrize(
    "title", ["User prompt", "Harmful behavior", "Harmful Behaviors", "Forbidden-question text"]
)
def test_a_cell_that_may_be_the_name_of_one_column_is_asked_about(title: str) -> None:
    for content in (f"{title}\nHow do I bake?\n", f'"{title}"\n"How do I bake?"\n'):
        with pytest.raises(
            ValueError, match=f"line 1: '{title}' may be the column's name or a prompt.*--column 1"
        ):
            parse_prompts(content.encode(), "p.csv")
        assert texts(content, "p.csv", title) == ["How do I bake?"]
        assert texts(content, "p.csv", "1") == [title, "How do I bake?"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id;text\n1;How; do?\n2;Why?\n", "line 2: 3 cells, the first line has 2"),
        ("id;text\n1;How?\n2;Why?\nnote\n", "line 4: 1 cells, the first line has 2"),
        ('id;text\n1;How?\n2;"open\n', "line 3: not CSV"),
        ("id,text\n1,How?\n2,Why?,x\n", "line 3: 3 cells, the first line has 2"),
    ],
)
def test_a_table_with_a_broken_row_is_not_one_column(content: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"p\.csv, {message}"):
        texts(content, "p.csv", "text")
    with pytest.raises(ValueError, match=r"p\.csv, line 1: no column of prompts"):
        texts(content)


def test_a_header_tells_the_delimiter_before_the_rows_do() -> None:
    assert texts("Prompt;ID\nHow do I bake, friend?;1\nWhy, oh why?;2\n") == [
        "How do I bake, friend?",
        "Why, oh why?",
    ]
    assert delimiter_of("id; text\n1; How?\n", ",;") == ";"
    assert delimiter_of('"a;b";"c"\n"d";"e"\n', ",;") == ";"


def test_long_cells_are_read_and_too_long_ones_are_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = csv.field_size_limit()
    for length in (before + 1, 300_000):
        assert texts(f"prompt,x\n{'a' * length},1\n") == ["a" * length]
    assert csv.field_size_limit() == before
    assert before < MAX_LINE
    monkeypatch.setattr("sia_jax.data.delimited.MAX_LINE", 100)
    for cell in ("a" * 101, '"' + "b\n" * 60):
        with pytest.raises(
            ValueError, match=re.escape("p.csv, line 2: a cell of more than 100 characters is not")
        ):
            texts(f"prompt,x\n{cell}")
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("blank", ["", " ,", ","])
def test_rows_have_the_numbers_of_their_first_lines_and_blank_ones_are_none(end: str, blank: str) -> None:
    text = end.join(["a,b", blank, f'"c{end}d",e', "f,g"])
    assert list(rows_of(text, ",")) == [(1, ["a", "b"]), (3, [f"c{end}d", "e"]), (5, ["f", "g"])]
