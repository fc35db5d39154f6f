"""Imports go one way, and `make check` fails where one does not."""

import graphlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The code, without what it carries, to be changed."""
    for folder in ("sia_jax", "decode", "train", "configs"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=lambda _, names: [n for n in names if n == "__pycache__"]
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def broken(house: Path) -> str:
    """What the contracts say; empty if they are kept."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=house,
        env=os.environ | {"PYTHONPATH": str(house)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout if done.returncode else ""


def test_imports_go_one_way(house: Path) -> None:
    assert not broken(house)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("sia_jax/models/heads.py", "from sia_jax.decoding import sample"),
        ("sia_jax/steering/entropy.py", "from sia_jax.models import config"),
        ("sia_jax/data/columns.py", "from sia_jax.training import batch"),
        ("sia_jax/reports/training.py", "from sia_jax.studies.entropy import spread"),
        ("sia_jax/pretrained.py", "from decode import runner"),
        ("decode/generate.py", "from train import prepare"),
        ("train/prepare.py", "from decode import generate"),
        ("decode/evaluate.py", "from sia_jax.world import gold"),
    ],
    ids=[
        *("upwards", "upwards again", "a circle of rooms", "side by side"),
        *("a program", "decode takes train", "train takes decode", "a measurement takes the world"),
    ],
)
def test_an_import_that_goes_another_way_is_named(house: Path, file: str, line: str) -> None:
    path = house / file
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    said = broken(house)
    assert file.removesuffix(".py").replace("/", ".") in said
    assert line.split()[1] in said


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("sia_jax", "decode", "train", "configs", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert sum(map(len, imports.values())) > 500
    graphlib.TopologicalSorter(imports).prepare()


def test_a_room_that_no_contract_names_is_refused(house: Path) -> None:
    (house / "sia_jax/attic").mkdir()
    (house / "sia_jax/attic/__init__.py").write_text("")
    assert "sia_jax.attic" in broken(house)
