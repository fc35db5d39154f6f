"""Random numbers that depend on a seed and on names, never on the order in which things are asked for."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator of its own for a thing with these names.

    Raises:
      ValueError: a negative seed.
    """
    if seed < 0:
        raise ValueError(f"a seed must be 0 or more, got {seed}")
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    key = tuple(int(word) for word in np.frombuffer(digest, "<u4"))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


# Only `random()` is used below: of NumPy's methods its numbers are the least likely ever to change.


def draw(rng: np.random.Generator, weights: Sequence[float]) -> int:
    """An index, with a probability in proportion to its weight."""
    left = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return len(weights) - 1


def shuffled(rng: np.random.Generator, items: Sequence[T]) -> list[T]:
    """The items in random order."""
    return [items[i] for i in np.argsort(rng.random(len(items)), kind="stable")]
