"""A short run of the fuzzing program over all readers, and what its parts promise."""

import json
import mmap
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import harness
from tests.fuzz.__main__ import readers
from tests.fuzz.mutations import BYTES, mutate
from tests.fuzz.readers import Reader

pytestmark = pytest.mark.long

SHORT = 25
"""Mutations of each reader's files."""
CONTENT = json.dumps({"a": [1, {"b": "text", "c": None}], "d": 0.5}).encode() + b"\n"


@pytest.mark.parametrize("name", sorted(readers()))
def test_mutated_files_are_refused_by_name_or_read_right(name: str) -> None:
    outcome = harness.run(readers()[name], seed=7, numbers=range(SHORT))
    assert not outcome.failures, outcome.failures
    assert sum(outcome.counts.values()) == SHORT


def test_a_seed_and_a_number_make_one_mutation() -> None:
    def all_of(seed: int) -> list[bytes]:
        return [mutate(CONTENT, random.Random(f"{seed} {n}"), is_json=True) for n in range(300)]

    assert all_of(1) == all_of(1) != all_of(2)
    assert len(set(all_of(1))) > 200
    readable = 0
    for content in all_of(1):
        try:
            readable += json.loads(content) != json.loads(CONTENT)
        except (ValueError, RecursionError):
            continue
    assert readable > 50  # changes of the value, not of the bytes alone


@pytest.mark.parametrize("mutator", sorted({mutator.__name__ for mutator in BYTES}))
def test_every_mutator_takes_any_bytes(mutator: str) -> None:
    (function,) = {one for one in BYTES if one.__name__ == mutator}
    for seed in range(30):
        for content in (b"", b"\n", b"\xff", CONTENT):
            assert isinstance(function(content, random.Random(seed)), bytes)


@pytest.mark.long
def test_whatever_a_reader_must_not_do_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "MAX_GROWTH", 50 * 2**20)

    def write(folder: Path) -> list[Path]:
        (folder / "f.json").write_bytes(CONTENT)
        return [folder / "f.json"]

    def outcome(act: Any, check: Any = lambda folder, found: None) -> str | None:
        calls = []

        def read(folder: Path) -> Any:
            calls.append(folder)
            return act(folder / "f.json") if len(calls) > 1 else None

        found = harness.run(Reader("r", write, read, check), seed=0, numbers=range(1))
        return found.failures.get(0)

    def fail(error: BaseException) -> Any:
        def act(path: Path) -> None:
            raise error

        return act

    def fill(path: Path) -> None:
        # Pages of its own: what a long process has freed would be used again, and nothing would grow.
        with mmap.mmap(-1, 100 * 2**20) as pages:
            for start in range(0, len(pages), mmap.PAGESIZE):
                pages[start] = 1

    def disagree(folder: Path, found: Any) -> None:
        assert found is None

    assert outcome(fail(ValueError("f.json, line 1: wrong"))) is None
    assert outcome(fail(FileNotFoundError("f.json"))) is None
    assert "names no file" in str(outcome(fail(ValueError("wrong"))))
    assert "5,0" in str(outcome(fail(ValueError("f.json" + "x" * 5000))))
    assert "cannot be printed" in str(outcome(fail(ValueError("f.json \ud83d"))))
    assert "KeyError" in str(outcome(fail(KeyError("a"))))
    assert "RecursionError" in str(outcome(fail(RecursionError("f.json"))))
    assert "grew" in str(outcome(fill))
    assert "AssertionError" in str(outcome(lambda path: 5, disagree))
    monkeypatch.setattr(harness, "MAX_SECONDS", 0.2)
    assert "no end" in str(outcome(lambda path: time.sleep(5)))
