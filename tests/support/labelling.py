"""What the tests of labelling label: tiny reward models, and a file of conversations, good and bad."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import sia_jax
from tests.support.checkpoints import tiny_reward_model
from tests.support.tokenizers import LLAMA3_TEMPLATE, save_llama3_tokenizer, save_qwen3_tokenizer
from train.label import Args

QUESTION = "How long should I boil an egg?"
TURNS = [
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": "Seven minutes."},
]
REPLIES = (
    *("Seven minutes.", "It depends: eight, or nine for a large one.", "I do not know; ask the children."),
    *("Put the egg into boiling water. human: and then? Wait for seven minutes.", "卵? Sieben Minuten."),
)
LINES: list[dict[str, Any]] = [
    *({"id": i, "prompt": QUESTION, "response": reply} for i, reply in enumerate(REPLIES)),
    {
        "messages": [{"role": "system", "content": "Be brief."}, *TURNS, *TURNS],
        "group": "a",
        "complete": False,
    },
    {"note": "half an egg 🥚", "numbers": [0.1, 1e-300, 2**70, None], "messages": TURNS},
]
BAD: dict[str, list[dict[str, Any]]] = {
    "no reply": [
        {"prompt": QUESTION, "response": None},
        {"prompt": QUESTION, "response": " \n"},
        {"messages": TURNS[:1]},
    ],
    "not a conversation": [{"messages": TURNS[1:]}, {"messages": []}, {"prompt": None, "response": "Yes."}],
    "too long": [{"prompt": QUESTION, "response": "Water. " * 100}],
}


def save_models_and_input(folder: Path) -> None:
    """Reward models "reward", "other" and "llama", and "input.jsonl": a bad line after every good one."""
    for seed, name in enumerate(("reward", "other")):
        model = tiny_reward_model(seed=seed, vocab_size=352)
        tokenizer = save_qwen3_tokenizer(folder / "tokenizer")
        sia_jax.save_reward_model(replace(model, tokenizer=tokenizer), folder / name)
    tokenizer = save_llama3_tokenizer(folder / "llama-tokenizer")
    # As Llama 3.2's: today's date, unless one is given.
    tokenizer.chat_template = LLAMA3_TEMPLATE.replace(
        "default('26 Jul 2024')", "default(strftime_now('%d %b %Y'))"
    )
    llama = tiny_reward_model("llama", vocab_size=352, max_position_embeddings=512)
    sia_jax.save_reward_model(replace(llama, tokenizer=tokenizer), folder / "llama")
    bad = [line for lines in BAD.values() for line in lines]
    mixed = [json.dumps(line) for pair in zip(LINES, bad, strict=True) for line in pair]
    mixed.insert(4, "")
    (folder / "input.jsonl").write_text("\ufeff" + "\r\n".join(mixed), encoding="utf-8")


def usual_args(folder: Path) -> Args:
    """The run that the tests vary."""
    return Args(
        input=str(folder / "input.jsonl"),
        reward_model=(str(folder / "reward"),),
        out="",
        max_tokens=200,
        batch_tokens=128,
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file."""
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def report_of(path: Path) -> dict[str, Any]:
    """The report beside an output."""
    report: dict[str, Any] = json.loads(
        path.with_name(path.name + ".report.json").read_text(encoding="utf-8")
    )
    return report


def partial_of(path: Path) -> Path:
    """The journal beside an output."""
    return path.with_name(path.name + ".partial.jsonl")


def write_lines(path: Path, *lines: Any) -> str:
    """Write a JSONL file; its name."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)
