"""Names of fields: one rule for their case of letters in every form, and two that are one are refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sia_jax.data.columns import by_known_names, prompt_column
from sia_jax.data.conversations import read_conversations
from sia_jax.data.prompts import read_prompts
from tests.support.sources import read

FORMS = ("csv", "tsv", "jsonl", "json", "parquet")


def write(folder: Path, form: str, row: dict[str, Any]) -> Path:
    """A file of one row; the cells of CSV are its values as they are printed."""
    path = folder / f"a.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif form in ("csv", "tsv"):
        mark = "," if form == "csv" else "\t"
        path.write_text(mark.join(row) + "\n" + mark.join(str(cell) for cell in row.values()) + "\n")
    else:
        path.write_text(json.dumps([row] if form == "json" else row))
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", [str.upper, str.title, str.lower])
def test_what_stands_beside_a_prompt_is_read_in_any_case_of_letters(
    tmp_path: Path, form: str, change: Any
) -> None:
    row = {"id": "q", "prompt": "How?", "seed": 3, "threshold": 0.5}
    path = write(tmp_path, form, {change(name): value for name, value in row.items()})
    (prompt,) = read_prompts(path)
    assert (prompt.id, prompt.seed, prompt.threshold) == ("q", 3, 0.5)
    assert prompt.messages == ({"role": "user", "content": "How?"},)
    (prompt,) = read_prompts(path, column="pRoMpT")
    assert (prompt.id, prompt.seed, prompt.threshold) == ("q", 3, 0.5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", [str.upper, str.title])
def test_own_data_are_read_in_any_case_of_letters(tmp_path: Path, form: str, change: Any) -> None:
    row = {"prompt": "How?", "response": "So.", "reward": 0.5, "id": "x", "group": "g", "complete": False}
    (found,) = read("jsonl", write(tmp_path, form, {change(name): value for name, value in row.items()}))
    assert (found.reward, found.id, found.group, found.complete) == (0.5, "x", "g", False)
    assert [message["content"] for message in found.messages] == ["How?", "So."]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", [str.upper, str.title, str.lower])
@pytest.mark.parametrize(
    ("reason", "stop", "complete"), [("stop", "", True), ("stop", "\u2029", False), ("length", "", False)]
)
def test_how_a_generated_reply_ended_is_read_in_any_form_and_case_of_letters(
    tmp_path: Path, form: str, change: Any, reason: str, stop: str, complete: bool
) -> None:
    row = {"id": "tea", "prompt": "How?", "text": "So.", "method": "steered", "branch": 1}
    row |= {"finish_reason": reason, "stop_string": stop}
    (found,) = read("jsonl", write(tmp_path, form, {change(name): value for name, value in row.items()}))
    assert (found.id, found.complete) == ("tea:steered:1", complete)


def test_rows_of_published_sets_are_known_in_any_case_of_letters(tmp_path: Path) -> None:
    row = {"Prompt": "How?", "Response": "So.", "response_harm_label": "unharmful"}
    for form in FORMS:
        (found,) = read("wildguardmix", write(tmp_path, form, row))
        assert [message["content"] for message in found.messages] == ["How?", "So."]


def test_a_label_takes_the_place_of_a_reward_in_any_case_of_letters(tmp_path: Path) -> None:
    row = {"Prompt": "How?", "Response": "So.", "Reward": 7, "Note": 1}
    (line,) = read_conversations(write(tmp_path, "jsonl", row))
    assert line.rewarded(0.5) == {
        "prompt": "How?",
        "response": "So.",
        "reward": 0.5,
        "Note": 1,
    }


@pytest.mark.parametrize(
    "names", [("Prompt", "prompt"), ("ID", "id"), ("Seed", "SEED"), ("Messages", "messages")]
)
def test_two_fields_that_are_one_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    row = {"prompt": "How?", "Note": "a", "note": "b"} | dict.fromkeys(names, "1")
    for form in ("csv", "jsonl", "json", "parquet"):
        path = write(tmp_path, form, row)
        with pytest.raises(
            ValueError, match=rf"a\.{form}, (line|row) \d: the fields .* are one, whatever the case"
        ):
            read_prompts(path)


def test_a_null_is_no_second_field() -> None:
    assert by_known_names({"Prompt": None, "prompt": "a", "x": None}) == {"prompt": "a", "x": None}
    assert by_known_names({"Prompt": "a", "prompt": None}) == {"prompt": "a"}
    with pytest.raises(ValueError, match=r"might stand in any of .*'Goal', 'goal'"):
        prompt_column(["goal", "Goal", "question"])
