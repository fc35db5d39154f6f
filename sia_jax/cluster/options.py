"""Options of a program that Ray shares out; nothing here imports Ray."""

import math
import os
import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

import tyro

from sia_jax.extras import installed_with
from sia_jax.runs.cli import Count, check_used

Options = TypeVar("Options", bound=Any)

LOCAL = "local"
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_RESOURCE = re.compile(r"([A-Za-z][A-Za-z0-9_.:-]{0,63})=([0-9]{1,6}(?:\.[0-9]{1,4})?)")


@dataclass(frozen=True, kw_only=True)
class RayArgs:
    """Whether Ray shares the work out, and how."""

    ray: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="")] = None
    """Share the work out with Ray Data. HOST:PORT of a cluster's head; auto: the cluster of this machine;
    local: a Ray of its own on this machine, for this run."""
    ray_actors: Count = 1
    """Processes that hold the models and work, of all machines."""
    ray_takes: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=AMOUNT")
    ] = ()
    """What each of them takes of its machine, as Ray counts it: GPU=1, TPU=4, CPU=8. Without: CPU=1."""


def check_ray(args: Any) -> None:
    """What can be said of a program's options with --ray without Ray.

    Args:
      args: options with those of `RayArgs`.

    Raises:
      ValueError: options that make no sense, alone or together.
      MissingExtraError: Ray is not installed.
    """
    if args.ray is None:
        check_used(args, ("ray_actors", "ray_takes"), "--ray ADDRESS")
        return
    if not args.ray.strip():
        raise ValueError("--ray must be local, auto or the HOST:PORT of a cluster's head, got nothing")
    if "://" in args.ray:
        raise ValueError(
            f"--ray must be local, auto or the HOST:PORT of a cluster's head, got {args.ray[:60]!r}; from a "
            "machine outside of the cluster, start the program on one of its machines with --ray auto"
        )
    if args.ray_actors < 1:
        raise ValueError(f"--ray-actors must be 1 or more, got {args.ray_actors}")
    resources(args)
    if args.shard is not None:
        raise ValueError("--shard and --ray both share the work out; give one of them")
    if any(size < 1 for size in args.mesh):
        raise ValueError(f"--mesh must be three sizes of 1 or more, got {' '.join(map(str, args.mesh))}")
    import_ray(args.ray)


def on_one_device(args: Options) -> Options:
    """The same options for checks where the program was started, whose devices are not those that work.

    Args:
      args: options with those of `RayArgs`, and a mesh.
    """
    return args if args.ray is None else replace(args, mesh=(1, 1, 1))


def resources(args: RayArgs) -> dict[str, float]:
    """What an actor takes, by Ray's names.

    Raises:
      ValueError: something else than NAME=AMOUNT, or a name twice.
    """
    found: dict[str, float] = {}
    for text in args.ray_takes:
        match = _RESOURCE.fullmatch(text)
        if match is None or not float(match[2]) > 0:
            raise ValueError(
                f"--ray-takes must be NAME=AMOUNT, such as GPU=1, with an amount above 0, got {text[:60]!r}"
            )
        if match[1] in found:
            raise ValueError(f"--ray-takes {match[1]} is given twice")
        found[match[1]] = float(match[2])
    return {"CPU": 1.0} | found


def room_for(total: dict[str, float], taken: dict[str, float]) -> int:
    """Actors that resources have room for.

    Args:
      total: of the cluster.
      taken: by an actor.
    """
    return min(math.floor(total.get(name, 0.0) / amount + 1e-6) for name, amount in taken.items())


def import_ray(address: str) -> Any:
    """The package, with its part for data.

    Args:
      address: of --ray.

    Raises:
      MissingExtraError: it is not installed.
    """
    if address == LOCAL:
        # Or its processes listen on all interfaces. Ray looks at this when it is imported, and stays on
        # loopback, as it does on macOS and Windows.
        os.environ.setdefault(_LOOPBACK, "0")
    with installed_with("ray"):
        import ray
        import ray.data
        import ray.exceptions
    return ray
