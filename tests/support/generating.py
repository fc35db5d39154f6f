"""What the tests of train.prepare --generate sample: tiny policies, and a file of prompts, good and bad."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sia_jax.data.records import read_records
from tests.support.checkpoints import save_tiny_policy
from tests.support.tokenizers import save_qwen3_tokenizer
from train.generation import GenerationArgs
from train.prepare import Args

# Of one bucket, so that one program serves them.
QUESTIONS = (
    "How long should I boil an egg?",
    "Which train is it?",
    "Water the plants now.",
    "The 14th, please.",
    "Is it hot?",
)
ROWS: list[dict[str, Any]] = [
    {"prompt": QUESTIONS[0], "id": "egg"},
    {"prompt": QUESTIONS[1], "response": "The one at nine.", "reward": "high", "complete": False},
    {"messages": [{"role": "user", "content": QUESTIONS[2]}]},
    {"messages": [{"role": "user", "content": QUESTIONS[0]}, {"role": "assistant", "content": "Seven."}]},
    {"prompt": " ", "response": "Of course."},
    {"prompt": "The evening train. " * 15},
    {"prompt": QUESTIONS[3], "response": "", "group": "dates"},
    {"messages": [{"role": "assistant", "content": "Yes."}]},
    {"prompt": "The evening train. " * 15, "response": None},
    {"prompt": QUESTIONS[4]},
    {"prompt": "The evening train. " * 40},
]
N, LENGTH = 3, 12
STOPS = (*range(40, 60), 90)
"""Ids that end a reply, so many that half of the replies of a random policy end by themselves."""


def save_policies_and_prompts(folder: Path) -> None:
    """Policies "policy" and "other" of one shape, and "prompts.jsonl"."""
    tokenizer = save_qwen3_tokenizer(folder / "tokenizer")
    options = {"tokenizer": tokenizer, "vocab_size": 352, "num_layers": 1, "bos_token_id": None}
    for seed, name in enumerate(("policy", "other")):
        save_tiny_policy(folder / name, seed=seed, eos_token_ids=STOPS, **options)
    write_lines(folder / "prompts.jsonl", ROWS)


def usual_args(folder: Path) -> Args:
    """The run that the tests vary: two prompts of three branches at a time."""
    return Args(
        format="jsonl",
        input=str(folder / "prompts.jsonl"),
        out="",
        max_length=100,
        sampling=GenerationArgs(
            generate=N,
            policy=str(folder / "policy"),
            batch=6,
            max_new_tokens=LENGTH,
            seed=5,
            record_prompt="policy",
        ),
    )


def vary(args: Args, out: Path, **changes: Any) -> Args:
    """The run with other options, those of sampling among them."""
    sampling = {name: changes.pop(name) for name in list(changes) if hasattr(args.sampling, name)}
    return replace(args, out=str(out), **changes, sampling=replace(args.sampling, **sampling))


def write_lines(path: Path, rows: Any) -> str:
    """Write a JSONL file; its name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def report_of(out: Path) -> dict[str, Any]:
    """The report beside a set."""
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report


def replies(out: Path) -> dict[str, list[list[int]]]:
    """Question -> the ids of its replies, in their order."""
    found: dict[str, list[list[int]]] = {}
    for record in read_records(out):
        found.setdefault(record.messages[-2]["content"], []).append(record.reply_ids.tolist())
    return found


def plain(text: str) -> str:
    """In one line."""
    return " ".join(text.split())
