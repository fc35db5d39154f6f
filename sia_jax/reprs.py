"""Short reprs: what an object is and how large, in a line or two, however much it holds."""

from dataclasses import MISSING, fields
from typing import Any

import jax
import numpy as np

_LONGEST, _FIELD = 360, 90
"""Characters of a repr, and of one field in it."""


def shortened(text: str, length: int = _LONGEST) -> str:
    """A text cut to a length, and marked as cut."""
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def changed(x: Any, always: tuple[str, ...] = ()) -> str:
    """Name(field=value, ...) of a dataclass: the fields that are not at their default.

    Args:
      x: of a dataclass.
      always: fields that are shown whatever they are.
    """
    parts = []
    for field in sorted(fields(x), key=lambda field: bool(field.kw_only)):  # as its constructor has them
        value = getattr(x, field.name)
        default = field.default
        if default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        if field.name in always or not _same(value, default):
            parts.append(f"{field.name}={shortened(leaf(value), _FIELD)}")
    return shortened(f"{type(x).__name__}({', '.join(parts)})")


def leaf(x: Any) -> str:
    """An array by its dtype and shape; a scalar or anything else as it is."""
    if isinstance(x, tuple | list):
        inner = ", ".join(leaf(value) for value in x[:8]) + (", ..." if len(x) > 8 else "")
        return f"({inner},)" if isinstance(x, tuple) else f"[{inner}]"
    if isinstance(x, np.ndarray | jax.Array) and (x.ndim or isinstance(x, jax.core.Tracer)):
        return f"{x.dtype}{list(x.shape)}"
    if isinstance(x, np.ndarray | jax.Array):
        return str(x)
    return repr(x)


def number(count: float) -> str:
    """A count of parameters: 1.72 B, 135 M, 9216."""
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(int(count))


def weights(tree: Any) -> str:
    """How many tensors a tree has, and of what; "None" for none."""
    if tree is None:
        return "None"
    leaves = [x for x in jax.tree.leaves(tree) if hasattr(x, "shape") and hasattr(x, "dtype")]
    kinds = sorted({str(x.dtype) for x in leaves})
    total = sum(int(np.prod(x.shape)) for x in leaves)
    return f"{len(leaves)} tensors, {number(total)} numbers, {' and '.join(kinds) or 'empty'}"


def readable(*arrays: Any) -> bool:
    """Whether the numbers of arrays can be shown: they are no tracers, shapes or specifications."""
    return all(
        isinstance(x, np.ndarray | np.generic | jax.Array) and not isinstance(x, jax.core.Tracer)
        for x in arrays
    ) and all(x.is_fully_addressable and not x.is_deleted() for x in arrays if isinstance(x, jax.Array))


def shape_of(x: Any) -> str:
    """[2, 16], or what else `x` is."""
    return str(list(x.shape)) if hasattr(x, "shape") else type(x).__name__


def span(x: Any) -> str:
    """7, or 3 .. 7: the smallest and the largest of some numbers."""
    x = np.asarray(x)
    if not x.size:
        return "none"
    low, high = x.min(), x.max()
    return f"{low}" if low == high else f"{low} .. {high}"


def _same(value: Any, default: Any) -> bool:
    if value is default:
        return True
    if default is MISSING or (isinstance(value, np.ndarray | jax.Array | list | tuple) and default is None):
        return False
    return type(value) is type(default) and bool(value == default)
