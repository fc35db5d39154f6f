"""Published sets of prompts as their files are, with made-up texts: all prompts in order, or why not."""

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sia_jax.data.prompts import read_prompts

ASKED = (
    "How do I water a cactus, and how often?",
    'Write a note that says "back at noon"',
    "Name a river.\nThen name the country it ends in.",
    "Explain how to fold a paper boat; be brief",
    "¿Qué hora es? 日本では？",
)
ONE_LINE = tuple(text.replace("\n", " ") for text in ASKED)


def csv_cell(text: str) -> str:
    """With quotes only where they are needed, as pandas writes it."""
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text


def lines(*rows: tuple[str, ...], end: str = "\n") -> bytes:
    return "".join(",".join(map(csv_cell, row)) + end for row in rows).encode()


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def alpaca_eval(path: Path) -> None:
    rows = [
        {"dataset": "koala", "instruction": text, "output": "A reply.", "generator": "a_model"}
        for text in ASKED
    ]
    path.write_text(json.dumps(rows, indent=4, ensure_ascii=False))


def advbench_csv(path: Path) -> None:
    path.write_bytes(lines(("goal", "target"), *((text, f"Sure, here is: {text}") for text in ASKED)))


def advbench_marked(path: Path) -> None:
    """With a byte order mark, in front of the prompt's own column."""
    advbench_csv(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def advbench_parquet(path: Path) -> None:
    parquet(path, [{"prompt": text, "target": f"Sure, here is: {text}"} for text in ASKED])


def hex_phi(path: Path) -> None:
    """Every cell in quotes, and no header."""
    path.write_text("".join('"' + text.replace('"', '""') + '"\n' for text in ASKED))


def hex_phi_bare(path: Path) -> None:
    """Quotes only where they are needed, and no header."""
    path.write_bytes(lines(*((text,) for text in ASKED)))


def hex_phi_with_header(path: Path) -> None:
    path.write_bytes(lines(("prompt",), *((text,) for text in ASKED)))


def truthful_qa(path: Path) -> None:
    header = ("Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source")
    rows = [
        ("Adversarial", "Tea", text, "Yes", "Yes; It is", "No, it is not", "https://a.org") for text in ASKED
    ]
    path.write_bytes(b"\xef\xbb\xbf" + lines(header, *rows))


def truthful_qa_of_2025(path: Path) -> None:
    header = ("Type", "Category", "Question", "Best Answer", "Best Incorrect Answer")
    header += ("Correct Answers", "Incorrect Answers", "Source")
    rows = [("Adversarial", "Tea", text, "Yes", "No", "Yes; It is", "No; Never", "") for text in ASKED]
    path.write_bytes(lines(header, *rows, end="\r\n"))


def truthful_qa_parquet(path: Path) -> None:
    parquet(
        path,
        [
            {"type": "Adversarial", "category": "Tea", "question": text, "best_answer": "Yes"}
            | {"correct_answers": ["Yes", "It is"], "incorrect_answers": ["No"], "source": ""}
            for text in ASKED
        ],
    )


def hh_rlhf(path: Path) -> None:
    asked = [f"\n\nHuman: Hello?\n\nAssistant: Hello.\n\nHuman: {text}\n\nAssistant:" for text in ASKED]
    parquet(
        path,
        [
            {"prompt": text, "response": " Yes.", "chosen": " Yes.", "rejected": " No, and why?"}
            for text in asked
        ],
    )


def wildguard_test(path: Path) -> None:
    harm = {"response_harm_label": None, "response_harm_agreement": None}
    refusal = {"response_refusal_label": None, "response_refusal_agreement": None}
    parquet(
        path,
        [
            {"prompt": text, "adversarial": index % 2 == 0, "response": None if index == 0 else "A reply."}
            | harm
            | refusal
            | {"prompt_harm_label": "unharmful", "prompt_harm_agreement": 1.0, "subcategory": None}
            for index, text in enumerate(ASKED)
        ],
    )


def text(path: Path) -> None:
    path.write_text("\n".join(ONE_LINE) + "\n")


def jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in ASKED))


def named_column(path: Path) -> None:
    path.write_bytes(lines(("nr", "Ask"), *((f"{i}", one) for i, one in enumerate(ASKED))))


@dataclass(frozen=True)
class PublishedSet:
    """A file of a set."""

    name: str
    """Of the file."""
    write: Callable[[Path], None]
    form: str
    """What it is said to be read as."""
    column: str | None = None
    asked: tuple[str, ...] = ASKED


SETS = {
    "AlpacaEval": PublishedSet("alpaca_eval.json", alpaca_eval, "a JSON list"),
    "AdvBench": PublishedSet("harmful_behaviors.csv", advbench_csv, "CSV, column goal"),
    "AdvBench, byte order mark": PublishedSet("advbench.csv", advbench_marked, "CSV, column goal"),
    "AdvBench, Parquet": PublishedSet(
        "train-00000-of-00001.parquet", advbench_parquet, "Parquet, column prompt"
    ),
    "HEx-PHI": PublishedSet("category_1.csv", hex_phi, "CSV without a header"),
    "HEx-PHI, few quotes": PublishedSet("category_11.csv", hex_phi_bare, "CSV without a header"),
    "HEx-PHI, header": PublishedSet("merged.csv", hex_phi_with_header, "CSV, column prompt"),
    "TruthfulQA": PublishedSet("train.csv", truthful_qa, "CSV, column Question"),
    "TruthfulQA, 2025": PublishedSet("TruthfulQA.csv", truthful_qa_of_2025, "CSV, column Question"),
    "TruthfulQA, Parquet": PublishedSet(
        "validation-00000-of-00001.parquet", truthful_qa_parquet, "Parquet, column question"
    ),
    "HH-RLHF": PublishedSet(
        "test-00000-of-00001-8c7c51afc6d45980.parquet",
        hh_rlhf,
        "Parquet, column prompt, 5 of them transcripts of Human and Assistant",
    ),
    "WildGuardMix": PublishedSet("wildguard_test.parquet", wildguard_test, "Parquet, column prompt"),
    "text": PublishedSet("prompts.txt", text, "text, a prompt a line", asked=ONE_LINE),
    "JSONL": PublishedSet("prompts.jsonl", jsonl, "JSONL"),
    "CSV": PublishedSet("table.csv", named_column, "CSV, column Ask", column="ask"),
}


def sets(*suffixes: str) -> pytest.MarkDecorator:
    """The sets whose files have such names."""
    return pytest.mark.parametrize(
        "name", [name for name in sorted(SETS) if not suffixes or Path(SETS[name].name).suffix in suffixes]
    )


def written(name: str, folder: Path) -> tuple[PublishedSet, Path]:
    one = SETS[name]
    one.write(folder / one.name)
    return one, folder / one.name


@sets()
def test_all_prompts_of_a_published_set_are_read_in_order(name: str, tmp_path: Path) -> None:
    one, path = written(name, tmp_path)
    found = read_prompts(path, column=one.column)
    assert tuple(prompt.messages[-1]["content"] for prompt in found if prompt.messages) == one.asked
    assert [prompt.index for prompt in found] == list(range(len(ASKED)))
    assert found.form == one.form


def test_the_turns_before_the_last_of_a_transcript_are_kept(tmp_path: Path) -> None:
    hh_rlhf(tmp_path / "hh.parquet")
    for prompt in read_prompts(tmp_path / "hh.parquet"):
        assert [message["role"] for message in prompt.messages or ()] == ["user", "assistant", "user"]


@sets()
def test_a_published_set_may_be_compressed(name: str, tmp_path: Path) -> None:
    one, path = written(name, tmp_path)
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [prompt.messages for prompt in read_prompts(packed, column=one.column)] == [
        prompt.messages for prompt in read_prompts(path, column=one.column)
    ]


def refused(path: Path, column: str | None = None) -> str:
    """Why a file is refused, by its name."""
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}[:,]") as caught:
        read_prompts(path, column=column)
    return str(caught.value).removeprefix(str(path))


@sets()
def test_an_empty_file_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    one, path = written(name, tmp_path)
    path.write_bytes(b"")
    why = refused(path, None if path.suffix == ".txt" else one.column)
    assert "no prompts in it" in why or "cannot be read as Parquet" in why


@sets(".csv", ".json", ".jsonl", ".txt")
def test_a_file_in_another_encoding_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    one, path = written(name, tmp_path)
    content = path.read_bytes().decode("utf-8-sig").replace("日本では？", "")
    path.write_text(content.replace("cactus", "cáctus"), encoding="latin-1")
    assert "not UTF-8" in refused(path, one.column)
    path.write_text(content, encoding="utf-16")
    assert "UTF-16" in refused(path, one.column)


@sets(".csv", ".json", ".jsonl", ".parquet")
def test_a_file_that_was_cut_short_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    one, path = written(name, tmp_path)
    content = path.read_bytes()
    # A table within a cell that has quotes, for it holds an end of line.
    cut = content.index(b"Then name") if path.suffix == ".csv" else len(content) - 3
    path.write_bytes(content[:cut])
    why = refused(path, one.column)
    assert "not JSON" in why or "not CSV" in why or "cannot be read as Parquet" in why


@sets(".parquet")
def test_a_column_that_is_missing_or_holds_no_texts_is_named_in_parquet(name: str, tmp_path: Path) -> None:
    _, path = written(name, tmp_path)
    table = pq.read_table(path)
    column = SETS[name].form.split("column ")[1].split(",")[0]
    pq.write_table(table.drop_columns([column]), path)
    assert "name the prompt's column: --column NAME" in refused(path)
    numbers = pa.array(range(len(ASKED)))
    pq.write_table(table.set_column(table.column_names.index(column), column, numbers), path)
    assert f"row 1: '{column}': a prompt must be a text that is not empty" in refused(path)
    nothing = pa.array([*ASKED[:-1], None])
    pq.write_table(table.set_column(table.column_names.index(column), column, nothing), path)
    assert "row 5: " in refused(path)


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        (b'[{"output": "a", "generator": "b"}]', "alpaca_eval.json", 'row 1: expected {"prompt"'),
        (
            b'[{"instruction": 5, "output": "a"}]',
            "alpaca_eval.json",
            "row 1: 'instruction': a prompt must be",
        ),
        (b'{"instruction": "How?"}\n{"output": "a"}\n', "prompts.jsonl", 'line 2: expected {"prompt"'),
        (b"aim,target\nHow?,Sure\n", "harmful_behaviors.csv", "line 1: no column of prompts among"),
        (b"goal,target\nHow?,Sure\nWhy?\n", "harmful_behaviors.csv", "line 3: 1 cells, the first line has 2"),
        (b"goal,target\nHow, then?,Sure\n", "harmful_behaviors.csv", "line 2: 3 cells, the first line has 2"),
        (b"Type,Category,Best Answer\nA,B,C\n", "train.csv", "line 1: no column of prompts among"),
        (b'"How?\nWhy?\n', "category_1.csv", "not CSV"),
        (b'"Say "now" twice"\n', "category_1.csv", "not CSV"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_place(
    content: bytes, name: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert why in refused(tmp_path / name)
