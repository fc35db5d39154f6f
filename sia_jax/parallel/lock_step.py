"""Processes of one program in lock step: all run the same programs, in the same order, on the same numbers.

A program over the devices of several processes waits for all of them. One that never comes, or comes with
other arguments, makes the others wait for ever, or gives rows of which each knows another half. So what is
about to run is compared first, and every process raises if any one differs or has found something wrong.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sia_jax.reprs import shortened

T = TypeVar("T")

_BYTES = 1024
"""Of what a process says to the others."""
_LONGEST = 120
"""Characters of an error that the others repeat; six bytes each at most, as JSON has them."""


def spans_processes(mesh: Mesh | None) -> bool:
    """Whether the devices of a mesh belong to more than one process."""
    return mesh is not None and len(_processes(mesh)) > 1


def every_device() -> Mesh:
    """All devices of all processes in a row."""
    return Mesh(np.array(jax.devices()), ("device",))


def on_every_process(tree: T, mesh: Mesh | None) -> T:
    """The same arrays, whole on all devices if the mesh spans processes, so that each process can read them.

    Args:
      tree: of arrays on the mesh, or traced.
      mesh: of the devices; where they are of one process, `tree` stays as it lies.
    """
    if mesh is None or not spans_processes(mesh):
        return tree
    return _gather(mesh)(tree)


def agreed(
    call: str,
    prepare: Callable[[], T],
    parts: Callable[[T], Mapping[str, Any]],
    *,
    mesh: Mesh | None,
    remedy: str = "give every process all of the work, in the same order: the mesh shares it out",
) -> T:
    """What `prepare` returns, once all processes have it and its parts are the same for all.

    Every process of the mesh must call. Where that is one process, nothing is asked.

    Args:
      call: what is about to run, in an error.
      prepare: checks and reads what this process was given; nothing in it may wait for another process.
      parts: what must be alike, by the names that an error has: arrays of the host, frozen dataclasses and
        what they are made of.
      mesh: whose processes; `every_device` for all there are. None: one device.
      remedy: what to do where the parts differ.

    Raises:
      ValueError: on every process: another one differs, and in what; or it has refused, and why.
      Exception: what `prepare` raises, on the process where it does.
    """
    if mesh is None or not spans_processes(mesh):
        return prepare()
    refused: Exception | None = None
    said: dict[str, Any] = {"call": call}
    try:
        prepared = prepare()
        said["parts"] = {name: _digest(part) for name, part in parts(prepared).items()}
    except Exception as error:
        refused = error
        said["refused"] = shortened(f"{type(error).__name__}: {error}".splitlines()[0], _LONGEST)
    told = _exchange(said, mesh)
    if refused is not None:
        raise refused
    _compare(call, told, remedy)
    return prepared


def _compare(call: str, told: Mapping[int, Mapping[str, Any]], remedy: str) -> None:
    """All processes are at the same call with the same parts.

    Raises:
      ValueError: one is not.
    """
    first = min(told)
    for number, said in told.items():
        if "refused" in said:
            raise ValueError(f"process {number} has refused {said['call']} ({said['refused']}); all stop")
    for number, said in told.items():
        if said["call"] != told[first]["call"]:
            raise ValueError(
                f"process {number} is at {said['call']} and process {first} at {told[first]['call']}: all "
                "processes of a mesh must make the same calls in the same order"
            )
        ours, theirs = told[first]["parts"], said["parts"]
        differing = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if differing:
            raise ValueError(
                f"{call}: process {number} has another {' and another '.join(differing)} than process "
                f"{first}; {remedy}"
            )


def _exchange(said: Mapping[str, Any], mesh: Mesh) -> dict[int, Any]:
    """What each process says, by its index."""
    text = json.dumps(said).encode()
    assert len(text) <= _BYTES, "the parts of a call have few and short names"
    line = np.zeros((1, _BYTES), np.uint8)
    line[0, : len(text)] = np.frombuffer(text, np.uint8)
    devices = mesh.devices.size
    sharding = NamedSharding(mesh, P(mesh.axis_names))
    lines = jax.make_array_from_callback((devices, _BYTES), sharding, lambda _: line)
    found = np.asarray(_gather(mesh)(lines))
    return {
        device.process_index: json.loads(bytes(row).rstrip(b"\0"))
        for device, row in zip(mesh.devices.flat, found, strict=True)
    }


@functools.lru_cache(maxsize=16)
def _gather(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))


def _processes(mesh: Mesh) -> set[int]:
    return {device.process_index for device in mesh.devices.flat}


def _digest(x: Any) -> str:
    """A short name of anything that is the same in every process that was given the same."""
    digest = hashlib.sha256()
    _feed(digest.update, x)
    return digest.hexdigest()[:16]


def _feed(update: Callable[[bytes], None], x: Any) -> None:
    if isinstance(x, np.ndarray | np.generic | jax.Array):
        array = np.ascontiguousarray(x)
        update(f"{array.dtype}{array.shape}".encode())
        update(array.tobytes())
    elif isinstance(x, Mesh):
        _feed(update, (dict(x.shape), [device.id for device in x.devices.flat]))
    elif is_dataclass(x) and not isinstance(x, type):
        _feed(update, (type(x).__qualname__, {field.name: getattr(x, field.name) for field in fields(x)}))
    elif isinstance(x, Mapping):
        _feed(update, list(x.items()))
    elif isinstance(x, tuple | list):
        update(f"{len(x)}(".encode())
        for item in x:
            _feed(update, item)
        update(b")")
    else:
        update(f"{getattr(x, '__qualname__', None) or repr(x)},".encode())
