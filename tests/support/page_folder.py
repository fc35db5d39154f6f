"""A folder as the pages take it for granted: tiny models, prompts and files under the names that they use."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import sia_jax
from sia_jax.world.prompts import prompts
from tests.support.checkpoints import save_tiny_policy, save_tiny_value_model, tiny_reward_model
from tests.support.generating import write_lines
from tests.support.markdown_pages import code_blocks
from tests.support.tokenizers import save_qwen3_tokenizer

ROOT = Path(__file__).parents[2]
WORLD, SMOLLM = "sia_jax/world/models", "out/smollm2"
NAMES = {
    "policy": (
        *("models/policy", f"{WORLD}/policy", f"{SMOLLM}/policy"),
        *("Qwen/Qwen3-1.7B", "Qwen/Qwen3-1.7B-Base", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base"),
    ),
    "value": ("models/value", f"{WORLD}/value", f"{WORLD}/value-token", f"{SMOLLM}/value/best"),
    "official": ("Runyi-Hu/SIA/VM-Qwen3-0.6B-Base",),
    "reward": (
        *("models/reward", f"{WORLD}/reward"),
        *("Skywork/Skywork-Reward-V2-Qwen3-8B", "Skywork/Skywork-Reward-V2-Llama-3.1-8B"),
    ),
}
"""Which of the models of `save_models` pages call by which names."""


def save_models(folder: Path) -> None:
    """A policy, two layouts of a value model of it, and a reward model."""
    tokenizer = save_qwen3_tokenizer(folder / "tokenizer")
    sizes: dict[str, Any] = {
        "vocab_size": 352,
        "num_layers": 1,
        "bos_token_id": None,
        "max_position_embeddings": 2048,
    }
    stops = (*range(40, 60), 90)
    policy = save_tiny_policy(folder / "policy", tokenizer=tokenizer, eos_token_ids=stops, **sizes)
    value = save_tiny_value_model(folder / "value", policy)
    # Whose layout knows its base by its name alone.
    base = "Qwen/Qwen3-0.6B-Base"
    sia_jax.save_value_model(value, folder / "official", base_model=base, layout="official")
    reward = replace(tiny_reward_model(seed=2, **sizes), tokenizer=tokenizer)
    sia_jax.save_reward_model(reward, folder / "reward")


def fill(folder: Path, models: Path) -> None:
    """Put all that pages name into an empty folder.

    Args:
      folder: the current one of their commands.
      models: of `save_models`.
    """
    for kind, names in NAMES.items():
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(models / kind)
    chosen = sorted(prompts("validation"), key=lambda prompt: (len(prompt.text), prompt.id))[:70]
    rows = [{"id": prompt.id, "prompt": prompt.text} for prompt in chosen]
    parts = {"prompts": rows[:6], "test": rows[:6], "train": rows[6:26], "validation": rows[26:]}
    for where in (".", "configs/smollm2", f"{WORLD}/prompts"):
        (folder / where).mkdir(parents=True, exist_ok=True)
        for name, part in parts.items():
            write_lines(folder / where / f"{name}.jsonl", part)
    write_lines(folder / SMOLLM / "twenty.jsonl", rows[:4])
    (folder / "out/world").mkdir()
    (folder / "out/world/models").symlink_to(folder / WORLD)
    for name in ("sia_jax/world/README.md", "configs/smollm2/README.md", "configs/world-iterate.md"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "configs/smollm2/beside.md", folder / SMOLLM / "beside.md")
    (folder / "docs").mkdir()
    _write_demo(folder / "out/demo300", rows[:4])
    _write_training_data(folder, rows)
    _write_sets(folder, [row["prompt"] for row in rows[:6]])
    own = code_blocks((ROOT / "docs/reference.md").read_text(), "python")
    (folder / "judging.py").write_text(next(text for text in own if text.startswith("# judging.py")))


def _write_demo(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Gold rewards as `decode.demo` writes them."""
    folder.mkdir()
    methods = ("base", "dense", "sparse 10%", "sparse 20%")
    lines = [
        {"method": method, "index": index, "gold": index % 3 + 0.1 * place}
        for place, method in enumerate(methods)
        for index in range(len(rows))
    ]
    write_lines(folder / "replies.jsonl", lines)


def _write_training_data(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Replies with rewards, and raw data in the form of UltraFeedback."""
    replies = ({"response": "Of course. " * (n % 3 + 1), "reward": n % 3} for n in range(len(rows)))
    write_lines(folder / "mine.jsonl", [row | reply for row, reply in zip(rows, replies, strict=True)])
    kind = {"model": "m", "custom_system_prompt": "Be kind."}
    both = [{**kind, "response": "Of course."}, {**kind, "response": "No, no."}]
    feedback = [
        {"source": "invented", "instruction": row["prompt"], "completions": both} for row in rows[:12]
    ]
    (folder / "UltraFeedback").mkdir()
    write_lines(folder / "UltraFeedback/flan.jsonl", feedback)


def _write_sets(folder: Path, texts: list[str]) -> None:
    """The sets of prompts that pages name, in their published forms."""
    pair = {"output": "Of course.", "generator": "writer", "dataset": "invented"}
    (folder / "alpaca_eval.json").write_text(json.dumps([{"instruction": text, **pair} for text in texts]))
    for names, header in {
        ("harmful_behaviors.csv", "advbench.csv"): ["goal", "target"],
        ("category_1.csv", "hex-phi.csv"): None,
        ("TruthfulQA.csv", "truthfulqa.csv"): [
            "Question",
            "Best Answer",
            "Correct Answers",
            "Incorrect Answers",
        ],
        ("table.csv",): ["Number", "Ask"],
    }.items():
        rows = [[text] for text in texts]
        if header is not None:
            place = header.index("Ask") if "Ask" in header else 0
            rows = [
                header,
                *([text if column == place else "7" for column in range(len(header))] for text in texts),
            ]
        for name in names:
            with (folder / name).open("w", newline="") as file:
                csv.writer(file).writerows(rows)
    asked = [[{"role": "user", "content": text}] for text in texts]
    whole = [[*one, {"role": "assistant", "content": "Of course."}] for one in asked]
    table = pa.table({"prompt": texts, "chosen": whole, "rejected": whole})
    pq.write_table(table, folder / "test-00000-of-00001.parquet")
    labels = ["unharmful"] * len(texts)
    table = pa.table({"prompt": texts, "response": texts, "prompt_harm_label": labels})
    pq.write_table(table, folder / "wildguard_test.parquet")
    (folder / "data").mkdir()
    for name in (
        "hex-phi.csv",
        "advbench.csv",
        "alpaca_eval.json",
        "truthfulqa.csv",
        "wildguard_test.parquet",
    ):
        (folder / "data" / name).write_bytes((folder / name).read_bytes())
