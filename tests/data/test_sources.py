"""Readers of raw data: every reply or a reason, and files that are not what they claim by name and line."""

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sia_jax.data.conversations import read_conversations
from sia_jax.data.records import Record
from sia_jax.data.row_files import json_line
from sia_jax.data.sources.conversations import Conversation, Rejected, prompt_group
from sia_jax.data.sources.hh_rlhf import parse_transcript
from sia_jax.data.sources.own import FAILED
from sia_jax.decoding.state import FinishReason
from tests.support.sources import read, reasons, user

LABELS = {"prompt": "Which bus?", "response": "The 14.", "response_harm_label": "unharmful"}


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def turns(found: Conversation | Rejected | Record) -> list[dict[str, str]]:
    assert isinstance(found, Conversation), found
    return list(found.messages)


# UltraFeedback


def feedback(instruction: Any, *responses: Any, system: str | None = "Be kind.") -> dict[str, Any]:
    completions = [{"model": "m", "custom_system_prompt": system, "response": r} for r in responses]
    return {"source": "invented", "instruction": instruction, "completions": completions}


def test_every_completion_of_ultrafeedback_is_a_reply_under_its_system_prompt(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "flan.jsonl", [feedback("One?", "One.", " 1\n"), feedback("Two?", "Two.")])
    found = read("ultrafeedback", path)
    assert [turns(one) for one in found] == [
        user("One?", "One.", system="Be kind."),
        user("One?", " 1\n", system="Be kind."),
        user("Two?", "Two.", system="Be kind."),
    ]
    assert [one.id for one in found] == ["flan.jsonl:1:1", "flan.jsonl:1:2", "flan.jsonl:2:1"]
    assert found[0].group == found[1].group != found[2].group
    assert all(one.reward is None and one.complete for one in found)


def test_ultrafeedback_without_system_prompts_is_what_the_official_code_reads(tmp_path: Path) -> None:
    rows = [
        feedback("One?", "One."),
        feedback("Two?", "Two.", system="  "),
        feedback("3?", "3.", system=None),
    ]
    path = write_lines(tmp_path / "a.jsonl", rows)
    dropped = read("ultrafeedback", path, system_prompts=False)
    assert [turns(one) for one in dropped] == [user("One?", "One."), user("Two?", "Two."), user("3?", "3.")]
    kept = read("ultrafeedback", path)
    assert [len(turns(one)) for one in kept] == [3, 2, 2]
    # Whatever the system prompt, it is one question.
    assert [one.group for one in kept] == [one.group for one in dropped]


def test_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_lines(tmp_path / f"{name}.jsonl", [feedback(name, "yes")])
    (tmp_path / "README.md").write_text("not data")
    assert [one.id for one in read("ultrafeedback", tmp_path)] == [f"{n}.jsonl:1:1" for n in "abc"]


@pytest.mark.parametrize("upper", [False, True])
def test_every_file_of_a_folder_that_would_be_read_by_its_name_is_read(tmp_path: Path, upper: bool) -> None:
    row = {"prompt": "How?", "response": "So."}
    text = json.dumps(row).encode()
    contents = {
        **{f"{name}.jsonl": text for name in ("a", "b.x")},
        **{"c.ndjson": text, "d.json": b"[" + text + b"]", "e.jsonl.gz": gzip.compress(text)},
        **{"f.csv": b"prompt,response\nHow?,So.\n", "g.tsv": b"prompt\tresponse\nHow?\tSo.\n"},
        **{"h.csv.gz": gzip.compress(b"prompt;response\nHow?;So.\n")},
    }
    write_parquet(tmp_path / "i.parquet", [row])
    for name, content in contents.items():
        (tmp_path / (name.upper() if upper else name)).write_bytes(content)
    others = ("README.md", "LICENSE", ".gitattributes", ".x.jsonl", "dataset_infos.json", "n.txt")
    for name in others:
        (tmp_path / name).write_text("not data")
    (tmp_path / "sub.jsonl").mkdir()
    found = read("jsonl", tmp_path)
    assert [turns(one) for one in found] == [user("How?", "So.")] * 9
    for name in ("j.jsonl.zst", "j.XLSX", "data-00000-of-00001.arrow", "j.tar.gz"):
        (tmp_path / name).write_text("")
        with pytest.raises(ValueError, match=f"would be left out: .'{name}'.; unpack them"):
            read("jsonl", tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "gone.jsonl").symlink_to("blobs/gone")
    with pytest.raises(
        FileNotFoundError, match=r"gone\.jsonl: the file is a link to blobs/gone, where nothing is"
    ):
        read("jsonl", tmp_path)


def test_completions_that_are_no_replies_are_rejected_by_reason(tmp_path: Path) -> None:
    rows = [
        feedback("One?", "", None, " \n"),
        feedback("Two?"),
        feedback("", "Reply."),
        feedback(None, "Reply."),
    ]
    path = write_lines(tmp_path / "a.jsonl", rows)
    assert reasons(read("ultrafeedback", path)) == [
        *[("no reply", f"a.jsonl, line 1, completion {i}") for i in (1, 2, 3)],
        ("no reply", "a.jsonl, line 2"),
        ("empty prompt", "a.jsonl, line 3, completion 1"),
        ("empty prompt", "a.jsonl, line 4, completion 1"),
    ]


# WildGuardMix


def test_labelled_rows_of_wildguardmix_are_replies(tmp_path: Path) -> None:
    rows = [
        LABELS,
        LABELS | {"response": None, "response_harm_label": None},
        LABELS | {"response": "Take the tram.", "subcategory": "other"},
        LABELS | {"response": None},
        LABELS | {"response": ""},
        LABELS | {"prompt": " "},
    ]
    found = read("wildguardmix", write_parquet(tmp_path / "train.parquet", rows))
    assert [turns(one) for one in (found[0], found[2])] == [
        user("Which bus?", "The 14."),
        user("Which bus?", "Take the tram."),
    ]
    assert [one.id for one in (found[0], found[2])] == ["train.parquet:1", "train.parquet:3"]
    assert found[0].group == found[2].group == prompt_group(user("Which bus?"))
    assert reasons(found) == [
        ("no response_harm_label", "train.parquet, row 2"),
        ("no reply", "train.parquet, row 4"),
        ("no reply", "train.parquet, row 5"),
        ("empty prompt", "train.parquet, row 6"),
    ]


def test_rows_of_parquet_are_numbered_across_batches(tmp_path: Path) -> None:
    rows = [LABELS | {"response": f"Bus {i}."} for i in range(2500)]
    found = read("wildguardmix", write_parquet(tmp_path / "a.parquet", rows))
    assert [turns(one)[-1]["content"] for one in found] == [f"Bus {i}." for i in range(2500)]
    assert found[-1].id == "a.parquet:2500"


# HH-RLHF


def test_a_transcript_has_all_its_turns() -> None:
    text = "\n\nHuman: One?\n\nAssistant: One.\n\nIndeed. \n\nHuman:Two?\n\nAssistant: Two. "
    assert parse_transcript(text) == user("One?", "One.\n\nIndeed.", "Two?", "Two.")
    assert parse_transcript("Human: a Human: in the line\n\nAssistant:") == user("a Human: in the line", "")


TRANSCRIPT = "\n\nHuman: One?\n\nAssistant: One.\n\nHuman: Two?\n\nAssistant:"


@pytest.mark.parametrize("container", ["jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("form", ["Dahoas", "Anthropic"])
def test_both_replies_of_hh_rlhf_are_of_one_group(tmp_path: Path, container: str, form: str) -> None:
    rows = [
        {"prompt": TRANSCRIPT, "response": " Two.", "chosen": " Two.", "rejected": " No.\n\nNever. "},
        {
            "prompt": "\n\nHuman: Tea?\n\nAssistant:",
            "response": " Yes.",
            "chosen": " Yes.",
            "rejected": " Tea.",
        },
    ]
    if form == "Anthropic":
        rows = [{k: row["prompt"] + row[k] for k in ("chosen", "rejected")} for row in rows]
    path = tmp_path / f"train.{container}"
    if container == "parquet":
        write_parquet(path, rows)
    elif container == "jsonl":
        write_lines(path, rows)
    else:
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    found = read("hh-rlhf", path)
    prompt = ("One?", "One.", "Two?")
    assert [turns(one) for one in found] == [
        user(*prompt, "Two."),
        user(*prompt, "No.\n\nNever."),
        user("Tea?", "Yes."),
        user("Tea?", "Tea."),
    ]
    assert [one.id for one in found] == [
        f"{path.name}:{i}:{kind}" for i in (1, 2) for kind in ("chosen", "rejected")
    ]
    assert found[0].group == found[1].group == prompt_group(user(*prompt)) != found[2].group


def test_a_response_that_is_neither_chosen_nor_rejected_is_a_third_reply(tmp_path: Path) -> None:
    rows = [{"prompt": TRANSCRIPT, "response": " Third.", "chosen": " Two.", "rejected": " No."}]
    found = read("hh-rlhf", write_lines(tmp_path / "a.jsonl", rows))
    assert [turns(one)[-1]["content"] for one in found] == ["Two.", "No.", "Third."]
    assert len({one.group for one in found}) == 1


def test_transcripts_that_part_earlier_keep_their_own_prompts_in_one_group(tmp_path: Path) -> None:
    row = {
        "chosen": "\n\nHuman: Tea?\n\nAssistant: Yes.",
        "rejected": "\n\nHuman: Tea!\n\nAssistant: No.",
    }
    found = read("hh-rlhf", write_lines(tmp_path / "a.jsonl", [row]))
    assert [turns(one)[0]["content"] for one in found] == ["Tea?", "Tea!"]
    assert found[0].group == found[1].group


def test_rows_of_hh_rlhf_without_a_reply_are_rejected_by_reason(tmp_path: Path) -> None:
    good = "\n\nHuman: Tea?\n\nAssistant: Yes."
    rows = [
        {"chosen": good, "rejected": "\n\nHuman: Tea?\n\nAssistant: "},
        {"chosen": good, "rejected": "\n\nHuman: Tea?"},
        {"chosen": good, "rejected": "Tea?"},
        {"chosen": good, "rejected": None},
        {"chosen": good, "rejected": "\n\nHuman: Tea?\n\nHuman: Well?\n\nAssistant: Yes."},
        {"chosen": good, "rejected": "\n\nHuman: \n\nAssistant: Yes."},
        {"chosen": " Yes.", "rejected": " No.", "prompt": "\n\nHuman: Tea?"},
        {"chosen": " Yes.", "rejected": None, "prompt": "\n\nHuman: Tea?\n\nAssistant:"},
    ]
    found = reasons(read("hh-rlhf", write_lines(tmp_path / "a.jsonl", rows)))
    assert [(reason, place.split(" (")[0]) for reason, place in found] == [
        ("no reply", "a.jsonl, line 1, rejected"),
        ("no reply", "a.jsonl, line 2, rejected"),
        ("not a transcript", "a.jsonl, line 3, rejected"),
        ("not a transcript", "a.jsonl, line 4, rejected"),
        ("not a conversation", "a.jsonl, line 5, rejected"),
        ("empty prompt", "a.jsonl, line 6, rejected"),
        ("not a transcript", "a.jsonl, line 7, chosen"),
        ("not a transcript", "a.jsonl, line 7, rejected"),
        ("no reply", "a.jsonl, line 8, rejected"),
    ]
    assert "it must begin with 'Human:', got 'Tea?'" in found[2][1]
    assert "the prompt must end with 'Assistant:'" in found[6][1]


# One's own


def test_own_data_come_as_messages_or_as_prompt_and_response(tmp_path: Path) -> None:
    rows = [
        {"messages": user("One?", "One.", "Two?", " Two.", system="Count.")},
        {"prompt": "Tea?", "response": "Yes", "reward": 2, "id": 7, "group": "tea", "complete": False},
        {"prompt": "Tea?", "response": "No", "reward": -0.1, "id": "x", "group": 3, "note": "not looked at"},
    ]
    path = tmp_path / "a.jsonl"
    text = "\ufeff" + "\r\n\n".join(json.dumps(row) for row in rows)
    path.write_bytes(text.encode())
    found = read("jsonl", path)
    assert [turns(one) for one in found] == [rows[0]["messages"], user("Tea?", "Yes"), user("Tea?", "No")]
    assert [one.id for one in found] == ["a.jsonl:1", "7", "x"]
    assert [one.group for one in found] == [prompt_group(user("One?", "One.", "Two?")), "tea", "3"]
    assert [one.reward for one in found] == [None, 2.0, -0.1]
    assert [one.complete for one in found] == [True, False, True]
    assert [one.place for one in found] == [f"a.jsonl, line {n}" for n in (1, 3, 5)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Tea?", "response": None}, "no reply"),
        ({"prompt": "Tea?", "response": "\n"}, "no reply"),
        ({"messages": user("Tea?")}, "no reply"),
        ({"messages": []}, "no reply"),
        ({"messages": user("Tea?", "")}, "no reply"),
        ({"prompt": "", "response": "Yes"}, "empty prompt"),
        ({"prompt": None, "response": "Yes"}, "empty prompt"),
        ({"messages": user("\t", "Yes")}, "empty prompt"),
        ({"messages": user("Tea?", "Yes")[1:]}, "not a conversation"),
        ({"messages": [{"role": "user"}, *user("Tea?", "Yes")]}, "not a conversation"),
        (
            {"messages": [*user("Tea?"), {"role": "assistant", "content": "Yes", "n": 1}]},
            "not a conversation",
        ),
        ({"prompt": "Tea?", "response": "Yes", "reward": "0.5"}, "reward is not a number"),
        ({"prompt": "Tea?", "response": "Yes", "reward": True}, "reward is not a number"),
    ],
)
def test_a_row_of_own_data_that_cannot_be_used_is_rejected_by_reason(
    tmp_path: Path, row: dict, reason: str
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "Tea?", "response": "Yes"}, row])
    found = read("jsonl", path)
    assert isinstance(found[0], Conversation)
    assert [(r, place.split(" (")[0]) for r, place in reasons(found)] == [(reason, "a.jsonl, line 2")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "Tea?"}, r"expected 'messages', or 'prompt' and 'response', got \['text'\]"),
        (
            {"prompt": "Tea?", "response": "", "messages": []},
            "'prompt' and 'messages' differ in more than a reply; drop one of them",
        ),
        ({"prompt": "Tea?"}, "there is a 'prompt' but no 'response'"),
        (
            {"prompt": ["Tea?"], "response": "Yes"},
            "'prompt' must be a list like .*, got a list of 1 with a text in it",
        ),
        ({"prompt": "Tea?", "response": 5}, "'response' must be a text or null, got a number"),
        ({"messages": "Tea?"}, "'messages' must be a list like"),
        ({"messages": ["Tea?"]}, "'messages' must be a list like"),
        ({"prompt": "Tea?", "response": "Yes", "complete": 1}, "'complete' must be true or false, got 1"),
        ({"prompt": "Tea?", "response": "Yes", "id": 0.5}, "'id' must be a text or an integer, got 0.5"),
        ({"prompt": "Tea?", "response": "Yes", "group": ""}, "'group' must be a text or an integer, got ''"),
        ({"prompt": "Tea?", "response": "Yes", "reward": float("nan")}, "NaN is not a finite number"),
        ({"prompt": "Tea?", "response": "Yes", "reward": float("-inf")}, "-Infinity is not a finite number"),
        ({"prompt": "Tea?", "response": "Yes", "reward": 10**400}, "a number of 401 digits is not"),
        ({"prompt": "Tea?", "response": "Half \ud83d"}, ".*half a surrogate pair"),
        ({"prompt": "Tea?", "response": "Yes", "group": "\ude00"}, ".*half a surrogate pair"),
        ({"prompt": "Tea?", "response": "Yes", "id": 1}, "id '1' is that of a.jsonl, line 1 already"),
        (
            {"prompt": "Tea?", "text": "Yes", "finish_reason": "eos"},
            "'finish_reason' must be one of decode.generate's, stop, .*, got 'eos'",
        ),
    ],
)
def test_own_data_of_another_form_stop_the_run_with_the_line(tmp_path: Path, row: dict, message: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "Tea?", "response": "Yes", "id": "1"}, row])
    with pytest.raises(ValueError, match=f"a.jsonl, line 2[:,] (column \\d+: )?{message}"):
        read("jsonl", path)


GENERATED: dict[str, Any] = {
    "id": "tea",
    "index": 0,
    "branch": 0,
    "method": "steered",
    "prompt": user("Tea?"),
    "text": "Yes",
    "finish_reason": "stop",
    "stop_string": None,
}
"""What decode.generate writes of a reply, but for the numbers."""


@pytest.mark.parametrize(
    ("changes", "complete"),
    [
        ({}, True),
        ({"stop_string": "\n\n"}, False),
        ({"finish_reason": "length"}, False),
        ({"finish_reason": "length", "complete": None}, False),
        ({"finish_reason": "length", "complete": True}, True),
        ({"complete": False}, False),
        ({"finish_reason": None}, True),
    ],
)
@pytest.mark.parametrize("write", [write_lines, write_parquet])
def test_a_reply_that_generate_has_cut_is_not_complete_labelled_or_not(
    tmp_path: Path, write: Callable[[Path, list[Any]], Path], changes: dict[str, Any], complete: bool
) -> None:
    assert [one.complete for one in read("jsonl", write(tmp_path / "a", [GENERATED | changes]))] == [complete]
    write_lines(tmp_path / "a.jsonl", [GENERATED | changes])
    (line,) = read_conversations(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_bytes(json_line(line.rewarded(0.5)))
    assert [(one.complete, one.reward) for one in read("jsonl", tmp_path / "b.jsonl")] == [(complete, 0.5)]


def test_a_reply_that_generate_could_not_finish_is_rejected_by_reason(tmp_path: Path) -> None:
    ends = {end.name.lower() for end in FinishReason} - {"running"}
    assert ends == {"stop", "length", *FAILED}
    rows = [GENERATED | {"branch": i, "finish_reason": end} for i, end in enumerate(FAILED)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    assert reasons(read("jsonl", path)) == [
        (why, f"a.jsonl, line {number}") for number, why in enumerate(FAILED.values(), start=1)
    ]
    # As prompts they are as good as others.
    expected = [f"tea:steered:{i}" for i in range(len(FAILED))]
    assert [one.id for one in read("jsonl", path, with_replies=False)] == expected


def test_all_replies_of_generate_to_a_prompt_are_read_as_of_one_group(tmp_path: Path) -> None:
    rows = [GENERATED | {"method": m, "branch": b} for m in ("base", "steered") for b in (0, 1)]
    found = read("jsonl", write_lines(tmp_path / "a.jsonl", rows))
    assert [one.id for one in found] == ["tea:base:0", "tea:base:1", "tea:steered:0", "tea:steered:1"]
    assert {one.group for one in found} == {prompt_group(user("Tea?"))}
    with pytest.raises(ValueError, match=r"line 5: id 'tea:base:1' is that of a.jsonl, line 2 already; give"):
        read("jsonl", write_lines(tmp_path / "a.jsonl", [*rows, rows[1]]))


# Files that are not what they claim


@pytest.mark.parametrize(
    ("form", "row", "message"),
    [
        (
            "ultrafeedback",
            {"prompt": "x"},
            r"UltraFeedback has the fields \['instruction', 'completions'\], found only \['prompt'\]",
        ),
        (
            "ultrafeedback",
            {"instruction": "x", "completions": "y"},
            "'completions' of UltraFeedback must be a list, got str",
        ),
        (
            "ultrafeedback",
            {"instruction": 5, "completions": []},
            "'instruction' must be a text or null, got a number",
        ),
        (
            "ultrafeedback",
            {"instruction": "x", "completions": [{"text": "y"}]},
            "completion 1: it must have a 'response', got {'text': 'y'}",
        ),
        ("ultrafeedback", feedback("x", 5), "completion 1: 'response' must be a text or null, got a number"),
        (
            "wildguardmix",
            {"prompt": "x"},
            r"WildGuardMix has the fields \['response', 'response_harm_label'\], found",
        ),
        ("wildguardmix", LABELS | {"response": 1.5}, "'response' must be a text or null, got a number"),
        (
            "hh-rlhf",
            {"prompt": "x", "response": "y"},
            r"HH-RLHF has the fields \['chosen', 'rejected'\], found only",
        ),
        ("hh-rlhf", {"chosen": 1, "rejected": "y"}, "'chosen' must be a text or null, got a number"),
    ],
)
@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_rows_of_another_data_set_stop_the_run(
    tmp_path: Path, form: str, row: dict, message: str, container: str
) -> None:
    if container == "parquet":
        path, place = write_parquet(tmp_path / "a.parquet", [row]), "row 1"
    else:
        path, place = write_lines(tmp_path / "a.jsonl", [row]), "line 1"
    with pytest.raises(ValueError, match=rf"{path.name}, {place}[:,] {message}"):
        read(form, path)


GOOD = json.dumps(feedback("One?", "One.")).encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + b'{"instruction": \n' + GOOD, r"line 2, column 17: not JSON \(expecting value\)"),
        (GOOD + GOOD[:40], r"line 2, column 39: not JSON \("),
        (GOOD + b"\n[1, 2]\n", r"line 3: expected an object like .*, got a list of 2"),
        (
            GOOD + '{"instruction": "Tür"}'.encode("latin-1"),
            r"line 2, column 19: not UTF-8 \(byte 0xfc",
        ),
        (GOOD + b"[" * 200_000, "line 2, column 101: nested more than 100 deep"),
    ],
)
def test_a_broken_line_stops_the_run_with_name_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "flan.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path}, {message}"):
        read("ultrafeedback", path)


def test_a_compressed_file_that_was_cut_short_stops_the_run(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl.gz"
    whole = gzip.compress(b"".join(GOOD.replace(b"One", str(i).encode()) for i in range(3000)))
    for content in (whole[: len(whole) // 2], whole[:-4], whole[:50] + b"broken" + whole[56:]):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"{path}(, after line \d+)?: .*broken or cut short.*copy it again"
        ):
            read("ultrafeedback", path)


def test_a_parquet_file_that_was_cut_short_or_is_none_stops_the_run(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [LABELS] * 50)
    whole = path.read_bytes()
    for content in (whole[:-10], whole[:100], GOOD, b""):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"{path}: cannot be read as Parquet \(.*\); copy the file again"
        ):
            read("wildguardmix", path)


def test_a_parquet_file_with_broken_pages_stops_the_run(tmp_path: Path) -> None:
    rows = [LABELS | {"response": f"Bus {i}."} for i in range(5000)]
    path = write_parquet(tmp_path / "a.parquet", rows)
    content = bytearray(path.read_bytes())
    content[200 : len(content) // 2] = bytes(len(content) // 2 - 200)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path}.*: cannot be read as Parquet"):
        read("wildguardmix", path)


def test_a_path_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing: no such file or folder"):
        read("jsonl", tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        FileNotFoundError, match=r"there are no files \*.jsonl, .*, \*.pq in it, compressed with gzip or not"
    ):
        read("jsonl", tmp_path)
    with pytest.raises(ValueError, match=r"format must be ultrafeedback, .*got 'csv'"):
        read("csv", tmp_path)
