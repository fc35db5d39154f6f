"""What Griffe, which reads the sources and imports none, is told of the house's style.

Fields of pytrees have comments. Sampling numbers have a row of a table. Methods that are told of elsewhere
say no more than where.
"""

import ast
import re
from pathlib import Path
from typing import Any

import griffe

_COMMENT = re.compile(r"\s*#\s?(.*)")
_ELSEWHERE = re.compile(r"See `\w+`\.|For the engine: .*")


class HouseStyle(griffe.Extension):
    """So that the reference has all that the sources say, once."""

    def __init__(self) -> None:
        self._defaults: dict[str, str] = {}

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **_: Any) -> None:
        """A sampling number's row, or a comment behind a field or above it, is its docstring."""
        if attr.docstring is not None or attr.parent is None or not attr.parent.is_class:
            return
        row = row_of(node)
        if row is None:
            text = comment_of(node, Path(attr.filepath).read_text(encoding="utf-8").splitlines())
        else:
            self._defaults[attr.name] = default = row.get("default", "0.0")
            text = f"{row['help']} Default: {default}; {row.get('expected', 'a finite number')}."
        if text:
            attr.docstring = griffe.Docstring(text, lineno=node.lineno, parent=attr, parser="google")

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """A method that only says "See `Gate`.", which the page has, or is the engine's own is left out."""
        for name, member in list(cls.members.items()):
            if not member.is_alias and member.docstring and _ELSEWHERE.fullmatch(member.docstring.value):
                cls.del_member(name)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Where a class has `@redeclare`, the numbers that it inherits have the defaults of their rows."""
        for cls in _classes(pkg):
            if any(str(one.value).startswith("redeclare(") for one in cls.decorators):
                init = cls.members["__init__"]
                init.parameters = griffe.Parameters(*map(self._redeclared, init.parameters))

    def _redeclared(self, parameter: griffe.Parameter) -> griffe.Parameter:
        default = self._defaults.get(parameter.name)
        if default is None:
            return parameter
        annotation = "int" if default.isdigit() else "float"  # the other classes have the parameter too
        return griffe.Parameter(parameter.name, annotation=annotation, kind=parameter.kind, default=default)


def row_of(node: Any) -> dict[str, str] | None:
    """What `Annotated[Any, Number(...)]` says of a field, as text; None where it is no such field.

    Args:
      node: the field's, of the syntax tree.
    """
    annotation = getattr(node, "annotation", None)
    if not isinstance(annotation, ast.Subscript) or not isinstance(annotation.slice, ast.Tuple):
        return None
    row = annotation.slice.elts[-1]
    if not isinstance(row, ast.Call) or ast.unparse(row.func) != "Number":
        return None
    parts = {one.arg or "": one.value for one in row.keywords}
    return {
        name: str(x.value) if isinstance(x, ast.Constant) else ast.unparse(x) for name, x in parts.items()
    }


def comment_of(node: Any, lines: list[str]) -> str:
    """What is said of a field behind it, or else in the lines above; "" if nothing is.

    Args:
      node: the field's, of the syntax tree.
      lines: of its file.
    """
    behind = _COMMENT.match(lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode())
    if behind:
        return behind[1]
    above: list[str] = []
    while found := _COMMENT.fullmatch(lines[node.lineno - 2 - len(above)]):
        above.insert(0, found[1])
    return " ".join(above)


def _classes(module: griffe.Module) -> list[griffe.Class]:
    found = []
    for member in module.members.values():
        if not member.is_alias and member.is_module:
            found += _classes(member)
        elif not member.is_alias and member.is_class:
            found.append(member)
    return found
