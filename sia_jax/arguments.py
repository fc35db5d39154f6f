"""What callers hand over: told in an error, and read as numbers, before anything is traced."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sia_jax.reprs import shortened

_SHOWN = 80
"""Characters of an object that an error shows."""


def told(x: Any) -> str:
    """An object in an error: what it is, and a little of it; arrays by their dtype and shape."""
    if isinstance(x, type):
        return f"the class {x.__name__}"
    kind = type(x).__name__
    if isinstance(x, np.ndarray | np.generic | jax.Array):
        content = {"U": "text", "S": "bytes", "O": "objects"}.get(getattr(x.dtype, "kind", ""), str(x.dtype))
        return f"{kind} of {content} {x.shape}"
    if isinstance(x, dict | set | frozenset | bytes | bytearray):
        return f"{kind} of {len(x)}"
    try:
        text = repr(x)
    except Exception:  # whatever a foreign object's repr raises
        text = "an object without a repr"
    text = shortened(text, _SHOWN)
    return f"{kind} {text}" if kind not in text else text


def concrete(x: Any) -> bool:
    """Whether the numbers of `x` can be looked at: it is no tracer."""
    return not isinstance(x, jax.core.Tracer)


def check_kind(name: str, x: Any, kind: type | tuple[type, ...], remedy: str) -> None:
    """An argument is of a class.

    Raises:
      TypeError: it is not; `remedy` says what to pass.
    """
    if not isinstance(x, kind):
        raise TypeError(f"{name} must be {remedy}, got {told(x)}")


def check_whole(name: str, x: Any) -> None:
    """A static number is an integer.

    Raises:
      TypeError: it is not.
    """
    if isinstance(x, bool | np.bool_) or not isinstance(x, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {told(x)}")


def check_real(name: str, x: Any) -> None:
    """A static number is one: a Python or NumPy scalar, which is hashable.

    Raises:
      TypeError: it is not.
    """
    if isinstance(x, bool | np.bool_) or not isinstance(x, numbers.Real):
        raise TypeError(f"{name} must be a number, got {told(x)}; numbers that change go into Knobs")


def read_numbers(name: str, x: Any, expected: str = "numbers") -> Any:
    """An array of numbers: anything that NumPy reads as one. A tracer is handed back as it is.

    Args:
      name: what an error calls it.
      x: a number, nested lists, an array of NumPy, JAX or of a library that NumPy can read, such as PyTorch.
      expected: what an error asks for.

    Raises:
      ValueError: rows of different lengths, or what is no number.
    """
    if not concrete(x):
        return x
    array = None
    # NumPy takes words, mappings, iterators and any other object for arrays of objects.
    if not isinstance(x, str | bytes | bytearray | dict | set | frozenset) and x is not None:
        try:
            array = np.asarray(x)
        except ValueError as error:  # ragged
            raise ValueError(
                f"{name} must be {expected}, got rows of different lengths ({told(x)}); pad them"
            ) from error
        except Exception as error:  # what foreign arrays raise: on another device, with gradients
            raise ValueError(
                f"{name} must be {expected}, got {told(x)}, which NumPy cannot read ({error})"
            ) from error
    if array is not None and array.dtype.itemsize < 4 and jnp.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32)  # bfloat16, which NumPy takes for no number, and its like
    if array is None or array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be {expected}, got {told(x)}")
    return array


def read_integers(name: str, x: Any, expected: str = "integers") -> np.ndarray:
    """An array of integers, of which a nested list that is empty is one too; see `read_numbers`.

    Raises:
      ValueError: rows of different lengths, or what is no integer.
    """
    array = read_numbers(name, x, expected)
    if array.size == 0 and isinstance(x, list | tuple):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be {expected}, got {array.dtype} {array.shape}")
    return array
