"""Readers of raw data that are asked for prompts: every one, whatever was or was not replied to it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sia_jax.data.sources import open_source
from sia_jax.data.sources.conversations import Conversation, OpenConversation, Rejected, prompt_group


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(form: Any, path: Path, **options: Any) -> list[Any]:
    source = open_source(form, path, vocab_size=100, with_replies=False, **options)
    found = list(source.entries)
    assert not any(isinstance(one, Conversation) for one in found)
    assert source.files.fraction == pytest.approx(1.0)
    return found


def user(content: str, system: str | None = None) -> tuple[dict[str, str], ...]:
    turn = {"role": "user", "content": content}
    return (turn,) if system is None else ({"role": "system", "content": system}, turn)


def prompts(found: list[Any]) -> list[Any]:
    return [one.messages for one in found if isinstance(one, OpenConversation)]


def reasons(found: list[Any]) -> list[tuple[str, str]]:
    return [(one.reason, one.place.split(" (")[0]) for one in found if isinstance(one, Rejected)]


def test_ultrafeedback_has_a_prompt_for_each_completion_however_empty(tmp_path: Path) -> None:
    completions = [
        {"custom_system_prompt": "Be kind.", "response": ""},
        {"custom_system_prompt": None, "response": "One."},
    ]
    rows = [
        {"instruction": "One?", "completions": completions},
        {"instruction": "Two?", "completions": []},
        {"instruction": "", "completions": []},
    ]
    path = write_lines(tmp_path / "a.jsonl", rows)
    found = read("ultrafeedback", path)
    assert prompts(found) == [user("One?", "Be kind."), user("One?"), user("Two?")]
    assert [one.id for one in found[:3]] == ["a.jsonl:1:1", "a.jsonl:1:2", "a.jsonl:2"]
    assert found[0].group == found[1].group == prompt_group(user("One?"))
    assert reasons(found) == [("empty prompt", "a.jsonl, line 3")]
    assert prompts(read("ultrafeedback", path, system_prompts=False))[0] == user("One?")


def test_wildguardmix_has_the_prompts_of_unlabelled_rows_too(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Which bus?", "response": "The 14.", "response_harm_label": "unharmful"},
        {"prompt": "Which tram?", "response": None, "response_harm_label": None},
        {"prompt": " ", "response": None, "response_harm_label": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    found = read("wildguardmix", tmp_path / "train.parquet")
    assert prompts(found) == [user("Which bus?"), user("Which tram?")]
    assert reasons(found) == [("empty prompt", "train.parquet, row 3")]


def test_hh_rlhf_has_the_turns_in_front_of_each_reply(tmp_path: Path) -> None:
    rows = [
        {"chosen": "\n\nHuman: Tea?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Tea?\n\nAssistant: "},
        {"chosen": "\n\nHuman: Milk?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Milk!"},
        {"chosen": "Tea?", "rejected": "\n\nHuman: Well?\n\nHuman: Tea?"},
    ]
    found = read("hh-rlhf", write_lines(tmp_path / "a.jsonl", rows))
    assert prompts(found) == [user("Tea?"), user("Tea?"), user("Milk?"), user("Milk!")]
    assert found[0].group == found[1].group != found[2].group == found[3].group
    assert reasons(found) == [
        ("not a transcript", "a.jsonl, line 3, chosen"),
        ("not a conversation", "a.jsonl, line 3, rejected"),
    ]


def test_own_data_need_no_reply_and_what_is_said_of_one_is_not_looked_at(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes", "n": 1}]
    rows = [
        {"prompt": "Tea?", "id": 7, "group": "tea"},
        {"prompt": "Tea?", "response": "", "reward": "high"},
        {"messages": turns[:1]},
        {"messages": turns},
        {"messages": [*turns[:1], {"role": "assistant", "content": "Yes"}, *user("Milk?", None)]},
        {"prompt": None, "response": "Yes"},
        {"messages": turns[1:]},
        {"messages": []},
    ]
    found = read("jsonl", write_lines(tmp_path / "a.jsonl", rows))
    whole = (*user("Tea?"), {"role": "assistant", "content": "Yes"}, *user("Milk?"))
    assert prompts(found) == [user("Tea?")] * 4 + [whole]
    assert (found[0].id, found[0].group, found[1].id) == ("7", "tea", "a.jsonl:2")
    assert reasons(found) == [
        ("empty prompt", "a.jsonl, line 6"),
        ("not a conversation", "a.jsonl, line 7"),
        ("not a conversation", "a.jsonl, line 8"),
    ]


def test_a_row_of_another_form_stops_the_run_without_replies_too(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "Tea?"}, {"answer": "Tea."}])
    with pytest.raises(ValueError, match=r"a.jsonl, line 2: expected {\"prompt\".*, got \['answer'\]"):
        read("jsonl", path)


def test_ids_are_no_prompts(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match="format official holds ids, and prompts are needed as text"):
        read("official", tmp_path / "a.json")
