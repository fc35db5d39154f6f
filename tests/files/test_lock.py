"""Of two runs that write to one place, the second is refused; a killed run holds nothing."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sia_jax.files.lock import locked

HOLDER = """
import os, signal, sys, time
from pathlib import Path
from sia_jax.files.lock import locked
with locked(folders=(Path(sys.argv[1]),), files=(Path(sys.argv[2]),)):
    print("held", flush=True)
    sys.stdin.read()
    if sys.argv[3] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def start(folder: Path, file: Path, end: str) -> subprocess.Popen[str]:
    """A process that holds both until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(folder), str(file), end]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("end", ["ended", "killed"])
def test_a_place_is_held_by_one_run_until_it_ends_or_is_killed(tmp_path: Path, end: str) -> None:
    folder, file = tmp_path / "new" / "out", tmp_path / "a.jsonl"
    holder = start(folder, file, end)
    try:
        for places in ({"folders": (folder,)}, {"files": (file,)}):
            told = rf"another run is writing it \(process {holder.pid} on .*\)"
            with pytest.raises(ValueError, match=told), locked(**places):
                pass
        with locked(folders=(tmp_path / "other",), files=(tmp_path / "b.jsonl",)):
            pass
    finally:
        holder.communicate(timeout=60)
    assert holder.returncode == (-signal.SIGKILL if end == "killed" else 0)
    with locked(folders=(folder,), files=(file,)):
        pass
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == []


def test_a_place_under_another_name_is_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "out" / "a").write_text("")
    (tmp_path / "a-link").symlink_to("out/a")
    with locked(folders=(tmp_path / "out",), files=(tmp_path / "out" / "a",)):
        for places in ({"folders": (tmp_path / "link",)}, {"files": (tmp_path / "a-link",)}):
            with pytest.raises(ValueError, match="another run is writing it"), locked(**places):
                pass


def test_a_lock_leaves_what_stood_there_and_takes_what_it_made(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with locked(folders=(tmp_path / "old", tmp_path / "new"), files=(tmp_path / "kept" / "a", None)):
        (tmp_path / "kept" / "a").write_text("a")
    assert sorted(os.listdir(tmp_path)) == ["kept", "old"]
    assert os.listdir(tmp_path / "kept") == ["a"]


def test_an_exception_ends_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(folders=(tmp_path,)):
        raise KeyError
    with locked(folders=(tmp_path,)):
        pass


@pytest.mark.parametrize("length", [20, 255])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path, length: int) -> None:
    with locked(files=(tmp_path / ("ä" * (length // 2)),)):
        pass


def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(files=(tmp_path / "a\x1b",)):
        pass
    assert "a␛: this file system has no locks (No locks available): nothing keeps a second run" in caplog.text


def test_a_place_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = "file/out cannot be written: not a directory"
    with pytest.raises(OSError, match=told), locked(folders=(tmp_path / "file" / "out",)):
        pass
