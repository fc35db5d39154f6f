"""Compile the sampler for a TPU slice, on a machine that has none, and check what comes out.

    make tpu-sampling
    make tpu-sampling ARGS="--programs shared"
    make tpu-sampling ARGS="--mesh 8 1 1 --rows 128 --programs burst"
    make tpu-sampling ARGS="--layers 4 --programs burst shared look-ahead window shared-window"
    make tpu-sampling ARGS="--topology v5p:2x2x1 --mesh 1 1 4 --rows 16"

libtpu's compiler runs on any CPU; no TPU is touched. The models are the paper's pair: Qwen3-1.7B in bfloat16,
and a value model that is an adapter over its weights. Of the programs

    burst          is `sia_jax.sample` whole, prefill, policy steps and value passes, under `Burst`
    shared         the same under `Shared`, whose steps are one pass of both models
    look-ahead     the same under `Shared(look_ahead=True)`
    window         the engine's program, some steps of rows that live, under `Burst`
    shared-window  the same under `Shared`

Printed and checked are the memory of a chip, what the chips send each other, and where a cache is laid out
anew, against the arithmetic of `sia_jax.costs.sampler`.

All 28 layers are compiled, which takes some minutes of processor time a program: libtpu generates code once
for what is alike in several layers. With fewer --layers it is a network of so many, and one of one less,
whose difference is what a layer adds; from that the whole is reckoned.

Exits with 1 if the arguments are not as counted, or the whole does not fit; if in a loop groups of chips send
each other anything but counts of rows, or any chips a part of a cache; if a pass lays a cache out anew, or a
window one in any of its loops; or if a window gives its state back elsewhere than where it lay.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import tyro
from jax.sharding import Mesh
from rich.table import Table

from sia_jax.costs.compiled import Collective
from sia_jax.costs.compiled_sampler import CompiledSampler, amiss, compile_sampler, compile_window
from sia_jax.costs.sampler import pass_of
from sia_jax.costs.tpu import (
    QWEN3_1_7B,
    chip_bytes,
    tpu_devices,
)
from sia_jax.decoding.schedule import Burst, Shared
from sia_jax.parallel.mesh import make_mesh
from sia_jax.runs.cli import program, read_options
from sia_jax.runs.console import Terminal

LAYERS = QWEN3_1_7B.num_layers
FEWEST = 3
"""Layers, to reckon from. Of the last one prefill needs keys and values alone: a network of one has no layer
that is read whole, and one of two has its first."""
ITEMSIZE = 2
"""Bytes of a bfloat16."""
Program = Literal["burst", "shared", "look-ahead", "window", "shared-window"]
PROGRAMS = {
    "burst": (compile_sampler, Burst()),
    "shared": (compile_sampler, Shared()),
    "look-ahead": (compile_sampler, Shared(look_ahead=True)),
    "window": (compile_window, Burst()),
    "shared-window": (compile_window, Shared()),
}
"""How each is compiled, and for which schedule."""


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
    programs: tuple[Program, ...] = ("burst", "shared", "window")
    """What to compile, one after the other."""


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
        if not args.programs:
            raise ValueError(f"--programs must name some of {', '.join(PROGRAMS)}, got none")
        depths = (LAYERS,) if args.layers == LAYERS else (args.layers - 1, args.layers)
        wrong = []
        for name in dict.fromkeys(args.programs):
            found = {layers: _compile(args, name, layers, mesh, console) for layers in depths}
            wrong += [f"{name}: {line}" for line in _check(args, found, console)]
    if wrong:
        sys.exit("decode.compile_tpu: not as expected:\n" + "\n".join(wrong))
    console.print("\nAll as expected.")


def _compile(args: Args, name: Program, layers: int, mesh: Mesh, console: Terminal) -> CompiledSampler:
    began, worked = time.perf_counter(), time.process_time()
    compile_program, schedule = PROGRAMS[name]
    compiled = compile_program(replace(QWEN3_1_7B, num_layers=layers), args.rows, mesh, schedule)
    seconds, of_cores = time.perf_counter() - began, time.process_time() - worked
    console.print(
        f"{name}, {args.topology}, mesh {args.mesh}, {layers} layers: {seconds:.0f} s, "
        f"{of_cores:.0f} of processor time"
    )
    return compiled


def _check(args: Args, found: dict[int, CompiledSampler], console: Terminal) -> list[str]:
    """Print what became of the sampler; returns what is wrong with it."""
    most = found[args.layers]
    whole = reckon({layers: each.memory.total for layers, each in found.items()})
    console.print(_memory_table(found))
    console.print(f"{LAYERS} layers take {whole / 1e9:.2f} GB of a chip{_by_the_last(found)}.")
    console.print(_exchange_table(most.exchanges))
    moved = {name: f"{ITEMSIZE * count / 1e6:,.1f}" for name, count in most.moved.items()}
    console.print(
        f"MB of caches that are laid out anew, of {args.layers} layers: {moved['policy']} in a policy step, "
        f"{moved['value']} in a pass of the value model alone, {moved['shared']} in one of both, {moved['']} "
        f"in the loops between them, and {moved['once']} outside of all loops."
    )
    if most.in_place is not None:
        console.print(f"{most.in_place / 1e6:,.1f} MB of the state are given back where they lay.")
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


def _by_the_last(found: dict[int, CompiledSampler]) -> str:
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


def _memory_table(found: dict[int, CompiledSampler]) -> Table:
    table = Table("layers", "MB: arguments", "counted", "temporary", "gathered, caches, ids", "program")
    for layers, each in found.items():
        memory, counted = each.memory, each.counted
        parts = (counted.gathered, counted.caches, counted.ids)
        table.add_row(
            str(layers),
            *(f"{size / 1e6:,.1f}" for size in (memory.arguments, each.arguments, memory.temporary)),
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
    return pass_of(one.source) or ("" if one.loops else "once")


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
