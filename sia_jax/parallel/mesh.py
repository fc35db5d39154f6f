"""Device meshes and the one table that says how every parameter lies on them."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sia_jax.arguments import check_kind, check_whole, told
from sia_jax.parallel.lock_step import agreed, spans_processes
from sia_jax.types import Params, flatten_names, unflatten_names

MESH_AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")
"""Those that split the rows of a batch."""

PARTITION_RULES: tuple[tuple[str, P], ...] = (
    (r".*embed_tokens\.weight", P("tensor", "fsdp")),  # [V, D]
    (r"lm_head\.weight", P("tensor", "fsdp")),  # [V, D]
    (r".*(q|k|v|gate|up)_proj\.weight", P("tensor", "fsdp")),  # [out, D]: heads or F over tensor
    (r".*(o|down)_proj\.weight", P("fsdp", "tensor")),  # [D, in]
    (r".*norm\.weight", P()),
    (r".*(q|k|v|gate|up)_proj\.lora_A\.weight", P(None, "fsdp")),  # [R, D]
    (r".*(q|k|v|gate|up)_proj\.lora_B\.weight", P("tensor", None)),  # [out, R]
    (r".*(o|down)_proj\.lora_A\.weight", P(None, "tensor")),  # [R, in]
    (r".*(o|down)_proj\.lora_B\.weight", P("fsdp", None)),  # [D, R]
    (r"value_head\.up\.(weight|bias)", P("tensor")),  # [V, R], [V]
    (r"(value_head|value_head\.down|score)\.(weight|bias)", P()),
)
"""(regular expression of the whole name, spec); the first match wins. Activations: `row_sharding`."""


def make_mesh(
    data: int = 1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh with axes ("data", "fsdp", "tensor").

    Args:
      data: replicas of the weights; each sees other rows.
      fsdp: shards of the weights that also split the rows.
      tensor: shards of heads, feed-forward and vocabulary.
      devices: default all of this program's; there must be data * fsdp * tensor of them.

    Raises:
      ValueError: the sizes are not 1 or more, or do not multiply to the number of devices.
    """
    shape = (data, fsdp, tensor)
    sizes = dict(zip(MESH_AXES, shape, strict=True))
    for name, size in sizes.items():
        check_whole(name, size)
    devices = jax.devices() if devices is None else devices
    if not isinstance(devices, Sequence | np.ndarray) or not all(
        isinstance(device, jax.Device) for device in devices
    ):
        raise TypeError(f"devices must be a list of jax.devices(), got {told(devices)}")
    if min(shape) < 1:
        raise ValueError(f"the sizes of a mesh must be 1 or more, got {sizes}")
    if np.prod(shape) != len(devices):
        raise ValueError(f"mesh {sizes} needs {np.prod(shape)} devices, got {len(devices)}")
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def mesh_of(params: Params) -> Mesh | None:
    """The mesh that a tree lies on, or None."""
    sharding = next(iter(flatten_names(params).values())).sharding
    return sharding.mesh if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh) else None


def check_axes(mesh: Mesh) -> None:
    """The mesh is one of `make_mesh`.

    Raises:
      TypeError: it is none.
      ValueError: it has other axes.
    """
    check_kind("mesh", mesh, Mesh, "a mesh of sia_jax.make_mesh(...), or None")
    if mesh.axis_names != MESH_AXES:
        raise ValueError(f"the mesh has axes {mesh.axis_names}, expected {MESH_AXES}: make it with make_mesh")


def partition_spec(name: str, shape: Sequence[int], mesh: Mesh) -> P:
    """The PartitionSpec of the parameter `name`, from `PARTITION_RULES`.

    A dimension that its mesh axis does not divide (a vocabulary of 128257, say) stays whole.

    Raises:
      ValueError: no rule matches the name, or the mesh has other axes.
    """
    check_axes(mesh)
    for pattern, spec in PARTITION_RULES:
        if re.fullmatch(pattern, name):
            fits = (
                axis if axis is not None and size % mesh.shape[axis] == 0 else None
                for axis, size in zip(spec, shape, strict=False)
            )
            return P(*fits)
    raise ValueError(
        f"no partition rule matches parameter {name!r} of shape {tuple(shape)}; add one to "
        "sia_jax.parallel.mesh.PARTITION_RULES"
    )


def shard_params(params: Params, mesh: Mesh) -> Params:
    """The tree placed on the mesh by `PARTITION_RULES`; every leaf must match one.

    Where the mesh spans processes each gives the parts of its own devices, out of the same numbers.

    Raises:
      ValueError: a leaf that no rule matches; numbers that differ between the processes.
    """
    leaves = flatten_names(params)
    shardings = {
        name: NamedSharding(mesh, partition_spec(name, leaf.shape, mesh)) for name, leaf in leaves.items()
    }
    if spans_processes(mesh):
        own = {name: leaf for name, leaf in leaves.items() if _is_own(leaf)}
        agreed("placing weights", lambda: own, lambda own: {"weights": own}, mesh=mesh)
    return unflatten_names({name: _placed(leaf, shardings[name]) for name, leaf in leaves.items()})


def _is_own(leaf: Any) -> bool:
    """Whether this process can read all of it."""
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable


def _placed(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable or not _is_own(leaf):
        return jax.device_put(leaf, sharding)
    # `device_put` would send every leaf to every process, to compare them.
    numbers = np.asarray(leaf)
    return jax.make_array_from_callback(numbers.shape, sharding, lambda index: numbers[index])


def gathered(params: Params, mesh: Mesh) -> Params:
    """The same numbers whole over "fsdp", as a product needs them; to be traced, one layer at a time.

    Left to itself the compiler keeps the weights where they are and splits the sums: every device then gets
    the activations of all rows, and partial sums go round in the narrow type of the weights.

    Args:
      params: a layer's tree, or any other that `PARTITION_RULES` name.
      mesh: of the devices that hold it.
    """
    leaves = flatten_names(params)
    return unflatten_names({name: _gathered(name, leaf, mesh) for name, leaf in leaves.items()})


def _gathered(name: str, leaf: jax.Array, mesh: Mesh) -> jax.Array:
    spec = partition_spec(name, leaf.shape, mesh)
    whole = P(*(None if axis == "fsdp" else axis for axis in spec))
    # The compiler gives a value's last constraint to whoever uses that value later: a backward pass would cut
    # its part out of the weights that the forward pass gathered, and those of all layers would stay until
    # then. Behind a barrier they are of another value.
    leaf = jax.lax.with_sharding_constraint(jax.lax.optimization_barrier(leaf), NamedSharding(mesh, spec))
    return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, whole))


def keep_all_but_gathered(primitive: Any, *_: Any, **__: Any) -> bool:
    """A policy of `jax.checkpoint`: a backward pass gathers again, and computes nothing else again."""
    return primitive.name not in ("optimization_barrier", "sharding_constraint")


def look_up(table: Callable[[jax.Array], jax.Array], tokens: jax.Array, mesh: Mesh) -> jax.Array:
    """table(tokens), [B, T, D] out of [B, T], split by rows, where the table is split by features.

    Tokens move, and not the table: a device looks up its features for all rows of its "fsdp" group, and then
    gives away features of others' rows for all those of its own.
    """
    tokens = jax.lax.with_sharding_constraint(tokens, NamedSharding(mesh, P("data")))
    x = table(tokens)
    features = "fsdp" if x.shape[-1] % mesh.shape["fsdp"] == 0 else None
    x = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P("data", None, features)))
    return jax.lax.with_sharding_constraint(x, row_sharding(mesh))


def row_shards(mesh: Mesh | None) -> int:
    """Parts into which a mesh splits rows: data times fsdp; 1 on one device, which is None."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in ROW_AXES)


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis is rows: over "data" and "fsdp" together."""
    return NamedSharding(mesh, P(ROW_AXES))
