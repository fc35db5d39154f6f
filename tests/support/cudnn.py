"""cuDNN where there is none: what JAX asks for before it lowers its attention for CUDA."""

import importlib
from typing import Any

import pytest


def believe_in_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX, which asks for cuDNN's version while it traces, is told one. What comes is lowered, never run."""
    inside: Any = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(inside, "check_cudnn_version", lambda: 91000)
