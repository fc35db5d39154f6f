"""train.iterate, killed at every boundary of stages and within every stage, ends in the same bytes."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.iterating import save_policy_and_prompts, usual_args
from tests.support.killing import Killed
from tests.train.test_killed import Program, _untimed, contents, staged

pytestmark = pytest.mark.long

PARTS = ("replies", "rewards", "value", "validation")
STAGES = ("policy alone", *(f"round {n}: {part}" for n in (1, 2) for part in PARTS))

WITHIN = {
    "policy alone": ("policy-alone/validation/replies.partial.jsonl", 9),
    "round 1: replies": ("round-1/unsteered/replies.partial.jsonl", 7),
    "round 1: rewards": ("round-1/unsteered-labelled.partial.jsonl", 5),
    "round 1: value, its data": ("round-1/data/unfinished", 3),
    "round 1: value": ("round-1/value/metrics.jsonl", 3),
    "round 1: validation": ("round-1/validation/replies.partial.jsonl", 20),
    "round 2: replies, unsteered": ("round-2/unsteered/replies.partial.jsonl", 3),
    "round 2: replies, steered": ("round-2/steered/replies.partial.jsonl", 3),
    "round 2: replies, their set": ("round-2/steered/unfinished", 2),
    "round 2: rewards": ("round-2/steered-labelled.partial.jsonl", 2),
    "round 2: value": ("round-2/value/checkpoints/", 4),
    "round 2: value, written": ("round-2/value/best/", 2),
    "round 2: validation": ("round-2/validation-labelled.partial.jsonl", 11),
    "the results": (staged("results.json"), 1),
    "the page": (staged("iteration.md"), 1),
    "the best": (staged("best"), 2),
}
"""Where a run is killed: part of a path, and how often it is met."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    folder = tmp_path_factory.mktemp("iterated")
    save_policy_and_prompts(folder)
    return Program("train.iterate", usual_args(folder, folder / "out"), folder / "out", {}, _untimed)


@pytest.fixture(scope="module")
def process(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    with Killed(
        program.module, program.args, program.out, tmp_path_factory.mktemp("cache") / "own"
    ) as process:
        yield process


@pytest.fixture(scope="module")
def whole(program: Program, process: Killed) -> dict[str, Any]:
    """What an uninterrupted run writes."""
    found = process.run()
    assert found["status"] == 0, found["errors"]
    expected = contents(program)
    program.out.rename(program.out.with_name("whole"))
    return expected


def test_a_run_that_is_killed_within_every_stage_ends_in_the_same_bytes(
    program: Program, process: Killed, whole: dict[str, Any]
) -> None:
    for place, (name, after) in WITHIN.items():
        found = process.run(kill_in=name, after=after)
        assert found["status"] == -9, (place, found)
    found = process.run()
    assert found["status"] == 0, found["errors"]
    assert contents(program) == whole
    program.out.rename(program.out.with_name("within"))


def test_a_run_that_is_killed_at_every_boundary_of_stages_ends_in_the_same_bytes(
    program: Program, process: Killed, whole: dict[str, Any]
) -> None:
    """Twice at each: while the note that the stage is done has no place yet, and when it has."""
    diary = program.out / "iteration.json"
    for done, stage in enumerate(STAGES):
        for after, noted in ((BEFORE, done), (BEHIND, done + 1)):
            found = process.run(kill_in=staged("iteration.json"), after=after)
            assert found["status"] == -9, (stage, found)
            assert list(json.loads(diary.read_text())["seconds"])[1:] == list(STAGES[:noted])
    found = process.run()
    assert found["status"] == 0, found["errors"]
    assert contents(program) == whole


BEFORE, BEHIND = 10, 13
"""Changes to the file of the diary before a run is killed. As it begins it notes that: up to seven, for it
makes a folder and in it the new file and another that tells the mode, removes that one, renames the file, and
removes the folder, and one that a killed run has left. The note of a stage is six more."""
