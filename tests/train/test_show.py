"""train.show on a small set."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from sia_jax.data.records import Record, read_records, write_records
from tests.support.tokenizers import save_qwen3_tokenizer
from train import prepare, show
from train.show import Args

LINES = (
    {"prompt": "How long should I boil an egg?", "response": "Seven minutes.\nNo more.", "reward": 0.25},
    {"prompt": "Which train is it?", "response": "The evening", "reward": -1, "complete": False},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    save_qwen3_tokenizer(folder / "tokenizer")
    (folder / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    inputs = {"input": str(folder / "mine.jsonl"), "tokenizer": str(folder / "tokenizer")}
    prepare.main(prepare.Args(format="jsonl", out=str(folder / "data"), **inputs))
    return folder


def shown(capsys: pytest.CaptureFixture[str], folder: Path, data: str = "data", **options: object) -> str:
    capsys.readouterr()
    show.main(Args(data=folder / data, tokenizer=str(folder / "tokenizer"), **options))
    return capsys.readouterr().out


def test_a_record_is_shown_as_the_value_model_reads_it_marks_of_turns_included(folder, capsys):
    out = shown(capsys, folder)
    assert "record 0 of 2" in out
    assert "reward 0.25" in out
    assert "<|im_start|>user⏎\nHow long should I boil an egg?<|im_end|>⏎\n" in out
    assert "<|im_start|>assistant⏎\nSeven minutes.⏎\nNo more.<|im_end|>" in out


def test_a_reply_that_was_cut_is_said_to_be_and_has_no_stop_token(folder, capsys):
    out = shown(capsys, folder, first=1)
    assert "cut by length, reward -1" in out
    assert out.rstrip().endswith("The evening")


def test_every_id_is_shown_beside_its_token(folder, capsys):
    out = shown(capsys, folder, ids=True, count=9)
    record = read_records(folder / "data")[0]
    first = out[: out.index("record 1")]
    found = [int(i) for i in re.findall(r"·(\d+) ", first)]
    assert found == [*record.prompt_ids.tolist(), *record.reply_ids.tolist()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": 2}, "has 2 records, there is no number 2"),
        ({"first": -1}, "--first must be 0 or more"),
        ({"count": 0}, "--count must be 1 or more"),
    ],
)
def test_what_cannot_be_shown_is_refused(folder, capsys, options, message):
    with pytest.raises(SystemExit, match=message):
        shown(capsys, folder, **options)


def test_a_set_of_another_tokenizer_is_refused(folder, capsys, tmp_path):
    ids = np.array([99_999], np.int32)
    write_records(folder / "foreign", [Record("a", "g", (), ids, ids, 1.0)], {})
    with pytest.raises(SystemExit, match="name the one that the set was made with"):
        shown(capsys, folder, "foreign")
