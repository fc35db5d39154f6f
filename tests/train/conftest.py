"""What files of tests share: what labelling needs, where others have a `folder` and `args` of their own, and
a set and a base to train value models on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sia_jax
from sia_jax.data.records import Record, write_records
from tests.support.checkpoints import save_tiny_policy
from tests.support.labelling import save_models_and_input, usual_args
from tests.support.trajectories import random_trajectories
from train import label
from train.label import Args


@pytest.fixture(scope="module", autouse=True)
def drawn(blank_pictures: None) -> None:
    """Programs draw blank pictures; tests/reports looks at what they draw."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reward models, and a file of conversations."""
    folder = tmp_path_factory.mktemp("models")
    save_models_and_input(folder)
    return folder


@pytest.fixture(scope="module")
def args(folder: Path) -> Args:
    """The run that others vary."""
    return usual_args(folder)


@pytest.fixture(scope="module")
def finished(args: Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run has written."""
    path = tmp_path_factory.mktemp("finished") / "labelled.jsonl"
    label.main(replace(args, out=str(path)))
    return path


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads weights fails."""

    def load(*args: Any, **options: Any) -> None:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(sia_jax, "load_reward_model", load)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data, base) of the runs of train.value_model."""
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
