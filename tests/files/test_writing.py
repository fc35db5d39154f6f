"""Files are written whole or not at all, with the mode of the umask, and with errors that name them."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sia_jax.files.writing import WriteError, make_folder, replacing, staging, write_text


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_written_file_has_the_mode_that_the_umask_says(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "a"
    write_text(path, "a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    with replacing(path) as new:  # by a library that makes a file of its own
        handle = os.open(new, os.O_CREAT | os.O_WRONLY, 0o600)
        os.close(handle)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "old\n")

    def fail() -> None:
        with replacing(path) as new:
            new.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["a"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "old")
    with replacing(path) as new:
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_symbolic_link_is_replaced_and_its_target_let_be(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "ours")
    assert (tmp_path / "target").read_text() == "theirs"
    assert (tmp_path / "link").read_text() == "ours"


@pytest.mark.parametrize("length", [250, 255])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path, length: int) -> None:
    write_text(tmp_path / ("a" * length), "a")
    assert os.listdir(tmp_path) == ["a" * length]


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from sia_jax.files.writing import replacing\n"
        "with replacing(Path(sys.argv[1])) as new:\n"
        "    new.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a")], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    with replacing(tmp_path / "a") as living:
        living.write_text("living")
        write_text(tmp_path / "a", "second")
        assert living.exists()
    assert (tmp_path / "a").read_text() == "living"
    assert os.listdir(tmp_path) == ["a"]


def test_another_files_leftovers_are_let_be(tmp_path: Path) -> None:
    with staging(tmp_path, "b") as other:
        write_text(tmp_path / "a", "a")
        assert other.is_dir()


def test_a_missing_folder_a_file_in_its_place_and_a_pipe_are_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"nowhere/a cannot be written: no such file.*; make its folder"):
        write_text(tmp_path / "nowhere" / "a", "")
    write_text(tmp_path / "file", "")
    with pytest.raises(WriteError, match=r"file/a cannot be written: not a directory; a file stands where"):
        write_text(tmp_path / "file" / "a", "")
    with pytest.raises(WriteError, match=r"file/a cannot be written: not a directory; a file stands where"):
        make_folder(tmp_path / "file" / "a")
    with pytest.raises(WriteError, match=r"file cannot be written: not a directory"):
        make_folder(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WriteError, match="a device or a pipe, which cannot be replaced"):
        write_text(tmp_path / "pipe", "")
    with pytest.raises(WriteError, match="it is a folder; name a file"):
        write_text(tmp_path, "")


def test_a_full_disk_is_named_with_the_file_and_the_old_file_stays(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from sia_jax.files.writing import write_text\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "write_text(Path(sys.argv[1]), 'x' * 5000)\n"
    )
    path = tmp_path / "a"
    write_text(path, "old")
    full = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60
    )
    assert f"WriteError: {path} cannot be written: file too large; the file system, or a limit" in full.stderr
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_an_error_of_writing_keeps_its_number(tmp_path: Path) -> None:
    with pytest.raises(WriteError) as caught, replacing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value).endswith("a cannot be written: no space left on device; make room on the disk")


def test_an_error_that_names_another_file_passes_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "a"):
        (tmp_path / "input").read_text()
    assert caught.value.filename == str(tmp_path / "input")


def test_what_libraries_in_rust_make_of_an_error_of_the_system_is_one(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="make room on the disk") as caught, replacing(tmp_path / "a"):
        raise Exception("I/O error: No space left on device (os error 28)")
    assert caught.value.errno == errno.ENOSPC
