"""The readers of data: what each program reads beside its models."""

import csv
import gzip
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from decode.trace import read as read_replies
from sia_jax.data.conversations import ConversationLine, read_conversations
from sia_jax.data.prompts import PromptFile, read_prompts
from sia_jax.data.records import Record, read_records, write_records
from sia_jax.data.set_folder import set_folder
from sia_jax.data.sources import open_source
from sia_jax.data.sources.conversations import Conversation, OpenConversation
from sia_jax.evaluation.calibration import FORMAT, Calibration, read_calibration
from sia_jax.evaluation.gate_examples import Examples, read_examples
from sia_jax.evaluation.gate_numbers import gate_of
from sia_jax.evaluation.learned_gate import LearnedGate, read_learned_gate
from sia_jax.reports.trace import trace_page
from sia_jax.rewards.labelling import check_conversation
from sia_jax.runs.journal import Journal, place_in
from sia_jax.steering.config import SteeringConfig
from sia_jax.text.chat import check_messages
from tests.fuzz.readers import Reader

MESSAGES = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "How do I boil an egg?"},
    {"role": "assistant", "content": "Seven minutes. 🥚"},
    {"role": "user", "content": "And two of them?"},
]
REPLY = {"role": "assistant", "content": "The same."}
VOCAB = 100


def lines(rows: Iterable[Any]) -> bytes:
    """JSONL."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def table(rows: Sequence[Sequence[str]], delimiter: str) -> bytes:
    """CSV or TSV."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """Parquet, compressed as the Hub's files are."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def one_file(name: str, content: bytes) -> Callable[[Path], list[Path]]:
    """Writes a file of this name."""

    def write(folder: Path) -> list[Path]:
        (folder / name).write_bytes(content)
        return [folder / name]

    return write


# Prompts


def check_prompts(folder: Path, found: PromptFile) -> None:
    """Every prompt is one that a model can be given."""
    assert found.form
    assert [prompt.index for prompt in found] == list(range(len(found)))
    assert len({prompt.id for prompt in found}) == len(found) > 0
    for prompt in found:
        str(prompt.id).encode()
        if prompt.messages is None:
            assert prompt.policy_ids is not None
            assert all(type(i) is int and i >= 0 for i in (*prompt.policy_ids, *(prompt.value_ids or ())))
        else:
            check_messages(prompt.messages)
        assert prompt.seed is None or 0 <= prompt.seed < 2**32
        assert prompt.threshold is None or type(prompt.threshold) is float
        assert not math.isnan(prompt.threshold or 0.0)


def prompts_reader(name: str, content: bytes) -> Reader:
    """A reader of a file of prompts."""
    form = name.removeprefix("p.").replace(".", "-")
    return Reader(
        f"prompts-{form}", one_file(name, content), lambda folder: read_prompts(folder / name), check_prompts
    )


PROMPT_LINES = [
    {"prompt": "How do I boil an egg?", "id": "egg", "seed": 3, "threshold": 1.5},
    {"messages": MESSAGES, "id": 7, "threshold": "inf"},
    {"prompt_ids": [1, 2, 3], "value_ids": [4, 5], "extra": {"a": [1.5, None]}},
    {"conversations": [{"from": "human", "value": "Which bus?"}]},
]
CELLS = [
    ["id", "goal", "seed", "target"],
    ["1", 'Say "tea", please', "5", "Sure"],
    ["b", "Two\nlines", "", ""],
    ["3", "Water the plants. 🌱", "7", "x,y"],
]
PROMPT_ROWS = [{"prompt": f"Question {i}?", "id": i, "target": "Sure"} for i in range(40)]

# Conversations and sets

CONVERSATIONS = [
    {"messages": [*MESSAGES, REPLY], "id": 1, "source": {"a": 0.5}},
    {"prompt": "How long?", "response": "Seven minutes.", "group": "g"},
    {"prompt": MESSAGES, "text": "As long.", "tokens": [1, 2, 3]},
]


def check_conversations(folder: Path, found: list[ConversationLine]) -> None:
    """Lines come back with a reward, and are scored only if they are conversations."""
    for line in found:
        assert line.rewarded(0.5) == line.fields | {"reward": 0.5}
        if check_conversation(line.messages) is None:
            check_messages(line.messages, last="assistant")


def source_reader(form: Any, name: str, content: bytes, *, with_replies: bool = True) -> Reader:
    """A reader of raw data."""

    def read(folder: Path) -> list[Any]:
        return list(open_source(form, folder / name, vocab_size=VOCAB, with_replies=with_replies).entries)

    def check(folder: Path, found: list[Any]) -> None:
        for one in found:
            if isinstance(one, Conversation):
                check_messages(one.messages, last="assistant")
                assert one.reward is None or (type(one.reward) is float and math.isfinite(one.reward))
            elif isinstance(one, OpenConversation):
                check_messages(one.messages)
            elif isinstance(one, Record):
                assert max(one.reply_ids.max(), one.prompt_ids.max()) < VOCAB
            for text in (getattr(one, "id", ""), getattr(one, "group", ""), getattr(one, "place", "")):
                text.encode()

    kind = "" if with_replies else "-alone"
    return Reader(f"{form}{kind}-{name.removeprefix('d.')}", one_file(name, content), read, check)


OWN = [
    {"messages": [*MESSAGES, REPLY], "reward": 0.5, "id": "a", "group": 3},
    {"prompt": "How long?", "response": "Seven minutes.", "reward": -1, "complete": False},
    {"prompt": [MESSAGES[1]], "completion": [REPLY], "reward": 2.5},
    {
        "prompt": [MESSAGES[1]],
        "text": "Seven",
        "id": 1,
        "method": "base",
        "branch": 1,
        "finish_reason": "length",
    },
]
OWN_CELLS = [
    ["prompt", "response", "reward", "complete"],
    ["How long?", "Seven minutes.", "0.5", "true"],
    ["Which bus?", "The 14.", "-1e-3", ""],
]
FEEDBACK = [
    {
        "instruction": f"Question {i}?",
        "completions": [
            {"response": "One.", "custom_system_prompt": "Be kind.", "annotations": {"a": {"Rating": "5"}}},
            {"response": "Two.", "custom_system_prompt": None, "annotations": None},
        ],
    }
    for i in range(5)
]
LABELS = [
    {"prompt": f"Question {i}?", "response": f"Reply {i}.", "response_harm_label": "unharmful", "other": i}
    for i in range(40)
]
TRANSCRIPTS = [
    {"chosen": f"\n\nHuman: {i}?\n\nAssistant: One.", "rejected": f"\n\nHuman: {i}?\n\nAssistant: Two."}
    for i in range(5)
]
PAIRS = [
    {"prompt": [MESSAGES[1]], "chosen": [MESSAGES[1], REPLY], "rejected": [REPLY]},
    {"chosen": [*MESSAGES, REPLY], "rejected": [*MESSAGES, REPLY | {"content": "No."}]},
]
OFFICIAL = [
    {
        "id": i,
        "prompt": "Human:\nTea?\nAssistant:\n",
        "result": "Yes.",
        "rm_prompt": "<|im_start|>user\nTea?<|im_end|>\n<|im_start|>assistant\n",
        "rm_prompt_tokens_ids": "5,6,7",
        "generated_tokens_ids": "8,99",
        "rm_guided_tokens_mask": "1,1",
        "reward": 0.3,
    }
    for i in range(3)
]

# What programs have written themselves, and others may have touched

THRESHOLDS = {
    "format": FORMAT,
    "thresholds": [
        {
            **{"ratio": 0.1, "threshold": 2.5, "share": 0.1},
            "gates": {
                "entropy-ratio": {"number": -0.5, "share": 0.1},
                "position": {"number": 3, "share": 0.125},
                "learned": {"number": -2.5, "share": 0.1},
            },
        },
        {"ratio": 0.5, "threshold": 1, "share": 0.5},
    ],
    "tokens": 100,
    "learned": {
        "file": "g.json",
        "gate": {
            **{"bias": -1.5, "entropy": 1.5, "previous_entropy": 0, "top_probability": -2.0},
            **{"logit_gap": 0.1, "position": -1e-3},
        },
    },
    "settings": {"policy": "p", "temperature": 1.0, "stop": ["a"]},
    "prompts": "p.jsonl",
}
LEARNED = {
    "format": "sia_jax learned gate 1",
    "weights": {
        **{"entropy": 1.5, "previous_entropy": 0, "top_probability": -2.0, "logit_gap": 0.1},
        "position": -1e-3,
    },
    "intercept": -1.5,
    "biases": [{"ratio": 0.1, "bias": -2.5}, {"ratio": 0.5, "bias": 1}],
    "settings": {"policy": "p", "temperature": 1.0},
}
DENSE = {
    "index": 0,
    "entropy": [0.5, 1.25],
    "junction": [True, True],
    "shifted": [False, True],
    "candidates": {
        "logits": [[1.5, 0.5, -1], [2.0, None, None]],
        "values": [[0.5, -0.25, 1], [0.0, None, None]],
        "policy_logprobs": [[-0.5, -1.5, -3.0], [-0.1, None, None]],
        "logprobs": [[-0.5, -2.0, -1.25], [0.0, None, None]],
    },
    "settings": {"policy": "p", "temperature": 0.7, "min_new_tokens": 0},
}
JOURNAL_SETTINGS = {"policy": "p", "temperature": 1.0, "stop": ["a", "b"], "value": None}
JOURNAL = [
    {"index": i, "branch": 0, "entropy": [0.5, 1.25, None], "settings": JOURNAL_SETTINGS} for i in range(4)
]
RECORD = {
    "id": "egg",
    "index": 0,
    "branch": 0,
    "method": "steered",
    "threshold": 1.0,
    "prompt": [MESSAGES[1]],
    "text": "Seven",
    "finish_reason": "stop",
    "stop_string": None,
    "length": 2,
    "usage": {"policy_tokens": 5, "value_tokens": 5},
    "steering": {"ratio": 0.5, "junctions": 1, "shifted": 0},
    "tokens": [1, 2],
    "junction": [True, False],
    "entropy": [1.5, None],
    "shifted": [False, False],
    "pieces": ["Sev", "en"],
    "names": {"1": "Sev", "2": "en"},
    "candidates": {
        "ids": [[1, 2], [2, 1]],
        "own_choice": [1, 2],
        "kl": [0.1, None],
        "policy_logprobs": [[-0.5, None], [-0.1, -2.0]],
        "values": [[0.5, None], [None, None]],
        "logprobs": [[-0.4, -1.0], [None, None]],
    },
    "settings": {"policy": "p", "value": "v", "beta": 1.0},
}


def check_thresholds(folder: Path, found: Calibration) -> None:
    """Shares and nats are numbers, and the numbers of other gates make gates."""
    assert found.thresholds
    assert all(0 < ratio < 1 and math.isfinite(nats) for ratio, nats in found.thresholds.items())
    json.dumps(found.to_json(), allow_nan=False)
    for numbers in (gate for gates in found.gates.values() for gate in gates.values()):
        SteeringConfig(gate=gate_of(numbers))
        json.dumps(numbers.to_json(), allow_nan=False)


def check_learned(folder: Path, found: LearnedGate) -> None:
    """Weights and biases are numbers, and make gates."""
    assert np.isfinite(found.weights).all()
    assert all(0 < ratio < 1 for ratio in found.biases)
    SteeringConfig(gate=found.gate(min(found.biases)))


def check_examples(folder: Path, found: tuple[list[Examples], dict[str, Any]]) -> None:
    """Every feature and gain is a number."""
    for prompt in found[0]:
        assert prompt.features.shape == (len(prompt.shifted), 5)
        assert np.isfinite(prompt.features).all()
        assert prompt.gain is not None
        assert np.isfinite(prompt.gain).all()


def read_journal(folder: Path) -> set[Any]:
    """The keys of a journal's records."""

    def key(record: dict[str, Any]) -> tuple[int, int]:
        return place_in(record, "index"), place_in(record, "branch")

    return Journal(folder / "j.jsonl", JOURNAL_SETTINGS, key).done


def check_journal(folder: Path, found: set[Any]) -> None:
    """Keys are two whole numbers."""
    assert all(type(part) is int and part >= 0 for key in found for part in key)


def write_set(folder: Path) -> list[Path]:
    """A small set."""
    ids = np.array([1, 2, 3], np.int32)
    messages = (MESSAGES[1], REPLY)
    records = [Record(f"r{i}", "g", messages, ids, ids[: i % 3 + 1], 0.5) for i in range(4)]
    write_records(folder, records, {"made": "by a test"})
    return sorted(set_folder(folder).iterdir())


def read_set(folder: Path) -> list[Record]:
    """All records of a set."""
    return list(read_records(folder))


def check_set(folder: Path, found: list[Record]) -> None:
    """The records are those that were written."""
    assert [record.id for record in found] == [f"r{i}" for i in range(4)]


READERS = (
    prompts_reader("p.jsonl", lines(PROMPT_LINES)),
    prompts_reader("p.json", json.dumps([*PROMPT_LINES, "A text?"], indent=1).encode()),
    prompts_reader("p.txt", "How do I boil an egg?\r\n\nWater the plants. 🌱\n".encode()),
    prompts_reader("p.csv", table(CELLS, ",")),
    prompts_reader("p.tsv", table(CELLS, "\t")),
    prompts_reader("p.parquet", parquet(PROMPT_ROWS)),
    prompts_reader("p.jsonl.gz", gzip.compress(lines(PROMPT_LINES), mtime=0)),
    Reader(
        "conversations",
        one_file("c.jsonl", lines(CONVERSATIONS)),
        lambda folder: list(read_conversations(folder / "c.jsonl")),
        check_conversations,
    ),
    source_reader("jsonl", "d.jsonl", lines(OWN)),
    source_reader("jsonl", "d.json", json.dumps(OWN).encode()),
    source_reader("jsonl", "d.csv", table(OWN_CELLS, ",")),
    source_reader("jsonl", "d.parquet", parquet([{"prompt": "a", "response": "b", "reward": 0.5}] * 9)),
    source_reader("jsonl", "d.jsonl", lines([*OWN, *PAIRS]), with_replies=False),
    source_reader("ultrafeedback", "d.jsonl", lines(FEEDBACK)),
    source_reader("wildguardmix", "d.parquet", parquet(LABELS)),
    source_reader("hh-rlhf", "d.jsonl.gz", gzip.compress(lines(TRANSCRIPTS), mtime=0)),
    source_reader("hh-rlhf", "d.jsonl", lines(PAIRS)),
    source_reader("official", "d.json", json.dumps(OFFICIAL, indent=1).encode()),
    Reader(
        "thresholds",
        one_file("t.json", json.dumps(THRESHOLDS, indent=1).encode()),
        lambda folder: read_calibration(folder / "t.json"),
        check_thresholds,
    ),
    Reader(
        "learned-gate",
        one_file("g.json", json.dumps(LEARNED, indent=1).encode()),
        lambda folder: read_learned_gate(folder / "g.json"),
        check_learned,
    ),
    Reader(
        "dense-replies",
        one_file("d.jsonl", lines([DENSE, DENSE | {"index": 1}])),
        lambda folder: read_examples(folder / "d.jsonl", "gain"),
        check_examples,
    ),
    Reader("journal", one_file("j.jsonl", lines(JOURNAL)), read_journal, check_journal),
    Reader(
        "replies",
        one_file("r.jsonl", lines([RECORD, RECORD | {"method": "base", "prompt": {"prompt_ids": [1]}}])),
        lambda folder: trace_page(read_replies(folder / "r.jsonl"), "title").encode(),
    ),
    Reader("set", write_set, read_set, check_set),
)
"""By name, each with a file of its own."""
