"""train.label with rewards that are programs, alone and beside a reward model."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sia_jax.data.records import Record, read_records, write_records
from tests.support.judging import own_module
from tests.support.labelling import (
    LINES,
    REPLIES,
    lines_of,
    partial_of,
    report_of,
    write_lines,
)
from train import label
from train.label import Args

FUNCTION = """
def reward(conversations):
    texts = [messages[-1]["content"] for messages in conversations]
    if any("large" in text for text in texts):
        raise ValueError("too large")
    return [float("nan") if "know" in text else len(text) / 4 for text in texts]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the current folder, whose function lacks rewards for two of the replies."""
    return own_module(monkeypatch, tmp_path, FUNCTION)


@pytest.fixture
def alone(args: Args, module: str, tmp_path: Path, no_loading: None) -> Args:
    """A run without a reward model."""
    return Args(input=args.input, out=str(tmp_path / "out.jsonl"), reward_function=(f"{module}:reward",))


def reply_of(line: dict[str, Any]) -> str:
    return str(line.get("response") or line["messages"][-1]["content"])


def bare(line: dict[str, Any]) -> dict[str, Any]:
    """What the input said."""
    return {name: value for name, value in line.items() if name not in ("reward", "reward_parts")}


def test_a_function_labels_what_it_has_rewards_for_and_no_model_is_loaded(alone: Args, module: str) -> None:
    label.main(alone)
    kept = [line for line in LINES if "large" not in reply_of(line) and "know" not in reply_of(line)]
    longest = "Water. " * 100
    found = lines_of(Path(alone.out))
    assert [line["reward"] for line in found] == [len(reply_of(line)) / 4 for line in found]
    assert [bare(line) for line in found[: len(kept)]] == kept
    assert reply_of(found[-1]) == longest  # no length is too long for a function
    report = report_of(Path(alone.out))
    left = {reason: [row["line"] for row in rows] for reason, rows in report["left_out"].items()}
    assert left == {
        "no reply": [2, 4, 7],
        "not a conversation": [9, 11, 13],
        "failed": [3],
        "not finite": [6],
    }
    assert report["left_out"]["failed"][0]["why"] == f"{module}:reward raised ValueError: too large"
    assert report["tokens"] == 0
    assert report["settings"]["reward_model"] is None
    assert report["settings"]["reward_functions"] == {f"{module}:reward": 1.0}
    assert "reward_parts" not in report


def test_a_sum_is_the_weighted_parts_that_stand_beside_it(
    args: Args, finished: Path, module: str, tmp_path: Path
) -> None:
    """The model's part is what the model gives alone."""
    out = tmp_path / "sum.jsonl"
    label.main(
        replace(
            args,
            out=str(out),
            reward_model=(f"{args.reward_model[0]}=2",),
            reward_function=(f"{module}:reward=0.5",),
            length_penalty=0.25,
        )
    )
    alone = {json.dumps(bare(line)): line["reward"] for line in lines_of(finished)}
    found = lines_of(out)
    assert len(found) == len(alone) - 2
    for line in found:
        text, parts = reply_of(line), line["reward_parts"]
        assert parts[f"{module}:reward"] == len(text) / 4
        assert parts["words"] == len(text.split())
        assert parts["reward"] == pytest.approx(
            alone[json.dumps(bare(line))], rel=1e-4
        )  # the batches are others
        expected = 2 * parts["reward"] + 0.5 * len(text) / 4 - 0.25 * len(text.split())
        assert line["reward"] == pytest.approx(expected)
    report = report_of(out)
    assert report["settings"]["reward_weight"] == 2
    assert report["settings"]["length_penalty"] == 0.25
    means = {name: described["mean"] for name, described in report["reward_parts"].items()}
    assert means["words"] == pytest.approx(sum(len(reply_of(line).split()) for line in found) / len(found))
    again = tmp_path / "again.jsonl"
    label.main(
        Args(input=str(out), out=str(again), reward_function=(f"{module}:reward",), relabel=True, limit=2)
    )
    assert all("reward_parts" not in line for line in lines_of(again))


def test_several_models_are_one_sum_with_their_parts(
    args: Args, folder: Path, finished: Path, tmp_path: Path
) -> None:
    models = (f"{args.reward_model[0]}=2", f"{folder / 'other'}=-1")
    out, alone = tmp_path / "sum.jsonl", tmp_path / "other.jsonl"
    label.main(replace(args, out=str(out), reward_model=models))
    label.main(replace(args, out=str(alone), reward_model=(str(folder / "other"),)))
    parts = [
        {json.dumps(bare(line)): line["reward"] for line in lines_of(path)} for path in (finished, alone)
    ]
    found = lines_of(out)
    assert len(found) == len(parts[0]) == len(parts[1])
    for line in found:
        one, two = (own[json.dumps(bare(line))] for own in parts)
        assert line["reward_parts"] == pytest.approx({"reward": one, "other": two}, rel=1e-4)
        assert line["reward"] == pytest.approx(2 * one - two, rel=1e-3, abs=1e-3)
    settings = report_of(out)["settings"]
    assert settings["reward_weight"] == 2
    assert settings["further_reward_models"]["other"]["weight"] == -1


def test_a_set_gets_the_rewards_of_a_function(module: str, tmp_path: Path, no_loading: None) -> None:
    ids = np.arange(4, dtype=np.int32)
    turns = [({"role": "user", "content": "?"}, {"role": "assistant", "content": reply}) for reply in REPLIES]
    records = [Record(f"r{i}", "g", own, ids, ids) for i, own in enumerate(turns)]
    write_records(tmp_path / "sampled", records, {})
    out = tmp_path / "labelled"
    label.main(Args(input=str(tmp_path / "sampled"), out=str(out), reward_function=(f"{module}:reward",)))
    kept = [reply for reply in REPLIES if "large" not in reply and "know" not in reply]
    assert [one.reward for one in read_records(out)] == [len(reply) / 4 for reply in kept]
    assert read_records(out).meta["labels"]["reward_functions"] == {f"{module}:reward": 1.0}


def begun(args: Args) -> Args:
    """A run that scored everything and did not get further."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label, "_finish", lambda *rest: None)
        label.main(args)
    return args


def test_a_run_goes_on_with_the_same_function_and_parts_after_a_torn_line(
    alone: Args, tmp_path: Path
) -> None:
    run = begun(replace(alone, length_penalty=0.5))
    content = partial_of(Path(run.out)).read_bytes()
    label.main(run)
    whole = Path(run.out).read_bytes()
    Path(run.out).unlink()
    partial_of(Path(run.out)).write_bytes(content[:-30])
    label.main(run)
    assert Path(run.out).read_bytes() == whole
    assert b'"reward_parts": {' in whole


def test_another_version_of_the_function_another_weight_and_another_penalty_are_refused(
    alone: Args, module: str, tmp_path: Path
) -> None:
    run = begun(alone)
    before = partial_of(Path(run.out)).read_bytes()
    for changes, told in (
        ({"reward_function": (f"{module}:reward=2",)}, r"reward_functions .*: 1.0.*now .*: 2.0"),
        ({"length_penalty": 0.5}, r"length_penalty None \(now 0.5\)"),
    ):
        with pytest.raises(SystemExit, match=f"other settings: .*{told}.*--overwrite"):
            label.main(replace(run, **changes))
    (tmp_path / f"{module}.py").write_text(FUNCTION.replace("/ 4", "/ 3"))
    sys.modules.pop(module)
    with pytest.raises(SystemExit, match=r"other settings: reward_functions_fingerprint .*--overwrite"):
        label.main(run)
    assert partial_of(Path(run.out)).read_bytes() == before


def test_parts_of_a_journal_that_are_no_numbers_are_refused(alone: Args) -> None:
    run = begun(replace(alone, length_penalty=0.5))
    records = lines_of(partial_of(Path(run.out)))
    write_lines(partial_of(Path(run.out)), records[0] | {"parts": {"words": "many"}})
    with pytest.raises(SystemExit, match=r"partial.jsonl, line 1: part 'words' must be a number, or null"):
        label.main(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward_function": ()}, "there is no reward: give --reward DIR"),
        ({"reward_function": ("nowhere:reward",)}, "--reward-function nowhere:reward: the module nowhere"),
        ({"reward_function": ("json:loads",)}, "--reward-function json:loads: tried out"),
        ({"length_penalty": -1.0}, "--length-penalty must be a finite number above 0"),
        ({"dtype": "float32"}, "--dtype is for --reward DIR; without that leave it out"),
        ({"max_tokens": 100}, "--max-tokens is for --reward DIR"),
        ({"batch_tokens": 100}, "--batch-tokens is for --reward DIR"),
        ({"date_string": "26 Jul 2024"}, "--date-string is for --reward DIR"),
    ],
)
def test_what_is_wrong_with_a_reward_is_said_before_anything_is_written(
    alone: Args, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit, match=f"train.label: {message}"):
        label.main(replace(alone, **changes))
    assert sorted(path for path in tmp_path.iterdir() if path.name != "__pycache__") == [
        path for path in before if path.name != "__pycache__"
    ]
