"""Rows of finished conversations: the forms that mean one, read alike by every reader, and all others."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sia_jax.data.conversations import read_conversations
from sia_jax.data.forms import Turns, asked_of, prompt_of, turns_of
from sia_jax.data.prompts import parse_prompts
from sia_jax.data.sources import open_source
from sia_jax.data.sources.conversations import Conversation, Rejected
from sia_jax.rewards.labelling import check_conversation

USER = {"role": "user", "content": "How?"}
REPLY = {"role": "assistant", "content": "So."}

SAME: dict[str, dict[str, Any]] = {
    "messages": {"messages": [USER, REPLY]},
    "null keys": {"messages": [USER | {"name": None, "tool_calls": None}, REPLY | {"name": None}]},
    "prompt and response": {"prompt": "How?", "response": "So."},
    "messages and response": {"prompt": [USER], "response": "So."},
    "TRL": {"prompt": [USER], "completion": [REPLY]},
    "TRL's texts": {"prompt": "How?", "completion": "So."},
    "decode.generate": {"prompt": [USER], "text": "So.", "tokens": [1]},
    "ShareGPT": {"conversations": [{"from": "human", "value": "How?"}, {"from": "gpt", "value": "So."}]},
    "both": {"prompt": "How?", "messages": [USER, REPLY]},
    "one part": {"messages": [{"role": "user", "content": [{"type": "text", "text": "How?"}]}, REPLY]},
}


def own(path: Path, **options: Any) -> list[Any]:
    return list(open_source("jsonl", path, vocab_size=9, **options).entries)


@pytest.mark.parametrize("form", sorted(SAME))
def test_one_conversation_is_read_from_every_form_by_every_reader(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(SAME[form] | {"reward": 0.5}))
    (labelled,) = read_conversations(path)
    (kept,) = own(path)
    (prompt,) = own(path, with_replies=False)
    assert list(labelled.messages) == list(kept.messages) == [USER, REPLY]
    assert list(prompt.messages) == [USER]
    assert kept.reward == 0.5
    assert labelled.rewarded(1.0) == SAME[form] | {"reward": 1.0}


@pytest.mark.parametrize("suffix", [".json", ".csv", ".tsv", ".parquet", ".jsonl"])
def test_own_data_are_read_from_lists_and_tables_too(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"prompt": "How?", "response": "So,\nor so.", "reward": 0.5, "id": "a", "complete": False},
        {"prompt": "Why?", "response": "Thus.", "reward": -1.0, "id": "b", "complete": True},
    ]
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix in (".json", ".jsonl"):
        text = json.dumps(rows, indent=1) if suffix == ".json" else "\n".join(map(json.dumps, rows))
        path.write_text(text)
    else:
        mark = "," if suffix == ".csv" else "\t"
        cells = [["prompt", "response", "reward", "id", "complete"]]
        cells += [["How?", '"So,\nor so."', "0.5", "a", "false"], ["Why?", "Thus.", "-1", "b", ""]]
        path.write_text("\n".join(mark.join(row) for row in cells))
    found = own(path)
    assert [(one.id, one.reward, one.complete, one.messages[-1]["content"]) for one in found] == [
        ("a", 0.5, False, "So,\nor so."),
        ("b", -1.0, True, "Thus."),
    ]


def test_null_keys_that_arrow_writes_refuse_no_set(tmp_path: Path) -> None:
    rows = [
        {"messages": [USER | {"name": None}, REPLY | {"tool_calls": None}], "reward": 0.5},
        {"messages": [USER | {"name": "Ann"}, REPLY], "reward": 0.5},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    first, second = own(tmp_path / "a.parquet")
    assert isinstance(first, Conversation)
    assert isinstance(second, Rejected)
    assert second.reason == "not a conversation"
    assert "drop ['name']" in second.place


def test_an_unknown_role_is_called_that_and_not_a_missing_reply(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"messages": [USER, {"role": "gpt", "content": "So."}]},
        {"messages": [{"role": "model", "content": "So."}]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = own(path)
    assert [one.reason for one in found] == ["not a conversation"] * 2
    assert "'gpt' is ShareGPT's name of the 'assistant'; rename it" in found[0].place
    reasons = [check_conversation(line.messages) for line in read_conversations(path)]
    assert [reason and reason[0] for reason in reasons] == ["not a conversation"] * 2
    assert "'gpt' is ShareGPT's name of the 'assistant'; rename it" in str(reasons[0])


PAIR = {"prompt": [USER], "chosen": [REPLY], "rejected": [REPLY | {"content": "No."}]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (PAIR, "this is a preference pair.*--format hh-rlhf"),
        ({k: PAIR[k] for k in ("chosen", "rejected")}, "this is a preference pair"),
        ({"prompt": "How?"}, "there is a 'prompt' but no 'response'"),
        ({"messages": [USER, REPLY], "prompt": "Why?"}, "'prompt' and 'messages' differ"),
        ({"messages": [USER, REPLY], "response": "No."}, "'response' and the reply in 'messages' differ"),
        ({"prompt": "How?", "response": "So.", "completion": "No."}, "expected one reply, got"),
        ({"answer": "So."}, r"expected 'messages', or 'prompt' and 'response', got \['answer'\]"),
        ({"prompt": [USER], "completion": [USER]}, "'completion' must be a text, or one message of the"),
    ],
)
def test_rows_that_mean_no_one_conversation_are_refused_by_the_name_of_their_form(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    for read in (own, read_conversations):
        with pytest.raises(ValueError, match=f"a.jsonl, line 1: {message}"):
            list(read(path))


def test_pairs_of_messages_are_two_replies_of_one_group(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    whole = PAIR | {"chosen": [USER, REPLY], "rejected": [USER, REPLY | {"content": "No."}]}
    rows = [PAIR, whole, {k: whole[k] for k in ("chosen", "rejected")}, PAIR | {"chosen": [{"role": "owl"}]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = list(open_source("hh-rlhf", path, vocab_size=9).entries)
    turns = [list(one.messages) for one in found[:6] if isinstance(one, Conversation)]
    assert turns == [[USER, REPLY], [USER, REPLY | {"content": "No."}]] * 3
    assert len({one.group for one in found[:6] if isinstance(one, Conversation)}) == 1
    assert isinstance(found[6], Rejected)
    assert "must have the keys 'role' and 'content'" in found[6].place


@pytest.mark.parametrize("field", ["reward", "prompt", "id"])
def test_a_field_given_twice_is_refused_by_every_reader(tmp_path: Path, field: str) -> None:
    path = tmp_path / "a.jsonl"
    row = json.dumps({"prompt": "a", "response": "b", "reward": 1.0, "id": "c"})
    path.write_text(row + "\n" + row[:-1].replace('"c"', '"d"') + f', "{field}": "e"}}\n')
    for read in (own, read_conversations, lambda p: own(p, with_replies=False)):
        with pytest.raises(ValueError, match=f"a.jsonl, line 2: the fields '{field}' stand there twice"):
            list(read(path))


@given(st.text(min_size=1), st.sampled_from(["id", "group", "prompt", "response", "other"]))
def test_every_reader_takes_any_characters_and_no_halves(
    tmp_path_factory: pytest.TempPathFactory, text: str, field: str
) -> None:
    path = tmp_path_factory.mktemp("texts") / "a.jsonl"
    path.write_text(json.dumps({"prompt": "a", "response": "b"} | {field: text}))
    is_half = any("\ud800" <= character <= "\udfff" for character in json.loads(json.dumps(text)))
    for read in (own, read_conversations):
        if is_half:
            with pytest.raises(ValueError, match=r"a\.jsonl, line 1, column .*half a surrogate pair"):
                list(read(path))
            continue
        for one in read(path):
            json.dumps(getattr(one, "id", None), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.json", b'[{"prompt": "a", "response": "b"}]', "this is one JSON list"),
        ("a.csv", b"prompt,response\na,b\n", "this is CSV"),
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
        ("a.jsonl.gz", b"\x1f\x8b", "compressed file is broken"),
    ],
)
def test_what_cannot_be_repeated_line_by_line_is_refused_by_its_name(
    tmp_path: Path, name: str, content: bytes, form: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: .*{form}"):
        list(read_conversations(tmp_path / name))


def test_tables_of_published_sets_are_read(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("prompt,response,response_harm_label\nHow?,So.,unharmful\nWhy?,,\n")
    found = list(open_source("wildguardmix", tmp_path / "w.csv", vocab_size=9).entries)
    assert isinstance(found[0], Conversation)
    assert list(found[0].messages) == [USER, REPLY]
    assert isinstance(found[1], Rejected)
    (tmp_path / "h.csv").write_text('chosen,rejected\n"\n\nHuman: How?\n\nAssistant: So.",x\n')
    with pytest.raises(ValueError, match=r"h.csv, line 1: HH-RLHF has|the fields"):
        list(open_source("hh-rlhf", tmp_path / "w.csv", vocab_size=9).entries)
    (kept, left) = open_source("hh-rlhf", tmp_path / "h.csv", vocab_size=9).entries
    assert isinstance(kept, Conversation)
    assert isinstance(left, Rejected)


@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_a_system_message_beside_a_finished_conversation_is_not_lost(name: str) -> None:
    rows = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]
    for row in ({"messages": rows}, {"prompt": "How?", "response": "So."}):
        with pytest.raises(ValueError, match=f"'{name}' stands beside .* or drop one of the fields"):
            turns_of(row | {name: "Be brief."})
        assert turns_of(row | {name: None}).reply == "So."
    whole = [{"role": "system", "content": "Be brief."}, *rows]
    assert turns_of({"messages": whole, name: "Be brief."}).prompt == whole[:-1]


HUMAN = {"from": "human", "value": "How?"}
BESIDE: dict[str, tuple[dict[str, Any], str]] = {
    "Alpaca": ({"instruction": "How?", "input": "Three eggs."}, "input"),
    "a list of inputs": ({"instruction": "How?", "input": ["Three eggs."]}, "input"),
    "LLaMA-Factory": ({"instruction": "And then?", "input": "", "history": [["Hi", "Hello"]]}, "history"),
    "MMLU": ({"question": "Which?", "choices": ["Tea", "Milk"], "answer": 1}, "choices"),
    "ARC": ({"question": "Which?", "choices": {"text": ["Tea"], "label": ["A"]}}, "choices"),
    "AQuA": ({"question": "Which?", "options": ["A)1", "B)2"]}, "options"),
    "BoolQ": ({"question": "Is it?", "passage": "It is."}, "passage"),
    "SQuAD": ({"question": "Is it?", "context": "It is.", "answers": {}}, "context"),
    "HotpotQA": ({"question": "Is it?", "Context": ["It is."]}, "Context"),
    "documents": ({"prompt": "Is it?", "documents": [{"title": "It", "text": "It is."}]}, "documents"),
    "OpenOrca": ({"question": "How?", "system_prompt": "Be brief."}, "system_prompt"),
    "a list of system prompts": ({"prompt": "How?", "system_prompt": ["Be brief."]}, "system_prompt"),
    "system_message": ({"prompt": "How?", "System_Message": "Be brief."}, "System_Message"),
    "system in a turn": ({"prompt": [USER], "system_instruction": "How?"}, "system_instruction"),
    "another system message": (
        {"messages": [{"role": "system", "content": "Be kind."}, USER], "system": "Be brief."},
        "system",
    ),
    "Hermes": ({"messages": [USER], "tools": [{"type": "function"}]}, "tools"),
    "printed tools": ({"conversations": [HUMAN], "tools": '[{"name": "f"}]'}, "tools"),
    "functions": ({"messages": [USER], "functions": [{"name": "f"}]}, "functions"),
    "context": ({"messages": [USER], "context": "Three eggs."}, "context"),
    "LLaVA": ({"conversations": [HUMAN], "image": "How?"}, "image"),
    "images": ({"prompt": [USER], "images": [{"bytes": "a", "path": None}]}, "images"),
    "sound": ({"prompt": "How?", "audio": {"array": [0.5]}}, "audio"),
    "smoltalk": (
        {"messages": [USER], "chat_template_kwargs": {"enable_thinking": True}},
        "chat_template_kwargs",
    ),
}


@pytest.mark.parametrize("form", sorted(BESIDE))
def test_what_is_asked_in_another_field_is_refused_by_every_reader(tmp_path: Path, form: str) -> None:
    row, beside = BESIDE[form]
    (name,) = {"prompt", "instruction", "question", "messages", "conversations"} & set(row)
    with pytest.raises(
        ValueError, match=f"'{beside}' stands beside '{name}', .*take one alone: --column {name}"
    ):
        prompt_of(row)
    assert prompt_of(row, column=name)
    # The same of a finished conversation, whose readers know fewer names.
    asked = row[name] if name in ("messages", "conversations", "prompt") else [USER | {"content": row[name]}]
    finished = {key: value for key, value in row.items() if key != name}
    finished |= {"conversations": asked} if name == "conversations" else {"prompt": asked}
    finished["response"] = "So."
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(finished))
    for read in (own, read_conversations, lambda path: own(path, with_replies=False)):
        with pytest.raises(
            ValueError, match=f"a.jsonl, line 1: '{beside}' stands beside .* drop one of the fields"
        ):
            list(read(path))


def test_a_column_of_parquet_that_holds_a_part_of_what_is_asked_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([{"prompt": "How?", "response": "So.", "Context": "Eggs."}]), path)
    for with_replies in (True, False):
        with pytest.raises(ValueError, match=r"a.parquet, row 1: 'Context' stands beside 'prompt'"):
            own(path, with_replies=with_replies)
    pq.write_table(pa.Table.from_pylist([{"question": "How?", "id": "a"}]), path)
    (prompt,) = own(path, with_replies=False)
    assert list(prompt.messages) == [USER]


@pytest.mark.parametrize(
    "beside",
    [
        {"input": "", "history": [], "tools": "[]", "images": None, "choices": {"text": [], "label": []}},
        {"chat_template_kwargs": {"custom_instructions": "", "enable_thinking": False, "xml_tools": []}},
        {"images": [{"bytes": None, "path": None}], "audio": float("nan"), "system": " "},
        {"context": "How", "choices": ["How", "?"]},  # it stands in what is asked
        {"source": {"a": 1}, "score": 0.5, "input_tokens": 7, "context_id": "c", "system_fingerprint": "f"},
    ],
)
def test_empty_fields_and_what_is_said_of_a_row_are_no_part_of_what_is_asked(beside: dict[str, Any]) -> None:
    for row in ({"prompt": "How?"}, {"messages": [USER]}, {"conversations": [HUMAN]}, {"question": "How?"}):
        assert prompt_of(row | beside) == [USER]
    for row in ({"prompt": "How?", "response": "So."}, {"messages": [USER, REPLY]}):
        assert turns_of(row | beside) == Turns([USER], "So.")


def test_a_pair_whose_own_prompt_is_another_is_refused() -> None:
    pair = {"chosen": [USER, REPLY], "rejected": [USER, REPLY | {"content": "No."}]}
    for name in ("question", "instruction", "goal"):
        assert prompt_of(pair | {name: "How?"}) == [USER]
        with pytest.raises(
            ValueError, match=f"'{name}' is not in the prompt that 'chosen' .*--column {name}"
        ):
            prompt_of(pair | {name: "Why?"})
        with pytest.raises(ValueError, match=f"'{name}' is not in the prompt .*; drop one of them"):
            asked_of(pair | {name: "Why?"})
    for row in ({"prompt": "Why?"}, {"prompt": [USER | {"content": "Why?"}]}):
        with pytest.raises(
            ValueError, match="'prompt' and the prompt that 'chosen' and 'rejected' begin with differ"
        ):
            prompt_of(pair | row)
        with pytest.raises(ValueError, match=r"'prompt' and the prompt that 'chosen' .*; drop one of them"):
            turns_of(pair | row | {"response": "So."})
    assert prompt_of(pair | {"prompt": "How?"}) == prompt_of(pair | {"prompt": None}) == [USER]


WHOLE = "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [USER], "completion": "So."}, "So."),
        ({"messages": [USER], "response": "So."}, "So."),
        ({"messages": [USER], "completion": [REPLY]}, "So."),
        ({"messages": [USER], "response": "", "completion": None}, None),
        ({"messages": [USER, REPLY], "completion": "So.", "response": "", "output": None}, "So."),
        ({"messages": [USER, REPLY], "text": WHOLE}, "So."),
        ({"conversations": [HUMAN, {"from": "gpt", "value": "So."}], "output": "So."}, "So."),
        ({"prompt": "How?", "response": "So.", "text": None}, "So."),
        ({"prompt": "How?", "response": "So.", "completion": [REPLY]}, "So."),
        (
            {"messages": [USER, REPLY], "completion": "OTHER"},
            "'completion' and the reply in 'messages' differ",
        ),
        ({"messages": [USER, REPLY], "text": "OTHER"}, "'text' and the reply in 'messages' differ"),
        ({"messages": [], "response": "a"}, "'response' and the reply in 'messages' differ"),
        (
            {"messages": [USER], "response": "a", "completion": "b"},
            "'completion' and the reply in 'messages'",
        ),
        (
            {"conversations": [HUMAN], "output": "b"},
            "'output' stands beside 'conversations', which end without",
        ),
        ({"messages": [USER], "text": "b"}, "'text' stands beside 'messages', .* call it 'response'"),
    ],
)
def test_a_reply_beside_messages_is_theirs_or_refused(row: dict[str, Any], expected: str | None) -> None:
    assert asked_of(row) == ([USER] if row.get("messages") != [] else [])
    if expected in ("So.", None):
        assert turns_of(row) == Turns([USER], expected)
    else:
        with pytest.raises(ValueError, match=expected):
            turns_of(row)


@pytest.mark.parametrize("content", ["", " ", "\n\t"])
@pytest.mark.parametrize("field", ["messages", "prompt", "conversations", "chosen"])
def test_a_turn_in_which_nothing_is_asked_is_no_prompt_in_any_form(field: str, content: str) -> None:
    blank = USER | {"content": content}
    for messages, place in (([blank], 0), ([USER, REPLY, blank], 2), ([blank, REPLY, USER], 0)):
        row: dict[str, Any] = {field: messages}
        if field == "chosen":
            row = {"chosen": [*messages, REPLY], "rejected": [*messages, REPLY]}
        if field == "conversations":
            row = {field: [{"from": one["role"], "value": one["content"]} for one in messages]}
        with pytest.raises(ValueError, match=rf"p.jsonl, line 1: messages\[{place}\]: the user says nothing"):
            parse_prompts(json.dumps(row).encode(), "p.jsonl")


def test_a_transcript_of_hh_rlhf_is_its_turns_for_every_reader(tmp_path: Path) -> None:
    text = "\n\nHuman: How?\n\nAssistant: So.\n\nHuman: Why? \n\nAssistant:"
    turns = [USER, REPLY, {"role": "user", "content": "Why?"}]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": text, "response": "So."}))
    found = parse_prompts(path.read_bytes(), "a.jsonl")
    assert [list(prompt.messages) for prompt in found] == [turns]
    assert found.form == "JSONL, 1 of them transcripts of Human and Assistant"
    (kept,), (prompt,), (labelled,) = own(path), own(path, with_replies=False), read_conversations(path)
    assert list(kept.messages) == labelled.messages == [*turns, REPLY]
    assert list(prompt.messages) == turns
    for other in (
        "Human: How?",
        "Human: is that you?\n\nAssistant: no",
        "How?\n\nAssistant:",
        "A\n\nHuman: b",
    ):
        content = json.dumps({"prompt": other}).encode()
        found = parse_prompts(content, "a.jsonl")
        assert [list(prompt.messages) for prompt in found] == [[{"role": "user", "content": other}]]
        assert found.form == "JSONL"
