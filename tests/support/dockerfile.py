"""A Dockerfile read as Docker reads it, as far as ours goes: what is not known here is refused."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

KNOWN = frozenset(
    {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
)
_DIRECTIVE = re.compile(r"#\s*(syntax|escape|check)\s*=", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Instruction:
    """One of them."""

    word: str
    """In capitals: "COPY"."""
    rest: str
    """On one line."""
    line: int
    """Where it begins, from 1."""


def parse(text: str) -> list[Instruction]:
    """The instructions in order; comments go, also between lines that are continued.

    Raises:
      ValueError: one that is not known, or that takes what is not known; with its line.
    """
    found, parts, began = list[Instruction](), list[str](), 0
    for number, line in enumerate(text.splitlines(), 1):
        if _DIRECTIVE.match(line) and not (found or parts):
            raise ValueError(f"line {number}: expected no parser directive, got {line!r}")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        began = began if parts else number
        continued = line.rstrip().endswith("\\")
        parts.append(line.rstrip().removesuffix("\\").strip())
        if not continued:
            found.append(_instruction(" ".join(part for part in parts if part), began))
            parts = []
    if parts:
        raise ValueError(f"line {began}: it goes on behind the end of the file")
    if not found or found[0].word != "FROM" or [one.word for one in found].count("FROM") > 1:
        raise ValueError("expected FROM once, and first")
    return found


def _instruction(text: str, line: int) -> Instruction:
    word, _, rest = text.partition(" ")
    word, rest = word.upper(), rest.strip()
    if word not in KNOWN:
        raise ValueError(f"line {line}: {word} is not known here, only {', '.join(sorted(KNOWN))}")
    if not rest:
        raise ValueError(f"line {line}: {word} of nothing")
    if "<<" in rest:
        raise ValueError(f"line {line}: expected no text in the file itself, got {rest!r}")
    if word != "HEALTHCHECK" and rest.startswith("--"):
        raise ValueError(f"line {line}: expected {word} without flags, got {rest!r}")
    return Instruction(word, rest, line)


def substituted(text: str, variables: Mapping[str, str]) -> str:
    """A text with $NAME and ${NAME} in it.

    Raises:
      ValueError: a variable that there is not, or `$` before anything else.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in variables:
            raise ValueError(f"{text!r}: there is no {name}")
        return variables[name]

    if "$" in _VARIABLE.sub("", text):
        raise ValueError(f"{text!r}: expected $NAME or ${{NAME}} alone behind $")
    return _VARIABLE.sub(value, text)


def commands(text: str, variables: Mapping[str, str]) -> list[list[str]]:
    """The words of the commands of a RUN, parted by &&.

    Raises:
      ValueError: more of the shell's language than that.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    found: list[list[str]] = [[]]
    for word in lexer:
        if word == "&&":
            found.append([])
        elif set(word) & set(";|&<>()`*?~"):
            raise ValueError(f"{text!r}: expected commands parted by && alone, got {word!r}")
        else:
            found[-1].append(substituted(word, variables))
    if not all(found):
        raise ValueError(f"{text!r}: a command of nothing")
    return found


def sent(folder: Path) -> Iterator[Path]:
    """The files that a build may copy: paths in a folder that its .dockerignore lets through."""
    rules = rules_of(folder)
    # A folder of which nothing is let through need not be looked into, such as an environment.
    tops = {rule[1:].split("/")[0] for rule in rules if rule.startswith("!")}
    for top in sorted(tops if rules[:1] == ["*"] else [path.name for path in folder.iterdir()]):
        for path in [folder / top, *sorted((folder / top).rglob("*"))]:
            relative = path.relative_to(folder)
            if path.is_file() and not ignored(relative, rules):
                yield relative


def rules_of(folder: Path) -> list[str]:
    """The lines of its .dockerignore, without comments."""
    lines = [line.strip() for line in (folder / ".dockerignore").read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def ignored(path: Path, rules: list[str]) -> bool:
    """Whether the last rule that is about a path, or a folder that it lies in, leaves it out."""
    out = False
    for rule in rules:
        let = rule.startswith("!")
        pattern = _pattern(rule.removeprefix("!").strip("/"))
        if any(pattern.fullmatch(part.as_posix()) for part in (path, *path.parents[:-1])):
            out = not let
    return out


def _pattern(rule: str) -> re.Pattern[str]:
    """** is any number of folders; * and ? stay within a name."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", rule)
    own = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(own.get(part, re.escape(part)) for part in parts))
