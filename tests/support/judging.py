"""Reward functions of tests: modules in a current folder of their own."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest


def own_module(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> str:
    """Write a module into a folder, which becomes the current one; its name, which no other has."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"judging_{uuid4().hex}"
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return name


def letters(conversations: Sequence[Any]) -> list[float]:
    """A reward that random texts have."""
    return [float(len(messages[-1]["content"]) % 5) for messages in conversations]
