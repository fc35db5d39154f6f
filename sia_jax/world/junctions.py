"""Texts that branch: written from left to right, and at each junction one branch is taken.

A *node* is a piece of text, a sequence of nodes, or a `Junction`. Nodes may share what follows them, so a
grammar is a graph without cycles. Pieces are joined by spaces; sentences are capitalised.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, Union

import numpy as np

from sia_jax.world.streams import draw

JunctionKind = Literal["style", "value"]
"""Of a *style* junction all branches are worth the same; at a *value* junction the reward is decided."""

Node: TypeAlias = Union[str, tuple["Node", ...], "Junction"]


@dataclass(frozen=True, eq=False)
class Junction:
    """A place where a text goes on in one of several ways."""

    name: str
    """Unique on every way through a grammar."""
    kind: JunctionKind
    weights: tuple[float, ...]
    """Of the branches; only their ratios count."""
    branches: tuple[Node, ...]
    """Of a value junction the first begins the best reply."""
    worst: int = -1
    """Of a value junction, the branch that begins a worst reply."""


@dataclass(frozen=True)
class Taken:
    """A junction that a text came to, and where it went."""

    name: str
    kind: JunctionKind
    branch: int
    branches: int
    """How many there were."""
    start: int
    """Characters of the text before the branch."""


@dataclass(frozen=True)
class Written:
    """A text and the way to it."""

    text: str
    taken: tuple[Taken, ...]


Choose = Callable[[Junction], int]


def style(name: str, *branches: Node) -> Junction:
    """A junction where nothing depends on the choice; all branches are equally likely."""
    return Junction(name, "style", (1.0,) * len(branches), branches)


def value(name: str, *branches: tuple[float, Node], worst: int = -1) -> Junction:
    """A junction that the reward depends on: (weight, node), the branch of the best reply first."""
    return Junction(name, "value", tuple(w for w, _ in branches), tuple(node for _, node in branches), worst)


def write(node: Node, choose: Choose) -> Written:
    """The text that a way of choosing leads to."""
    text = ""
    taken = []
    rest = [node]
    while rest:
        first = rest.pop()
        if isinstance(first, Junction):
            branch = choose(first)
            taken.append(Taken(first.name, first.kind, branch, len(first.branches), len(text)))
            rest.append(first.branches[branch])
        elif isinstance(first, tuple):
            rest.extend(reversed(first))
        elif first:
            text = _append(text, first)
    return Written(text, tuple(taken))


def sampling(rng: np.random.Generator) -> Choose:
    """Each branch with a probability in proportion to its weight."""
    return lambda junction: draw(rng, junction.weights)


def best_branch(junction: Junction) -> int:
    """Choose as the best reply does."""
    return 0


def worst_branch(junction: Junction) -> int:
    """Choose as a worst reply does."""
    return junction.worst % len(junction.branches) if junction.kind == "value" else 0


def following(branches: Mapping[str, int], otherwise: Choose = best_branch) -> Choose:
    """The branches that are named, by their junctions' names; another choice at junctions that are not."""
    return lambda junction: branches.get(junction.name, otherwise(junction))


def write_all(node: Node, kind: JunctionKind = "value") -> Iterator[Written]:
    """Every text that the junctions of one kind can make, the others held at their first branch."""
    path: list[int] = []
    while True:
        depth = 0

        def choose(junction: Junction) -> int:
            nonlocal depth
            if junction.kind != kind:
                return 0
            if depth == len(path):
                path.append(0)
            depth += 1
            return path[depth - 1]

        written = write(node, choose)
        yield written
        sizes = [t.branches for t in written.taken if t.kind == kind]
        while path and path[-1] + 1 == sizes[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1


def _append(text: str, piece: str) -> str:
    """A piece behind a text: a space between them unless it starts with a mark, and capitals where due."""
    piece = re.sub("(?<=[.!?] )[a-z]", _upper, piece)
    if not text or text[-1] in ".!?":
        piece = piece[0].upper() + piece[1:]
    space = "" if not text or piece[0] in ".,:;!?" else " "
    return text + space + piece


def _upper(letter: re.Match[str]) -> str:
    return letter[0].upper()
