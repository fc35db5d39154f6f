"""Whether the rows that are asked for fit, before any of their memory is taken."""

from collections.abc import Sequence

import jax

from sia_jax.engine.pool import Pool, state_bytes


def check_memory(pools: Sequence[Pool]) -> None:
    """The rows of all pools fit into what the devices, or the machine, have free.

    Raises:
      MemoryError: they do not; with what they take and what there is.
    """
    needed = sum(state_bytes(pool) for pool in pools)
    weights = jax.tree.leaves(pools[0].params.policy)[0]
    room = free_bytes(list(weights.devices()))
    if room is not None and needed > room:
        kinds = ", ".join(f"{pool.rows} rows of {pool.length} tokens" for pool in pools)
        raise MemoryError(
            f"{kinds} take {needed / 1e9:,.2f} GB for the caches of policy and value model, and "
            f"{room / 1e9:,.2f} GB are free; lower rows or max_length"
        )


def free_bytes(devices: Sequence[jax.Device]) -> int | None:
    """What all these devices together have free: of CPUs, the machine; None where that cannot be told."""
    if devices[0].platform == "cpu":
        return _available_bytes()
    known = [device.memory_stats() for device in devices]
    if not all(stats and {"bytes_limit", "bytes_in_use"} <= stats.keys() for stats in known):
        return None
    return sum(stats["bytes_limit"] - stats["bytes_in_use"] for stats in known if stats)


def _available_bytes() -> int | None:
    """What Linux says that a program may still take; None elsewhere."""
    try:
        with open("/proc/meminfo") as file:
            sizes = dict(line.split(":") for line in file)
        return int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
