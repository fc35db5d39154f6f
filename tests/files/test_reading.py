"""Paths that a user names: what is no readable file is refused by name, before anything waits or grows."""

import gzip
import os
import re
from pathlib import Path

import pytest

from sia_jax.files.reading import check_file, read_bytes

WHAT = "file of prompts"


def test_a_path_that_is_no_file_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "plain").touch()
    cases: dict[str, tuple[type[Exception], str]] = {
        "gone": (FileNotFoundError, f"no such {WHAT}; make one"),
        "plain/below": (FileNotFoundError, f"no such {WHAT}; make one"),
        "dangling": (FileNotFoundError, f"is a link to {tmp_path / 'gone'}, where nothing is; make one"),
        ".": (IsADirectoryError, "this is a folder"),
        "pipe": (ValueError, "a pipe or a device"),
        "a\0b": (ValueError, "is no path"),
    }
    for name, (kind, why) in cases.items():
        with pytest.raises(kind, match=re.escape(why)):
            check_file(tmp_path / name, WHAT, "make one")
    check_file(tmp_path / "plain", WHAT)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"a")
    (tmp_path / "link").symlink_to("real")
    assert read_bytes(tmp_path / "link", WHAT) == b"a"


def test_gzip_is_unpacked_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"a" * 100))
    assert read_bytes(path, WHAT) == b"a" * 100
    with pytest.raises(ValueError, match=r"x\.gz: it unpacks to more than 99 bytes"):
        read_bytes(path, WHAT, limit=99)
    path.write_bytes(gzip.compress(b"abc")[:-4])
    with pytest.raises(ValueError, match=r"x\.gz: the compressed file is broken or cut short"):
        read_bytes(path, WHAT)
    path.write_bytes(b"a" * 100)
    with pytest.raises(ValueError, match="more than 99 bytes is not read"):
        read_bytes(path, WHAT, limit=99)
