"""Ray, started for a run on this machine, or a cluster that is there."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sia_jax.cluster.options import LOCAL, RayArgs, import_ray, resources, room_for

_STORE = 200 * 2**20
"""Bytes of the object store of a Ray of our own; what it does not hold, it spills to disk."""
_OWN: dict[str, Any] = {
    "include_dashboard": False,
    "object_store_memory": _STORE,
}
_ACCELERATORS = ("GPU", "TPU")


@contextmanager
def connected(args: RayArgs) -> Iterator[Any]:
    """Ray, until the run ends; one that was started for it ends with it.

    Args:
      args: which one.

    Raises:
      ValueError: no cluster at the address, or one without room for the actors, with what it has.
      MissingExtraError: Ray is not installed.
    """
    assert args.ray is not None
    ray = import_ray(args.ray)
    is_own = args.ray == LOCAL
    options = _OWN if is_own else {}
    with _signals_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what Ray will do otherwise some day
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # a program is run in the fork at once
        try:
            ray.init(address=args.ray, log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # a plain one of a machine that is too busy to start it in half a minute
            first = str(error).strip().partition("\n")[0]
            raise ValueError(f"--ray {args.ray}: {first or type(error).__name__}") from error
    try:
        _check_room(ray.cluster_resources(), args)
        yield ray
    finally:
        ray.shutdown()


def _check_room(total: dict[str, float], args: RayArgs) -> None:
    taken = resources(args)
    has = {name: total[name] for name in ("CPU", *_ACCELERATORS) if total.get(name)}
    said = ", ".join(f"{name}={amount:g}" for name, amount in has.items()) or "nothing"
    idle = [name for name in _ACCELERATORS if name in has and name not in taken]
    if idle and not args.ray_takes:
        raise ValueError(
            f"--ray {args.ray} has {said}, and actors without {idle[0]} would not use it: say what each "
            f"takes, --ray-takes {idle[0]}=1, or --ray-takes CPU=1 for none"
        )
    room = room_for(total, taken)
    if room < args.ray_actors:
        wanted = " ".join(f"{name}={amount:g}" for name, amount in taken.items())
        raise ValueError(
            f"--ray {args.ray} has {said}, which is room for {room} of {args.ray_actors} actors that take "
            f"{wanted} each; lower --ray-actors or --ray-takes"
        )


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray has a way of its own to end at SIGTERM; the program's stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
