"""train.label on a set of records: the same ids with rewards, as those of the same texts in a file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sia_jax.data.records import Record, read_records, write_records
from sia_jax.data.set_folder import set_folder
from tests.support.labelling import LINES, QUESTION, REPLIES, lines_of, partial_of, report_of
from train import label
from train.label import Args

META = {"family": "qwen3", "counts": {"with_reward": 0}}


def record(number: int, reply: str | None) -> Record:
    """Its ids are not those of its text."""
    turns = ({"role": "user", "content": QUESTION}, {"role": "assistant", "content": reply})
    ids = np.arange(5, 9 + number, dtype=np.int32)
    return Record(f"r{number}", "egg", turns if reply is not None else (), ids, ids[::-1].copy())


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    """A set in which a record has no text and another no reply."""
    texts = (*REPLIES[:3], None, " ", *REPLIES[3:])
    write_records(tmp_path / "sampled", [record(i, text) for i, text in enumerate(texts)], META)
    return tmp_path / "sampled"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_set_gets_the_rewards_that_its_texts_have_in_a_file(
    args: Args, finished: Path, sampled: Path, tmp_path: Path
) -> None:
    expected = [line["reward"] for line in lines_of(finished)[: len(REPLIES)]]
    assert [line["response"] for line in LINES[: len(REPLIES)]] == list(REPLIES)
    out = tmp_path / "labelled"
    label.main(replace(args, input=str(sampled), out=str(out)))
    before = [one for i, one in enumerate(read_records(sampled)) if i not in (3, 4)]
    after = read_records(out)
    assert [one.reward for one in after] == expected
    for old, new in zip(before, after, strict=True):
        assert (old.id, old.group, old.messages) == (new.id, new.group, new.messages)
        assert old.prompt_ids.tolist() == new.prompt_ids.tolist()
        assert old.reply_ids.tolist() == new.reply_ids.tolist()
    report = report_of(out)
    where = {reason: [row["line"] for row in rows] for reason, rows in report["left_out"].items()}
    assert where == {"no reply": [5], "not a conversation": [4]}
    assert after.meta["family"] == "qwen3"
    assert after.meta["labels"] == report["settings"]
    assert "counts" not in after.meta
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "labelled",
        "labelled.report.json",
        "sampled",
    ]


def test_the_summary_speaks_of_records(
    args: Args, sampled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label.main(replace(args, input=str(sampled), out=str(tmp_path / "labelled")))
    assert "record 5: the reply is empty" in " ".join(capsys.readouterr().err.split())


def test_a_set_goes_on_after_a_torn_line_and_a_failure_at_the_end(
    args: Args, sampled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "labelled"
    label.main(replace(args, input=str(sampled), out=str(whole)))

    def fail(*rest: Any) -> None:
        raise OSError("the disk is full")

    run = replace(args, input=str(sampled), out=str(out))
    with monkeypatch.context() as patch:
        patch.setattr(label, "write_text", fail)
        with pytest.raises(SystemExit, match="the disk is full"):
            label.main(run)
    content = partial_of(out).read_bytes()
    for kept in (content[:-20], content):
        partial_of(out).write_bytes(kept)
        label.main(run)
        assert files(out) == files(whole)
        assert report_of(out) == report_of(whole)
        assert not partial_of(out).exists()


def test_a_finished_set_loads_nothing_and_another_is_left_alone(
    args: Args,
    sampled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    run = replace(args, input=str(sampled), out=str(tmp_path / "labelled"))
    label.main(run)
    request.getfixturevalue("no_loading")
    label.main(run)
    assert "everything is labelled already" in capsys.readouterr().err
    before = files(tmp_path / "labelled")
    with pytest.raises(SystemExit, match="says other settings; name another"):
        label.main(replace(run, max_tokens=100))
    meta = set_folder(tmp_path / "labelled") / "sia_jax.json"
    meta.write_text(json.dumps(json.loads(meta.read_text())))
    with pytest.raises(SystemExit, match="says other output_sha256"):
        label.main(run)
    assert files(tmp_path / "labelled").keys() == before.keys()


def test_a_set_that_has_rewards_is_relabelled_only_on_request(
    args: Args, sampled: Path, tmp_path: Path
) -> None:
    run = replace(args, input=str(sampled), out=str(tmp_path / "labelled"))
    label.main(run)
    again = replace(run, input=str(tmp_path / "labelled"), out=str(tmp_path / "again"))
    with pytest.raises(SystemExit, match=r"labelled, record 1: it has a reward, .*; pass --relabel"):
        label.main(again)
    label.main(replace(again, relabel=True, limit=2))
    rewards = [one.reward for one in read_records(tmp_path / "labelled")]
    assert [one.reward for one in read_records(tmp_path / "again")] == pytest.approx(rewards[:2], rel=1e-4)


def test_what_is_no_set_or_no_place_for_one_is_refused(
    args: Args, sampled: Path, tmp_path: Path, no_loading: None
) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "empty").mkdir()
    for changes, message in (
        ({"input": str(sampled), "out": str(tmp_path / "file")}, "--out must be a folder, as --input is"),
        ({"input": str(sampled), "out": str(sampled)}, "--out and --input are both"),
        (
            {"input": str(tmp_path / "empty"), "out": str(tmp_path / "out")},
            "there is no set of records in it",
        ),
    ):
        with pytest.raises(SystemExit, match=message):
            label.main(replace(args, **changes))
    assert (tmp_path / "file").read_text() == "precious"
