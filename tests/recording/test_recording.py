"""Comparing two recordings finds what a change may have done, and lets the last digits of floats be."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from sia_jax.decoding.state import empty_record
from tests.recording import programs, samplers
from tests.recording.__main__ import compare


def call() -> samplers.Recorded:
    """Two replies of three tokens with two candidates each."""
    return {
        "tokens": np.array([[5, 6, 7], [8, 9, 2]]),
        "junction": np.array([[True, False, True], [False, False, True]]),
        "entropy": np.array([[1.5, 0.25, 2.0], [0.5, 0.75, np.nan]], np.float32),
        "candidates.ids": np.arange(12).reshape(2, 3, 2),
        "candidates.values": np.linspace(-1, 1, 12).reshape(2, 3, 2),
        "lengths": np.array([3, 3]),
        "policy_steps": np.array(4),
    }


def changed(name: str, place: tuple[int, ...], value: float) -> samplers.Recorded:
    after = call()
    after[name][place] = value
    return after


@pytest.mark.parametrize(
    ("name", "place", "value", "said"),
    [
        ("tokens", (1, 2), 3, ["row 1, token 2: ['tokens']; margin nan nats"]),
        ("junction", (0, 1), True, ["row 0, token 1: ['junction']; margin nan nats"]),
        ("candidates.ids", (0, 2, 1), 99, ["row 0, token 2: ['candidates.ids']; margin nan nats"]),
        ("lengths", (1,), 2, ["row 1: lengths 3, now 2"]),
        ("policy_steps", (), 5, ["policy_steps: 4, now 5"]),
        ("entropy", (0, 0), 1.501, ["row 0, token 0: entropy 1.5, now 1.50"]),
        ("entropy", (1, 2), 0.5, ["row 1, token 2: entropy nan, now 0.5"]),
        ("candidates.values", (1, 0, 0), 7.0, ["row 1, token 0: candidates.values ["]),
        ("entropy", (0, 0), 1.50001, []),
    ],
)
def test_differences_of_a_call_are_found(name, place, value, said):
    found = samplers.differences("mesh", call(), changed(name, place, value))
    assert len(found) == len(said)
    assert all(one.startswith(start) for one, start in zip(found, said, strict=True)), found


def test_past_the_token_at_which_a_reply_parts_nothing_is_compared():
    after = changed("tokens", (0, 1), 30)
    after["entropy"][0, 1:] = 9
    after["tokens"][0, 2] = 40
    assert len(samplers.differences("mesh", call(), after)) == 1


def test_an_array_that_is_gone_is_found():
    after = call()
    del after["junction"]
    assert "other arrays" in samplers.differences("mesh", call(), after)[0]


def test_fields_that_were_renamed_are_recorded_by_one_name():
    samples = SimpleNamespace(tokens=np.zeros((2, 3)), candidates=empty_record(2, 3, 4).candidates)
    found = samplers.arrays(samples)
    assert found["candidates.policy_choice"].shape == (2, 3)
    assert found["candidates.ids"].shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("a reply", "a reply", True),
        ("a reply", "another reply", False),
        (".logprobs = [-0.5, -1.25]", ".logprobs = [-0.50001, -1.25001]", True),
        (".logprobs = [-0.5, -1.25]", ".logprobs = [-0.501, -1.25]", False),
        (".logprobs = [-0.5, -1.25]", ".logprobs = [-0.5]", False),
        (".value = 0.5", ".value = -0.5", False),
        (".kl = 1e-06", ".kl = 2.5e-07", True),
        (".tokens = [10000, 5]", ".tokens = [10001, 5]", False),
        ("80 tokens, 12% steered", "80 tokens, 13% steered", False),
    ],
)
def test_lines_are_alike_but_for_the_last_digits_of_their_numbers(before, after, same):
    assert (programs.differences([before], [after]) == []) == same


def test_lines_that_are_gone_are_counted():
    assert programs.differences(["a", "b"], ["a"]) == ["2 lines, now 1"]


def test_clocks_are_left_out():
    lines = ["base: 12 replies, 2,436 tok/s, stop", "ok (7.8 s)", "12 steps"]
    progress = ["about 00:09 left", "72 of 84 replies, 13 replies/s, 00:01 left", "84 replies, 13 replies/s"]
    kept = ["base: 12 replies, <clock>, stop", "ok (<clock>)", "12 steps"]
    assert programs.without_clocks([*lines, *progress]) == kept
    row = {"text": "a", "seconds": 1.5, "ids": [1, 2], "parts": [{"commit": "abc", "share": 0.5}]}
    assert programs.flat(row) == [".text = 'a'", ".ids = [1, 2]", ".parts.0.share = 0.5"]


def test_recordings_are_compared_call_by_call_and_program_by_program(tmp_path):
    spoilt = changed("tokens", (0, 0), 1)
    for name, arrays, chat in (("before", call(), "hello"), ("after", spoilt, "good day")):
        folder = tmp_path / name / "samplers/mesh adapter"
        folder.mkdir(parents=True)
        np.savez(folder / "2-2-2.npz", **arrays)
        np.savez(folder / f"only {name}.npz", **arrays)
        said = {"chat": [chat], "show": ["shown"]}
        (tmp_path / name / "programs.json").write_text(json.dumps(said), encoding="utf-8")
    found = compare(tmp_path / "before", tmp_path / "after")
    assert {name: len(differences) for name, differences in found.items()} == {
        "mesh adapter/2-2-2": 1,
        "mesh adapter/only after": 1,
        "mesh adapter/only before": 1,
        "chat": 1,
        "show": 0,
    }
    assert not any(compare(tmp_path / "after", tmp_path / "after").values())
