"""Eight fake CPU devices for the whole suite, set before JAX starts; single-device tests use the first."""

import os
from pathlib import Path

import jax
import pytest

# What rich would take for wishes of the terminal, whose pictures the tests compare.
for name in ("TERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)

jax.config.update("jax_num_cpu_devices", 8)

LONGEST = ("training", "decoding", "train")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folders with the longest files first: two workers take whole files, and none should begin a long one
    when the other has ended."""
    root = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        parts = item.path.relative_to(root).parts
        return LONGEST.index(parts[0]) if parts[0] in LONGEST else len(LONGEST)

    items.sort(key=rank)
