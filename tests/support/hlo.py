"""Reads the text of a compiled program."""

import re

import numpy as np


def while_bodies(text: str) -> dict[str, str]:
    """Name -> text of every while body, with the text of all computations that it calls, nested ones too."""
    computations = _computations(text)
    names = set(re.findall(r"\bbody=%?([\w.\-]+)", text))
    return {
        name: "\n".join(computations[part] for part in sorted(_reach(name, computations))) for name in names
    }


def moves_of_at_least(text: str, elements: int) -> list[str]:
    """The copy and transpose instructions in `text` whose result has that many elements or more."""
    found = []
    for line in text.splitlines():
        match = re.search(r"= \w+\[([\d,]*)\]\S* (copy|transpose|copy-start)\(", line)
        if match and np.prod([int(size) for size in match[1].split(",") if size], dtype=int) >= elements:
            found.append(line.strip())
    return found


def _computations(text: str) -> dict[str, str]:
    parts = {}
    for block in re.split(r"\n(?=\S)", text):
        match = re.match(r"(?:ENTRY )?%?([\w.\-]+) \(", block)
        if match:
            parts[match[1]] = block
    return parts


def _reach(name: str, computations: dict[str, str]) -> set[str]:
    seen: set[str] = set()
    todo = [name]
    while todo:
        part = todo.pop()
        if part in seen or part not in computations:
            continue
        seen.add(part)
        todo += re.findall(r"(?:calls|body|condition|to_apply)=%?([\w.\-]+)", computations[part])
    return seen
