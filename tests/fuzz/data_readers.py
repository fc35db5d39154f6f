"""The readers of data: what each program reads beside its models."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sia_jax.data.conversations import read_conversations
from sia_jax.data.prompts import read_prompts
from sia_jax.reports.journal import Journal
from tests.fuzz.readers import Reader

MESSAGES = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "How do I boil an egg?"},
    {"role": "assistant", "content": "Seven minutes. 🥚"},
    {"role": "user", "content": "And two of them?"},
]


def lines(rows: Sequence[Any]) -> bytes:
    """JSONL."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def one_file(name: str, content: bytes) -> Callable[[Path], list[Path]]:
    """Writes a file of this name."""

    def write(folder: Path) -> list[Path]:
        (folder / name).write_bytes(content)
        return [folder / name]

    return write


PROMPT_LINES = [
    {"prompt": "How do I boil an egg?", "id": "egg", "seed": 3, "threshold": 1.5},
    {"messages": MESSAGES, "id": 7, "threshold": "inf"},
    {"prompt_ids": [1, 2, 3], "value_ids": [4, 5], "extra": {"a": [1.5, None]}},
]

CONVERSATIONS = [
    {"messages": [*MESSAGES, {"role": "assistant", "content": "The same."}], "id": 1, "source": {"a": 0.5}},
    {"prompt": "How long?", "response": "Seven minutes.", "group": "g"},
    {"prompt": MESSAGES, "text": "As long.", "tokens": [1, 2, 3]},
]

JOURNAL_SETTINGS = {"policy": "p", "temperature": 1.0, "stop": ["a", "b"], "value": None}
JOURNAL = [{"index": i, "entropy": [0.5, 1.25, None], "settings": JOURNAL_SETTINGS} for i in range(4)]


def _read_journal(folder: Path) -> set[Any]:
    return Journal(folder / "j.jsonl", JOURNAL_SETTINGS, lambda record: record["index"]).done


READERS = (
    Reader(
        "prompts-jsonl",
        one_file("p.jsonl", lines(PROMPT_LINES)),
        lambda folder: read_prompts(folder / "p.jsonl"),
    ),
    Reader(
        "conversations",
        one_file("c.jsonl", lines(CONVERSATIONS)),
        lambda folder: [line.with_reward(1.0) for line in read_conversations(folder / "c.jsonl")],
    ),
    Reader("journal", one_file("j.jsonl", lines(JOURNAL)), _read_journal),
)
