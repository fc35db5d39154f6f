"""Regular expressions over modules' paths, matched without backtracking.

Adapters bring such patterns from elsewhere, and Python's `re` can take for ever over one. Here a pattern is a
function from the places of a path where its match may begin to those where it may end: every step works on
sets of places, so the time is bounded by the lengths of both. Look-around and references to groups, which
need backtracking, are refused.
"""

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_MOST_CHARACTERS = 2000
_MOST_NESTED = 20
"""Groups within groups."""
_MOST_WORK = 100_000
"""Steps of a match, see `_Part.work`: a tenth of a second."""
_TURNS = 32
"""What a repetition without an upper bound is reckoned at: it ends once nothing new is reached."""
_MOST_COUNTED = 20
_REPEATED = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}")

Places = frozenset[int]
_Ends = Callable[[str, Places], Places]


@dataclass(frozen=True)
class _Part:
    """A part of a pattern: where it may end, and what that takes."""

    ends: _Ends
    work: int = 1
    """Characters and places, each as often as the repetitions around it may have it tried."""


def matches_end(pattern: str, path: str) -> bool:
    """PEFT's rule for rank and alpha patterns: one matches a whole path, or what follows one of its dots.

    Args:
      pattern: as `check_pattern` takes it.
      path: of a module, such as "model.layers.3.self_attn.q_proj".

    Raises:
      ValueError: the pattern is none that can be matched here.
    """
    starts = frozenset({0, *(i + 1 for i, character in enumerate(path) if character == ".")})
    return len(path) in _compiled(pattern).ends(path, starts)


def matches_whole(pattern: str, path: str) -> bool:
    """Whether a pattern matches a whole path, as `re.fullmatch`; otherwise as `matches_end`."""
    return len(path) in _compiled(pattern).ends(path, frozenset({0}))


def check_pattern(pattern: str) -> None:
    """Raise ValueError, with the reason, if a pattern is none that can be matched here."""
    _compiled(pattern)


def check_patterns(patterns: Iterable[str]) -> None:
    """Raise ValueError if patterns, each of which can be matched, are too much work together."""
    work = sum(_compiled(pattern).work for pattern in patterns)
    if work > _MOST_WORK:
        raise ValueError(
            f"all together they may take {work:,} steps a module, expected at most {_MOST_WORK:,}"
        )


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> _Part:
    if len(pattern) > _MOST_CHARACTERS:
        raise ValueError(f"it has {len(pattern)} characters, expected at most {_MOST_CHARACTERS}")
    parser = _Parser(pattern)
    part = parser.alternatives(0)
    if parser.at < len(pattern):
        raise ValueError("it closes a group that it does not open")
    if part.work > _MOST_WORK:
        raise ValueError(
            f"its repetitions, nested, may take {part.work:,} steps, expected at most {_MOST_WORK:,}"
        )
    return part


class _Parser:
    """Reads a pattern from left to right."""

    def __init__(self, pattern: str):
        self.pattern = pattern
        self.at = 0

    def alternatives(self, depth: int) -> _Part:
        """x|y|z, to the end of the pattern or of the group."""
        if depth > _MOST_NESTED:
            raise ValueError(f"its groups are nested more than {_MOST_NESTED} deep")
        parts = [self._sequence(depth)]
        while self._taken("|"):
            parts.append(self._sequence(depth))
        return parts[0] if len(parts) == 1 else _Part(_any_of(parts), sum(part.work for part in parts))

    def _sequence(self, depth: int) -> _Part:
        parts = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            parts.append(self._repeated(self._atom(depth)))
        return _Part(_one_after_the_other(parts), 1 + sum(part.work for part in parts))

    def _repeated(self, part: _Part) -> _Part:
        found = _REPEATED.match(self.pattern, self.at)
        if found is None or found[0] in ("{}", "{,}"):
            return part
        self.at = found.end()
        if self.at < len(self.pattern) and self.pattern[self.at] in "*+":
            raise ValueError(f"it repeats a repetition: {found[0]}{self.pattern[self.at]}")
        self._taken("?")  # a lazy repetition matches the same paths
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(found[0], (int(found[1] or 0), None))
        if found[0].startswith("{") and (found[3] or not found[2]):
            most = int(found[3] or found[1])
        if max(least, most or 0) > _MOST_COUNTED or (most is not None and most < least):
            raise ValueError(f"it has {found[0]}, expected counts up to {_MOST_COUNTED}")
        turns = least + _TURNS if most is None else most
        return _Part(_repeat(part, least, most), 1 + part.work * turns)

    def _atom(self, depth: int) -> _Part:
        character = self.pattern[self.at]
        self.at += 1
        match character:
            case "(":
                return self._group(depth)
            case "[":
                return _Part(_character(self._class()))
            case ".":
                return _Part(_character(lambda c: c != "\n"))
            case "^":
                return _Part(_where(lambda path, i: i == 0))
            case "$":
                return _Part(_where(lambda path, i: i == len(path)))
            case "\\":
                return self._escaped()
            case "*" | "+" | "?":
                raise ValueError(f"there is nothing before its {character} to repeat")
        return _Part(_character(character.__eq__))

    def _group(self, depth: int) -> _Part:
        if self._taken("?"):
            named = re.compile(r":|P<\w+>").match(self.pattern, self.at)
            if named is None:
                raise ValueError(
                    f"its (?{self.pattern[self.at : self.at + 2]} is not supported, only groups are"
                )
            self.at = named.end()
        part = self.alternatives(depth + 1)
        if not self._taken(")"):
            raise ValueError("it does not close a group")
        return part

    def _escaped(self) -> _Part:
        if self.pattern[self.at : self.at + 1] in ("b", "B"):
            self.at += 1
            wanted = self.pattern[self.at - 1] == "b"
            return _Part(_where(lambda path, i: _is_border(path, i) == wanted))
        return _Part(_character(self._escape()))

    def _escape(self) -> Callable[[str], bool]:
        r"""What follows a backslash: \. and the like, or one of \d \w \s \D \W \S."""
        character = self.pattern[self.at : self.at + 1]
        self.at += 1
        if character and character in "dwsDWS":
            found = re.compile(f"\\{character}").match
            return lambda c: found(c) is not None
        if not character or character.isalnum():
            raise ValueError(f"its \\{character} is not supported")
        return character.__eq__

    def _class(self) -> Callable[[str], bool]:
        """[a-z], [^0-9], ..."""
        negated = self._taken("^")
        members: list[Callable[[str], bool]] = []
        first = True
        while first or not self._taken("]"):
            first = False
            if self.at >= len(self.pattern):
                raise ValueError("it does not close a class of characters")
            character = self.pattern[self.at]
            self.at += 1
            if character == "\\":
                members.append(self._escape())
            elif self.pattern[self.at : self.at + 1] == "-" and self.pattern[
                self.at + 1 : self.at + 2
            ] not in (
                "",
                "]",
            ):
                last = self.pattern[self.at + 1]
                self.at += 2
                if last == "\\" or last < character:
                    raise ValueError(f"its range {character}-{last} is not supported")
                members.append(functools.partial(_is_between, character, last))
            else:
                members.append(character.__eq__)
        return lambda c: any(holds(c) for holds in members) != negated

    def _taken(self, character: str) -> bool:
        taken = self.pattern.startswith(character, self.at)
        self.at += taken
        return taken


def _character(holds: Callable[[str], bool]) -> _Ends:
    return lambda path, starts: frozenset(i + 1 for i in starts if i < len(path) and holds(path[i]))


def _where(holds: Callable[[str, int], bool]) -> _Ends:
    return lambda path, starts: frozenset(i for i in starts if holds(path, i))


def _any_of(parts: Iterable[_Part]) -> _Ends:
    return lambda path, starts: frozenset().union(*(part.ends(path, starts) for part in parts))


def _one_after_the_other(parts: Iterable[_Part]) -> _Ends:
    def ends(path: str, starts: Places) -> Places:
        for part in parts:
            starts = part.ends(path, starts)
        return starts

    return ends


def _repeat(part: _Part, least: int, most: int | None) -> _Ends:
    def ends(path: str, starts: Places) -> Places:
        for _ in range(least):
            before, starts = starts, part.ends(path, starts)
            if starts in (before, frozenset()):  # and so would all further turns end
                break
        reached, turn = starts, starts
        for _ in range(len(path) + 1 if most is None else most - least):
            turn = part.ends(path, turn) - reached
            if not turn:
                break
            reached |= turn
        return reached

    return ends


def _is_border(path: str, i: int) -> bool:
    """Whether a word begins or ends before place `i`."""
    before, after = path[i - 1 : i] if i else "", path[i : i + 1]
    return bool(re.match(r"\w", before)) != bool(re.match(r"\w", after))


def _is_between(first: str, last: str, character: str) -> bool:
    return first <= character <= last
