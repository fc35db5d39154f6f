"""The sampler, and a window of it, compiled from shapes alone: whether they are what the arithmetic says."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import sia_jax
from sia_jax.costs.compiled import Collective, collectives
from sia_jax.costs.sampler import PASSES, SamplerMemory, cache_moves, sampler_memory, unexpected_exchanges
from sia_jax.costs.tpu import ChipMemory, array_shape, placed_shapes
from sia_jax.costs.training_step import frozen_shapes, trained_shapes
from sia_jax.decoding import window
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.rows import cache_columns
from sia_jax.decoding.sample import lower
from sia_jax.decoding.schedule import Schedule, make_schedule
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
    """Elements of caches laid out anew, as `cache_moves` has them."""
    in_place: int | None = None
    """Bytes of a chip's arguments that come out where they went in; None: the program is handed no state."""

    @property
    def arguments(self) -> int:
        """Bytes that a chip is expected to be handed: weights, and caches with ids if there is a state."""
        state = 0 if self.in_place is None else self.counted.caches + self.counted.ids
        return self.counted.weights + state


@dataclass(frozen=True)
class _Setting:
    """What both programs are compiled for."""

    config: sia_jax.SamplerConfig
    params: sia_jax.SteeringParams
    mesh: Mesh
    rows: int

    @staticmethod
    def of(backbone: ModelConfig, rows: int, mesh: Mesh, schedule: Schedule) -> "_Setting":
        value = ValueConfig(backbone, lora=LoraConfig())
        config = sia_jax.SamplerConfig(
            backbone, value, max_new_tokens=NEW_TOKENS, mesh=mesh, schedule=schedule
        ).resolve(rows)
        training = TrainConfig(value)
        policy = placed_shapes(frozen_shapes(training, jnp.bfloat16), mesh)
        trained = placed_shapes(trained_shapes(training), mesh)
        return _Setting(config, sia_jax.SteeringParams(policy, trained), mesh, rows)

    def by_row(self, x: Any) -> Any:
        """The shape of an array of rows, or of one number, as it lies on the mesh."""
        return array_shape(x.shape, x.dtype, self.mesh, P(ROW_AXES) if x.ndim else P())

    def numbers(self) -> tuple[Any, Any]:
        """Shapes of the rows' numbers and the schedule's."""
        key = jax.random.key(0, impl="threefry2x32")
        numbers = make_row_params(1.0, key, sia_jax.Knobs(), self.rows, self.config)
        found: tuple[Any, Any] = jax.tree.map(
            self.by_row, (numbers, make_schedule(None, self.config.schedule))
        )
        return found

    def prompts(self) -> sia_jax.Prompt:
        """Shapes of the prompts."""
        tokens = self.by_row(jax.ShapeDtypeStruct((self.rows, PROMPT), jnp.int32))
        lengths = self.by_row(jax.ShapeDtypeStruct((self.rows,), jnp.int32))
        return sia_jax.Prompt(tokens, lengths, tokens, lengths)

    def read(self, compiled: Any) -> CompiledSampler:
        """What the compiler made; a program with a state says itself what it keeps in its place."""
        config, mesh, params = self.config, self.mesh, self.params
        assert params.value is not None
        text, own = compiled.as_text(), self.rows // config.row_groups
        columns = cache_columns(config, PROMPT + NEW_TOKENS, PROMPT + NEW_TOKENS)
        heads = max(1, config.policy.num_kv_heads // mesh.shape["tensor"])
        moves = [cache_moves(text, s, own * heads * config.policy.head_dim * s) for s in sorted({*columns})]
        return CompiledSampler(
            counted=sampler_memory(config, params.policy, params.value, mesh, rows=self.rows, prompt=PROMPT),
            memory=ChipMemory.of(compiled),
            exchanges=collectives(text, mesh.shape),
            columns=columns,
            moved={name: sum(each[name] for each in moves) for name in moves[0]},
        )


def compile_sampler(backbone: ModelConfig, rows: int, mesh: Mesh, schedule: Schedule) -> CompiledSampler:
    """Compile `sia_jax.sample` whole, from shapes alone, in bfloat16.

    Args:
      backbone: the policy, which lies under the value model too.
      rows: prompts; a multiple of data times fsdp.
      mesh: of devices that need not be there.
      schedule: `Burst` or `Shared`.
    """
    setting = _Setting.of(backbone, rows, mesh, schedule)
    numbers, times = setting.numbers()
    return setting.read(
        lower(setting.params, setting.prompts(), numbers, times, config=setting.config).compile()
    )


def compile_window(backbone: ModelConfig, rows: int, mesh: Mesh, schedule: Schedule) -> CompiledSampler:
    """Compile `sia_jax.decoding.window.window`, for rows as long as those of `compile_sampler`.

    Args:
      backbone: as of `compile_sampler`, as are the following.
      rows: that live.
      mesh: of devices.
      schedule: of the rounds.
    """
    setting = _Setting.of(backbone, rows, mesh, schedule)
    tokens = PROMPT + NEW_TOKENS
    compiled = window.lower(
        setting.params,
        *setting.numbers(),
        config=setting.config,
        policy_tokens=tokens,
        value_tokens=tokens,
    ).compile()
    return replace(setting.read(compiled), in_place=compiled.memory_analysis().alias_size_in_bytes)


def amiss(found: CompiledSampler) -> list[str]:
    """What is wrong with one compiled program; empty if all is well."""
    wrong = unexpected_exchanges(found.exchanges, found.columns)
    counted, given = found.arguments, found.memory.arguments
    if abs(given - counted) > TOLERANCE * counted:
        wrong.append(f"expected arguments of {counted:,} bytes, got {given:,}")
    loops = PASSES if found.in_place is None else (*PASSES, "")  # a call reads value prompts in between
    wrong += [
        f"expected loops to leave caches as they lie, {moved:,} elements of {name or 'all'} do not"
        for name, moved in found.moved.items()
        if name in loops and moved
    ]
    state = found.counted.caches + found.counted.ids
    if found.in_place is not None and found.in_place < state:
        wrong.append(f"expected {state:,} bytes of the state to stay where they lie, got {found.in_place:,}")
    return wrong
