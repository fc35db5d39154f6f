"""What the sampler takes of each device of a mesh, and what the devices may send each other: from shapes.

A mesh (data, fsdp, tensor) is of sizes (d, f, t). A group of t devices decodes B / (d f) rows by itself; the
other letters are those of `sia_jax.types`, and S are the columns of a cache.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from sia_jax.costs.compiled import Collective, elements, moves_of_at_least, while_bodies
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.rows import cache_columns
from sia_jax.models.config import ModelConfig
from sia_jax.parallel.mesh import ROW_AXES, partition_spec, row_shards
from sia_jax.types import Params, flatten_names

COUNTS = (("s32[4]",), ("s32[]",))
"""What the groups tell each other: before a pass, rows that live, run, wait, and have waited long enough; and
before a chunk, rows that live. `Shared` tells rows that live and rows that wait one by one."""
PASSES = ("policy", "value", "shared")
"""What runs in the loops, by the scope in the names of its operations."""


@dataclass(frozen=True)
class SamplerMemory:
    """Bytes of one device."""

    weights: int
    """As they are handed in, split over "fsdp" and "tensor"."""
    gathered: int
    """The same whole over "fsdp", beside the former; 0 where that splits nothing."""
    caches: int
    """Keys and values of policy and value model: 2 n (B / d f) S (K / t) H each, in the weights' type."""
    ids: int
    """Which ids the prompts have, and how often each was said: 5 (B / d f) V."""

    @property
    def total(self) -> int:
        """Of what is sure to be there; activations of prompts and logits come on top."""
        return self.weights + self.gathered + self.caches + self.ids


def sampler_memory(
    config: SamplerConfig, policy: Params, value: Params | None, mesh: Mesh, *, rows: int, prompt: int
) -> SamplerMemory:
    """The memory of one device.

    Args:
      config: of the sampler.
      policy: the policy's tree, of arrays or shapes.
      value: the value model's; None where there is none.
      mesh: of any devices.
      rows: B, branches included.
      prompt: P, tokens of the prompts' buffers, of policy and value model alike.
    """
    leaves = [*flatten_names(policy).items(), *flatten_names(value or {}).items()]
    whole = sum(_bytes(name, leaf, mesh, "tensor") for name, leaf in leaves)
    held = sum(_bytes(name, leaf, mesh, "tensor", "fsdp") for name, leaf in leaves)
    own = rows // row_shards(mesh)
    itemsize = policy["model"]["embed_tokens"]["weight"].dtype.itemsize
    tokens = prompt + config.max_new_tokens
    of_policy, of_value = cache_columns(config, tokens, tokens)
    cached = of_policy * _cached(config.policy, mesh)
    if config.value is not None and config.value_passes:
        cached += of_value * _cached(config.value.backbone, mesh)
    return SamplerMemory(
        weights=held,
        gathered=whole if mesh.shape["fsdp"] > 1 else 0,
        caches=own * cached * itemsize,
        ids=5 * own * config.policy.vocab_size,
    )


def unexpected_exchanges(found: Sequence[Collective], columns: Sequence[int]) -> list[str]:
    """What the devices send each other in the loops and should not; empty if all is well.

    Between groups nothing but `COUNTS`, and along "tensor" nothing that has the columns of a cache.

    Args:
      found: collectives of the sampler.
      columns: S of the caches.
    """
    wrong = []
    for one in found:
        if not one.loops:
            continue
        if set(one.axes) & set(ROW_AXES) and one.shapes not in COUNTS:
            wrong.append(f"expected counts between groups, {COUNTS}, got {one}")
        if any(
            str(size) in re.findall(r"\d+", shape.partition("[")[2])
            for size in columns
            for shape in one.shapes
        ):
            wrong.append(f"expected no part of a cache of {list(columns)} columns, got {one}")
    return wrong


def cache_moves(text: str, columns: int, least: int) -> dict[str, int]:
    """Elements of caches that are laid out anew: in the loops by the pass that does, one of `PASSES`, with
    under "" what the compiler made up between them; and under "once" all that is in no loop.

    Moves between a chip's two memories are none of these.

    Args:
      text: of the compiled sampler.
      columns: S of that cache.
      least: elements of a move that counts, such as those of a layer's keys.
    """
    moved = dict.fromkeys((*PASSES, "", "once"), 0)
    in_loops = {line for body in while_bodies(text).values() for line in moves_of_at_least(body, least)}
    for line in {*in_loops, *moves_of_at_least(text, least)}:
        shape = re.search(r"= ([a-z]\w*\[[\d,]*\])\S* (?:copy|transpose)\(", line)
        if shape is None or str(columns) not in re.findall(r"\d+", shape[1].partition("[")[2]):
            continue
        source = re.search(r'op_name="([^"]*)"', line)
        name = pass_of("" if source is None else source[1]) if line in in_loops else "once"
        moved[name] += elements(shape[1])
    return moved


def pass_of(source: str) -> str:
    """Which of `PASSES` an operation is of, by its name in the traced program; "": of none."""
    parts = source.split("/")
    return next((name for name in PASSES if name in parts), "")


def _cached(model: ModelConfig, mesh: Mesh) -> int:
    """Keys and values of one column, in one device's hands."""
    t = mesh.shape["tensor"]
    heads = model.num_kv_heads // t if model.num_kv_heads % t == 0 else model.num_kv_heads
    return 2 * model.num_layers * heads * model.head_dim


def _bytes(name: str, leaf: Any, mesh: Mesh, *axes: str) -> int:
    spec = partition_spec(name, leaf.shape, mesh)
    return leaf.size * leaf.dtype.itemsize // math.prod(mesh.shape[axis] for axis in spec if axis in axes)
