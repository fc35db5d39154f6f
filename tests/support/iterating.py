"""What the tests of train.iterate iterate: a tiny policy, prompts, and a reward that is a program."""

from pathlib import Path
from typing import Any

from tests.support.checkpoints import save_tiny_policy
from tests.support.generating import write_lines
from tests.support.tokenizers import save_qwen3_tokenizer
from train.iterate_options import Args

TRAINING, VALIDATION = 8, 22
REPLIES, STEERED, JUDGED = 4, 2, 2


def save_policy_and_prompts(folder: Path) -> None:
    """ "policy", "train.jsonl" and "validation.jsonl"; prompts of one length, which one program serves."""
    tokenizer = save_qwen3_tokenizer(folder / "tokenizer")
    options = {"tokenizer": tokenizer, "vocab_size": 352, "num_layers": 1, "bos_token_id": None}
    save_tiny_policy(folder / "policy", **options)
    asked = [f"Which train is it, {number:03d}?" for number in range(TRAINING + VALIDATION)]
    write_lines(folder / "train.jsonl", [{"prompt": text} for text in asked[:TRAINING]])
    write_lines(folder / "validation.jsonl", [{"prompt": text} for text in asked[TRAINING:]])


def usual_args(folder: Path, out: Path, **changes: Any) -> Args:
    """Two rounds of `REPLIES` replies a prompt, `STEERED` of them steered in the second."""
    options: dict[str, Any] = {
        "policy": str(folder / "policy"),
        "reward_function": ("tests.support.judging:letters",),
        "prompts": str(folder / "train.jsonl"),
        "validation": str(folder / "validation.jsonl"),
        "out": out,
        "rounds": 2,
        "replies": REPLIES,
        "steered": STEERED / REPLIES,
        "validation_replies": JUDGED,
        "threshold": 2.0,
        "beta": 2.0,
        "max_new_tokens": 6,
        "max_length": 64,
        "batch": 16,
        "rank": 4,
        "dropout": 0.0,
        "learning_rate": 1e-2,
        "batch_size": 8,
        "rows": 2,
        "held_out": 0.25,
        "license": "apache-2.0",
    }
    return Args(**options | changes)
