"""What decode.evaluate has written, but when, where and how fast: what two ways to make it have in common."""

import json
from pathlib import Path
from typing import Any


def timeless(path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """All replies by what they are of; each is there once."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    untold = ("seconds", "commit", "machine")
    found = {
        (line["method"], line["seed"], line["index"]): {n: x for n, x in line.items() if n not in untold}
        for line in lines
    }
    assert len(found) == len(lines)
    return found


def results_of(out: Path) -> dict[str, Any]:
    """The results of a folder."""
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    rows = [{name: x for name, x in row.items() if "second" not in name} for row in found["rows"]]
    untold = ("time", "command", "commit", "commits", "machines")
    return {name: x for name, x in found.items() if name not in untold} | {"rows": rows}
