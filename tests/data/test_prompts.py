"""Files of prompts: any name, any form, any encoding; and what is none of them is refused by name."""

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sia_jax.data.prompts import parse_prompts, read_prompts, text_prompts

QUESTIONS = ("How do I boil an egg?", 'Say "tea", twice', "Which bus goes to the station? 🚌")


def table(rows: Sequence[Sequence[str]], delimiter: str = ",", end: str = "\r\n") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    return text.getvalue()


def contents(content: bytes, name: str = "p.txt", **options: Any) -> list[str]:
    """The last message of each prompt."""
    return [
        prompt.messages[-1]["content"]
        for prompt in parse_prompts(content, name, **options)
        if prompt.messages
    ]


def form(content: str, name: str, **options: Any) -> str:
    return parse_prompts(content.encode(), name, **options).form


FORMS: dict[str, Callable[[Sequence[str]], str]] = {
    "JSONL": lambda texts: "".join(json.dumps({"prompt": text}) + "\n" for text in texts),
    "JSONL of messages": lambda texts: "\n".join(
        json.dumps({"messages": [{"role": "user", "content": text}]}, ensure_ascii=False) for text in texts
    ),
    "JSONL of texts": lambda texts: "\n".join(json.dumps(text) for text in texts),
    "ShareGPT": lambda texts: "\n".join(
        json.dumps({"conversations": [{"from": "human", "value": text}]}) for text in texts
    ),
    "TRL": lambda texts: "\n".join(
        json.dumps({"prompt": [{"role": "user", "content": text, "name": None}]}) for text in texts
    ),
    "a JSON list": lambda texts: json.dumps([{"prompt": text, "target": "Sure"} for text in texts]),
    "a JSON list over lines": lambda texts: json.dumps([{"goal": text} for text in texts], indent=1),
    "a JSON list of texts": lambda texts: json.dumps(list(texts), indent=2),
    "CSV": lambda texts: table([("goal", "target"), *((text, "Sure, here") for text in texts)]),
    "TSV": lambda texts: table([("id", "prompt"), *((str(i), t) for i, t in enumerate(texts))], "\t"),
    "semicolons": lambda texts: table([("Question", "Answer"), *((text, "") for text in texts)], ";"),
}
TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip),
    min_size=2,
    max_size=4,
)
SUFFIXES = (
    "",
    ".txt",
    ".jsonl",
    ".json",
    ".ndjson",
    ".csv",
    ".tsv",
    ".val",
    ".jsonl.txt",
    ".CSV",
    ".prompts",
)


@given(TEXTS, st.sampled_from(sorted(FORMS)), st.sampled_from(SUFFIXES), st.booleans(), st.booleans())
@settings(max_examples=300)
def test_prompts_are_read_or_refused_by_name_whatever_form_stands_under_whatever_suffix(
    texts: list[str], kind: str, suffix: str, mark: bool, packed: bool
) -> None:
    # A column of quoted cells is CSV, whatever it would be as JSON.
    assume(kind != "JSONL of texts" or suffix.lower() not in (".csv", ".tsv"))
    content = FORMS[kind](texts).encode()
    content = (b"\xef\xbb\xbf" if mark else b"") + content
    content = gzip.compress(content) if packed else content
    name = f"p{suffix}{'.gz' if packed else ''}"
    try:
        found = parse_prompts(content, name)
    except ValueError as error:
        refused = str(error)
    else:
        assert [prompt.messages[-1]["content"] for prompt in found if prompt.messages] == texts
        return
    assert refused.startswith(name)
    assert kind in ("CSV", "TSV", "semicolons")
    assert suffix in (".jsonl", ".json", ".ndjson")


@pytest.mark.parametrize("kind", sorted(FORMS))
def test_every_form_is_read_under_its_own_name_and_under_none(kind: str) -> None:
    text = FORMS[kind](QUESTIONS)
    own = {"CSV": ".csv", "TSV": ".tsv", "semicolons": ".csv"}.get(kind, ".jsonl")
    for suffix in (own, "", ".txt"):
        assert contents(text.encode(), f"p{suffix}") == list(QUESTIONS), suffix


def test_the_form_is_said() -> None:
    cases = {
        ("How?\nWhy?", "p.txt"): "text, a prompt a line",
        ('{"prompt": "How?"}', "p.txt"): "JSONL",
        ('[{"prompt": "How?"}]', "p.json"): "a JSON list",
        ("goal,target\nHow?,Sure", "p.csv"): "CSV, column goal",
        ("Goal\ttarget\nHow?\tSure", "p"): "TSV, column Goal",
        ('"How, and why?"\nWhen is it?', "p.csv"): "CSV without a header",
        ("How?,Sure", "p.csv"): None,
    }
    for (text, name), expected in cases.items():
        if expected is None:
            with pytest.raises(
                ValueError, match=r"p\.csv, line 1: no column of prompts among \['How\?', 'Sure'\]"
            ):
                form(text, name)
        else:
            assert form(text, name) == expected
    assert form("a,b\nHow?,Sure", "p.csv", column="A") == "CSV, column a"
    assert form('{"ask": "How?"}', "p.jsonl", column="ask") == "JSONL, field ask"


def test_cells_hold_quotes_delimiters_and_ends_of_lines() -> None:
    rows = [("prompt", "note"), ('Say "a, b"', "x"), ("Two\nlines\r\nand a third", ""), ("  spaces ", "")]
    for end in ("\n", "\r\n"):
        for mark in ("", "\ufeff"):
            content = (mark + table(rows, end=end)).encode()
            assert contents(content, "p.csv") == [row[0] for row in rows[1:]]


def test_errors_of_tables_name_the_line_they_begin_at() -> None:
    cases = {
        'prompt,note\n"Two\nlines",x\nHow?,y,z\n': "line 4: 3 cells, the first line has 2",
        'prompt,note\nHow?,"open': "line 2: not CSV",
        'prompt,note\n"How"?,x': "line 2: not CSV",
        "prompt,note\n\n ,x": "line 3: 'prompt': a prompt must be a text that is not empty",
        "prompt,prompt\na,b": r"line 1: columns of one name: \['prompt'\]",
        "prompt,seed\nHow?,x": "line 2: 'seed' must be a number, got 'x'",
        "prompt,seed\nHow?,-1": "line 2: seed must be an integer in 0",
        "prompt,id\nHow?,a\nWhy?,a": "line 3: id 'a' is that of line 2 already",
        "prompt,threshold\nHow?,nan": "line 2: 'threshold' must be a number",
        "question,instruction\na,b": r"line 2: the prompt might stand in any of .*'question'\]",
        "sentence\nHow do I boil an egg?": r"line 1: no column .* among \['sentence'\].*--column NAME",
        "How?,Why?\na,b": "line 1: no column of prompts.*by its number, from 1",
        "prompt,note": "there are no prompts in it",
    }
    for text, message in cases.items():
        with pytest.raises(ValueError, match=rf"^p\.csv.*{message}"):
            parse_prompts(text.encode(), "p.csv")


def test_a_column_is_chosen_by_name_or_by_number_in_every_form() -> None:
    text = "Index,Ask,prompt\n1,How?,no\n2,Why?,no\n"
    assert contents(text.encode(), "p.csv", column="Ask") == ["How?", "Why?"]
    assert contents(text.encode(), "p.csv", column="ask") == ["How?", "Why?"]
    assert contents(b"How?,Sure\nWhy?,No\n", "p.csv", column="1") == ["How?", "Why?"]
    assert contents(b"How?,Sure\nWhy?,No\n", "p.csv", column="2") == ["Sure", "No"]
    assert contents(b"sentence\nHow?\n", "p.csv", column="1") == ["sentence", "How?"]
    row = {"prompt": "How?", "messages": [{"role": "user", "content": "Why?"}], "other": "When?"}
    content = json.dumps(row).encode()
    for column, expected in (("prompt", "How?"), ("messages", "Why?"), ("other", "When?")):
        assert contents(content, "p.jsonl", column=column) == [expected]
    with pytest.raises(
        ValueError, match=r"p.jsonl, line 1: there is no column 'ask', only \['messages', 'other'"
    ):
        parse_prompts(content, "p.jsonl", column="ask")
    with pytest.raises(ValueError, match=r"p.csv, line 1: there is no column '4', only .*by its number"):
        parse_prompts(text.encode(), "p.csv", column="4")


def test_columns_of_published_sets_are_known() -> None:
    headers = {
        "goal,target": 0,
        "Index,Goal,Target,Behavior,Category,Source": 1,
        "Type,Category,Question,Best Answer,Correct Answers": 2,
        "Behavior,FunctionalCategory,SemanticCategory": 0,
        "instruction,output": 0,
        "id,type,prompt,label": 2,
        "category,source,forbidden_prompt": 2,
    }
    for header, place in headers.items():
        names = header.split(",")
        cells = [f"cell {i}" for i in range(len(names))]
        text = table([names, cells])
        assert contents(text.encode(), "p.csv") == [f"cell {place}"], header
        content = json.dumps([dict(zip(names, cells, strict=True))]).encode()
        assert contents(content, "p.json") == [f"cell {place}"], header


def test_id_seed_and_threshold_mean_the_same_in_every_form(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "How?", "seed": 5, "threshold": 1.5}, {"id": "b", "prompt": "Why?"}]
    text = "id,prompt,seed,threshold\na,How?,5,1.5\nb,Why?,,\n"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    (tmp_path / "p.csv").write_text(text)
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one, *others = (read_prompts(tmp_path / f"p.{suffix}") for suffix in ("jsonl", "csv", "parquet"))
    assert [(p.id, p.seed, p.threshold) for p in one] == [("a", 5, 1.5), ("b", None, None)]
    assert all(other.prompts == one.prompts for other in others)
    assert others[1].form == "Parquet, column prompt"


def test_prompts_of_pairs_and_of_finished_conversations_are_read_where_there_is_one() -> None:
    user, reply = {"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}
    other = {"role": "assistant", "content": "No."}
    for row in (
        {"prompt": "How?", "messages": [user, reply]},
        {"prompt": [user], "chosen": [reply], "rejected": [other]},
        {"prompt": "How?", "chosen": [user, reply], "rejected": [user, other], "messages": [user, reply]},
        {"chosen": [user, reply], "rejected": [user, other]},
        {"conversations": [{"from": "human", "value": "How?"}]},
        {"messages": [user | {"tool_calls": None, "name": None}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "How?"}]}]},
    ):
        assert contents(json.dumps(row).encode(), "p.jsonl") == ["How?"], row
    for row, message in (
        (
            {"prompt": "Why?", "messages": [user]},
            "'prompt' and 'messages' differ .*--column prompt or --column mess",
        ),
        ({"chosen": [user, reply], "rejected": [reply]}, "do not begin with one prompt"),
        ({"messages": [user, reply]}, "messages end with the assistant, expected the user"),
        ({"messages": [user, reply], "conversations": [user]}, "expected one conversation"),
        ({"chosen": "\n\nHuman: How?", "rejected": ""}, "name the prompt's column"),
    ):
        with pytest.raises(ValueError, match=f"p.jsonl, line 1: .*{message}"):
            parse_prompts(json.dumps(row).encode(), "p.jsonl")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"role": "human", "content": "a"}, "'human' is ShareGPT's and Anthropic's name of the 'user'"),
        ({"role": "gpt", "content": "a"}, "'gpt' is ShareGPT's name of the 'assistant'"),
        ({"role": "model", "content": "a"}, "'model' is Gemini's and Gemma's name of the 'assistant'"),
        ({"role": "developer", "content": "a"}, "'developer' is OpenAI's name of the 'system'"),
        ({"role": "tool", "content": "a"}, "replies of tools are no part"),
        ({"role": "User", "content": "a"}, "write it in lower case"),
        ({"role": "owl", "content": "a"}, "has role 'owl', expected 'system', 'user' or 'assistant'$"),
        ({"role": "user", "content": "a", "name": "b"}, r"drop \['name'\], or leave the conversation out"),
        ({"role": "user", "content": 5}, "content must be a text, got a number"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "got a list of 1 parts"),
        ({"role": 5, "content": "a"}, "role must be a text, got a number"),
        ({"from": "owl", "value": "a"}, "is from 'owl', and ShareGPT's speakers are"),
        ({"from": "human", "value": "a", "weight": 1}, "has the keys 'from' and 'value' alone"),
        ({"content": "a"}, "must have the keys 'role' and 'content'"),
    ],
)
def test_messages_of_another_form_are_explained(message: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=rf"p\.jsonl, line 1: messages\[0\].*{why}"):
        parse_prompts(json.dumps({"messages": [message]}).encode(), "p.jsonl")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"PK\x03\x04....", "p.xlsx", r"a zip archive \(.xlsx, .*save the table as CSV"),
        (b"PK\x03\x04....", "p.csv", r"a zip archive \(.xlsx, .*save the table as CSV"),
        (b"\xd0\xcf\x11\xe0....", "p.xls", "an old Office document"),
        (b"ARROW1..", "p", "an Arrow or Feather file"),
        (b"\xff\xff\xff\xff..", "p.arrow", "an Arrow stream"),
        (b"\x28\xb5\x2f\xfd....", "p.jsonl.zst", "compressed with zstd"),
        (b"BZh9....", "p.jsonl.bz2", "compressed with bzip2"),
        (b"SQLite format 3\0", "p.db", "a SQLite database"),
        (b"%PDF-1.5", "p.pdf", "a PDF document"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "p.csv", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html>\n<html>", "p.jsonl", "HTML or XML, perhaps a page about the file"),
        (b"- How?\n- Why?\n", "p.yaml", r"\.yaml is YAML, which is not read"),
        (b"print('a')\n", "p.py", r"\.py is a program, which is not read"),
        ("How?\n".encode("utf-16"), "p.txt", "UTF-16"),
        ("prompt\nHow?\n".encode("utf-16"), "p.csv", "UTF-16"),
        ("How?\n".encode("utf-16-le"), "p.txt", "UTF-16, or no text at all"),
        ("Tür?\n".encode("latin-1"), "p.txt", r"line 1, column 2: not UTF-8 \(byte 0xfc; perhaps Latin-1"),
        ("goal,b\nTür?,a\n".encode("latin-1"), "p.csv", r"line 2, column 2: not UTF-8"),
        (b'How?\n\n{"prompt": "Why?"}\n', "p.txt", "line 2 of those that are not blank is JSON"),
        (b'{"prompt": "How?",\n "id": 1}\n', "p.txt", "line 1, column 19: not JSON"),
        (b'[{"prompt": "How?"},\n', "p.txt", "line 2, column 1: not JSON"),
        (b'{"data": 5}', "p.json", r"line 1: expected {\"prompt\".*, got \['data'\]"),
        (b"[5]", "p.json", "row 1: expected an object like .*, got a number"),
        (b"[]", "p.json", "there are no prompts in it"),
        (b"", "p.txt", "there are no prompts in it"),
        (b"\xef\xbb\xbf\n \n", "p.csv", "there are no prompts in it"),
        (b"PAR1 and no more", "p.txt", "cannot be read as Parquet"),
        (
            gzip.compress(b"How?\n" * 9, mtime=0)[:-5],
            "p.txt.gz",
            "the compressed file is broken or cut short",
        ),
        (b'{"prompt": "a", "prompt": "b"}', "p.jsonl", "the fields 'prompt' stand there twice"),
        (b'{"prompt": "half \\ud83d"}', "p.jsonl", "half a surrogate pair"),
        (b'{"prompt": "a", "id": "\\ude00"}', "p.jsonl", "half a surrogate pair"),
    ],
)
def test_what_is_no_file_of_prompts_is_refused_by_name(content: bytes, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(name)}.*{message}"):
        parse_prompts(content, name)


def test_a_text_may_begin_with_a_bracket_a_quote_or_a_brace() -> None:
    for text in ("[INST] How? [/INST]", "{name}, how are you?", '"How?" is a question', "(a) or (b)?"):
        assert contents(f"{text}\nWhy?\n".encode()) == [text, "Why?"]


def test_lines_of_text_end_as_any_system_ends_them() -> None:
    for end in ("\n", "\r\n", "\r"):
        assert contents(end.join(["How?", "", "Why? \u2028 So."]).encode()) == ["How?", "Why? \u2028 So."]


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.csv").symlink_to("gone.csv")
    for name, kind, message in (
        ("gone.csv", FileNotFoundError, "no such file of prompts"),
        ("link.csv", FileNotFoundError, "is a link to gone.csv, where nothing is"),
        ("", IsADirectoryError, "this is a folder"),
        ("pipe", ValueError, "a pipe or a device"),
    ):
        with pytest.raises(kind, match=message):
            read_prompts(tmp_path / name)


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1))
def test_ids_and_texts_are_any_characters_and_no_halves(text: str, name: str) -> None:
    content = json.dumps({"prompt": text, "id": name}).encode()
    is_half = any(
        "\ud800" <= character <= "\udfff" for character in json.loads(json.dumps(text + "|" + name))
    )
    if is_half:
        with pytest.raises(
            ValueError, match=r"^p\.jsonl, line 1, column \d+: a text holds half a surrogate pair"
        ):
            parse_prompts(content, "p.jsonl")
    else:
        (prompt,) = parse_prompts(content, "p.jsonl")
        assert (prompt.id, prompt.messages) == (name, ({"role": "user", "content": text},))


def test_texts_of_a_program_are_checked_as_those_of_files() -> None:
    with pytest.raises(ValueError, match="half a surrogate pair"):
        text_prompts(["half \ud83d"])
    with pytest.raises(ValueError, match="a prompt must be a text that is not empty"):
        text_prompts(["How?", " "])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{]", r"column 2: not JSON \(expecting property name"),
        ("[]", "line 3: expected an object"),
        ('{"text": "a"}', r"line 3: expected {\"prompt\".*, got \['text'\]"),
        ('{"prompt": "a", "messages": []}', "'prompt' and 'messages' differ"),
        ('{"prompt": "a", "prompt_ids": [1]}', "expected one of 'prompt', 'messages' and 'prompt_ids'"),
        ('{"prompt": 3}', "line 3: 'prompt': a prompt must be a text"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', r"messages\[0\] is from the assistant"),
        ('{"prompt": "a", "threshold": NaN}', "column 30: NaN is not a finite number"),
        ('{"prompt": "a", "threshold": "high"}', "threshold must be a number"),
        ('{"prompt": "a", "seed": 1.5}', "seed must be an integer"),
        ('{"prompt": "a", "id": "x"}', "line 3: id 'x' is that of line 1 already"),
        ('{"prompt": "a", "id": []}', "id must be a string"),
        ('{"prompt_ids": []}', "prompt_ids must be a list of ids"),
        ('{"prompt_ids": [1, -1]}', "prompt_ids must be a list of ids"),
        ('{"prompt_ids": [1], "value_ids": "1"}', "value_ids must be a list of ids"),
        ('{"prompt": "a", "value_ids": [1]}', "'value_ids' belong beside 'prompt_ids'"),
        ('{"prompt": "a\\ud800"}', "half a surrogate pair"),
        ('{"prompt": "\xff"}', "column 13: not UTF-8"),
        ('{"a": ' + 100_000 * "[", "column 106: nested more than 100 deep"),
    ],
)
def test_a_bad_line(line: str, message: str) -> None:
    content = b'{"prompt": "Hello", "id": "x"}\n\n' + line.encode("latin-1")
    with pytest.raises(ValueError, match=f"^file.jsonl, line 3[:,] .*{message.removeprefix('line 3: ')}"):
        parse_prompts(content, "file.jsonl")


@pytest.mark.parametrize("name", ["p.JSONL", "p.ndjson", "p.json"])
def test_files_of_json_lines_by_any_of_their_names(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text('{"prompt": "Hello"}\n')
    (prompt,) = read_prompts(path)
    assert prompt.messages == ({"role": "user", "content": "Hello"},)


def test_system_messages() -> None:
    content = (
        b'\xef\xbb\xbf{"prompt": "Hello"}\r\n'
        b'{"messages": [{"role": "system", "content": "A"}, {"role": "user", "content": "B"}]}'
    )
    prompts = parse_prompts(content, "file", system="S")
    assert [[m["content"] for m in prompt.messages or ()] for prompt in prompts] == [
        ["S", "Hello"],
        ["A", "B"],
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("| prompt | label |\n|---|:-:|\n| How? | a |\n", "a table of Markdown"),
        ("prompt | label\n--- | ---\nHow? | a\n", "a table of Markdown"),
        ("{'prompt': 'How?'}\n{'prompt': 'Why?'}\n", "what Python prints"),
        ("['How?', 'Why?']", "what Python prints"),
        ('{prompt: "How?"}', "JSON without quotes around its keys"),
        ("- prompt: How?\n- prompt: Why?\n", "YAML"),
        ("---\nprompts:\n  - How?\n", "YAML"),
        ("<!-- saved from a page -->\n<p>How?</p>", "HTML or XML"),
        ("\x04\x22\x4d\x18....", "compressed with lz4"),
    ],
)
def test_text_that_has_rows_of_a_form_that_is_not_read_is_refused_by_name(text: str, what: str) -> None:
    for name in ("p", "p.txt", "p.md"):
        with pytest.raises(ValueError, match=f"^{name}: this is {what}"):
            parse_prompts(text.encode(), name)


def test_text_that_only_begins_like_another_form_is_text() -> None:
    for text in ("- How?\n- Why?", "{name} asks: how?\nWhy?", "[1] How?\nWhy?", "a | b?\nWhy?", "---\nHow?"):
        assert contents(text.encode()) == text.split("\n")


def test_bars_delimit_columns_and_a_line_of_excel_names_the_delimiter_under_any_name() -> None:
    for name in ("p", "p.csv", "p.txt"):
        assert contents(b"id|prompt\n1|How?\n2|Why?\n", name) == ["How?", "Why?"]
        assert contents(b"sep=;\nprompt;label\nHow?;a\n", name) == ["How?"]


def test_marks_of_byte_order_are_no_part_of_lines_of_text() -> None:
    mark = "\ufeff".encode()
    assert contents(mark + mark + b"How?\n" + mark + b"Why?\n") == ["How?", "Why?"]


def test_a_column_is_never_asked_for_in_vain() -> None:
    with pytest.raises(ValueError, match="this is text, a prompt a line, and has no column 'goal'"):
        parse_prompts(b"How?\nWhy?\n", "p.txt", column="goal")
    with pytest.raises(ValueError, match=r"line 1: .* by its number, and the first line is a header; name"):
        parse_prompts(b"id,prompt\n1,How?\n", "p.csv", column="2")


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("instruction", "input"),
        ("instruction", "context"),
        ("Behavior", "ContextString"),
        ("question", "system_prompt"),
        ("prompt", "system"),
    ],
)
def test_a_part_of_what_is_asked_that_stands_in_another_field_is_not_lost(name: str, beside: str) -> None:
    for content, file in (
        (json.dumps({name: "How?", beside: "Three eggs."}), "p.jsonl"),
        (table([(name, beside), ("How?", "Three eggs.")]), "p.csv"),
    ):
        with pytest.raises(ValueError, match=f"'{beside}' stands beside '{name}'.*--column {name}"):
            parse_prompts(content.encode(), file)
        assert contents(content.encode(), file, column=name) == ["How?"]
    assert contents(json.dumps({name: "How?", beside: ""}).encode()) == ["How?"]


def test_a_system_message_beside_a_conversation_is_not_lost() -> None:
    row = {"system": "Be brief.", "conversations": [{"from": "human", "value": "How?"}]}
    with pytest.raises(ValueError, match="'system' stands beside 'conversations'"):
        parse_prompts(json.dumps(row).encode(), "p.jsonl")
    assert contents(json.dumps(row).encode(), column="conversations") == ["How?"]


def test_messages_that_were_printed_into_a_text_are_no_prompt() -> None:
    messages = [{"role": "user", "content": "How?"}]
    for text in (json.dumps(messages), str(messages), str([{"from": "human", "value": "How?"}])):
        for content, file in ((json.dumps({"prompt": text}), "p"), (table([("prompt",), (text,)]), "p.csv")):
            with pytest.raises(ValueError, match="'prompt' is a text that looks like a printed list"):
                parse_prompts(content.encode(), file)


def test_one_text_is_no_list_of_prompts() -> None:
    for texts in ("How?", b"How?", {"prompt": "How?"}):
        with pytest.raises(ValueError, match="prompts must be a list of texts, got"):
            text_prompts(texts)


def test_two_columns_of_one_name_are_refused_in_parquet_too(tmp_path: Path) -> None:
    columns = pa.table([pa.array(["How?"]), pa.array(["Why?"])], names=["prompt", "prompt"])
    pq.write_table(columns, tmp_path / "p.parquet")
    with pytest.raises(ValueError, match=r"p\.parquet: columns of one name: \['prompt'\]"):
        read_prompts(tmp_path / "p.parquet")


def test_an_object_of_several_lines_is_called_so() -> None:
    for name in ("p.json", "p.jsonl", "p.txt"):
        with pytest.raises(ValueError, match="line 1: here begins an object of several lines; write each"):
            parse_prompts(json.dumps({"prompt": "How?"}, indent=2).encode(), name)
