"""Rows of a batch split over a mesh: every device decodes its own rows, and only counts go round.

A function under `split_by_rows` sees the rows of one group of devices, those of one place on "data" and
"fsdp", and no other's: what it gathers and scatters among its rows never leaves the group. Weights come whole
over "data" and "fsdp", gathered once and not in every step; over "tensor" they stay split, and the compiler
splits the products.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, get_abstract_mesh
from jax.sharding import PartitionSpec as P

from sia_jax.parallel.mesh import ROW_AXES


def split_by_rows(
    function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """`function`, run by each group of devices on its own rows.

    Args:
      function: of arrays; what it counts over all rows, it counts with `sum_over_rows`.
      mesh: of `make_mesh`.
      in_specs: for each argument, a prefix of its tree: `BY_ROW` or `WHOLE`.
      out_specs: the same of the result; what is `WHOLE` must be equal on all devices.
    """
    # Whether a result is equal on all devices is not for JAX to find out: loops would need casts all over.
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=in_specs,
        out_specs=out_specs,
        axis_names=set(ROW_AXES),
        check_vma=False,
    )


BY_ROW = P(ROW_AXES)
"""Split along the first axis, over "data" and "fsdp" together."""
WHOLE = P()
"""Of arrays that all rows share; over "tensor" they lie as they do."""


def is_split() -> bool:
    """Whether this is traced under `split_by_rows`."""
    return set(ROW_AXES) <= set(get_abstract_mesh().manual_axes)


def sum_over_rows(counts: jax.Array) -> jax.Array:
    """The sum of what each group of devices counted among its rows; `counts` itself where there is one."""
    return jax.lax.psum(counts, ROW_AXES) if is_split() else counts


def whole(x: jax.Array) -> jax.Array:
    """`x` with all of its columns on every device of a group, which "tensor" may have split."""
    return jax.lax.with_sharding_constraint(x, WHOLE) if is_split() else x


def split_heads(x: jax.Array, axis: int) -> jax.Array:
    """`x` with an axis of heads over "tensor", if that divides it."""
    if not is_split() or x.shape[axis] % get_abstract_mesh().shape["tensor"]:
        return x
    return jax.lax.with_sharding_constraint(x, P(*[None] * (axis % x.ndim), "tensor"))
