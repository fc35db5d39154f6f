"""train.prepare on tiny files: what it writes, what it says, and what it survives."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tyro

from sia_jax.data.records import read_records, unfinished_folder
from sia_jax.data.set_folder import set_folder
from sia_jax.text.chat import value_prompt
from sia_jax.text.markup import CHATML, LLAMA3
from tests.support.tokenizers import save_llama3_tokenizer, save_qwen3_tokenizer
from train import prepare
from train.generation import GenerationArgs
from train.prepare import Args

ROWS = (
    {"prompt": "How long should I boil an egg?", "response": "Seven minutes.", "reward": 0.1 + 0.2},
    {"prompt": "How long should I boil an egg?", "response": "An hour", "reward": -1.5, "complete": False},
    {"prompt": "Which train is it?", "response": "The evening train. " * 60, "reward": 1},
    {"prompt": "Which train is it?", "response": ""},
    {"prompt": "Which train is it?", "response": "The one at nine."},
    {"prompt": " ", "response": "Of course."},
)


def write_lines(path: Path, rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_qwen3_tokenizer(folder / "Qwen3-tiny")
    save_llama3_tokenizer(folder / "Llama-tiny")
    write_lines(folder / "mine[1].jsonl", ROWS)
    return folder


@pytest.fixture
def args(folder: Path, tmp_path: Path) -> Args:
    return Args(
        format="jsonl",
        input=str(folder / "mine[1].jsonl"),
        tokenizer=str(folder / "Qwen3-tiny"),
        out=str(tmp_path / "set"),
        max_length=100,
    )


def stopped(args: Args) -> str:
    """The message that the program ends with."""
    with pytest.raises(SystemExit) as exit_:
        prepare.main(args)
    assert isinstance(exit_.value.code, str)
    return exit_.value.code


def plain(text: str) -> str:
    """In one line."""
    return " ".join(text.split())


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_set_has_every_reply_that_can_be_used(args: Args, folder: Path) -> None:
    prepare.main(args)
    source = read_records(Path(args.out))
    kept = [ROWS[i] for i in (0, 1, 4)]
    assert [record.messages[-1]["content"] for record in source] == [row["response"] for row in kept]
    assert [record.reward for record in source] == [0.1 + 0.2, -1.5, None]
    assert [record.id for record in source] == [f"mine[1].jsonl:{n}" for n in (1, 2, 5)]
    assert source[0].group == source[1].group != source[2].group
    tokenizer = save_qwen3_tokenizer(folder / "Qwen3-tiny")
    end = tokenizer.eos_token_id
    assert [record.reply_ids[-1] == end for record in source] == [True, False, True]
    for record in source:
        assert record.prompt_ids.tolist() == value_prompt(tokenizer, record.messages[:-1], CHATML)


def test_the_report_says_what_was_left_out_and_why(args: Args) -> None:
    prepare.main(args)
    report = json.loads((Path(args.out) / "report.json").read_text())
    assert report["rejected"] == {
        "empty prompt": {"count": 1, "first": ["mine[1].jsonl, line 6"]},
        "longer than 100 tokens": {"count": 1, "first": ["mine[1].jsonl, line 3"]},
        "no reply": {"count": 1, "first": ["mine[1].jsonl, line 4"]},
    }
    assert (report["kept"], report["groups"], report["with_reward"]) == (3, 2, 2)
    assert report["longer"] == {"count": 1, "share": 0.25}
    assert report["rewards"] == {"least": -1.5, "most": 0.1 + 0.2, "mean": pytest.approx(-0.6)}
    assert (report["tokenizer"], report["markup"], report["input"]) == (
        "Qwen3-tiny",
        CHATML.to_json(),
        "mine[1].jsonl",
    )
    source = read_records(Path(args.out))
    assert source.meta["counts"]["files"] == {"mine[1].jsonl": 3}
    assert {n: source.meta[n] for n in ("format", "markup", "vocab_size", "max_length")} == {
        n: report[n] for n in ("format", "markup", "vocab_size", "max_length")
    }
    both = report["lengths"]["both"]
    lengths = [len(record.prompt_ids) + len(record.reply_ids) for record in source]
    assert both["least"] == min(lengths)
    assert both["most"] > 100
    assert list(both.values()) == sorted(both.values())


def test_the_summary_is_a_table_with_lines_to_look_at(args: Args, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.main(args)
    out = plain(capsys.readouterr().out)
    assert "kept 3 replies to 2 prompts" in out
    assert "with a reward 2" in out
    assert "over 100 tokens 1, 25.0%" in out
    assert "left out: no reply 1 (mine[1].jsonl, line 4)" in out
    assert "left out: longer than 100 tokens 1 (mine[1].jsonl, line 3)" in out
    assert "tokens of replies least" in out
    assert f"written to {args.out}" in out


def test_the_same_input_makes_the_same_bytes(args: Args, tmp_path: Path) -> None:
    prepare.main(args)
    prepare.main(replace(args, out=str(tmp_path / "again")))
    assert files(Path(args.out)) == files(tmp_path / "again")


def test_a_limit_keeps_the_first_replies(args: Args, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.main(replace(args, limit=2))
    assert [record.id for record in read_records(Path(args.out))] == ["mine[1].jsonl:1", "mine[1].jsonl:2"]
    assert "2 replies to 1 prompt, where --limit stopped" in plain(capsys.readouterr().out)


def test_the_default_length_keeps_longer_replies(args: Args) -> None:
    prepare.main(replace(args, max_length=1024))
    assert len(read_records(Path(args.out))) == 4


def test_a_reply_of_just_the_longest_length_is_kept(args: Args, tmp_path: Path) -> None:
    prepare.main(args)
    lengths = [len(record.prompt_ids) + len(record.reply_ids) for record in read_records(Path(args.out))]
    for max_length, kept in ((max(lengths), 3), (max(lengths) - 1, 3 - lengths.count(max(lengths)))):
        out = str(tmp_path / str(max_length))
        prepare.main(replace(args, max_length=max_length, out=out))
        assert len(read_records(Path(out))) == kept


def test_a_llama_tokenizer_makes_llama_prompts(args: Args, folder: Path) -> None:
    prepare.main(replace(args, tokenizer=str(folder / "Llama-tiny")))
    source = read_records(Path(args.out))
    assert source.meta["markup"] == LLAMA3.to_json()
    tokenizer = save_llama3_tokenizer(folder / "Llama-tiny")
    assert source[0].prompt_ids[0] == tokenizer.bos_token_id
    assert source[0].reply_ids[-1] == tokenizer.eos_token_id


def test_a_folder_of_files_is_counted_by_file(args: Args, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b", "a"):
        write_lines(tmp_path / "in" / f"{name}.jsonl", ROWS[:2])
    prepare.main(replace(args, input=str(tmp_path / "in")))
    assert read_records(Path(args.out)).meta["counts"]["files"] == {"a.jsonl": 2, "b.jsonl": 2}


def test_system_prompts_of_ultrafeedback_can_be_dropped(args: Args, tmp_path: Path) -> None:
    completion = {"custom_system_prompt": "Be kind.", "response": "Yes."}
    path = write_lines(tmp_path / "flan.jsonl", [{"instruction": "Tea?", "completions": [completion]}])
    for drop, first in ((False, "system"), (True, "user")):
        out = str(tmp_path / f"drop {drop}")
        prepare.main(
            replace(args, format="ultrafeedback", input=str(path), out=out, drop_system_prompts=drop)
        )
        source = read_records(Path(out))
        assert source[0].messages[0]["role"] == first
        assert source.meta["system_prompts"] is not drop


def test_a_set_survives_the_way_through_the_official_format(args: Args, tmp_path: Path) -> None:
    exported = tmp_path / "exported.json"
    prepare.main(replace(args, export_official=str(exported)))
    back = str(tmp_path / "back")
    prepare.main(replace(args, format="official", input=str(exported), out=back))
    for ours, theirs in zip(read_records(Path(args.out)), read_records(Path(back)), strict=True):
        for name in ("id", "group", "messages", "reward"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert ours.prompt_ids.tolist() == theirs.prompt_ids.tolist()
        assert ours.reply_ids.tolist() == theirs.reply_ids.tolist()


def test_ids_that_the_tokenizer_lacks_are_left_out_with_a_reason(args: Args, tmp_path: Path) -> None:
    exported = tmp_path / "exported.json"
    prepare.main(replace(args, export_official=str(exported)))
    rows = json.loads(exported.read_text())
    vocab_size = read_records(Path(args.out)).meta["vocab_size"]
    rows[1]["generated_tokens_ids"] = str(vocab_size)
    rows[1]["rm_guided_tokens_mask"] = "1"
    exported.write_text(json.dumps(rows))
    prepare.main(replace(args, format="official", input=str(exported), out=str(tmp_path / "back")))
    report = json.loads((tmp_path / "back" / "report.json").read_text())
    assert report["rejected"] == {
        "reply has ids outside the vocabulary": {"count": 1, "first": ["exported.json, row 2"]}
    }


# What it survives


def test_a_set_that_is_there_is_replaced_only_on_request(args: Args) -> None:
    prepare.main(args)
    before = files(Path(args.out))
    assert "holds a set already; name another folder, or pass --overwrite" in stopped(args)
    assert files(Path(args.out)) == before
    prepare.main(replace(args, limit=1, overwrite=True))
    assert len(read_records(Path(args.out))) == 1
    assert json.loads((Path(args.out) / "report.json").read_text())["kept"] == 1


def test_ctrl_c_leaves_what_was_there(
    args: Args, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, calls = prepare.tokenise, []

    def tokenise(*rest: Any) -> Any:
        calls.append(rest)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*rest)

    for overwrite in (False, True):
        before = files(Path(args.out).parent)
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(prepare, "tokenise", tokenise)
            with pytest.raises(SystemExit) as exit_:
                prepare.main(replace(args, overwrite=overwrite))
        assert exit_.value.code == 130
        assert f"interrupted; {args.out} is as it was" in plain(capsys.readouterr().err)
        assert files(Path(args.out).parent) == before
        assert Path(args.out).exists() == overwrite
        prepare.main(replace(args, overwrite=overwrite))


def test_ctrl_c_in_the_export_leaves_the_set(
    args: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write_official(path: Path, records: Iterator[Any], markup: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "write_official", write_official)
    exported = str(tmp_path / "exported.json")
    with pytest.raises(SystemExit) as exit_:
        prepare.main(replace(args, export_official=exported))
    assert exit_.value.code == 130
    assert f"interrupted; {exported} is as it was" in plain(capsys.readouterr().err)
    assert len(read_records(Path(args.out))) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 0}, "--max-length must be 1 or more, got 0"),
        ({"limit": 0}, "--limit must be 1 or more, got 0"),
        (
            {"drop_system_prompts": True},
            "--drop-system-prompts is for --format ultrafeedback, got --format jsonl",
        ),
        ({"input": "missing.jsonl"}, "missing.jsonl: no such file or folder"),
        ({"tokenizer": "./missing"}, "./missing: no such folder"),
        ({"tokenizer": None}, "give the value model's --tokenizer DIR, or --generate N --policy DIR"),
        ({"sampling": GenerationArgs(top_p=0.9)}, "--top-p is for --generate N"),
        ({"format": "ultrafeedback"}, "line 1: UltraFeedback has the fields"),
        ({"max_length": 2}, "no reply could be kept: longer than 2 tokens: 4 (mine[1].jsonl, line 1; "),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(args: Args, changes: dict, message: str) -> None:
    assert message in stopped(replace(args, **changes))
    assert not Path(args.out).exists()


def test_an_input_without_rows_is_refused(args: Args, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    message = stopped(replace(args, input=str(tmp_path / "empty.jsonl")))
    assert "no reply could be kept: there are no rows in it" in message


def test_a_folder_without_a_tokenizer_is_refused(args: Args, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    message = stopped(replace(args, tokenizer=str(tmp_path / "bare")))
    assert "bare has no tokenizer; name the folder that has the value model's" in message


def test_files_are_not_taken_for_folders_nor_overwritten(args: Args, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "--out must be a folder" in stopped(replace(args, out=str(tmp_path / "file")))
    assert "is there already; name another, or pass --overwrite" in stopped(
        replace(args, export_official=str(tmp_path / "file"))
    )
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("option", ["export_official", "export_conversations"])
@pytest.mark.parametrize("place", [set_folder, unfinished_folder])
def test_an_export_into_the_set_which_would_remove_it_is_refused(args: Args, place: Any, option: str) -> None:
    inside = place(Path(args.out)) / "c.jsonl"
    message = stopped(replace(args, **{option: str(inside)}))
    assert f"{inside} lies in --out's" in message
    assert "written whole; name another place" in message
    assert not Path(args.out).exists()


# The command line


def test_help_teaches() -> None:
    command = [sys.executable, "-m", "train.prepare", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    text = plain(re.sub(r"[│╭╮╰╯─]|\x1b\[[0-9;]*m", " ", done.stdout))
    assert "ultrafeedback .jsonl: every completion" in text
    assert "--max-length" in text
    for name in {*Args.__dataclass_fields__, *GenerationArgs.__dataclass_fields__} - {"sampling"}:
        assert "--" + name.replace("_", "-") in text


def test_options_are_read_from_the_command_line(args: Args) -> None:
    line = ["--format", "official", "--input", "a.json", "--tokenizer", "t", "--out", "o", "--limit", "5"]
    parsed = tyro.cli(Args, args=[*line, "--overwrite", "--export-official", "b.json"])
    expected = Args(
        format="official",
        input="a.json",
        tokenizer="t",
        out="o",
        limit=5,
        overwrite=True,
        export_official="b.json",
    )
    assert parsed == expected
