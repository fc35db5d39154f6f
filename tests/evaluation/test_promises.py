"""Dense replies as files, and the program that finds thresholds in them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decode import promise
from sia_jax.evaluation.promises import promises, read_dense_replies
from sia_jax.evaluation.risk import promised_threshold


def lines(count: int, seed: int) -> list[dict[str, Any]]:
    """Replies, two to each prompt, whose tokens shift the likelier the higher the entropy is."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(2 * count):
        entropy = rng.gamma(1.5, 0.8, int(rng.integers(1, 12))).astype(np.float32)
        shifted = rng.random(len(entropy)) < entropy / (entropy + 2)
        record = {"index": number // 2, "entropy": entropy.tolist(), "shifted": shifted.tolist()}
        found.append(record | {"junction": [True] * len(entropy)})
    return found


def save(path: Path, records: list[Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_replies_to_one_prompt_are_one_witness(tmp_path: Path) -> None:
    records = lines(5, seed=0)
    found = read_dense_replies(Path(save(tmp_path / "dense.jsonl", records[::-1])))
    assert len(found) == 5
    for i, reply in enumerate(found):
        own = [record for record in records if record["index"] == i][::-1]
        assert reply.entropy.tolist() == [h for record in own for h in record["entropy"]]
        assert reply.shifted.tolist() == [flag for record in own for flag in record["shifted"]]


def test_the_program_writes_the_thresholds_and_what_other_prompts_say_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, others = save(tmp_path / "a.jsonl", lines(150, 1)), save(tmp_path / "b.jsonl", lines(200, 2))
    args = promise.Args(replies=own, check=others, miss_rates=(0.3, 0.2), out=str(tmp_path / "promise.json"))
    promise.main(args)
    written = json.loads((tmp_path / "promise.json").read_text())
    assert [row["alpha"] for row in written["promises"]] == [0.2, 0.3]
    fresh = read_dense_replies(Path(others))
    for row in written["promises"]:
        expected = promised_threshold(read_dense_replies(Path(own)), row["alpha"], 0.05)
        assert row["threshold"] == expected.threshold
        shares = []
        for reply in fresh:
            below = reply.entropy[reply.shifted] < np.float32(row["threshold"])
            shares.append(float(below.mean()) if len(below) else 0.0)
        assert row["missed_elsewhere"]["mean"] == pytest.approx(np.mean(shares))
        assert row["missed_elsewhere"]["low"] < row["alpha"]
        steered = np.concatenate([reply.entropy for reply in fresh]) >= np.float32(row["threshold"])
        assert row["steered_elsewhere"] == pytest.approx(steered.mean())
        assert f"{row['threshold']:.4f}" in capsys.readouterr().out or row is not written["promises"][0]


def test_a_promise_that_only_dense_steering_keeps_is_written_as_strict_json() -> None:
    """Every shifted token has the lowest entropy there is."""
    records = [{"entropy": [0.0, 1.0], "shifted": [True, False], "junction": [True, True]}] * 1
    replies = [read_reply for _ in range(60) for read_reply in [_reply(records[0])]]
    (one,) = promises(replies, [0.1], 0.95)
    assert one.found.threshold == 0.0  # all tokens reach it
    assert one.found.steered == 1.0
    json.dumps(one.to_json(), allow_nan=False)
    lost = replace(one, found=replace(one.found, threshold=-math.inf))
    assert json.dumps(lost.to_json(), allow_nan=False).count('"-inf"') == 1


def _reply(record: dict[str, Any]) -> Any:
    from sia_jax.evaluation.risk import SteeredReply

    return SteeredReply(np.array(record["entropy"], np.float32), np.array(record["shifted"]))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"junction": [True, False]}, "1 of 2 tokens were not steered"),
        ({"shifted": [True]}, "lists of 2, 1 and 2 tokens"),
        ({"entropy": [None, 1.0]}, "entropy must be numbers"),
        ({"entropy": [math.nan, 1.0]}, "NaN"),
        ({"entropy": 3}, "entropy must be a list"),
        ({"shifted": [0, 1]}, "must be true or false"),
        ({"index": -1}, "index"),
    ],
)
def test_a_line_that_is_no_dense_reply_is_refused_by_its_number(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    good = {"index": 0, "entropy": [0.5, 1.0], "shifted": [True, False], "junction": [True, True]}
    path = save(tmp_path / "dense.jsonl", [good, good | changes])
    with pytest.raises(ValueError, match=why) as error:
        read_dense_replies(Path(path))
    assert "line 2" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"miss_rates": ()}, "--miss-rates must be different shares"),
        ({"miss_rates": (0.1, 0.1)}, "--miss-rates must be different shares"),
        ({"miss_rates": (1.5,)}, "must lie between 0 and 1"),
        ({"miss_rates": (0.001,)}, "10 prompts promise nothing"),
        ({"on_average": True, "confidence": 0.9}, "--confidence"),
        ({"out": "promise.txt"}, "--out"),
        ({"replies": "nowhere.jsonl"}, "nowhere.jsonl"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    args = promise.Args(replies=save(tmp_path / "dense.jsonl", lines(10, 0)), miss_rates=(0.3,))
    with pytest.raises(SystemExit) as error:
        promise.main(replace(args, **changes))
    assert why in str(error.value.code)
