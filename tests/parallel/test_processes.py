"""Two processes of four devices, in lock step, do what one does, and refuse on both where they differ.

One pair of processes serves all tests here, in a file of its own; to start it takes longest.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import lock_step
from tests.support.labelling import save_models_and_input
from tests.support.processes import Processes

pytestmark = pytest.mark.long

PROMPTS = [[5, 9, 12], [7, 3, 40, 41], [3], [8, 8]]
CONVERSATIONS = [
    np.random.default_rng(n).integers(0, 64, length).tolist()
    for n, length in enumerate((3, 20, 7, 29, 12, 15, 16, 4, 24, 30, 9, 11, 17))
]


@pytest.fixture(scope="module")
def pair() -> Iterator[Processes]:
    with Processes(2, 4) as processes:
        yield processes


def refusals(found: list[Any]) -> list[str]:
    return [each["error"] for each in found]


def test_two_processes_sample_what_one_does_and_each_has_all_replies(pair: Processes) -> None:
    first, second = pair.call(lock_step.sampled, mesh=True, prompts=PROMPTS)
    alone = lock_step.sampled(mesh=False, prompts=PROMPTS)
    assert first == second
    assert 0.1 < np.mean(alone["junction"]) < 0.9, "tokens of both kinds are seen"
    assert len({tuple(row) for row in alone["tokens"]}) == 2 * len(PROMPTS), "an order is seen"
    np.testing.assert_allclose(first.pop("logprob"), alone.pop("logprob"), rtol=1e-4, atol=1e-5)
    assert first == alone


@pytest.mark.parametrize(
    ("others", "what"),
    [
        ({"prompts": PROMPTS[::-1]}, "prompt"),
        ({"prompts": [*PROMPTS, *PROMPTS]}, "prompt"),
        ({"seed": 2}, "rng_key"),
        ({"threshold": 1.0}, "threshold or knobs"),
        ({"new_tokens": 11}, "threshold or knobs and another config"),
    ],
)
def test_calls_that_differ_are_refused_by_both_processes(pair: Processes, others: dict, what: str) -> None:
    usual = {"prompts": PROMPTS, "seed": 1, "threshold": 1.9, "new_tokens": 12}
    found = refusals(pair.call(lock_step.sampled, usual, usual | others, mesh=True))
    said = f"ValueError: sample: process 1 has another {what}"
    assert all(each.startswith(said) for each in found), found


def test_what_one_process_refuses_all_do_and_the_next_call_is_served(pair: Processes) -> None:
    each = ({"prompts": PROMPTS}, {"prompts": PROMPTS[:3]})
    other, own = refusals(pair.call(lock_step.sampled, *each, mesh=True))
    assert own.startswith("ValueError: expected prompts in multiples of 4")
    assert other.startswith("ValueError: process 1 has refused sample (ValueError: expected prompts in mult")
    first, second = pair.call(lock_step.sampled, mesh=True, prompts=PROMPTS)
    assert first == second
    assert "tokens" in first


def test_an_engine_over_several_processes_is_refused_by_name(pair: Processes) -> None:
    found = refusals(pair.call(lock_step.engine_refused))
    assert all("an engine serves the devices of one process" in each for each in found), found


def test_two_processes_label_what_one_does_and_each_has_all_rewards(pair: Processes) -> None:
    first, second = pair.call(lock_step.labelled, mesh=True, conversations=CONVERSATIONS)
    alone = dict(lock_step.labelled(mesh=False, conversations=CONVERSATIONS))
    assert first == second
    assert sorted(index for index, _ in first) == list(range(len(CONVERSATIONS)))
    np.testing.assert_allclose([dict(first)[i] for i in alone], list(alone.values()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("others", [CONVERSATIONS[:1], CONVERSATIONS[::-1]])
def test_conversations_that_differ_are_refused_by_both_processes(pair: Processes, others: list) -> None:
    each = ({"conversations": CONVERSATIONS}, {"conversations": others})
    found = refusals(pair.call(lock_step.labelled, *each, mesh=True))
    assert all("process 1" in one and "ValueError" in one for one in found), found


def test_the_program_labels_as_one_process_and_goes_on_where_that_stopped(
    pair: Processes, tmp_path: Path
) -> None:
    save_models_and_input(tmp_path)
    alone, together = tmp_path / "alone.jsonl", tmp_path / "together.jsonl"
    lock_step.labelled_file(str(tmp_path), str(alone), mesh=False)
    for _ in range(2):  # the second time all is there already
        assert pair.call(lock_step.labelled_file, folder=tmp_path, out=together, mesh=True) == [{}, {}]
    lines = [lock_step.rewards_in(path) for path in (alone, together)]
    assert [fields for _, fields in lines[0]] == [fields for _, fields in lines[1]]
    np.testing.assert_allclose(*([r for r, _ in found] for found in lines), rtol=1e-4, atol=1e-5)
    assert sorted(path.name for path in tmp_path.glob("together*")) == [
        "together.jsonl",
        "together.jsonl.report.json",
    ]
    # A process whose input is another one.
    other = tmp_path / "other.jsonl"
    other.write_bytes((tmp_path / "input.jsonl").read_bytes() + b"\n")
    each = ({}, {"input": other})
    found = refusals(
        pair.call(lock_step.labelled_file, *each, folder=tmp_path, out=tmp_path / "new.jsonl", mesh=True)
    )
    assert all("process 1 has another input_sha256 than process 0" in one for one in found), found


STEPS = 10


def test_training_goes_on_with_other_processes_and_devices_as_if_nothing_were(
    pair: Processes, tmp_path: Path
) -> None:
    whole = lock_step.trained(str(tmp_path / "whole"), None, STEPS)
    assert [step for step, *_ in whole["steps"]] == list(range(1, STEPS + 1))
    folder, eight = str(tmp_path / "parts"), (8, 1, 1)
    two = {"folder": folder, "mesh": (2, 2, 2)}
    first, same = pair.call(lock_step.trained, **two, max_steps=3)
    assert first == same
    # Nothing but where it lies is another: parameters, moments, step and key, to the bit.
    for mesh in (None, eight):
        restored = lock_step.trained(folder, mesh, 3)
        assert (restored["begin"], restored["steps"]) == ([3], [])
        assert restored["state"] == first["state"]
    parts = [first, lock_step.trained(folder, None, 5), lock_step.trained(folder, eight, 8)]
    back, same = pair.call(lock_step.trained, **two, max_steps=STEPS)
    assert back == same
    parts.append(back)
    assert [part["begin"] for part in parts] == [[0], [3], [5], [8]]
    for name in ("steps", "evaluations"):
        expected, found = whole[name], [each for part in parts for each in part[name]]
        assert [step for step, *_ in found] == [step for step, *_ in expected]
        losses = [[loss for _, loss, *_ in each] for each in (found, expected)]
        np.testing.assert_allclose(*losses, rtol=1e-5, atol=0)
    records = [[list(step[2]) for step in steps] for steps in (whole["steps"], found_steps(parts))]
    assert records[0] == records[1]
    seen = sorted(record for batch in records[0] for record in batch)
    assert seen == sorted([*range(26)] * 3), "three passes, no record lost or doubled"


def found_steps(parts: list[dict[str, Any]]) -> list[Any]:
    return [step for part in parts for step in part["steps"]]


def test_processes_with_other_data_or_other_checkpoints_do_not_train(pair: Processes, tmp_path: Path) -> None:
    usual = {"folder": str(tmp_path / "a"), "mesh": (2, 2, 2), "max_steps": 1}
    found = refusals(pair.call(lock_step.trained, {}, {"damage": 1.0}, **usual))
    assert all("training: process 1 has another data than process 0" in one for one in found), found
    lock_step.trained(str(tmp_path / "b"), None, 1)
    each = ({}, {"folder": str(tmp_path / "b")})
    found = refusals(pair.call(lock_step.trained, *each, **usual))
    assert all("process 1 has another list of checkpoints than process 0" in one for one in found), found
