"""The official code's files: ids as they are, a reason for every row that is left out, exact round trips."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sia_jax.data.records import Record
from sia_jax.data.sources.official import write_official
from sia_jax.text.markup import CHATML, LLAMA3
from tests.support.sources import read, reasons, user


def official(**changes: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "prompt": "Human:\nTea?\nAssistant:\n",
        "result": "Yes.",
        "rm_prompt": "<|im_start|>user\nTea?<|im_end|>\n<|im_start|>assistant\n",
        "rm_prompt_tokens_ids": "5,6, 7",
        "generated_tokens_ids": "8,99",
        "rm_guided_tokens_mask": "1,1",
        "intervene_ratio": 1.0,
        "reward": 0.30000000000000004,
    } | changes


def write_list(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=2), encoding="utf-8")
    return path


def test_official_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = [official(), official(id="b", reward=1), official(rm_prompt_tokens_ids="5")]
    del rows[2]["reward"], rows[2]["id"]
    found = read("official", write_list(tmp_path / "a.json", rows))
    assert [one.id for one in found] == ["1", "b", "3"]
    assert [one.reward for one in found] == [0.30000000000000004, 1.0, None]
    assert found[0].prompt_ids.tolist() == [5, 6, 7]
    assert found[0].reply_ids.tolist() == [8, 99]
    assert found[0].prompt_ids.dtype == found[0].reply_ids.dtype == np.int32
    assert found[0].group == found[1].group != found[2].group


def test_the_official_text_becomes_messages_only_where_the_ids_were_made_of_it(tmp_path: Path) -> None:
    llama = (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nTea?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    rows = [
        official(),
        official(rm_prompt=llama),
        official(rm_prompt="<|im_start|>user\nT<|im_end|>\n<|im_start|>assistant\n"),
        official(prompt="Tea?"),
        official(prompt="Human:\nAssistant:\n"),
        official(result=""),
        official(result=None),
        {k: v for k, v in official().items() if k not in ("prompt", "result", "rm_prompt")},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    found = read("official", tmp_path / "a.json")
    expected = tuple(user("Tea?", "Yes."))
    assert [one.messages for one in found] == [expected, expected, *[()] * 6]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"generated_tokens_ids": "", "rm_guided_tokens_mask": ""}, "no reply"),
        ({"rm_prompt_tokens_ids": " "}, "no prompt"),
        ({"generated_tokens_ids": "8,100"}, "reply has ids outside the vocabulary"),
        ({"rm_prompt_tokens_ids": "-1,2"}, "prompt has ids outside the vocabulary"),
        ({"rm_guided_tokens_mask": "1"}, "mask and reply differ in length"),
        ({"rm_guided_tokens_mask": "1,0"}, "mask leaves reply tokens out"),
        ({"reward": "0.5"}, "reward is not a number"),
    ],
)
def test_an_official_row_that_cannot_be_used_is_rejected_by_reason(
    tmp_path: Path, changes: dict, reason: str
) -> None:
    path = write_list(tmp_path / "a.json", [official(), official(**changes)])
    found = read("official", path)
    assert isinstance(found[0], Record)
    assert reasons(found) == [(reason, "a.json, row 2")]


@pytest.mark.parametrize("text", ["8,x", "8;9", "1_0,5", "8,9.0", "--8"])
def test_official_ids_that_are_not_numbers_are_rejected(tmp_path: Path, text: str) -> None:
    found = read("official", write_list(tmp_path / "a.json", [official(generated_tokens_ids=text)]))
    assert [(reason, place.split(" (")[0]) for reason, place in reasons(found)] == [
        ("ids are not numbers", "a.json, row 1")
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps({"id": 1}), "a.json: the official SIA format is a JSON list, got an object"),
        (json.dumps([official(), 5]), "a.json, row 2: expected an object, got a number"),
        (
            json.dumps([{"id": 1}]),
            r"a.json, row 1: the official SIA format has the fields \['rm_prompt_tokens_ids', .*found only ",
        ),
        (
            json.dumps([official(generated_tokens_ids=[8, 9])]),
            "a.json, row 1: 'generated_tokens_ids' must be ids joined by commas in a text, got a list of 2",
        ),
        (json.dumps([official(), official()], indent=1)[:-30], r"a.json, line 22, column 3: not JSON \("),
        ("[" * 200_000, "a.json, line 1, column 101: nested more than 100 deep"),
        (json.dumps([official(messages=user("Tea?"))]), "a.json, row 1: messages end with the user"),
        (
            json.dumps([official(reward=float("nan"))]),
            "a.json, line 1, column .*: NaN is not a finite number",
        ),
        (json.dumps([official(result="half \ud83d")]), "a.json, line 1, column .*: .*half a surrogate pair"),
    ],
)
def test_a_file_that_is_not_official_stops_the_run(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=f"{tmp_path}/{message}"):
        read("official", tmp_path / "a.json")


def test_an_official_file_that_is_not_utf8_stops_the_run_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('[\n{"id": "Tür"}]'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.json, line 2, column 10: not UTF-8 \(byte 0xfc"):
        read("official", tmp_path / "a.json")


def test_ids_of_several_official_files_do_not_clash(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        write_list(tmp_path / name, [official()])
    assert [one.id for one in read("official", tmp_path)] == ["a.json:1", "b.json:1"]


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_what_is_written_for_the_official_code_comes_back_exactly(tmp_path: Path, family: Any) -> None:
    ids = np.array([1, 2, 3], np.int32)
    records = [
        Record(
            "a", "g", tuple(user("卵?", "Yes.", "Two?", "\n2 ", system="Count.")), ids, ids[:1], 0.1 + 0.2
        ),
        Record("b", "h", (), ids[:2], ids, None),
    ]
    path = tmp_path / "new" / "a.json"
    assert write_official(path, iter(records), {"qwen3": CHATML, "llama": LLAMA3}[family]) == 2
    for written, found in zip(records, read("official", path), strict=True):
        for name in ("id", "group", "messages", "reward"):
            assert getattr(found, name) == getattr(written, name)
        np.testing.assert_array_equal(found.prompt_ids, written.prompt_ids)
        np.testing.assert_array_equal(found.reply_ids, written.reply_ids)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_what_is_written_has_the_fields_that_the_official_trainer_reads(tmp_path: Path) -> None:
    ids = np.array([1, 2, 3], np.int32)
    write_official(
        tmp_path / "a.json", [Record("a", "g", tuple(user("Tea?", "Yes.")), ids, ids, 0.5)], CHATML
    )
    (row,) = json.loads((tmp_path / "a.json").read_text())
    assert row["prompt"] == official()["prompt"]
    assert row["result"] == official()["result"]
    assert row["rm_prompt"] == official()["rm_prompt"]
    assert row["rm_prompt_tokens_ids"] == row["generated_tokens_ids"] == "1,2,3"
    assert row["rm_guided_tokens_mask"] == "1,1,1"
    assert row["reward"] == 0.5


def test_a_write_for_the_official_code_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    def torn() -> Iterable[Record]:
        yield Record("a", "g", (), np.array([1], np.int32), np.array([1], np.int32))
        raise KeyboardInterrupt

    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_official(path, torn(), CHATML)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
    assert write_official(path, [], CHATML) == 0
    assert json.loads(path.read_text()) == []
