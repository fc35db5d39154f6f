"""TPUs that are not there: their devices, to compile for, and what a compiled program takes of a chip.

libtpu brings the compiler, and it runs on any CPU. Its devices can be put into a mesh and compiled for; they
hold no arrays and run nothing.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sia_jax.models.config import ModelConfig, RopeConfig
from sia_jax.parallel.mesh import partition_spec
from sia_jax.types import Params, flatten_names, unflatten_names

CHIP_BYTES = {"v4": 32e9, "v5e": 16e9, "v5p": 95e9, "v6e": 32e9}
"""Memory of a chip by its generation, from the maker's data sheets."""

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
"""What is compiled: the network of the paper's smaller pair."""

_NO_HOST = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""What libtpu asks a TPU machine's environment, or else the metadata server of its cloud: the values do not
matter, for the topology is named by itself. And several processes may load it, for none takes a TPU."""


@dataclass(frozen=True)
class ChipMemory:
    """Bytes of one chip while a program runs."""

    arguments: int
    """What is handed in, and stays where it is given back changed."""
    temporary: int
    """The most that is held at a time beside them."""
    program: int
    """The instructions themselves."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.arguments + self.temporary + self.program

    @staticmethod
    def of(compiled: Any) -> "ChipMemory":
        """Of a compiled program, `jax.stages.Compiled`."""
        found = compiled.memory_analysis()
        return ChipMemory(
            arguments=found.argument_size_in_bytes,
            temporary=found.temp_size_in_bytes,
            program=found.generated_code_size_in_bytes,
        )


def tpu_devices(topology: str) -> list[jax.Device]:
    """The devices of a TPU slice that is not there. JAX itself stays on the CPU.

    Args:
      topology: as libtpu names it, the generation and the chips in each direction: "v5e:2x4".

    Raises:
      ValueError: an unknown generation, or a layout that libtpu has not.
      ModuleNotFoundError: libtpu is not installed.
    """
    chip_bytes(topology)
    for name, value in _NO_HOST.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"libtpu has no topology {topology!r}: {error}") from error
    except RuntimeError as error:
        raise ModuleNotFoundError(f"no libtpu to compile with (make tpu installs it): {error}") from error


def chip_bytes(topology: str) -> float:
    """Memory of one chip of a topology.

    Raises:
      ValueError: a generation that is not in `CHIP_BYTES`.
    """
    generation = topology.partition(":")[0]
    if generation not in CHIP_BYTES:
        raise ValueError(
            f"expected a topology such as v5e:2x4, of a generation in {sorted(CHIP_BYTES)}, got {topology!r}"
        )
    return CHIP_BYTES[generation]


def placed_shapes(tree: Params, mesh: Mesh) -> Params:
    """A tree of shapes with the places that the partition rules give it."""
    return unflatten_names(
        {
            name: array_shape(leaf.shape, leaf.dtype, mesh, partition_spec(name, leaf.shape, mesh))
            for name, leaf in flatten_names(tree).items()
        }
    )


def array_shape(shape: Sequence[int], dtype: Any, mesh: Mesh, spec: P | None = None) -> Any:
    """The shape of an array that lies on a mesh by `spec`, or whole on every device."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec or P()))
