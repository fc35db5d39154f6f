"""Reads the text of a compiled program: its loops, what they copy, and what the devices of a mesh exchange.

The text is that of `jax.jit(f).lower(...).compile().as_text()`, of any backend: computations, one of them the
ENTRY, that call each other. TPUs say two things in their own way, which are read as what they are: a
reduce-scatter is an all-reduce in a computation named "all-reduce-scatter", and a collective that runs while
others compute stands in the text once for every computation that it overlaps.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
ITEMSIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
"""Bytes of an element, by the type's name in the text."""


@dataclass(frozen=True)
class Collective:
    """One exchange between devices, as the text has it: once, however often its loop runs."""

    kind: str
    """One of `COLLECTIVES`."""
    shapes: tuple[str, ...]
    """Each array as "bf16[2048,6144]", and whole: what a gather gives, what a scatter takes."""
    axes: tuple[str, ...]
    """Axes of the mesh along which the devices exchange."""
    loops: int
    """While loops around it."""
    source: str
    """The operation's name in the traced program; "" where the compiler made it up."""

    @property
    def bytes(self) -> int:
        """Of all its arrays."""
        return sum(shape_bytes(shape) for shape in self.shapes)


def shape_bytes(shape: str) -> int:
    """Bytes of an array such as "bf16[2048,6144]".

    Raises:
      ValueError: a type that is not in `ITEMSIZES`.
    """
    match = re.fullmatch(r"([a-z]+\d*)\[([\d,]*)\]", shape)
    if match is None or match[1] not in ITEMSIZES:
        raise ValueError(f"expected a shape as bf16[8,128] of a type in {sorted(ITEMSIZES)}, got {shape!r}")
    return ITEMSIZES[match[1]] * elements(shape)


def elements(shape: str) -> int:
    """Elements of an array such as "bf16[2048,6144]"."""
    sizes = shape.partition("[")[2].rstrip("]")
    return math.prod(int(size) for size in sizes.split(",") if size)


def collectives(text: str, mesh: Mapping[str, int]) -> list[Collective]:
    """Every collective of a program.

    Args:
      text: of the compiled program.
      mesh: axis -> size, in the mesh's order, which numbers the devices row by row.

    Raises:
      ValueError: groups of devices that are written in a way this reader does not know, or that are no axes
        of the mesh.
    """
    computations = _computations(text)
    loops = _loops_around(computations)
    found: list[Collective] = []
    for name, lines in computations.items():
        # What overlaps: its start is counted, not the pieces of other computations that keep it going.
        overlapped = name.startswith("async_collective_fusion") or "AsyncCollectiveDone" in lines
        if overlapped and "AsyncCollectiveStart" not in lines:
            continue
        for line in lines.splitlines():
            shapes, operation = _instruction(line)
            kind = operation.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            if operation == "all-gather-start":  # (what goes in, what comes out)
                shapes = shapes[len(shapes) // 2 :]
            elif operation == "collective-permute-start":  # (what goes in, what comes out, two words)
                shapes = shapes[1:2]
            groups = _groups(line, mesh)
            axes = (_varying if kind == "collective-permute" else axes_of)(groups, mesh)
            if kind == "reduce-scatter":
                shapes = tuple(_whole(shape, len(groups[0])) for shape in shapes)
            if name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            source = re.search(r'op_name="([^"]*)"', line)
            found.append(Collective(kind, shapes, axes, loops[name], source[1] if source else ""))
    return found


def axes_of(groups: Sequence[Sequence[int]], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The axes of a mesh that groups of devices run along, devices being numbered row by row.

    With {"data": 2, "tensor": 2} the groups {0, 1}, {2, 3} are ("tensor",), and {0, 2}, {1, 3} ("data",). A
    group may be a part of an axis, as where a gather takes two exchanges.

    Raises:
      ValueError: the groups run along no axes of the mesh.
    """
    for group in groups:
        along = np.unravel_index(np.array(group), tuple(mesh.values()))
        if len(set(group)) != math.prod(len(set(coordinates.tolist())) for coordinates in along):
            raise ValueError(f"expected groups of devices along axes of the mesh {dict(mesh)}, got {groups}")
    return _varying(groups, mesh)


def _varying(groups: Sequence[Sequence[int]], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The axes on which the devices of some group differ."""
    varying: set[str] = set()
    for group in groups:
        coordinates = np.unravel_index(np.array(group), tuple(mesh.values()))
        varying |= {axis for axis, along in zip(mesh, coordinates, strict=True) if np.ptp(along) > 0}
    return tuple(axis for axis in mesh if axis in varying)


def while_bodies(text: str) -> dict[str, str]:
    """Name -> text of every while body, with the text of all computations that it calls, nested ones too."""
    computations = _computations(text)
    names = set(re.findall(r"\bbody=%?([\w.\-]+)", text))
    return {
        name: "\n".join(computations[part] for part in sorted(_reach(name, computations))) for name in names
    }


def moves_of_at_least(text: str, count: int) -> list[str]:
    """The copy and transpose instructions in `text` whose result has that many elements or more."""
    found = []
    for line in text.splitlines():
        shapes, operation = _instruction(line)
        if operation in ("copy", "transpose", "copy-start") and elements(shapes[0]) >= count:
            found.append(line.strip())
    return found


def _instruction(line: str) -> tuple[tuple[str, ...], str]:
    """The shapes that an instruction gives, and its operation; ((), "") where a line is none."""
    match = re.match(r"\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][\w\-]*)\(", line)
    if match is None:
        return (), ""
    return tuple(re.findall(r"[a-z]\w*\[[\d,]*\]", match[1])), match[2]


def _whole(shape: str, parts: int) -> str:
    """The shape of an array of which one of so many parts along the first axis has this shape."""
    kind, _, sizes = shape.partition("[")
    first, _, rest = sizes.partition(",")
    return f"{kind}[{int(first) * parts},{rest}" if rest else f"{kind}[{int(first[:-1]) * parts}]"


def _computations(text: str) -> dict[str, str]:
    parts = {}
    for block in re.split(r"\n(?=\S)", text):
        match = re.match(r"(?:ENTRY )?%?([\w.\-]+) \(", block)
        if match:
            parts[match[1]] = block
    return parts


def _reach(name: str, computations: Mapping[str, str]) -> set[str]:
    seen: set[str] = set()
    todo = [name]
    while todo:
        part = todo.pop()
        if part in seen or part not in computations:
            continue
        seen.add(part)
        todo += re.findall(r"(?:calls|body|condition|to_apply)=%?([\w.\-]+)", computations[part])
    return seen


def _loops_around(computations: Mapping[str, str]) -> dict[str, int]:
    """How many while loops each computation runs in; a loop's condition runs in it."""
    bodies = {
        name
        for block in computations.values()
        for name in re.findall(r"\b(?:body|condition)=%?([\w.\-]+)", block)
    } & set(computations)
    within = {body: _reach(body, computations) for body in bodies}
    return {name: sum(name in reached for reached in within.values()) for name in computations}


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(","))


def _iota(text: str) -> np.ndarray:
    """The numbers from 0 on in a shape, transposed: "[2,2]T(1,0)" is [[0, 2], [1, 3]]."""
    shape, _, order = text.rstrip(")").partition("T(")
    sizes = _numbers(shape.strip("[]"))
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    return numbers.transpose(_numbers(order)) if order else numbers


def _groups(line: str, mesh: Mapping[str, int]) -> list[list[int]]:
    """The devices that exchange with each other, however a collective's instruction writes them.

    As lists {{0,1},{2,3}}; as [2,2]<=[2,2]T(1,0), the numbers of all devices in the shape on the right,
    transposed, and reshaped to one group a row; or as some axes of a mesh of the compiler's own.
    """
    if match := re.search(r"(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?)+)\}", line):
        return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", match[1])]
    if match := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", line):
        return _iota(match[2]).reshape(_numbers(match[1])).tolist()
    mesh_pattern = r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}:]*)\}"
    if match := re.search(mesh_pattern, line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        axes = re.findall(r"'(\w+)'", match[3])
        order = [list(sizes).index(name) for name in sizes if name not in axes]
        order += [list(sizes).index(name) for name in axes]
        devices = _iota(match[2] or f"[{math.prod(sizes.values())}]")
        devices = devices.reshape(list(sizes.values())).transpose(order)
        return devices.reshape(-1, math.prod(sizes[name] for name in axes)).tolist()
    if "replica_groups={}" in line:
        return [list(range(math.prod(mesh.values())))]
    raise ValueError(f"expected groups of devices in a collective, got {line.strip()[:300]!r}")
