"""What a training step takes of each device of a mesh, and what the devices send each other: from shapes.

For the paper's recipe: a frozen backbone, an adapter on q, k, v and o, a scalar head, layers recomputed. A
mesh (data, fsdp, tensor) is of sizes (d, f, t); r is the rows that a device of "data" and "fsdp" runs at a
time, n the number of layers; the other letters are those of `sia_jax.types`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from sia_jax.costs.compiled import Collective
from sia_jax.models.transformer import abstract_model
from sia_jax.models.value_model import abstract_value
from sia_jax.parallel.mesh import MESH_AXES, ROW_AXES, partition_spec, row_shards
from sia_jax.training.config import TrainConfig
from sia_jax.types import Params, flatten_names

QUERIES = 512
"""Whose scores an accelerator holds at a time."""
SLACK = 1000
"""Bytes by which what is sent may differ from what is expected: counts and norms go along with the rest."""


def frozen_shapes(config: TrainConfig, dtype: Any = jnp.bfloat16) -> Params:
    """The tree that is not trained, with a ShapeDtypeStruct in place of each array."""
    return {"model": abstract_model(config.value.backbone, dtype)}


def trained_shapes(config: TrainConfig) -> Params:
    """The tree that is: {"lora", "value_head"}, float32."""
    assert config.value.lora is not None
    return abstract_value(config.value)


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one device, by what they are for."""

    weights: int
    """The frozen ones, bfloat16."""
    trained: int
    """What is trained and its two moments, float32."""
    gradient: int
    """Of what is trained, float32."""
    layer_inputs: int
    """Kept for the backward pass, bfloat16: 2 n r L D."""
    layer: int
    """One layer at work, bfloat16: hidden states, queries, keys, values, and features before and after the
    activation, 2 r L (4 D + (2 N H + 2 K H + 3 F) / t); and float32 scores twice."""
    layer_weights: int
    """Of one layer once they are gathered, bfloat16."""

    @property
    def arguments(self) -> int:
        """What a step is handed, less the batch, which is some kilobytes."""
        return self.weights + self.trained

    @property
    def temporary(self) -> int:
        """The most that it may need beside that."""
        next_too = 2 * self.layer_weights  # they are gathered while a layer works
        return self.gradient + self.layer_inputs + self.layer + next_too


def step_memory(config: TrainConfig, mesh: Mesh, *, rows: int, row_length: int) -> StepMemory:
    """The memory of one device.

    Args:
      config: of the recipe above.
      mesh: of any devices.
      rows: r.
      row_length: L.
    """
    backbone, t, tokens = config.value.backbone, mesh.shape["tensor"], rows * row_length
    d, h = backbone.hidden_size, backbone.head_dim
    features = 2 * (backbone.num_heads + backbone.num_kv_heads) * h + 3 * backbone.intermediate_size
    scores = 2 * 4 * tokens * QUERIES * backbone.num_heads // t
    frozen, trained = flatten_names(frozen_shapes(config)), flatten_names(trained_shapes(config))
    held = _count(trained, mesh, "fsdp", "tensor")
    layer = {name: leaf for name, leaf in frozen.items() if name.startswith("model.layers.0.")}
    return StepMemory(
        weights=2 * _count(frozen, mesh, "fsdp", "tensor"),
        trained=3 * 4 * held,
        gradient=4 * held,
        layer_inputs=2 * backbone.num_layers * tokens * d,
        layer=2 * tokens * (4 * d + features // t) + scores,
        layer_weights=2 * _count(layer, mesh, "tensor"),
    )


@dataclass(frozen=True)
class Exchange:
    """What the devices send each other for one reason."""

    what: str
    kinds: tuple[str, ...]
    """Any of these, as `Collective` has them."""
    axes: tuple[str, ...]
    """Along one of these axes of the mesh, or several."""
    dtypes: tuple[str, ...]
    """Each array is of one of these."""
    bytes: int
    """Of all arrays together, whole."""
    arrays: int | None = None
    """How many; None: the compiler may join and split them."""
    sizes: str | None = None
    """Of every array, such as "[2,8,16]"; None: any."""
    loops: int | None = 1
    """While loops around it: 1, that over micro-batches; 0, none; None: either, as the compiler likes."""

    def covers(self, found: Collective) -> bool:
        """Whether a collective of a program is of this exchange."""
        split = [shape.partition("[") for shape in found.shapes]
        return (
            found.kind in self.kinds
            and found.axes != ()
            and set(found.axes) <= set(self.axes)
            and (found.loops <= 1 if self.loops is None else found.loops == self.loops)
            and all(dtype in self.dtypes for dtype, _, _ in split)
            and (self.sizes is None or all("[" + sizes == self.sizes for _, _, sizes in split))
        )


def step_exchanges(
    config: TrainConfig, mesh: Mesh, *, rows: int, row_length: int, dtype: str = "bf16"
) -> list[Exchange]:
    """All that a step sends: in each micro-batch, and the last two once; in bytes of whole arrays.

    W stands for the frozen weights of a layer, A for what "fsdp" splits of its adapter, P for all that is
    trained, in elements, with what "tensor" splits divided by t.

        weights         all-gather over fsdp    4 n W / t              forward, and again backward
        adapter         likewise, float32       8 n A
        embedding       all-to-all over fsdp    2 r L D                what the table gives: features for rows
        tokens          all-gather over fsdp    4 r L f                what it is asked
        sums            all-reduce over tensor  2 r L D (7 n - 2)      see below
        adapter's sums  likewise, float32       4 r L R 5 n            o forward and again; q, k, v backward
        gradient        reduction over rows     4 P                    of what is trained, float32
        bounds          all-reduce over rows    4 L                    where blocks of attention begin to see
        predictions     all-gather over rows    4 for each trajectory's place in a row
        numbers         all-reduce              some                   counts, the loss, norms

    The sums of a layer run over heads or features: o and down forward; o again; gate with up, q, k and v
    backward. Less q, k and v of the first layer, below which nothing is trained; and one more for the
    embedding, whose tokens are split.

    Args:
      config: of the recipe above.
      mesh: of any devices.
      rows: r.
      row_length: L, over `QUERIES`.
      dtype: of the frozen weights, two bytes wide, as a program's text says it.
    """
    assert config.value.lora is not None
    backbone, n = config.value.backbone, config.value.backbone.num_layers
    layers = {k: v for k, v in flatten_names(frozen_shapes(config)).items() if ".layers." in k}
    trained = flatten_names(trained_shapes(config))
    by_fsdp = [_split_by_fsdp(leaves, mesh) for leaves in (layers, trained)]
    hidden = 2 * rows * row_length * backbone.hidden_size
    inner = 4 * rows * row_length * config.value.lora.rank
    f, t = mesh.shape["fsdp"], mesh.shape["tensor"]
    all_rows = rows * row_shards(mesh)
    found = [Exchange("numbers", ("all-reduce",), MESH_AXES, ("s32", "f32"), 0, sizes="[]", loops=None)]
    if row_shards(mesh) > 1:
        by_rows = ROW_AXES
        gradient = 4 * _count(trained, mesh, "tensor")
        places = (-(-config.batch_size // all_rows), all_rows, config.batch_size)
        sizes, size = f"[{places[0]},{places[1]},{places[2]}]", 4 * math.prod(places)
        found += [
            Exchange("predictions", ("all-gather",), by_rows, ("f32",), size, 1, sizes, loops=0),
            Exchange("gradient", ("all-reduce", "reduce-scatter"), by_rows, ("f32",), gradient, loops=None),
            Exchange("bounds", ("all-reduce",), by_rows, ("s32",), 4 * row_length, 1),
        ]
    if f > 1:
        weights, adapter = (2 * sum(leaves) for leaves in by_fsdp)
        found += [
            Exchange("weights", ("all-gather",), ("fsdp",), (dtype,), 2 * weights, 2 * len(by_fsdp[0])),
            Exchange("adapter", ("all-gather",), ("fsdp",), ("f32",), 4 * adapter, 2 * len(by_fsdp[1])),
            Exchange("embedding", ("all-to-all",), ("fsdp",), (dtype,), hidden, 1),
            Exchange("tokens", ("all-gather",), ("fsdp",), ("s32",), 4 * rows * f * row_length, 1),
        ]
    if t > 1:
        found += [
            Exchange("sums", ("all-reduce",), ("tensor",), (dtype,), (7 * n - 2) * hidden, 7 * n - 2),
            Exchange("adapter's sums", ("all-reduce",), ("tensor",), ("f32",), 5 * n * inner, 5 * n),
        ]
    return found


def unexpected(found: Sequence[Collective], expected: Sequence[Exchange], most: int) -> list[str]:
    """What a program sends otherwise than expected; empty if all is well.

    Args:
      found: the program's collectives.
      expected: each collective is of the first that covers it.
      most: bytes that may be gathered at a time, those of a layer's weights.
    """
    wrong = []
    for exchange, members in assign(found, expected):
        size, arrays = sum(one.bytes for one in members), sum(len(one.shapes) for one in members)
        if exchange is None:
            wrong += [f"nothing explains {one}" for one in members]
        elif abs(size - exchange.bytes) > SLACK:
            wrong.append(f"{exchange.what}: expected {exchange.bytes:,} bytes, got {size:,}")
        elif exchange.arrays not in (None, arrays):
            wrong.append(f"{exchange.what}: expected {exchange.arrays} arrays, got {arrays}")
    larger = [one for one in found if one.kind == "all-gather" and one.bytes > most]
    return wrong + [f"expected at most {most:,} bytes gathered at a time, got {one}" for one in larger]


def assign(
    found: Sequence[Collective], expected: Sequence[Exchange]
) -> list[tuple[Exchange | None, list[Collective]]]:
    """Each exchange with the collectives that it is the first to cover, and None with those of none."""
    owners = [next((each for each in expected if each.covers(one)), None) for one in found]
    return [
        (each, [one for one, owner in zip(found, owners, strict=True) if owner is each])
        for each in [*expected, None]
    ]


def _count(leaves: dict[str, Any], mesh: Mesh, *axes: str) -> int:
    """Elements of the leaves in one device's hands, where they are split over these axes alone."""
    return sum(leaf.size // _parts(name, leaf, mesh, *axes) for name, leaf in leaves.items())


def _split_by_fsdp(leaves: dict[str, Any], mesh: Mesh) -> list[int]:
    """Elements that a device has of each leaf that "fsdp" splits, once it is gathered."""
    return [
        leaf.size // _parts(name, leaf, mesh, "tensor")
        for name, leaf in leaves.items()
        if _parts(name, leaf, mesh, "fsdp") > 1
    ]


def _parts(name: str, leaf: Any, mesh: Mesh, *axes: str) -> int:
    spec = partition_spec(name, leaf.shape, mesh)
    return math.prod(mesh.shape[axis] for axis in spec if axis in axes)
