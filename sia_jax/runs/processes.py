"""A program as one of several processes under `jax.distributed`: all compute, and the first one writes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

import sia_jax
from sia_jax.parallel.lock_step import agreed, every_device


@contextmanager
def joined(distributed: bool, writing: AbstractContextManager[None]) -> Iterator[bool]:
    """Join the other processes, if this is one of several; whether this is the chief, which writes.

    Args:
      distributed: whether it is; the launcher's environment says which, and of how many.
      writing: entered by the chief alone, such as a lock.

    Raises:
      ValueError: on every process, where the chief cannot enter.
    """
    if distributed and not jax.distributed.is_initialized():
        jax.distributed.initialize()
    chief = not distributed or jax.process_index() == 0
    with ExitStack() as held:

        def enter() -> None:
            if chief:
                held.enter_context(writing)

        if distributed:
            agreed("writing", enter, lambda _: {}, mesh=every_device())
        else:
            enter()
        yield chief


def mesh_of_all(sizes: tuple[int, int, int], *, distributed: bool) -> Mesh | None:
    """The mesh of --mesh; None: one device.

    Raises:
      ValueError: sizes that do not multiply to the devices, those of all processes.
    """
    if sizes != (1, 1, 1):
        return sia_jax.make_mesh(*sizes)
    if distributed and jax.device_count() > 1:
        raise ValueError(
            f"--distributed: {jax.process_count()} processes have {jax.device_count()} devices, and --mesh "
            f"is 1 1 1; name a mesh of all, such as --mesh {jax.process_count()} {jax.local_device_count()} 1"
        )
    return None


def as_chief_has(flags: np.ndarray, *, distributed: bool) -> np.ndarray:
    """[N] booleans of the chief, on every process; each must call with so many."""
    if not distributed:
        return flags
    found: np.ndarray = np.asarray(multihost_utils.broadcast_one_to_all(flags.astype(np.uint8))) > 0
    return found
