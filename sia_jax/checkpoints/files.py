"""Files of a checkpoint that only seem to be there: links to nothing, and what was saved in place of one."""

import os
from pathlib import Path
from typing import Any

from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import parse_object

_MOST_JSON = 64 << 20
_POINTER = b"version https://git-lfs.github.com/spec/"
# What servers send instead of a file, in small letters; no file of a checkpoint begins so.
_ANSWERS = (b"<!doctype html", b"<html", b"entry not found", b"404: not found")
_START = 256
"""Bytes of a file in which it shows."""


def is_there(path: Path) -> bool:
    """Whether a checkpoint has a file; one that is a link to nothing is not taken for absent.

    Raises:
      FileNotFoundError: it is a link, as the Hub's cache has them, and what it leads to is gone.
      ValueError: it is no file.
    """
    return _is_there(path, "a file", path.is_file())


def has_folder(path: Path) -> bool:
    """Whether a checkpoint has a folder; see `is_there`."""
    return _is_there(path, "a folder", path.is_dir())


def check_whole(path: Path) -> None:
    """Raise ValueError if a file is empty, or holds Git LFS's pointer to it, or a server's page.

    Args:
      path: of a file that `is_there`.
    """
    with open(path, "rb") as file:
        start = file.read(_START)
    if not start:
        raise ValueError(f"{path} is empty; copy it from the original checkpoint again")
    if start.startswith(_POINTER):
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned, or "
            "download the checkpoint again"
        )
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.lower().startswith(_ANSWERS):
        line = start.decode(errors="replace").splitlines()[0]
        raise ValueError(
            f"{path} is what a server sent in place of the file, {shown_value(line, 60)}; download the "
            "checkpoint again"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint.

    Raises:
      ValueError: it is larger than such files are, no JSON (`sia_jax.files.strict_json`), or no object.
    """
    check_whole(path)
    size = path.stat().st_size
    if size > _MOST_JSON:
        raise ValueError(f"{path} has {size} bytes, expected at most {_MOST_JSON}")
    return parse_object(path.read_bytes(), str(path))


def _is_there(path: Path, expected: str, is_kind: bool) -> bool:
    if is_kind:
        return True
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            f"{path} is a link to {os.readlink(path)}, which is gone: the cache it belongs to has lost the "
            "file; download the checkpoint again"
        )
    if path.exists():
        got = "a folder" if path.is_dir() else "a file" if path.is_file() else "a device or a pipe"
        raise ValueError(f"{path} is {got}, expected {expected}; copy it from the original checkpoint again")
    return False
