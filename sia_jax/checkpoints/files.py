"""Files of a checkpoint that only seem to be there: links into a cache that lost them, Git LFS pointers."""

import os
from pathlib import Path
from typing import Any

from sia_jax.files.strict_json import parse_object

_MOST_JSON = 64 << 20
_POINTER = b"version https://git-lfs.github.com/spec/"


def is_there(path: Path) -> bool:
    """Whether a checkpoint has a file; one that is a link to nothing is not taken for absent.

    Raises:
      FileNotFoundError: it is a link, as the Hub's cache has them, and what it leads to is gone.
    """
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            f"{path} is a link to {os.readlink(path)}, which is gone: the cache it belongs to has lost the "
            "file; download the checkpoint again"
        )
    return path.is_file()


def check_whole(path: Path) -> None:
    """Raise ValueError if a file is empty, or is Git LFS's pointer to it and not the file itself.

    Args:
      path: of a file that `is_there`.
    """
    with open(path, "rb") as file:
        start = file.read(len(_POINTER))
    if not start:
        raise ValueError(f"{path} is empty; copy it from the original checkpoint again")
    if start == _POINTER:
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned, or "
            "download the checkpoint again"
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
