"""The training step compiled from shapes alone, and whether a chip holds of it what the arithmetic says."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sia_jax.costs.tpu import ChipMemory, array_shape, placed_shapes
from sia_jax.costs.training_step import StepMemory, frozen_shapes, trained_shapes
from sia_jax.parallel.mesh import ROW_AXES, row_shards
from sia_jax.training.batch import PackedBatch
from sia_jax.training.config import TrainConfig
from sia_jax.training.step import TrainState, init_state, train_step

ARGUMENTS_TOLERANCE = 0.01
"""The batch, and what a chip pads."""


def compile_step(
    config: TrainConfig, mesh: Mesh, *, rows: int, row_length: int, dtype: Any = jnp.bfloat16
) -> Any:
    """The compiled `train_step`, from shapes alone.

    Args:
      config: static; with an adapter.
      mesh: of devices that need not be there.
      rows: that each device of "data" and "fsdp" runs at a time.
      row_length: L.
      dtype: of the frozen weights.
    """
    key = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))
    frozen, trained = (
        placed_shapes(frozen_shapes(config, dtype), mesh),
        placed_shapes(trained_shapes(config), mesh),
    )
    state: TrainState = jax.eval_shape(lambda t, k: init_state(t, k, config=config), trained, key)
    placed: TrainState = jax.tree.map(
        lambda node: (
            placed_shapes(node, mesh) if isinstance(node, dict) else array_shape(node.shape, node.dtype, mesh)
        ),
        state,
        is_leaf=lambda node: isinstance(node, dict),
    )
    batch = _batch(config, mesh, rows * row_shards(mesh), row_length)
    return train_step.lower(frozen, placed, batch, config=config, mesh=mesh).compile()


def _batch(config: TrainConfig, mesh: Mesh, rows: int, length: int) -> PackedBatch:
    """The shapes of a batch as `sia_jax.training.packing` makes it."""
    lead = (-(-config.batch_size // rows), rows)

    def split(dtype: Any, last: int) -> Any:
        return array_shape((*lead, last), dtype, mesh, P(None, ROW_AXES))

    return PackedBatch(
        tokens=split(jnp.int32, length),
        segment_ids=split(jnp.int32, length),
        positions=split(jnp.int32, length),
        is_reply=split(jnp.bool_, length),
        rewards=split(jnp.float32, config.batch_size),
        numbers=split(jnp.int32, config.batch_size),
        micro_batches=array_shape((), jnp.int32, mesh),
    )


def too_much(measured: ChipMemory, expected: StepMemory) -> list[str]:
    """What a chip holds otherwise than the arithmetic says; empty if all is well."""
    wrong = []
    if abs(measured.arguments - expected.arguments) > ARGUMENTS_TOLERANCE * expected.arguments:
        wrong.append(f"expected arguments of {expected.arguments:,} bytes, got {measured.arguments:,}")
    if measured.temporary > expected.temporary:
        wrong.append(f"expected at most {expected.temporary:,} temporary bytes, got {measured.temporary:,}")
    return wrong


def weights_that_stay(growth: int, layer_weights: int) -> list[str]:
    """Whether a further layer leaves its gathered weights in memory; empty if all is well.

    Args:
      growth: temporary bytes that it adds beside its input. They need not be 0: a chip has a second, fast
        memory, and what the compiler keeps there is not counted.
      layer_weights: bytes of its gathered weights, half of which are too much.
    """
    if growth < layer_weights / 2:
        return []
    return [f"a further layer adds {growth:,} temporary bytes: its gathered weights, {layer_weights:,}, stay"]
