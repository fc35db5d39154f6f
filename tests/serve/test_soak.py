"""The server under random clients, told to end under load, and killed; `make soak` has more of the first."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak.ending import DRAINING, GONE, NO_ROOM, WHOLE, asked_until_gone
from tests.soak.load import KEY, MOST
from tests.soak.pair import Pair, pair_of, serving
from tests.soak.recipes import Book, make_book
from tests.soak.server import ServerProcess
from tests.soak.soak import soak
from tests.soak.verdict import problems

pytestmark = [pytest.mark.long, pytest.mark.optimised]

REQUESTS = 2000


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair_of(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of what the servers compile."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def books(pair: Pair) -> Iterator[tuple[Book, Book]]:
    """Of short replies, and of long ones."""
    with pair.engine() as engine:
        yield make_book(engine, 100, 0, MOST), make_book(engine, 60, 1, MOST, longest=24)


def test_after_a_kill_the_next_start_is_clean(
    pair: Pair, books: tuple[Book, Book], cache: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("compiling", "loaded", "next")]
    for folder in folders:
        folder.mkdir()
    with serving(pair, folders[0], cache) as first:
        _wait_for_entries(first, cache)
        first.kill()
    entry, *_ = sorted(cache.glob("*/*-cache"))  # one of which the kill has left half
    whole, used = entry.stat().st_size, entry.with_name(entry.name.removesuffix("-cache") + "-atime")
    entry.write_bytes(entry.read_bytes()[: whole // 2])
    used.unlink(missing_ok=True)
    with serving(pair, folders[1], cache) as second:
        second.wait_until_ready()
        # What compiled sooner than JAX takes for worth keeping is not written again; nor are bytes the same.
        assert not entry.exists() or (entry.stat().st_size > whole // 2 and used.exists())
        moment, asked = asyncio.run(asked_until_gone(second, books[1], 1, second.kill))
        assert [one for one in asked if one.outcome == GONE and one.began < moment], "it was not under load"
    with serving(pair, folders[2], cache, port=second.port) as third:
        third.wait_until_ready()
        assert problems(soak(third, books[0], 400, 2)) == []
        third.terminate()
        assert third.status(30) == 0
    for folder in folders[1:]:
        said = (folder / "errors").read_text().lower()
        assert "warning" not in said
        assert "traceback" not in said


def test_all_who_ask_are_answered_once_and_rightly_and_nothing_is_left(
    pair: Pair, books: tuple[Book, Book], cache: Path, tmp_path: Path
) -> None:
    with serving(pair, tmp_path, cache) as server:
        server.wait_until_ready()
        report = soak(server, books[0], REQUESTS, 0)
        print(report.described())
        assert problems(report) == []
        for kind in (
            "good",
            "slow",
            "leaving",
            "half",
            "large",
            "no room for replies",
            "no room for prompts",
        ):
            assert report.kinds[kind] > 0, kind
        server.terminate()
        assert server.status(30) == 0
    said = server.errors.read_text()
    assert "Traceback" not in said
    assert KEY not in said
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    ids = [line["id"] for line in lines if line["id"].startswith("soak-")]
    assert len(ids) == len(set(ids))
    unknown = report.kinds["half"]  # of whose heads some were cut
    assert report.asked - unknown <= len(ids) <= report.asked


def test_told_to_end_under_load_it_refuses_who_comes_and_ends_what_runs(
    pair: Pair, books: tuple[Book, Book], cache: Path, tmp_path: Path
) -> None:
    with serving(pair, tmp_path, cache) as server:
        server.wait_until_ready()
        moment, asked = asyncio.run(asked_until_gone(server, books[1], 0, server.terminate))
        assert server.status(30) == 0
    running = [one for one in asked if one.began < moment <= one.ended]
    assert {one.outcome for one in running} <= {WHOLE, NO_ROOM, DRAINING}, "one was dropped"
    assert sum(one.outcome == WHOLE for one in running) > 0
    assert sum(one.outcome == DRAINING for one in asked) > 0
    assert not [one for one in asked if one.outcome == GONE and one.began < moment]
    assert "Traceback" not in server.errors.read_text()


def _wait_for_entries(server: ServerProcess, cache: Path) -> None:
    """Until the server has compiled something, and is at more."""
    late = time.monotonic() + 300
    while len(list(cache.glob("*/*-atime"))) < 2:
        assert time.monotonic() < late
        time.sleep(0.01)
