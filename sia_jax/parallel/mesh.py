"""Device meshes and the one table that says how every parameter lies on them."""

import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sia_jax.types import Params, flatten_names, unflatten_names

MESH_AXES = ("data", "fsdp", "tensor")

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
      ValueError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = (data, fsdp, tensor)
    if np.prod(shape) != len(devices):
        sizes = dict(zip(MESH_AXES, shape, strict=True))
        raise ValueError(f"mesh {sizes} needs {np.prod(shape)} devices, got {len(devices)}")
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def partition_spec(name: str, shape: Sequence[int], mesh: Mesh) -> P:
    """The PartitionSpec of the parameter `name`, from `PARTITION_RULES`.

    A dimension that its mesh axis does not divide (a vocabulary of 128257, say) stays whole.

    Raises:
      ValueError: no rule matches the name.
    """
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
    """The tree placed on the mesh by `PARTITION_RULES`; every leaf must match one."""
    placed = {
        name: jax.device_put(leaf, NamedSharding(mesh, partition_spec(name, leaf.shape, mesh)))
        for name, leaf in flatten_names(params).items()
    }
    return unflatten_names(placed)


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays whose first axis is rows: over "data" and "fsdp" together."""
    return NamedSharding(mesh, P(("data", "fsdp")))
