"""The program from a data folder to value models that load again."""

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sia_jax
from sia_jax.data.records import Record, read_records, write_records
from sia_jax.types import flatten_names
from tests.support.checkpoints import assert_same_trees, save_tiny_policy
from tests.support.trajectories import random_trajectories
from train.value_model import Args, main

ROOT = Path(__file__).parents[2]
QUICK = {"epochs": 2, "batch_size": 8, "row_length": 32, "rows": 2, "rank": 4, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """(data, base)."""
    folder = tmp_path_factory.mktemp("training")
    policy = save_tiny_policy(folder / "base", num_layers=1)
    records = [
        Record(f"r{t.number}", t.group, (), t.prompt_ids, t.reply_ids, t.reward)
        for t in random_trajectories(40, policy.config.vocab_size)
    ]
    records[3] = Record("long", "long", (), np.arange(30, dtype=np.int32), np.arange(9, dtype=np.int32), 1.0)
    records[4] = Record("bare", "bare", (), np.arange(3, dtype=np.int32), np.arange(3, dtype=np.int32), None)
    write_records(folder / "data", records, {})
    return folder / "data", folder / "base"


def train(folders: tuple[Path, Path], out: Path, **options) -> None:
    data, base = folders
    main(
        Args(data=data, base=str(base), out=out, **(QUICK | {"held_out": 0.2, "evaluate_every": 4} | options))
    )


def load(folder: Path, base: Path) -> sia_jax.ValueModel:
    return sia_jax.load_value_model(folder, sia_jax.load_policy(base))


def metrics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_ends_in_value_models_metrics_and_a_picture(folders, tmp_path, capsys):
    train(folders, tmp_path)
    said = capsys.readouterr().err
    assert "longer than a row: 1 (3)" in said
    assert "no reward: 1 (4)" in said
    last, best = (load(tmp_path / name, folders[1]) for name in ("last", "best"))
    assert last.config.lora is not None
    assert (last.config.lora.rank, last.config.head) == (4, "scalar")
    lines = metrics(tmp_path)
    steps = [line["step"] for line in lines if line["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert evaluations[-1]["step"] == steps[-1]
    lowest = min(evaluations, key=lambda line: line["loss"])
    recorded = json.loads((tmp_path / "best" / "value_model.json").read_text())
    assert (recorded["step"], recorded["best_step"]) == (lowest["step"], lowest["step"])
    assert recorded["held_out_loss"] == pytest.approx(lowest["loss"])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert flatten_names(best.params).keys() == flatten_names(last.params).keys()


def test_stopped_by_its_own_limit_and_started_again_a_run_ends_the_same(folders, tmp_path):
    train(folders, tmp_path / "whole")
    train(folders, tmp_path / "parts", max_steps=3)
    assert [line["step"] for line in metrics(tmp_path / "parts")] == [1, 2, 3]
    train(folders, tmp_path / "parts")
    whole, parts = (load(tmp_path / name / "last", folders[1]) for name in ("whole", "parts"))
    assert_same_trees(parts.params, whole.params)
    timing = {"seconds", "tokens_per_second", "mfu"}
    kept = [
        [{k: x for k, x in line.items() if k not in timing} for line in metrics(tmp_path / name)]
        for name in ("whole", "parts")
    ]
    assert kept[0] == kept[1]


def test_a_folder_of_a_run_with_other_settings_is_refused(folders, tmp_path):
    train(folders, tmp_path, max_steps=1)
    with pytest.raises(SystemExit, match=r"other settings: learning_rate 0.01 \(now 0.5\)"):
        train(folders, tmp_path, learning_rate=0.5)


def test_a_folder_of_a_run_on_other_data_is_refused(folders, tmp_path):
    train(folders, tmp_path / "vm", max_steps=1)
    other = [replace(record, reward=1.0) for record in read_records(folders[0])]
    write_records(tmp_path / "other", other, {})
    with pytest.raises(SystemExit, match="other settings: data_sha256"):
        train((tmp_path / "other", folders[1]), tmp_path / "vm")


@pytest.mark.parametrize(
    "options",
    [
        {"trained": "head"},
        {"head": "vocab", "head_rank": 3},
        {"objective": "token", "schedule": "cosine", "warmup_steps": 2, "remat": True},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_other_things_to_train(options, folders, tmp_path):
    train(folders, tmp_path, epochs=1, **options)
    value = load(tmp_path / "last", folders[1])
    assert value.config.head == options.get("head", "scalar")
    losses = [line["loss"] for line in metrics(tmp_path) if line["kind"] == "step"]
    assert np.all(np.isfinite(losses))


def test_a_vocab_head_learns_from_a_scalar_one(folders, tmp_path):
    train(folders, tmp_path / "teacher", epochs=1)
    student = {"objective": "distil", "teacher": str(tmp_path / "teacher" / "last")}
    train(folders, tmp_path / "student", epochs=6, head="vocab", head_rank=8, **student)
    losses = [line["loss"] for line in metrics(tmp_path / "student") if line["kind"] == "step"]
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])


def test_the_official_layout(folders, tmp_path):
    train(folders, tmp_path, epochs=1, layout="official")
    assert {p.name for p in (tmp_path / "last").iterdir()} == {
        "lora_weights",
        "model_config.json",
        "token_reward_head.pt",
    }
    load(tmp_path / "last", folders[1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": Path("nowhere")}, "there is no set of records"),
        ({"base": "nowhere"}, "nowhere"),
        ({"mesh": (3, 1, 1)}, "devices"),
        ({"rows": 0}, "rows"),
        ({"head": "vocab"}, "head_rank"),
        ({"objective": "distil"}, "teacher"),
        ({"row_length": 2}, "nothing to train on"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(options, said, folders, tmp_path):
    data, base = folders
    with pytest.raises(SystemExit) as caught:
        main(Args(**({"data": data, "base": str(base), "out": tmp_path} | QUICK | options)))
    message = str(caught.value)
    assert message.startswith("train.value_model: ")
    assert said in message


def test_help_teaches():
    command = [sys.executable, "-m", "train.value_model", "--help"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    for word in ("--data", "--base", "The paper's recipe", "--mesh DATA FSDP TENSOR", "curves.png"):
        assert word in found.stdout


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_keeps_its_last_step_and_says_so(sent, folders, tmp_path):
    data, base = folders
    command = [sys.executable, "-m", "train.value_model", "--data", data, "--base", base, "--out", tmp_path]
    command += ["--epochs", "5000", "--row-length", "32", "--rank", "4", "--checkpoint-every", "5"]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoints" / "last" / "5").is_dir() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + sent
    said = re.search(r"goes on after step (\d+)", errors)
    assert said, errors
    assert (tmp_path / "checkpoints" / "last" / said[1]).is_dir()
