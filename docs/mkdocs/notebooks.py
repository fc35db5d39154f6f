"""A notebook as a page of the site: its texts, its code, and what each cell printed and drew when it was run.

A reader of the repository sees the notebook itself; the site has only pages.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

_PICTURE = "image/png"
_WIDTH = 84
"""Columns after which a line of output goes on below; a page has no room for more."""


class Rendered(NamedTuple):
    """A notebook as the site has it."""

    markdown: str
    pictures: dict[str, bytes]
    """By the names under which the page shows them, beside it."""


def render(path: Path) -> Rendered:
    """The page of a notebook that has been run.

    Args:
      path: of the notebook, in format 4.

    Raises:
      ValueError: a cell of code was not run, failed, or printed what a page has no form for.
    """
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"], start=1):
        source = _text(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        if cell["execution_count"] is None:
            raise ValueError(f"{path}: cell {number} was not run; make notebook runs all of them")
        parts.append(fenced(source, "python"))
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                raise ValueError(f"{path}: cell {number} failed with {output['ename']}: {output['evalue']}")
            if output["output_type"] == "stream":
                parts.append(fenced(_folded(_text(output["text"])), "text"))
                continue
            if _PICTURE not in output["data"]:
                raise ValueError(f"{path}: cell {number} shows {sorted(output['data'])}, expected {_PICTURE}")
            name = f"{path.stem}-{len(pictures) + 1}.png"
            pictures[name] = base64.b64decode(_text(output["data"][_PICTURE]))
            parts.append(f"![What the cell above draws]({name})")
    return Rendered("\n\n".join(parts) + "\n", pictures)


def _text(lines: Any) -> str:
    """A text of a notebook, which is one string or a list of its lines."""
    return lines if isinstance(lines, str) else "".join(lines)


def _folded(text: str) -> str:
    """With long lines broken between words."""
    return re.sub(rf"(?=[^\n]{{{_WIDTH + 1}}})([^\n]{{1,{_WIDTH}}}) ", r"\1\n    ", text)


def fenced(text: str, language: str) -> str:
    """A block of code, whatever stands in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
