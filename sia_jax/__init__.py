"""Sparse Inference-time Alignment (SIA) in JAX/Flax: steer a language model at its junctions."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sia_jax.public import *
    from sia_jax.public import __all__ as __all__

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """A public name. The first that is asked for imports JAX, which `sia --help` need not wait for."""
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Not `from sia_jax import public`, which would ask for an attribute of that name first.
    public = importlib.import_module("sia_jax.public")
    names = public.__all__
    globals().update({known: getattr(public, known) for known in names}, __all__=names)
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    """The public names, for those who press Tab."""
    return sorted({*globals(), *__getattr__("__all__")})
