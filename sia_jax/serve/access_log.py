"""The log of a server: a line a request, for people or as JSON."""

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from sia_jax.files.shown import shown_line

Form = Literal["plain", "json", "off"]
_LONGEST = 128
"""Characters of a foreign text in a line, but for prompts."""
_FIRST = ("method", "route", "status")
"""What stands without its name in a plain line."""
FACTS = ("model", "tokens", "steered", "prompt")
"""What a route may tell of its request."""


def line_of(facts: Mapping[str, Any], form: Form) -> str:
    """A line of the log.

    Args:
      facts: of a request by their names, in the order of the line; what is None is left out.
      form: "json", or else plain.
    """
    known = {name: _short(name, x) for name, x in facts.items() if x is not None}
    if form == "json":
        return json.dumps(known)  # ASCII: nothing in it commands a terminal
    words = [str(known[name]) for name in _FIRST if name in known]
    words += [f"{name}={_word(x)}" for name, x in known.items() if name not in _FIRST]
    return shown_line(" ".join(words))


def writer(
    form: Form, write: Callable[[str], object], clock: Callable[[], float] = time.time
) -> Callable[[Mapping[str, Any]], None]:
    """What writes the facts of each request.

    Args:
      form: of the lines; "off": none are written.
      write: gets each line, with its end.
      clock: seconds since 1970.
    """

    def put(facts: Mapping[str, Any]) -> None:
        if form == "off":
            return
        now = clock()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        if form == "json":
            write(line_of({"time": stamp, **facts}, form) + "\n")
        else:
            write(f"{stamp} {line_of(facts, form)}\n")

    return put


def _short(name: str, x: Any) -> Any:
    if isinstance(x, float):
        return round(x, 6) if math.isfinite(x) else str(x)
    return shown_line(x, _LONGEST) if isinstance(x, str) and name != "prompt" else x


def _word(x: Any) -> str:
    """In quotes where it would not be one word."""
    text = str(x)
    return json.dumps(text) if not text or any(c.isspace() or c in '"=' for c in text) else text
