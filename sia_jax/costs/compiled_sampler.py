"""The sampler compiled from shapes alone, and whether it is what the arithmetic says."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import sia_jax
from sia_jax.costs.compiled import Collective, collectives
from sia_jax.costs.sampler import SamplerMemory, cache_moves, sampler_memory, unexpected_exchanges
from sia_jax.costs.tpu import ChipMemory, array_shape, placed_shapes
from sia_jax.costs.training_step import frozen_shapes, trained_shapes
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.rows import cache_columns
from sia_jax.decoding.sample import lower
from sia_jax.decoding.schedule import make_schedule
from sia_jax.models.config import ModelConfig, ValueConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.parallel.mesh import ROW_AXES
from sia_jax.training.config import TrainConfig

PROMPT, NEW_TOKENS = 512, 528
"""Tokens; the columns of the caches, 1040 and 1056, are then like no other size of the program."""
TOLERANCE = 0.01
"""Prompts and settings, and what a chip pads."""


@dataclass(frozen=True)
class CompiledSampler:
    """What the compiler made of a network of some layers."""

    counted: SamplerMemory
    memory: ChipMemory
    exchanges: list[Collective]
    columns: tuple[int, int]
    """Of the caches of policy and value model."""
    moved: dict[str, int]
    """Elements of caches laid out anew, by the pass that does."""


def compile_sampler(backbone: ModelConfig, rows: int, mesh: Mesh) -> CompiledSampler:
    """Compile `sia_jax.sample` whole, from shapes alone, in bfloat16.

    Args:
      backbone: the policy, which lies under the value model too.
      rows: prompts; a multiple of data times fsdp.
      mesh: of devices that need not be there.
    """
    value = ValueConfig(backbone, lora=LoraConfig())
    config = sia_jax.SamplerConfig(backbone, value, max_new_tokens=NEW_TOKENS, mesh=mesh).resolve(rows)
    training = TrainConfig(value)
    policy = placed_shapes(frozen_shapes(training, jnp.bfloat16), mesh)
    trained = placed_shapes(trained_shapes(training), mesh)
    compiled = lower(
        sia_jax.SteeringParams(policy, trained), *_inputs(rows, config, mesh), config=config
    ).compile()
    text, own = compiled.as_text(), rows // config.row_groups
    columns = cache_columns(config, PROMPT + NEW_TOKENS, PROMPT + NEW_TOKENS)
    heads = max(1, backbone.num_kv_heads // mesh.shape["tensor"])
    moves = [cache_moves(text, size, own * heads * backbone.head_dim * size) for size in columns]
    return CompiledSampler(
        counted=sampler_memory(config, policy, trained, mesh, rows=rows, prompt=PROMPT),
        memory=ChipMemory.of(compiled),
        exchanges=collectives(text, mesh.shape),
        columns=columns,
        moved={name: sum(each[name] for each in moves) for name in moves[0]},
    )


def _inputs(rows: int, config: sia_jax.SamplerConfig, mesh: Mesh) -> tuple[sia_jax.Prompt, Any, Any]:
    """Shapes of the prompts, the rows' numbers and the schedule's of a call, as they lie on the mesh."""
    key = jax.random.key(0, impl="threefry2x32")
    numbers = make_row_params(1.0, key, sia_jax.Knobs(), rows, config)

    def by_row(x: Any) -> Any:
        return array_shape(x.shape, x.dtype, mesh, P(ROW_AXES) if x.ndim else P())

    tokens, lengths = (
        jax.ShapeDtypeStruct((rows, PROMPT), jnp.int32),
        jax.ShapeDtypeStruct((rows,), jnp.int32),
    )
    prompt = sia_jax.Prompt(tokens, lengths, tokens, lengths)
    numbers, schedule = jax.tree.map(by_row, (numbers, make_schedule(None, config.schedule)))
    return jax.tree.map(by_row, prompt), numbers, schedule


def amiss(found: CompiledSampler) -> list[str]:
    """What is wrong with one compiled sampler; empty if all is well."""
    wrong = unexpected_exchanges(found.exchanges, found.columns)
    counted, given = found.counted.weights, found.memory.arguments
    if abs(given - counted) > TOLERANCE * counted:
        wrong.append(f"expected arguments of {counted:,} bytes, got {given:,}")
    if found.moved["policy"]:
        wrong.append(
            f"expected policy steps to leave caches as they lie, {found.moved['policy']:,} elements do not"
        )
    return wrong
