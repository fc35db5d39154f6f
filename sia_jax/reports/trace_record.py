"""What a record must hold to be shown on a page: it may come from anybody, with anything in its fields."""

import math
from collections.abc import Callable
from typing import Any

from sia_jax.files.shown import shown_value

_MOST = 60
"""Characters of a value that an error shows."""

Record = dict[str, Any]
"""A line of `decode.generate`."""

Check = Callable[[Any], bool]


def check_record(record: Record) -> None:
    """Every field that the page reads has the type and the length that `decode.generate --record` gives it.

    Raises:
      ValueError: one that has not, and what stands there.
    """
    index, branch = (shown_value(record.get(name), _MOST) for name in ("index", "branch"))
    place = f"reply {index}, branch {branch}"
    if "candidates" not in record:
        raise ValueError(f"{place} has no candidates: generate with --record")
    if "names" not in record:
        raise ValueError(f"{place} has no texts: generate with a policy that has a tokenizer")
    tokens = record.get("tokens")
    length = len(tokens) if isinstance(tokens, list) else 0
    for name, (expected, check) in _fields(record, length).items():
        found = _at(record, name)
        if not check(found):
            raise ValueError(f"{place}: {name} must be {expected}, got {shown_value(found, _MOST)}")
    ids, names = record["candidates"]["ids"], record["names"]
    if any(len(record["candidates"][name][t]) != len(ids[t]) for name in _ROWS for t in range(length)):
        raise ValueError(f"{place}: candidates must have as many numbers as ids at each token")
    shown = {str(token) for row in ids for token in row} | set(map(str, record["candidates"]["own_choice"]))
    if not shown <= set(names):
        raise ValueError(f"{place}: names has no text for {sorted(shown - set(names))[:5]}")


_ROWS = ("policy_logprobs", "values", "logprobs")


def _fields(record: Record, length: int) -> dict[str, tuple[str, Check]]:
    numbers = f"{length} numbers, or null, one a token"
    fields: dict[str, tuple[str, Check]] = {
        "tokens": ("a list of ids", _list(_id)),
        "index": ("a whole number from 0 on", _id),
        "branch": ("a whole number from 0 on", _id),
        "method": ("a text", _text),
        "finish_reason": ("a text", _text),
        "prompt": ("a list of messages, or an object with prompt_ids", _prompt),
        "length": (f"{length}, the number of tokens", lambda x: _id(x) and x == length),
        "steering.ratio": ("a number", _number),
        "steering.shifted": ("a whole number from 0 on", _id),
        "pieces": (f"{length} texts, one a token", _list(_text, length)),
        "junction": (f"{length} of true or false, one a token", _list(_flag, length)),
        "shifted": (f"{length} of true or false, one a token", _list(_flag, length)),
        "entropy": (numbers, _list(_maybe, length)),
        "names": ("an object of texts", lambda x: isinstance(x, dict) and all(map(_text, x.values()))),
        "candidates.ids": (f"{length} lists of ids, one a token", _list(_list(_id), length)),
        "candidates.own_choice": (f"{length} ids, one a token", _list(_id, length)),
        "candidates.kl": (numbers, _list(_maybe, length)),
        "settings.policy": ("a text", _text),
        **{f"settings.{name}": ("a text or null", _text_or_none) for name in ("value", "gate", "tilt")},
    }
    for name in _ROWS:
        fields[f"candidates.{name}"] = (
            f"{length} lists of numbers, or null, one a token",
            _list(_list(_maybe if name == "values" else _logprob), length),
        )
    if record.get("method") != "base":
        fields["threshold"] = ("a number, 'inf' or '-inf'", lambda x: _number(x) or x in ("inf", "-inf"))
    for name in ("contenders", "values_read"):  # records of earlier releases lack them
        if name in record:
            fields[name] = (f"{length} whole numbers, one a token", _list(_id, length))
    if isinstance(record.get("steering"), dict) and "decided" in record["steering"]:
        fields["steering.decided"] = ("a whole number from 0 on", _id)
    for name in ("gold", "proxy"):
        fields[name] = ("a number or null", _maybe)
    if _at(record, "settings.value") is not None:
        fields["settings.beta"] = ("a number", _number)
    return fields


def _at(record: Record, name: str) -> Any:
    found: Any = record
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _text(x: Any) -> bool:
    return isinstance(x, str)


def _text_or_none(x: Any) -> bool:
    return x is None or _text(x)


def _flag(x: Any) -> bool:
    return isinstance(x, bool)


def _id(x: Any) -> bool:
    return type(x) is int and 0 <= x < 2**53  # what a browser's numbers hold


def _number(x: Any) -> bool:
    return (type(x) is float and math.isfinite(x)) or (type(x) is int and abs(x) < 2**53)


def _maybe(x: Any) -> bool:
    return x is None or _number(x)


def _logprob(x: Any) -> bool:
    return x is None or (_number(x) and x <= 1e-3)  # a rounding above 0 at most


def _list(check: Check, length: int | None = None) -> Check:
    def holds(x: Any) -> bool:
        return isinstance(x, list) and length in (None, len(x)) and all(map(check, x))

    return holds


def _prompt(x: Any) -> bool:
    if isinstance(x, dict):
        return _list(_id)(x.get("prompt_ids"))
    return (
        isinstance(x, list)
        and bool(x)
        and all(
            isinstance(turn, dict) and _text(turn.get("role")) and _text(turn.get("content")) for turn in x
        )
    )
