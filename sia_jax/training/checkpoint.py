"""Checkpoints of a run, by Orbax: the last few and the best, written in the background.

A checkpoint is a `TrainState` and a JSON object beside it (where the data stands, what was best so far). It
is complete or it does not exist; each also carries a digest of its numbers, so that one whose files were
damaged later is passed over, not trusted.
"""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sia_jax.extras import installed_with
from sia_jax.parallel.lock_step import agreed, every_device
from sia_jax.training.step import TrainState

with installed_with("train"):
    import orbax.checkpoint as ocp

_LOG = logging.getLogger(__name__)
_SETTLED_WITHIN = 60.0
"""Seconds after which a thread that still writes is left to itself."""


class Checkpoints:
    """The checkpoints of one run in a folder: `last/`, of which `keep` stay, and `best/`, which holds one.

    Args:
      folder: made if need be.
      keep: how many of the last ones stay.
    """

    def __init__(self, folder: Path, keep: int = 3):
        self.folder = folder.absolute()  # Orbax finds out about a relative one when it is too late
        self._last = _manager(self.folder / "last", keep)
        self._best = _manager(self.folder / "best", 1)

    def save(self, state: TrainState, meta: dict[str, Any], *, best: bool = False) -> None:
        """Write a checkpoint; returns as soon as the numbers are copied.

        Args:
          state: of any sharding; every process must call.
          meta: JSON.
          best: to `best/` rather than among the last ones.

        Raises:
          OSError: this write, or one before it, failed; the earlier checkpoints are as they were.
        """
        manager = self._best if best else self._last
        step = int(state.step)
        # Copied, for the next step takes over the state's own buffers while these are being written.
        leaves = {name: jnp.copy(leaf) for name, leaf in _named(state)}
        saved = {"meta": meta, "names": list(leaves), "digest": _digests(leaves)}
        try:
            if not best:
                # A run that goes on from here takes the best for written, so that is waited for.
                self._best.wait_until_finished()
                self._best.check_for_errors()
            manager.check_for_errors()
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(leaves),
                meta=ocp.args.JsonSave(json.loads(json.dumps(saved, allow_nan=False))),
            )
            if step in manager.all_steps():  # of a run that went on from before it
                manager.delete(step)
            manager.save(step, args=items, force=True)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise self._failed(error) from error

    def wait(self) -> None:
        """Until everything is written.

        Raises:
          OSError: a write failed; the earlier checkpoints are as they were.
        """
        try:
            for manager in (self._last, self._best):
                manager.wait_until_finished()
                manager.check_for_errors()
        except Exception as error:
            raise self._failed(error) from error

    def restore(self, like: TrainState, *, best: bool = False) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint that is whole, or None if there is none.

        Args:
          like: a state of the same run, whose shapes and shardings the restored one takes: a checkpoint goes
            to any number of processes and devices, whatever it was written on. Every process must call.
          best: the best one rather than the newest.

        Raises:
          ValueError: a checkpoint of another model or optimiser; processes that see other checkpoints.
        """
        manager = self._best if best else self._last
        steps = agreed(
            "restoring",
            lambda: sorted(manager.all_steps(), reverse=True),
            lambda steps: {"list of checkpoints": steps},
            mesh=every_device(),
            remedy=f"{self.folder} must lie where every process sees the same files",
        )
        for step in steps:
            try:
                found = self._read(manager, step, like)
            except _OtherRun:
                raise
            except Exception as error:  # whatever a damaged file may raise
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                _LOG.warning(
                    "checkpoint %s/%d is damaged (%s); trying the one before", manager.directory, step, reason
                )
                continue
            return found
        return None

    @contextmanager
    def settling(self) -> Iterator[None]:
        """Within it an error goes on only when nothing is being written any more.

        A program that ends before Orbax's threads do has them report that below its own message.
        """
        try:
            yield
        except BaseException:
            self._settle()
            raise

    def close(self) -> None:
        """Wait, and let go of the folder."""
        self.wait()
        for manager in (self._last, self._best):
            manager.close()

    def _read(
        self, manager: ocp.CheckpointManager, step: int, like: TrainState
    ) -> tuple[TrainState, dict[str, Any]]:
        leaves = dict(_named(like))

        def read() -> tuple[dict[str, Any], dict[str, Any]]:
            saved = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
            if list(leaves) != saved["names"]:
                differing = sorted(set(leaves) ^ set(saved["names"]))[:4]
                raise _OtherRun(
                    f"the checkpoint in {manager.directory} is of another model or optimizer: it and "
                    f"this run differ in {differing or 'the order of parameters'}; name another folder for "
                    "this run"
                )
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, leaves)
            restored = manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            ).state
            wrong = [name for name, leaf in restored.items() if leaf.shape != leaves[name].shape]
            if wrong:
                raise _OtherRun(f"the checkpoint in {manager.directory} has other shapes: {wrong[:4]}")
            return restored, saved

        # A process that cannot read its part must not leave the others waiting in the digest of the whole.
        restored, saved = agreed(
            f"reading checkpoint {step}", read, lambda found: {"record": found[1]}, mesh=every_device()
        )
        if _digests(restored) != saved["digest"]:
            raise ValueError("its numbers are not those that were written")
        structure = jax.tree.structure(like)
        return jax.tree.unflatten(structure, [restored[name] for name in leaves]), saved["meta"]

    def _settle(self) -> None:
        for manager in (self._last, self._best):
            with suppress(Exception):
                manager.wait_until_finished()
        # A manager waits for the first of its threads that fails; the others still log what they have met.
        for thread in threading.enumerate():
            if type(thread).__module__.startswith("orbax.") or thread.name == "async_save":
                threading.Thread.join(thread, _SETTLED_WITHIN)

    def _failed(self, error: Exception) -> OSError:
        # What is still being written may fail too, and what has failed the manager takes for written.
        self._settle()
        self._last.reload()
        steps = sorted(self._last.all_steps())
        good = f"step {steps[-1]}" if steps else "none"
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return OSError(
            f"a checkpoint could not be written to {self.folder} (the last good one: {good}): {first}; make "
            "room, and start the same command again"
        )


class _OtherRun(ValueError):
    """A checkpoint that is whole, but not of this run."""


def _manager(folder: Path, keep: int) -> ocp.CheckpointManager:
    """Processes meet at named barriers of the coordinator.

    Orbax's own choice where no processes are named is a collective of the devices, which two managers writing
    in the background start in an order that differs between processes: now and then they wait for ever.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meeting = ocp.options.MultiprocessingOptions(
        active_processes=set(range(jax.process_count())), barrier_sync_key_prefix=folder.name
    )
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=False, cleanup_tmp_directories=True, multiprocessing_options=meeting
    )
    return ocp.CheckpointManager(folder, options=options)


def _named(state: TrainState) -> Iterator[tuple[str, Any]]:
    """(name, leaf), the names fit for files."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf


def _digests(leaves: dict[str, Any]) -> dict[str, int]:
    return {name: int(np.asarray(number)) for name, number in _digest(leaves).items()}


@jax.jit
def _digest(leaves: dict[str, Array]) -> dict[str, Array]:
    """sum_i (2 i + 1) bits_i mod 2^32 of each leaf: alike for any sharding, another if a number changed."""

    def of(leaf: Array) -> Array:
        bits = (
            leaf
            if leaf.dtype.kind in "iu"
            else jax.lax.bitcast_convert_type(leaf, _bits(leaf.dtype.itemsize))
        )
        flat = bits.reshape(-1).astype(jnp.uint32)
        return jnp.sum(flat * (2 * jnp.arange(flat.size, dtype=jnp.uint32) + 1), dtype=jnp.uint32)

    return {name: of(leaf) for name, leaf in leaves.items()}


def _bits(size: int) -> Any:
    return {2: jnp.uint16, 4: jnp.uint32}[size]
