"""One Ray on this machine for all tests of the pool."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from sia_jax.cluster.connection import connected
from sia_jax.cluster.options import RayArgs

LOCAL = RayArgs(ray="local", ray_actors=2)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Connected; ends with the module's tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own files and sockets, as it ends
        with connected(LOCAL) as found:
            yield found
