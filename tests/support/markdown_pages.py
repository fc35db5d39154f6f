"""Pages of Markdown as tests read them: their blocks of code, tables, paragraphs and headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Table:
    """A table, and the paragraph that stands before it."""

    columns: list[str]
    rows: list[list[str]]
    before: str
    right: bool
    """Whether a column is aligned to the right, as columns of figures are."""


def code_blocks(text: str, kind: str) -> list[str]:
    """The blocks between ```kind and ```, in order."""
    return [body for of, body in _FENCE.findall(text) if of == kind]


def links(text: str) -> list[str]:
    """What the links of a text name, as it stands there."""
    return _LINK.findall(text)


def paragraphs(text: str) -> list[str]:
    """Texts between empty lines, without spans of code; no blocks of code, tables, headings or pictures."""
    blocks = (block.strip() for block in re.split(r"\n\s*\n", _FENCE.sub("", text)))
    return [re.sub(r"`[^`]*`", "", block) for block in blocks if block and block[0] not in "|#!"]


def tables(text: str) -> Iterator[Table]:
    """The tables outside of code."""
    before = ""
    for block in re.split(r"\n\s*\n", _FENCE.sub("", text)):
        lines = block.strip().splitlines()
        if len(lines) > 1 and re.fullmatch(r"[|\s:-]+", lines[1]):
            columns, *rows = (_cells(line) for line in (lines[0], *lines[2:]))
            yield Table(columns, rows, before, "-:" in lines[1])
        before = block


def anchors(text: str) -> list[str]:
    """What links call the headings, as GitHub makes it."""
    return [_anchor(title) for _, title in _headings(text)]


def section(text: str, anchor: str) -> str:
    """A page from a heading up to the next one of its rank or a higher one; all of it without an anchor."""
    if not anchor:
        return text
    lines, rank, found = [], 0, False
    for line in text.splitlines():
        heading = re.match(r"(#+) (.*)", line)
        if heading and found and len(heading[1]) <= rank:
            break
        if heading and not found and _anchor(heading[2]) == anchor:
            rank, found = len(heading[1]), True
        if found:
            lines.append(line)
    return "\n".join(lines)


def _headings(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^(#+) (.*)$", _FENCE.sub("", text), flags=re.MULTILINE)


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
