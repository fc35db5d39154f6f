"""What the files of labelling tests share; other tests here have a `folder` and `args` of their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sia_jax
from tests.support.labelling import save_models_and_input, usual_args
from train import label
from train.label import Args


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
