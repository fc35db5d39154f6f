"""The commands of the pages run as they stand, in their order, on tiny models of the names that they use.

What cannot run here is named, with the tests that run it or what it takes. Replies are made shorter than on a
page, by one more option.
"""

import csv
import glob
import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sia_jax
from sia_jax import console
from sia_jax.world.prompts import prompts
from tests.support.checkpoints import save_tiny_policy, save_tiny_value_model, tiny_reward_model
from tests.support.markdown_pages import code_blocks
from tests.support.page_commands import PAGES, ROOT, commands, program_of
from tests.support.tokenizers import save_qwen3_tokenizer

ELSEWHERE = {
    "README.md": "make: .ci/run, and tests/serve/test_process.py",
    "CONTRIBUTING.md": "the suite itself, .ci/run, and what fetches from elsewhere",
    "docs/guide.md": "tests/test_guide.py",
    "docs/serving.md": "tests/serve/test_process.py, tests/docker, tests/conformance",
    "docs/intervals.md": "tests/decode/test_coverage.py",
    "docs/smollm2.md": "make smollm-page: hours, and SmolLM2 itself",
    "docs/smollm2-transfer-q.md": "the same",
    "docs/world.md": "make world-report: an hour",
    "docs/world-token.md": "the same",
    "docs/world-bounds.md": "make world-bounds",
    "docs/world-iterate.md": "make world-iterate: an hour",
}
"""Pages whose commands run elsewhere, and where."""
WITHOUT = [page for page in PAGES if page not in ELSEWHERE and not commands(page)]
HERE = [page for page in PAGES if page not in ELSEWHERE and page not in WITHOUT]
ALONE = {
    "--ray": "tests/cluster",
    "serve": "tests/serve/test_process.py",
    "pip install": "make ray",
    "iterate": "tests/test_guide.py, tests/train/test_iterate.py",
    "--seed 0 --mutations 5000": "make fuzz",
}
"""Of the other pages, commands that run in tests of their own."""
TOKENS = "6"
"""Of a reply."""
SHORTER = (
    *("decode.generate", "decode.calibrate", "decode.evaluate", "decode.own_prefixes", "configs.thresholds"),
    *("configs.baselines", "configs.gates", "configs.with_best_of_n", "configs.post_trained"),
)
"""Programs that take `--max-new-tokens`, and write much without it."""
POLICIES = (
    "models/policy",
    "Qwen/Qwen3-1.7B",
    "Qwen/Qwen3-1.7B-Base",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-0.6B-Base",
)
REWARDS = ("models/reward", "Skywork/Skywork-Reward-V2-Qwen3-8B", "Skywork/Skywork-Reward-V2-Llama-3.1-8B")
DIRS = {
    "--policy": "models/policy",
    "--value": "models/value",
    "--reward": "models/reward",
    "--input": "UltraFeedback",
}
"""What DIR stands for, by the option before it."""


def test_every_block_of_a_page_says_what_it_is() -> None:
    for page in PAGES:
        assert code_blocks((ROOT / page).read_text(), "") == [], page
    assert set(HERE) == {
        "configs/README.md",
        *(f"docs/{name}.md" for name in ("clusters", "data", "evaluation", "reference", "training")),
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models under the names of the pages, files of prompts, and what other pages have made."""
    folder = tmp_path_factory.mktemp("pages")
    tokenizer = save_qwen3_tokenizer(folder / "tokenizer")
    sizes: dict[str, Any] = {
        "vocab_size": 352,
        "num_layers": 1,
        "bos_token_id": None,
        "max_position_embeddings": 2048,
    }
    options = {"tokenizer": tokenizer, "eos_token_ids": (*range(40, 60), 90), **sizes}
    for name in POLICIES:
        policy = save_tiny_policy(folder / name, **options)
    save_tiny_value_model(folder / "models/value", policy)
    save_tiny_value_model(folder / "Runyi-Hu/SIA/VM-Qwen3-0.6B-Base", policy, layout="official")
    reward = replace(tiny_reward_model(seed=2, **sizes), tokenizer=tokenizer)
    for name in REWARDS:
        sia_jax.save_reward_model(reward, folder / name)
    return folder


@pytest.fixture(autouse=True)
def folder(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a page, with the models in it."""
    for one in models.iterdir():
        (tmp_path / one.name).symlink_to(one)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # where judging.py is
    monkeypatch.setattr(sys, "stdin", io.StringIO("How do I boil an egg?\n"))  # which a chat reads
    for name, text in {"ID": "3", "COUNT": "16", "MIN": "0", "MAX": "15", "STEP": "1"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", text)  # of --shard env
    return tmp_path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_sets(folder: Path, texts: list[str]) -> None:
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


BEFORE = {
    "docs/clusters.md": "sia calibrate --policy DIR --prompts validation.jsonl --out thresholds.json",
    "docs/data.md": "sia calibrate --policy DIR --prompts validation.jsonl --out thresholds.json",
    "docs/evaluation.md": """
sia generate --policy DIR --value DIR --threshold=-inf --record --prompts train.jsonl --out others.jsonl
sia learn-gate --replies others.jsonl --out gate.json
sia evaluate --policy DIR --value DIR --reward DIR --prompts test.jsonl --methods base dense --seeds 2 \\
  --out pilot
""",
}
"""What a page takes for granted, made by commands of others."""


def prepare(page: str, folder: Path) -> None:
    """The files that a page takes for granted."""
    chosen = sorted(prompts("validation"), key=lambda prompt: (len(prompt.text), prompt.id))[:70]
    rows = [{"id": prompt.id, "prompt": prompt.text} for prompt in chosen]
    for name, part in {
        "prompts": rows[:6],
        "test": rows[:6],
        "train": rows[6:26],
        "validation": rows[26:],
    }.items():
        write_lines(folder / f"{name}.jsonl", part)
    replies = (
        {"response": "Of course. " * (number % 3 + 1), "reward": number % 3} for number in range(len(rows))
    )
    write_lines(folder / "mine.jsonl", [row | reply for row, reply in zip(rows, replies, strict=True)])
    kind = {"model": "m", "custom_system_prompt": "Be kind."}
    both = [{**kind, "response": "Of course."}, {**kind, "response": "No, no."}]
    feedback = [
        {"source": "invented", "instruction": row["prompt"], "completions": both} for row in rows[:12]
    ]
    write_lines(folder / "UltraFeedback/flan.jsonl", feedback)
    write_sets(folder, [row["prompt"] for row in rows[:6]])
    own = code_blocks((ROOT / "docs/reference.md").read_text(), "python")
    (folder / "judging.py").write_text(next(text for text in own if text.startswith("# judging.py")))
    for line in BEFORE.get(page, "").replace("\\\n", "").strip().splitlines():
        run(line.split())
    if (folder / "pilot").exists():
        for name in ("pilot", "evaluation"):
            shutil.copytree(folder / "pilot", folder / "out" / name)
    if page in BEFORE and (folder / "thresholds.json").exists():
        (folder / "t.json").write_bytes((folder / "thresholds.json").read_bytes())


def run(words: list[str]) -> None:
    """Run a command in this process."""
    called = program_of(words)
    assert called is not None, words
    program, options = called
    options = [option for word in options for option in (sorted(glob.glob(word)) if "*" in word else [word])]
    for place, option in enumerate(options):
        if option == "DIR":
            options[place] = DIRS[options[place - 1]]
    if program.module in SHORTER:
        options += ["--max-new-tokens", TOKENS]
    console.run(program, options)


def shown(page: str) -> Iterator[list[str]]:
    """The commands of a page that run here, each shard of a work that is split.

    Of the paper's many runs, which differ in names alone, those of one policy and one set.
    """
    for words in commands(page):
        text = " ".join(words)
        one = re.search(r"0\.6B.*hex-phi|configs\.thresholds.*0\.6B", text)
        alike = page == "configs/README.md" and one is None
        if alike or any(part in text for part in ALONE):
            continue
        for shard in range(4 if "--shard 0/4" in text else 1):
            whole = [word.replace("0/4", f"{shard}/4") for word in words]
            # What the page of data shows is files; one method reads them as all do.
            yield [*whole, "--methods", "base"] if page == "docs/data.md" else whole


@pytest.mark.long
@pytest.mark.parametrize("page", HERE)
def test_the_commands_of_a_page_run_in_their_order(page: str, folder: Path) -> None:
    prepare(page, folder)
    count = 0
    for words in shown(page):
        run(words)
        count += 1
    assert count
