"""Searches as text: `args(1.5, temperature=1)`, `transfer_q(1, candidates=4)`, `cbs(4, 4, 16)`."""

import re
from dataclasses import Field, fields
from types import NoneType
from typing import Any, get_args

from sia_jax.arguments import check_kind
from sia_jax.evaluation.search.methods import Args, ChunkBeam, SearchMethod, TransferQ
from sia_jax.reprs import shortened

KINDS: dict[str, type[SearchMethod]] = {"args": Args, "transfer_q": TransferQ, "cbs": ChunkBeam}
"""By the name that each has in a text."""

_CALL = re.compile(r"\s*([a-z_]+)\s*(?:\(([^()]*)\))?\s*", re.ASCII)
_ARGUMENT = re.compile(r"\s*(?:([a-z_]+)\s*=\s*)?([a-z]+|[+-]?[0-9.]+(?:e[+-]?[0-9]+)?)\s*", re.ASCII)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None}
_NAMES = {bool: "true or false", float: "a number", int: "a whole number", NoneType: "none"}


def parse_search(text: str) -> SearchMethod:
    """The search that a text says, a name with numbers in the order of its fields or by their names.

    Raises:
      ValueError: the text is none; the error says what there is.
    """
    check_kind("a search in words", text, str, "a text")
    call = _CALL.fullmatch(text)
    kind = KINDS.get(call[1]) if call else None
    if call is None or kind is None:
        raise _refused(text, "expected one of them")
    known = {f.name: f for f in fields(kind)}
    given: dict[str, Any] = {}
    for argument in (call[2] or "").split(",") if (call[2] or "").strip() else ():
        read = _ARGUMENT.fullmatch(argument)
        if read is None:
            raise _refused(text, f"{shortened(argument.strip(), 40)!r} is no number")
        name = read[1] or next((name for name in known if name not in given), None)
        if name not in known or name in given:
            raise _refused(text, f"there is no place for {shortened(argument.strip(), 40)!r}")
        given[name] = _value(text, known[name], read[2])
    try:
        return kind(**given)
    except ValueError as error:
        raise _refused(text, str(error)) from None


def text_of(search: SearchMethod) -> str:
    """The text that is read as this search."""
    name = next(name for name, kind in KINDS.items() if isinstance(search, kind))
    return f"{name}({_told(search)})"


def _told(of: Any) -> str:
    return ", ".join(f"{f.name}={str(getattr(of, f.name)).lower()}" for f in fields(of))


def _value(text: str, f: Field, word: str) -> Any:
    """A word as what the field holds.

    Raises:
      ValueError: it is something else.
    """
    kinds = get_args(f.type) or (f.type,)
    if type(_WORDS.get(word, 0)) in kinds and word in _WORDS:
        return _WORDS[word]
    kind = kinds[0]
    try:
        if kind is not bool and word not in _WORDS:
            return kind(word)
    except ValueError:
        pass
    wanted = " or ".join(_NAMES[kind] for kind in kinds)
    raise _refused(text, f"{f.name} must be {wanted}, got {shortened(word, 40)!r}")


def _refused(text: str, why: str) -> ValueError:
    there = ", ".join(_signature(name, kind) for name, kind in KINDS.items())
    return ValueError(f"the search {shortened(text, 60)!r} cannot be read: {why}; there is {there}")


def _signature(name: str, kind: type[SearchMethod]) -> str:
    """args(weight=1.0, temperature=0.0)."""
    return f"{name}({_told(kind())})"
