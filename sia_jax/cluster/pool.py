"""Blocks of work through a pool of actors that Ray Data keeps busy, alive and within its memory."""

import json
import logging
import os
import pickle
import threading
import warnings
from collections.abc import Generator, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from sia_jax.cluster.options import RayArgs, resources
from sia_jax.extras import MissingExtraError, installed_with
from sia_jax.runs.cli import memory_explained

_DEATHS = 10
"""Of one actor, after which the run ends rather than load the models once more."""
_MADE_BY, _FAILED, _DONE = "made by", "failed", "done"


class Worker(Protocol):
    """What an actor holds once it has loaded its models."""

    @property
    def made_by(self) -> dict[str, Any]:
        """What its results' bits depend on; JSON."""

    def work(self, units: Sequence[Any]) -> list[Any]:
        """The results of a block of units, of any number; what they are is pickled."""


class Recipe(Protocol):
    """What a worker is made of, on whichever machine; pickled, so its class is one of the library."""

    @property
    def units(self) -> int:
        """Of a block."""

    @property
    def calls(self) -> int:
        """Blocks that a worker is given at a time."""

    @property
    def smaller(self) -> str:
        """What makes the work smaller where the memory is full."""

    def make(self) -> Worker:
        """Load the models."""


def streamed(
    ray: Any, recipe: Recipe, units: Iterable[Any], args: RayArgs
) -> Generator[list[Any], None, None]:
    """The results of all units, block by block as they come, in any order; some may come twice.

    An actor that dies is started again, and its blocks with it. As many blocks are under way as Ray's
    memory has room for.

    Args:
      ray: connected.
      recipe: of the actors' workers.
      units: any number, pickled; all lie in the object store before the first result comes.
      args: how many actors, and what they take.

    Raises:
      ValueError: what a worker finds wrong with its files or its memory; actors whose results do not agree
        to the bit, by device or version; an actor that died time and again.
    """
    _quieten(ray)
    rest = iter(units)
    pickled = iter(lambda: [pickle.dumps(unit) for unit in islice(rest, recipe.units)], [])
    blocks = [_table(block) for block in pickled]
    if not blocks:
        return
    taken = resources(args)
    options: dict[str, Any] = {"num_cpus": taken.pop("CPU"), "max_restarts": _DEATHS}
    options |= {"max_task_retries": _DEATHS}
    if "GPU" in taken:
        options["num_gpus"] = taken.pop("GPU")
    if taken:
        options["resources"] = taken
    with warnings.catch_warnings():
        # Of max_restarts and max_task_retries, which go in 2.64; the extra allows no such version.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        # from_arrow_refs would ask a task for the size of each block, and keep 40 kB of it here.
        found = ray.data.from_blocks(blocks).map_batches(
            _Actor,
            fn_constructor_args=(recipe, os.getcwd()),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=args.ray_actors,
                max_concurrent_calls_per_actor=recipe.calls,
                enable_true_multi_threading=recipe.calls > 1,
            ),
            **options,
        )
    del blocks  # the object store has them
    made_by: dict[str, Any] | None = None
    try:
        for table in found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            for kind, value in zip(table["kind"].to_pylist(), table["value"].to_pylist(), strict=True):
                if kind == _FAILED:
                    raise ValueError(f"an actor cannot work: {value.decode()}")
                if kind == _MADE_BY:
                    made_by = _agreed(made_by, json.loads(value))
                else:
                    yield pickle.loads(value)
    except ray.exceptions.RayError as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"Ray gave up: {first or type(error).__name__}") from error


def _agreed(before: dict[str, Any] | None, own: dict[str, Any]) -> dict[str, Any]:
    if before is not None and before != own:
        name = next(name for name in {**before, **own} if before.get(name) != own.get(name))
        raise ValueError(
            f"actors are not alike, {name} {before.get(name)!r} and {own.get(name)!r}, and what they make "
            "would depend on where; run it on machines of one kind, with the same versions"
        )
    return own


def _table(values: Sequence[bytes], kinds: Sequence[str] = ()) -> Any:
    with installed_with("ray"):
        import pyarrow as pa
    columns = {"value": pa.array(values, pa.large_binary())}
    return pa.table(columns | ({"kind": pa.array(kinds, pa.string())} if kinds else {}))


def _quieten(ray: Any) -> None:
    """The program shows its own progress."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


class _Actor:
    """A worker in a process of Ray's, made with its first block."""

    def __init__(self, recipe: Recipe, folder: str):
        if Path(folder).is_dir():  # where the program was started: paths are said from there
            os.chdir(folder)
        self._recipe = recipe
        self._worker: Worker | None = None
        self._making = threading.Lock()

    def __call__(self, block: Any) -> Any:
        """The results of a block, both Arrow tables; what is wrong with files and memory comes as one."""
        try:
            with memory_explained(self._recipe.smaller):
                with self._making:
                    worker = self._worker = self._worker or self._recipe.make()
                results = worker.work([pickle.loads(unit) for unit in block["value"].to_pylist()])
        except (ValueError, OSError, MissingExtraError) as error:
            return _table([str(error).encode()], [_FAILED])
        values = [json.dumps(worker.made_by).encode(), pickle.dumps(results)]
        return _table(values, [_MADE_BY, _DONE])
