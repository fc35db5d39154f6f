"""Where the time of a network's pass goes: its products, its attention, and what is done token by token."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sia_jax.models.product import project
from sia_jax.types import Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Unmixed:
    """An `Attend` that mixes nothing and writes nothing: each token gets its query, a little changed.

    All keys and values have a share in the result, so that the compiler leaves no product out.
    """

    def __call__(
        self, layer: int, queries: Array, keys: Array, values: Array, cache: Any
    ) -> tuple[Array, Any]:
        """See `sia_jax.models.attention.Attend`."""
        own = jnp.sum(keys + values, axis=-2, keepdims=True)
        return queries + (1e-3 * own).astype(queries.dtype), cache


def products(model: Params, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """A backbone's products alone, each layer after the one before: no norm, rotation or attention.

    Args:
      model: a backbone's tree.
      x: hidden states, of about 1.
    """
    for layer in model["layers"].values():
        attention, mlp = layer["self_attn"], layer["mlp"]
        queries, keys, values = (project(x, attention[f"{name}_proj"]["weight"]) for name in ("q", "k", "v"))
        x = x + _little(project(queries, attention["o_proj"]["weight"])) + _largest(keys) + _largest(values)
        gate, up = (project(x, mlp[f"{name}_proj"]["weight"]) for name in ("gate", "up"))
        x = x + _little(project(gate * up, mlp["down_proj"]["weight"]))
    return x


def _little(x: Array) -> Array:
    return (1e-3 * x).astype(x.dtype)


def _largest(x: Array) -> Array:
    """What needs all of a product, and costs next to nothing."""
    return _little(jnp.max(x, axis=-1, keepdims=True))
