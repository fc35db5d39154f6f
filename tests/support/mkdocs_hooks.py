"""The modules of docs/mkdocs, which is no package, as MkDocs loads them."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

FOLDER = Path(__file__).parents[2] / "docs/mkdocs"


def hook(name: str) -> ModuleType:
    """The module of this name."""
    spec = importlib.util.spec_from_file_location(f"docs_mkdocs_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.object(sys, "path", [str(FOLDER), *sys.path]):  # as MkDocs has it meanwhile
        spec.loader.exec_module(module)
    return module
