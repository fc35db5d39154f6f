"""Sampling needs none of the packages that only training does, and training says which extra has them."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sia_jax.extras import MissingExtraError, installed_with
from sia_jax.runs.cli import explained

ROOT = Path(__file__).parents[2]
TRAINING = {"tensorflow_datasets", "grain", "orbax", "optax", "pyarrow", "array_record", "etils"}
SERVING = {"uvicorn", "prometheus_client"}
OPTIONAL = TRAINING | SERVING | {"vaderSentiment"}

WITHOUT = """
import importlib, sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow_datasets", "grain", "orbax", "pyarrow", "array_record", "chex"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
for name in "generate chat trace calibrate evaluate entropy_study demo".split():
    importlib.import_module(f"decode.{name}")
importlib.import_module("train.label")
import sia_jax
assert sia_jax.sample and sia_jax.load_policy
from sia_jax.console import main
main(["train", "value-model", "--help"])
"""


def test_sampling_runs_without_the_packages_of_training_and_training_names_its_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("train.value_model: the package ")
    assert "pip install 'sia_jax[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_import_of_an_optional_package_names_the_extra() -> None:
    for folder in ("sia_jax", "decode", "train", "configs"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            inside = {
                id(node)
                for block in ast.walk(tree)
                if isinstance(block, ast.With) and "installed_with" in ast.unparse(block.items[0])
                for node in ast.walk(block)
            }
            for node in ast.walk(tree):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                if OPTIONAL & {name.split(".")[0] for name in names}:
                    assert id(node) in inside, f"{path}, line {node.lineno}"


def test_a_missing_package_is_named_with_its_extra() -> None:
    message = r"no_such_package .* pip install 'sia_jax\[train\]'"
    with pytest.raises(MissingExtraError, match=message) as caught, installed_with("train"):
        import no_such_package  # noqa: F401
    assert caught.value.name == "no_such_package"
    message = r"^train.prepare: the package no_such_package"
    with pytest.raises(SystemExit, match=message), explained("train.prepare"):
        raise caught.value


def test_what_fails_for_another_reason_keeps_its_error() -> None:
    with pytest.raises(ImportError, match="cannot import name") as caught, installed_with("train"):
        from json import no_such_name  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)


def test_the_oldest_transformers_that_is_tried_is_the_oldest_that_is_allowed() -> None:
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (bound,) = (need.partition(">=")[2] for need in needs if need.startswith("transformers"))
    assert f"transformers=={bound}." in (ROOT / "tests/oldest.txt").read_text()


def test_every_python_that_is_named_has_its_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {line.split(" :: ")[-1] for line in project["classifiers"] if "Python :: 3." in line}
    files = {path.stem.partition("-")[2] or "3.11" for path in ROOT.glob("constraints*.txt")}
    assert files == named
    for path in ROOT.glob("constraints*.txt"):
        lines = path.read_text().split()
        assert all(line.partition("==")[2] for line in lines), "a version for each, and no address"
