"""Pieces of Markdown pages: tables, and a page's section made anew."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from sia_jax.files.lock import locked
from sia_jax.files.writing import write_text


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, labels: int | None = None) -> str:
    """A table, each line with its end.

    Args:
      columns: their titles.
      rows: cells, as many a row as there are columns.
      labels: of so many first columns; the others hold numbers, which stand to the right. None: all.
    """
    left = len(columns) if labels is None else labels
    lines = [columns, ["---"] * left + ["---:"] * (len(columns) - left), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_section(page: str, section: str) -> str:
    """The page with the section of the same "## " heading replaced, up to the next such heading or the end.

    Args:
      page: its text.
      section: begins with its heading.

    Raises:
      ValueError: the page has no such heading, or has it twice.
    """
    heading = section.partition("\n")[0]
    found = list(re.finditer(rf"^{re.escape(heading)}\n(?:(?!## ).*\n?)*?(?=^## |\Z)", page, re.MULTILINE))
    if not heading.startswith("## ") or len(found) != 1:
        raise ValueError(
            f"expected a page with the heading {heading!r} once, got it {len(found)} times; add the line"
        )
    rest = page[found[0].end() :]
    return page[: found[0].start()] + section.rstrip("\n") + "\n" + ("\n" if rest else "") + rest


def put_section(page: Path, section: str) -> None:
    """Write a page with its section of the same heading made anew; see `with_section`.

    Args:
      page: a Markdown file.
      section: begins with its heading.

    Raises:
      OSError, ValueError: the page cannot be read or written, or has no such heading.
    """
    with locked(files=(page,)):
        write_text(page, with_section(page.read_text(encoding="utf-8"), section))
