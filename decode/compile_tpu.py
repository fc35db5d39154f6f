"""Compile the sampler for a TPU slice, on a machine that has none, and check what comes out.

    make tpu-sampling
    make tpu-sampling ARGS="--mesh 8 1 1 --rows 128"
    make tpu-sampling ARGS="--layers 4"
    make tpu-sampling ARGS="--topology v5p:2x2x1 --mesh 1 1 4 --rows 16"

libtpu's compiler runs on any CPU; no TPU is touched. What is compiled is `sia_jax.sample` whole, prefill,
policy steps and value passes, for the paper's pair: Qwen3-1.7B in bfloat16, and a value model that is an
adapter over its weights. Printed and checked are the memory of a chip, what the chips send each other, and
where a cache is laid out anew, against the arithmetic of `sia_jax.costs.sampler`.

All 28 layers are compiled, which takes four minutes of processor time: libtpu generates code once for what is
alike in several layers. With fewer --layers it is a network of so many, and one of one less, whose difference
is what a layer adds; from that the whole is reckoned.

Exits with 1 if the weights are not as counted, or the whole does not fit; if in a loop groups of chips send
each other anything but counts of rows, or any chips a part of a cache; or if a policy step lays a cache out
anew.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import tyro
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from rich.table import Table

import sia_jax
from sia_jax.costs.compiled import Collective, collectives
from sia_jax.costs.sampler import (
    SamplerMemory,
    cache_moves,
    sampler_memory,
    unexpected_exchanges,
)
from sia_jax.costs.tpu import (
    QWEN3_1_7B,
    ChipMemory,
    array_shape,
    chip_bytes,
    placed_shapes,
    tpu_devices,
)
from sia_jax.costs.training_step import frozen_shapes, trained_shapes
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.rows import cache_columns
from sia_jax.decoding.sample import lower
from sia_jax.decoding.schedule import make_schedule
from sia_jax.models.config import ValueConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.parallel.mesh import ROW_AXES, make_mesh
from sia_jax.runs.cli import program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.training.config import TrainConfig

LAYERS = QWEN3_1_7B.num_layers
FEWEST = 3
"""Layers, to reckon from. Of the last one prefill needs keys and values alone: a network of one has no layer
that is read whole, and one of two has its first."""
PROMPT, NEW_TOKENS = 512, 528
"""Tokens; the columns of the caches, 1040 and 1056, are then like no other size of the program."""
ITEMSIZE = 2
"""Bytes of a bfloat16."""
TOLERANCE = 0.01
"""Prompts and settings, and what a chip pads."""


@dataclass(frozen=True)
class Args:
    """Compile the sampler for a TPU slice."""

    topology: str = "v5e:2x4"
    """As libtpu names it: the generation, then the chips in each direction."""
    mesh: Annotated[tuple[int, int, int], tyro.conf.arg(metavar="DATA FSDP TENSOR")] = (2, 1, 4)
    """Sizes of the mesh, of as many devices as the topology has chips."""
    layers: int = LAYERS
    """Layers to compile; of fewer than all 28 also one less, for the difference."""
    rows: int = 32
    """Prompts; a multiple of data times fsdp."""


@dataclass(frozen=True)
class Found:
    """What the compiler made of a network of some layers."""

    counted: SamplerMemory
    memory: ChipMemory
    exchanges: list[Collective]
    columns: tuple[int, int]
    """Of the caches of policy and value model."""
    moved: dict[str, int]
    """Elements of caches laid out anew, by the pass that does."""


def main(args: Args) -> None:
    """Compile and check; exits with 1 if something is not as expected."""
    console = Terminal(width=max(Terminal().width, 110))  # narrower, the shapes would be cut off
    with program("decode.compile_tpu", ModuleNotFoundError, keeps_compiled=False):
        if not FEWEST <= args.layers <= LAYERS:
            raise ValueError(f"--layers must lie in {FEWEST} .. {LAYERS}, got {args.layers}")
        mesh = make_mesh(*args.mesh, devices=tpu_devices(args.topology))
        groups = args.mesh[0] * args.mesh[1]
        if args.rows < 1 or args.rows % groups:
            raise ValueError(f"--rows must be a multiple of {groups}, data times fsdp, got {args.rows}")
        depths = (LAYERS,) if args.layers == LAYERS else (args.layers - 1, args.layers)
        found = {layers: _compile(args, layers, mesh, console) for layers in depths}
        wrong = _check(args, found, console)
    if wrong:
        sys.exit("decode.compile_tpu: not as expected:\n" + "\n".join(wrong))
    console.print("\nAll as expected.")


def _compile(args: Args, layers: int, mesh: Mesh, console: Terminal) -> Found:
    backbone = replace(QWEN3_1_7B, num_layers=layers)
    value = ValueConfig(backbone, lora=LoraConfig())
    config = sia_jax.SamplerConfig(backbone, value, max_new_tokens=NEW_TOKENS, mesh=mesh).resolve(args.rows)
    training = TrainConfig(value)
    policy = placed_shapes(frozen_shapes(training, jnp.bfloat16), mesh)
    trained = placed_shapes(trained_shapes(training), mesh)
    began = time.perf_counter()
    compiled = lower(
        sia_jax.SteeringParams(policy, trained), *_inputs(args.rows, config, mesh), config=config
    ).compile()
    console.print(f"{args.topology}, mesh {args.mesh}, {layers} layers: {time.perf_counter() - began:.0f} s")
    text, own = compiled.as_text(), args.rows // config.row_groups
    columns = cache_columns(config, PROMPT + NEW_TOKENS, PROMPT + NEW_TOKENS)
    heads = max(1, backbone.num_kv_heads // mesh.shape["tensor"])
    moves = [cache_moves(text, size, own * heads * backbone.head_dim * size) for size in columns]
    return Found(
        counted=sampler_memory(config, policy, trained, mesh, rows=args.rows, prompt=PROMPT),
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


def _check(args: Args, found: dict[int, Found], console: Terminal) -> list[str]:
    """Print what became of the sampler; returns what is wrong with it."""
    most = found[args.layers]
    whole = reckon({layers: each.memory.total for layers, each in found.items()})
    console.print(_memory_table(found))
    console.print(f"{LAYERS} layers take {whole / 1e9:.2f} GB of a chip{_by_the_last(found)}.")
    console.print(_exchange_table(most.exchanges))
    moved = {name: ITEMSIZE * count / 1e6 for name, count in most.moved.items()}
    console.print(
        f"Of caches, a value pass of {args.layers} layers lays out {moved['value']:,.1f} MB anew, and a "
        f"policy step {moved['policy']:,.1f}; {moved['']:,.1f} in the loops between them."
    )
    wrong = [line for each in found.values() for line in amiss(each)]
    if whole > chip_bytes(args.topology):
        wrong.append(f"{whole / 1e9:.2f} GB may not fit in {chip_bytes(args.topology) / 1e9:.0f}")
    return wrong


def reckon(sizes: dict[int, int]) -> int:
    """What all layers take, by what some do: as much for each further one as the last of them added.

    Args:
      sizes: bytes by the number of layers: of all, or of two networks that differ by one.
    """
    deepest = max(sizes)
    further = LAYERS - deepest
    return sizes[deepest] + (further * (sizes[deepest] - sizes[deepest - 1]) if further else 0)


def _by_the_last(found: dict[int, Found]) -> str:
    """What the last layer added, where the whole is reckoned by it."""
    if LAYERS in found:
        return ""
    fewer, more = found.values()
    temporary = more.memory.temporary - fewer.memory.temporary
    caches = more.counted.caches - fewer.counted.caches
    return (
        f", by what the last one added, of which {temporary / 1e6:,.1f} MB are temporary memory and "
        f"{caches / 1e6:,.1f} its caches"
    )


def amiss(found: Found) -> list[str]:
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


def _memory_table(found: dict[int, Found]) -> Table:
    table = Table("layers", "MB: arguments", "counted", "temporary", "gathered, caches, ids", "program")
    for layers, each in found.items():
        memory, counted = each.memory, each.counted
        parts = (counted.gathered, counted.caches, counted.ids)
        table.add_row(
            str(layers),
            *(f"{size / 1e6:,.1f}" for size in (memory.arguments, counted.weights, memory.temporary)),
            " + ".join(f"{size / 1e6:,.1f}" for size in parts),
            f"{memory.program / 1e6:,.1f}",
        )
    return table


def _exchange_table(found: Sequence[Collective]) -> Table:
    """Collectives by the pass and the loops around them, and by shape."""
    table = Table("in", "loops", "collective", "over", "of", "count", "MB")
    counts = Counter((_pass(one), one.loops, one.kind, one.axes, one.shapes, one.bytes) for one in found)
    for (name, loops, kind, axes, shapes, size), count in sorted(
        counts.items(), key=lambda item: (item[0][:2], -item[0][-1] * item[1])
    ):
        of = shapes[0] if len(shapes) == 1 else f"{len(shapes)} of {shapes[-1]}"
        table.add_row(name, str(loops), kind, " ".join(axes), of, str(count), f"{count * size / 1e6:,.3f}")
    return table


def _pass(one: Collective) -> str:
    parts = one.source.split("/")
    return next((name for name in ("policy", "value") if name in parts), "" if one.loops else "once")


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
