"""Compile the training step for a TPU slice, on a machine that has none, and check what comes out.

    make tpu
    make tpu-training ARGS="--mesh 2 2 2"
    make tpu-training ARGS="--topology v5e:4x4 --mesh 2 8 1"

libtpu's compiler runs on any CPU; no TPU is touched. The step is that of `configs.qwen3_1_7b`: a bfloat16
backbone, LoRA of rank 16 in float32, rows of 1024 tokens, layers recomputed. Printed and checked are the
memory of a chip and what the chips send each other, against the arithmetic of `sia_jax.costs.training_step`.

All 28 layers are alike, and each costs the compiler a minute. So a network of three is compiled, and one of
two, whose difference is what a layer adds; what 28 take at most is computed. --layers 28 compiles 27 and all.

Exits with 1 if the step does not fit, needs more than the arithmetic says, or keeps a layer's gathered
weights until the backward pass; and if the chips send anything that the arithmetic does not name, another
number of arrays or bytes, or gather more than a layer's weights at a time or elsewhere than in the loop over
micro-batches.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import tyro
from jax.sharding import Mesh
from rich.table import Table

from sia_jax.costs.compiled import Collective, collectives
from sia_jax.costs.compiled_step import compile_step, too_much, weights_that_stay
from sia_jax.costs.tpu import (
    QWEN3_1_7B,
    ChipMemory,
    chip_bytes,
    tpu_devices,
)
from sia_jax.costs.training_step import (
    Exchange,
    StepMemory,
    assign,
    step_exchanges,
    step_memory,
    unexpected,
)
from sia_jax.models.config import ValueConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.parallel.mesh import make_mesh
from sia_jax.runs.cli import program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.training.config import TrainConfig

LAYERS = QWEN3_1_7B.num_layers
BATCH_SIZE, ROW_LENGTH = 16, 1024


@dataclass(frozen=True)
class Args:
    """Compile the training step for a TPU slice."""

    topology: str = "v5e:2x4"
    """As libtpu names it: the generation, then the chips in each direction."""
    mesh: Annotated[tuple[int, int, int], tyro.conf.arg(metavar="DATA FSDP TENSOR")] = (1, 8, 1)
    """Sizes of the mesh, of as many devices as the topology has chips."""
    layers: int = 3
    """Layers to compile, of 28; and one less, for the difference."""
    rows: int = 1
    """Rows that a chip of "data" and "fsdp" runs at a time."""


def main(args: Args) -> None:
    """Compile and check; exits with 1 if something is not as expected."""
    console = Terminal(width=max(Terminal().width, 110))  # narrower, the shapes would be cut off
    with program("train.compile_tpu", ModuleNotFoundError, keeps_compiled=False):
        if not 3 <= args.layers <= LAYERS:
            raise ValueError(f"--layers must lie in 3 .. {LAYERS}, got {args.layers}")
        mesh = make_mesh(*args.mesh, devices=tpu_devices(args.topology))
        wrong = _check(args, mesh, console)
    if wrong:
        sys.exit("train.compile_tpu: not as expected:\n" + "\n".join(wrong))
    console.print("\nAll as expected.")


def _check(args: Args, mesh: Mesh, console: Terminal) -> list[str]:
    """Print what becomes of the step; returns what is wrong with it."""
    wrong: list[str] = []
    measured: dict[int, ChipMemory] = {}
    expected: dict[int, StepMemory] = {}
    for layers in (args.layers - 1, args.layers):
        config = train_config(layers)
        began = time.perf_counter()
        compiled = compile_step(config, mesh, rows=args.rows, row_length=ROW_LENGTH)
        seconds = time.perf_counter() - began
        measured[layers] = ChipMemory.of(compiled)
        expected[layers] = step_memory(config, mesh, rows=args.rows, row_length=ROW_LENGTH)
        exchanges = step_exchanges(config, mesh, rows=args.rows, row_length=ROW_LENGTH)
        found = collectives(compiled.as_text(), mesh.shape)
        console.say(f"\n{args.topology}, mesh {args.mesh}, {layers} layers, {seconds:.0f} s:", "bold")
        console.print(_exchange_table(found, exchanges))
        complaints = unexpected(found, exchanges, expected[layers].layer_weights)
        complaints += too_much(measured[layers], expected[layers])
        wrong += [f"{layers} layers: {line}" for line in complaints]
    fewer, more = measured.values()
    growth = more.temporary - fewer.temporary
    growth -= expected[args.layers].layer_inputs - expected[args.layers - 1].layer_inputs
    wrong += weights_that_stay(growth, expected[args.layers].layer_weights)
    whole = step_memory(train_config(LAYERS), mesh, rows=args.rows, row_length=ROW_LENGTH)
    program = more.program + (LAYERS - args.layers) * (more.program - fewer.program)
    console.print(_memory_table(measured, expected | {LAYERS: whole}, program))
    total, available = whole.arguments + whole.temporary + program, chip_bytes(args.topology)
    if total > available:
        wrong.append(f"{total / 1e9:.2f} GB may not fit in {available / 1e9:.0f}: split the weights further")
    return wrong


def train_config(layers: int) -> TrainConfig:
    """The recipe of `configs.qwen3_1_7b`, of so many layers."""
    backbone = replace(QWEN3_1_7B, num_layers=layers)
    return TrainConfig(ValueConfig(backbone, lora=LoraConfig()), batch_size=BATCH_SIZE, remat=True)


def _memory_table(measured: dict[int, ChipMemory], expected: dict[int, StepMemory], program: int) -> Table:
    """Megabytes of a chip by the number of layers; of those that are not compiled, what they take at most."""
    table = Table("layers", "MB: arguments", "counted", "temporary", "at most", "program")
    for layers, arithmetic in expected.items():
        counted, most = arithmetic.arguments, arithmetic.temporary
        sizes: list[int | None] = [None, counted, None, most, program]
        if layers in measured:
            memory = measured[layers]
            sizes = [memory.arguments, counted, memory.temporary, most, memory.program]
        table.add_row(str(layers), *("" if size is None else f"{size / 1e6:,.1f}" for size in sizes))
    return table


def _exchange_table(found: Sequence[Collective], expected: Sequence[Exchange]) -> Table:
    """Collectives by what explains them and by shape."""
    table = Table("what", "collective", "over", "of", "count", "MB", "expected")
    for exchange, members in assign(found, expected):
        counts = Counter((one.kind, one.axes, _shortened(one.shapes), one.bytes) for one in members)
        for (kind, axes, shapes, size), count in sorted(counts.items(), key=lambda item: -item[0][3]):
            table.add_row("", kind, " ".join(axes), shapes, str(count), f"{count * size / 1e6:.3f}", "")
        arrays, total = sum(len(one.shapes) for one in members), sum(one.bytes for one in members) / 1e6
        name, limit = ("rest", 0.0) if exchange is None else (exchange.what, exchange.bytes / 1e6)
        table.add_row(name, "", "", "", str(arrays), f"{total:.3f}", f"{limit:.3f}", end_section=True)
    return table


def _shortened(shapes: Sequence[str]) -> str:
    return shapes[0] if len(shapes) == 1 else f"{len(shapes)} of {shapes[-1].partition('[')[0]}"


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
