"""Compile the training step for a TPU slice, on a machine that has none, and check what comes out.

    make tpu
    python -m train.compile_tpu --topology v5e:4x4 --mesh 2 8 1

libtpu's compiler runs on any CPU; no TPU is touched. The step is that of Qwen3-1.7B under the paper's recipe:
a bfloat16 backbone, LoRA of rank 16 in float32, rows of 1024 tokens, layers recomputed. Printed and checked
are the memory of a chip, and the collectives, by kind and bytes. Exits with 1 if the step does not fit.
"""

import re
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from rich.console import Console
from rich.table import Table

from sia_jax.models.config import ModelConfig, RopeConfig, ValueConfig
from sia_jax.models.heads import init_value_head
from sia_jax.models.lora import LoraConfig, init_lora
from sia_jax.models.transformer import abstract_model
from sia_jax.parallel.mesh import MESH_AXES, partition_spec
from sia_jax.training.batch import PackedBatch
from sia_jax.training.config import TrainConfig
from sia_jax.training.step import init_state, train_step
from sia_jax.types import Params, flatten_names, unflatten_names

QWEN3_1_7B = ModelConfig(
    family="qwen3",
    vocab_size=151936,
    hidden_size=2048,
    intermediate_size=6144,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    rope=RopeConfig(1e6),
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
    max_position_embeddings=40960,
)
CHIP_BYTES = {"v5e": 16e9, "v6e": 32e9, "v5p": 95e9, "v4": 32e9}
"""Memory of a chip by the topology's first word, from the maker's data sheets."""

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Args:
    """Compile the training step for a TPU slice."""

    topology: str = "v5e:2x4"
    """As libtpu names it: the generation, then the chips in each direction."""
    mesh: Annotated[tuple[int, int, int], tyro.conf.arg(metavar="DATA FSDP TENSOR")] = (1, 8, 1)
    row_length: int = 1024
    batch_size: int = 16


def main(args: Args) -> None:
    """Compile and check."""
    console = Console()
    generation = args.topology.partition(":")[0]
    devices = topologies.get_topology_desc(platform="tpu", topology_name=args.topology).devices
    mesh = Mesh(np.array(devices).reshape(args.mesh), MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    config = TrainConfig(ValueConfig(QWEN3_1_7B, lora=LoraConfig()), batch_size=args.batch_size, remat=True)
    compiled = compile_step(config, mesh, args.row_length)
    memory: Any = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    used -= memory.alias_size_in_bytes
    found = collectives(compiled.as_text())
    table = Table("collective", "how many", "MB")
    for (kind, shape), count in sorted(found.items()):
        table.add_row(f"{kind} {shape}", str(count), f"{_bytes(shape) * count / 1e6:.1f}")
    console.print(table)
    console.print(
        f"{args.topology}, mesh {args.mesh}: {used / 1e9:.2f} of {CHIP_BYTES[generation] / 1e9:.0f} GB a "
        f"chip: arguments {memory.argument_size_in_bytes / 1e9:.2f}, temporary "
        f"{memory.temp_size_in_bytes / 1e9:.2f}"
    )
    if used > CHIP_BYTES[generation]:
        sys.exit(f"train.compile_tpu: the step needs {used / 1e9:.2f} GB of a chip")


def compile_step(config: TrainConfig, mesh: Mesh, row_length: int) -> Any:
    """The compiled `train_step`, from shapes alone.

    Args:
      config: static.
      mesh: of devices that need not be there.
      row_length: L; rows are as many as the mesh's data times fsdp.
    """
    key = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))
    assert config.value.lora is not None
    lora = config.value.lora
    model = abstract_model(config.value.backbone, jnp.bfloat16)
    trained = {
        "lora": jax.eval_shape(lambda k: init_lora(model, lora, k), key),
        "value_head": jax.eval_shape(lambda k: init_value_head(config.value, k), key),
    }
    frozen, trained = _placed({"model": model}, mesh), _placed(trained, mesh)
    state = jax.eval_shape(lambda t, k: init_state(t, k, config=config), trained, key)
    shapes = jax.tree.map(
        lambda node: _placed(node, mesh) if isinstance(node, dict) else _whole(node, mesh),
        state,
        is_leaf=lambda node: isinstance(node, dict),
    )
    return train_step.lower(
        frozen, shapes, _batch(config, mesh, row_length), config=config, mesh=mesh
    ).compile()


def collectives(text: str) -> Counter[tuple[str, str]]:
    """(kind, shape of the result) of every collective in a compiled program, once however often it runs."""
    pattern = rf"= (\(?[a-z0-9]+\[[^=]*?) ({'|'.join(COLLECTIVES)})(?:-start)?\("
    return Counter((kind, re.sub(r"\{[^}]*\}", "", shape)) for shape, kind in re.findall(pattern, text))


def _bytes(shape: str) -> float:
    sizes = {"bf16": 2, "f32": 4, "s32": 4, "u32": 4, "pred": 1}
    total = 0.0
    for kind, axes in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shape):
        total += sizes.get(kind, 4) * float(np.prod([int(n) for n in axes.split(",") if n] or [1]))
    return total


def _placed(tree: Params, mesh: Mesh) -> Params:
    return unflatten_names(
        {
            name: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, partition_spec(name, leaf.shape, mesh))
            )
            for name, leaf in flatten_names(tree).items()
        }
    )


def _whole(leaf: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, P()))


def _batch(config: TrainConfig, mesh: Mesh, row_length: int) -> PackedBatch:
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    count = -(-config.batch_size // rows)
    split = NamedSharding(mesh, P(None, ("data", "fsdp")))

    def array(*shape: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct((count, rows, *shape), dtype, sharding=split)

    used: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, P()))
    return PackedBatch(
        tokens=array(row_length),
        segment_ids=array(row_length),
        positions=array(row_length),
        is_reply=array(row_length, dtype=jnp.bool_),
        rewards=array(config.batch_size, dtype=jnp.float32),
        numbers=array(config.batch_size),
        micro_batches=used,
    )


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
