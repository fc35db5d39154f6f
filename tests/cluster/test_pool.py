"""Blocks through actors of a Ray on this machine: nothing is lost, and what fails says why."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from sia_jax.cluster import pool
from sia_jax.cluster.connection import connected
from sia_jax.cluster.pool import streamed
from tests.cluster.conftest import LOCAL
from tests.cluster.drivers import descendants
from tests.cluster.stubs import Doubling

pytestmark = pytest.mark.filterwarnings("default")  # of Ray and what it imports


def results(ray: Any, recipe: Doubling, count: int, actors: int = 2) -> Counter[int]:
    found: Counter[int] = Counter()
    for block in streamed(ray, recipe, iter(range(count)), replace(LOCAL, ray_actors=actors)):
        found.update(number for number, _ in block)
    return found


def test_every_unit_comes_back_also_of_a_block_that_is_not_full(ray: Any) -> None:
    assert set(results(ray, Doubling(), 42)) == {2 * n for n in range(42)}


def test_no_units_start_no_actor(ray: Any) -> None:
    assert results(ray, Doubling(wrong="a worker was made"), 0) == Counter()


def test_an_actor_that_is_killed_is_started_again_with_its_blocks(ray: Any, tmp_path: Path) -> None:
    flag = tmp_path / "killed"
    found = results(ray, Doubling(dies_at=21, once=str(flag)), 42)
    assert flag.exists()
    assert set(found) == {2 * n for n in range(42)}


def test_an_actor_that_always_dies_ends_the_run(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_DEATHS", 1)
    with pytest.raises(ValueError, match="Ray gave up"):
        results(ray, Doubling(dies_at=5), 12, actors=1)


def test_what_a_worker_finds_wrong_ends_the_run_in_its_words(ray: Any) -> None:
    with pytest.raises(ValueError, match="an actor cannot work: there is no such model"):
        results(ray, Doubling(wrong="there is no such model"), 8)


def test_actors_that_are_not_alike_end_the_run(ray: Any) -> None:
    with pytest.raises(ValueError, match=r"actors are not alike, process [0-9]+ and [0-9]+"):
        results(ray, Doubling(unlike=True, seconds=0.5), 80)


@pytest.mark.long
def test_the_drivers_memory_does_not_grow_with_what_is_made(ray: Any) -> None:
    def grown(count: int) -> int:
        """KiB of this process, of results of 20 kB each, at the most minus before."""
        before, most = resident(), 0
        for _ in streamed(ray, Doubling(padding=20_000), iter(range(count)), LOCAL):
            most = max(most, resident())
        return most - before

    small, large = grown(1_000), grown(20_000)  # 20 MB and 400 MB
    print(f"the driver grew by {small:,} KiB for 1,000 results, and by {large:,} KiB for 20,000")
    assert large < small + 64 * 1024


def resident() -> int:
    """KiB of anonymous memory; what is shared is the object store."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
    return int(line.split()[1])


def test_a_ray_of_its_own_listens_on_loopback_alone(ray: Any) -> None:
    list(streamed(ray, Doubling(), range(8), LOCAL))  # with its actors
    own = {os.getpid(), *descendants(os.getpid())}
    found = [address for pid in own for address in listening(pid)]
    assert len(found) > 3
    assert {str(address) for address in found} == {"127.0.0.1"}


def listening(pid: int) -> Iterator[IPv4Address]:
    """Addresses that a process waits for connections at."""
    sockets = set()
    for path in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            sockets.add(os.readlink(path))
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                # The last word of the address in the order of this machine; of IPv6 that of a mapped IPv4.
                yield IPv4Address(int(local.partition(":")[0][-8:], 16).to_bytes(4, sys.byteorder))


def test_more_actors_than_there_is_room_for_are_refused_by_what_there_is(
    ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: None)  # it runs already
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with (
        pytest.raises(ValueError, match=r"has CPU=[0-9]+, which is room for [0-9]+ of 1000 actors"),
        connected(replace(LOCAL, ray_actors=1000)),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"room for 0 of 2 actors that take CPU=1 GPU=1 each"),
        connected(replace(LOCAL, ray_takes=("GPU=1",))),
    ):
        pass
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 4.0})
    with (
        pytest.raises(ValueError, match=r"has CPU=8, GPU=4, and actors without GPU would not use it"),
        connected(LOCAL),
    ):
        pass
