"""Gates and tilts as text: `entropy & ~position(3)`, `after("</think>")`, `clipped(1.0, advantage)`.

    gate  = all {"|" all}        all = one {"&" one}        one = "~" one | "(" gate ")" | call
    call  = name ["(" [argument {"," argument}] ")"]        argument = [field "="] (number | ids | tilt)
    ids   = id {"," id} | text                              text = as in JSON: "</think>\\n"

A name is that of a class in snake case. Nothing is evaluated: the text is read by these rules alone. What a
marker's text is in ids a tokenizer says, which the caller brings.
"""

import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from types import ModuleType
from typing import Any, NamedTuple, NoReturn, TypeVar

from sia_jax.arguments import check_kind
from sia_jax.reprs import shortened
from sia_jax.steering import gates, tilts
from sia_jax.steering.gates import And, Gate, Not, Or
from sia_jax.steering.parts import Expression, check_numbers, range_of
from sia_jax.steering.tilts import Tilt

LONGEST, DEEPEST = 1000, 50
"""Characters of a text, and how many parentheses, calls and ~ may stand in each other."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf\b))|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<text>\"(?:[^\"\\]|\\.)*\")|(?P<sign>[~&|(),=]))",
    re.ASCII | re.DOTALL,
)
_BINDING: dict[type, int] = {Or: 1, And: 2, Not: 3}
_SIGNS = {Or: "|", And: "&"}

E = TypeVar("E", bound=Expression)

Encode = Callable[[str], Sequence[int]]
"""The ids of a text to which nothing is added."""


def parse_gate(text: str, encode: Encode | None = None) -> Gate:
    """The gate that a text says; ~ binds closest, then &, then |.

    Args:
      text: such as `entropy & after("</think>")`.
      encode: the policy's tokenizer, which a marker in the text is read with; None: there is none.

    Raises:
      ValueError: the text is none; the error says where, what was expected, and what there is.

    Examples:
      >>> parse_gate("entropy & ~position(3)")
      (Entropy() & ~Position(first=3))
      >>> parse_gate('entropy & after("</think>")', encode=lambda text: [151668])
      (Entropy() & After(tokens=(151668,), started=0.0))
    """
    return _Parser(text, "gate", Gate, gates, encode).read()


def parse_tilt(text: str) -> Tilt:
    """The tilt that a text says.

    Raises:
      ValueError: the text is none; the error says where, what was expected, and what there is.

    Examples:
      >>> parse_tilt("clipped(1.0, advantage)")
      Clipped(bound=1.0, of=Advantage())
    """
    return _Parser(text, "tilt", Tilt, tilts).read()


def text_of(expression: Expression) -> str:
    """The text that is read as this gate or tilt of the package, of scalar numbers; a marker in ids.

    Examples:
      >>> text_of(gates.Entropy() & ~gates.Position(3))
      'entropy & ~position(3)'
    """
    return _text(expression, 0)


def named(kind: type[E], module: ModuleType) -> dict[str, type[E]]:
    """The gates or tilts that a module has, by their names in snake case, without the operators."""
    classes = [c for c in vars(module).values() if inspect.isclass(c) and issubclass(c, kind)]
    return {_snake(c): c for c in classes if not inspect.isabstract(c) and c not in _BINDING}


class _Token(NamedTuple):
    kind: str  # number, name, text, end, or the sign itself
    text: str
    start: int


class _Parser:
    """Recursive descent over one text."""

    def __init__(
        self, text: str, what: str, kind: type[Any], module: ModuleType, encode: Encode | None = None
    ):
        check_kind(f"a {what} in words", text, str, "a text")
        self.text, self.what, self.kind, self.known = text, what, kind, named(kind, module)
        self.operators, self.encode = kind is Gate, encode
        self.place, self.depth = 0, 0
        if len(text) > LONGEST:
            self._fail(LONGEST, f"{LONGEST} characters at most, got {len(text)}")
        self.tokens = self._tokens()

    def read(self) -> Any:
        """The whole text as one expression."""
        found = self._expression()
        self._take("end", "& or | or the end" if self.operators else "the end")
        return found

    def _tokens(self) -> list[_Token]:
        tokens, at = [], 0
        while match := _TOKEN.match(self.text, at):
            kind = match.lastgroup or ""
            text = match[kind]
            tokens.append(_Token(text if kind == "sign" else kind, text, match.start(kind)))
            at = match.end()
        rest = self.text[at:].lstrip()
        if rest:
            self._fail(len(self.text) - len(rest), 'a name, a number, a text in "" or one of ~ & | ( ) , =')
        return [*tokens, _Token("end", "", len(self.text))]

    def _expression(self) -> Any:
        return (
            self._chain("|", Or, lambda: self._chain("&", And, self._one)) if self.operators else self._one()
        )

    def _chain(self, sign: str, kind: type[Any], part: Callable[[], Any]) -> Any:
        found = part()
        while self._next(sign):
            found = kind(found, part())
        return found

    def _one(self) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            self._fail(self.tokens[self.place].start, f"{DEEPEST} levels at most")
        if self.operators and self._next("~"):
            found: Any = Not(self._one())
        elif self.operators and self._next("("):
            found = self._expression()
            self._take(")", "& or | or )")
        else:
            found = self._call()
        self.depth -= 1
        return found

    def _call(self) -> Any:
        name = self._take("name", f"a {self.what}")
        kind = self.known.get(name.text)
        if kind is None:
            self._fail(name.start, f"a {self.what}, and there is none called {shortened(name.text, 40)}")
        given: dict[str, Any] = {}
        if self._next("(") and not self._next(")"):
            while True:
                self._argument(kind, given)
                if self._next(")"):
                    break
                self._take(",", ", or )")
        missing = [f.name for f in fields(kind) if f.name not in given and not _has_default(f)]
        if missing:
            self._fail(name.start, f"{_signature(kind)}: {missing[0]} is missing")
        found = kind(**given)
        try:
            check_numbers(self.what, found, static=True)
        except ValueError as error:
            self._fail(name.start, str(error))
        return found

    def _argument(self, kind: type[Any], given: dict[str, Any]) -> None:
        """Read one argument of a class into `given`, by its name or by its place."""
        token, known = self.tokens[self.place], {f.name: f for f in fields(kind)}
        if token.kind == "name" and self.tokens[self.place + 1].kind == "=":
            self.place += 2
            f = known.get(token.text)
        else:
            f = next((f for f in known.values() if f.name not in given and not f.kw_only), None)
        if f is None or f.name in given:
            self._fail(token.start, f"{_signature(kind)}, with no more and no other arguments")
        if "kind" in f.metadata:
            given[f.name] = self._one()
        elif "ids" in f.metadata:
            given[f.name] = self._marker() if self.tokens[self.place].kind == "text" else self._ids()
        else:
            given[f.name] = _number(self._take("number", f"a number for {f.name}").text)

    def _ids(self) -> tuple[int, ...]:
        """Ids, as long as numbers follow."""
        found = []
        while True:
            token = self._take("number", 'ids, or a text such as "</think>"')
            if not re.fullmatch(r"\d{1,10}", token.text):
                self._fail(token.start, f"an id, a whole number from 0 on, got {shortened(token.text, 40)}")
            found.append(int(token.text))
            if self.tokens[self.place].kind != "," or self.tokens[self.place + 1].kind != "number":
                return tuple(found)
            self.place += 1

    def _marker(self) -> tuple[int, ...]:
        """The ids of a text."""
        token = self._take("text", "a text")
        if self.encode is None:
            self._fail(token.start, "ids, as in after(151668): there is no tokenizer to read a text with")
        try:
            text = json.loads(token.text, strict=False)
            text.encode()
        except ValueError:
            self._fail(token.start, "a text as in JSON, whose \\ escapes, and in Unicode")
        found = tuple(self.encode(text))
        if not found:
            self._fail(token.start, "a text of one token at least")
        return found

    def _next(self, kind: str) -> bool:
        found = self.tokens[self.place].kind == kind
        self.place += found
        return found

    def _take(self, kind: str, expected: str) -> _Token:
        token = self.tokens[self.place]
        if not self._next(kind):
            self._fail(token.start, expected)
        return token

    def _fail(self, at: int, expected: str) -> NoReturn:
        start = max(at - 60, 0)
        shown = "".join(c if c.isprintable() else "?" for c in self.text[start : at + 40])
        there = ", ".join(_signature(kind) for kind in self.known.values())
        joined = ", joined by ~, &, | and parentheses" if self.operators else ""
        raise ValueError(
            f"the {self.what} cannot be read at column {at + 1}: expected {expected}\n"
            f"  {shown}\n  {' ' * (at - start)}^\nthere is {there}{joined}"
        )


def _text(expression: Any, least: int) -> str:
    """Of an expression that stands where one has to bind at least so closely."""
    binding = _BINDING.get(type(expression), 4)
    if isinstance(expression, Not):
        text = f"~{_text(expression.inner, binding)}"
    elif isinstance(expression, And | Or):
        sign = _SIGNS[type(expression)]
        text = f"{_text(expression.left, binding)} {sign} {_text(expression.right, binding + 1)}"
    else:
        told = [part for f in fields(expression) for part in _arguments(f, getattr(expression, f.name))]
        text = _snake(type(expression)) + (f"({', '.join(told)})" if told else "")
    return f"({text})" if binding < least else text


def _arguments(f: Field, x: Any) -> list[str]:
    """What a field is in a call: an argument, one for each id, or nothing where only a name would say it."""
    if isinstance(x, Expression):
        return [_text(x, 0)]
    found = [repr(one.item() if hasattr(one, "item") else one) for one in (x if "ids" in f.metadata else [x])]
    if f.kw_only:
        return [] if x == f.default else [f"{f.name}={found[0]}"]
    return found


def _number(text: str) -> float:
    return int(text) if re.fullmatch(r"[+-]?\d{1,15}", text) else float(text)


def _snake(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def _has_default(f: Field) -> bool:
    return f.default is not MISSING or f.default_factory is not MISSING


def _signature(kind: type[Any]) -> str:
    """bernoulli(rate: 0 .. 1)."""
    told = []
    for f in fields(kind):
        low, high = range_of(f)
        of = "a tilt" if "kind" in f.metadata else "ids or a text" if "ids" in f.metadata else ""
        told.append(f"{f.name}{'=' if f.kw_only else ': '}{of or f'{low:g} .. {high:g}'}")
    return _snake(kind) + (f"({', '.join(told)})" if told else "")
