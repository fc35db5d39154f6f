"""A run of the tests says which files are done, and which test failed, as soon as it knows."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest

ROOT = Path(__file__).parents[2]

PASSES = "import pytest\n@pytest.mark.parametrize('i', range(3))\ndef test_a(i): pass\n"
FAILS = """
import pytest

@pytest.fixture
def breaks():
    yield
    raise ValueError("after the test")

def test_b(): assert False
def test_c(breaks): pass
@pytest.mark.skip
def test_d(): pass
"""
PLUGIN = """
from tests.conftest import pytest_configure
"""


@pytest.mark.parametrize("options", [(), ("-n", "2", "--dist", "loadfile")], ids=["alone", "two workers"])
def test_a_line_for_each_file_and_each_failure(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "test_passes.py").write_text(PASSES)
    (tmp_path / "test_fails.py").write_text(FAILS)
    (tmp_path / "conftest.py").write_text(PLUGIN)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=no", *options, str(tmp_path)]
    command += ["-o", "console_output_style=classic"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert "FAILED test_fails.py::test_b" in lines
    assert "FAILED test_fails.py::test_c" in lines
    files = [line for line in lines if " of 2 files  " in line]
    assert [line.split()[0] for line in files] == ["1", "2"]
    assert {line.split("  ")[1].rpartition(",")[0] for line in files} == {
        "test_passes.py: 3 passed",
        "test_fails.py: 2 failed, 1 passed, 1 skipped",
    }
    assert not any(line.startswith(".") for line in lines)
    assert "1 failed, 4 passed, 1 skipped, 1 error" in lines[-1]


def test_the_files_that_go_first_are_there() -> None:
    assert all((ROOT / "tests" / name).is_file() for name in conftest.LONGEST)
