"""Opening a file that a user names: it is there, it is a file, and it does not grow without bound."""

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sia_jax.files.strict_json import parse_object

MAX_BYTES = 2 * 2**30
"""Of a file that is read whole or kept, and of what a compressed one unpacks to then."""

GZIP = b"\x1f\x8b"


def check_file(path: Path, what: str, remedy: str = "") -> None:
    """A path leads to a regular file.

    Args:
      path: as the user gave it.
      what: what the file should be, for errors: "file of prompts".
      remedy: what to do about a missing one.

    Raises:
      FileNotFoundError: nothing is there, or a link to nothing.
      IsADirectoryError: a folder.
      ValueError: a pipe, a socket or a device, or a path that no file can have.
    """
    more = f"; {remedy}" if remedy else ""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise FileNotFoundError(
                f"{path}: the {what} is a link to {os.readlink(path)}, where nothing is{more}"
            ) from None
        raise FileNotFoundError(f"{path}: no such {what}{more}") from None
    except ValueError as error:  # a null byte
        raise ValueError(f"{str(path)!r} is no path of a {what}: {error}") from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path}: expected a {what}, this is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path}: expected a {what}, this is a pipe or a device; write it to a file first")


def read_bytes(path: Path, what: str, remedy: str = "", limit: int = MAX_BYTES) -> bytes:
    """What stands in a file; unpacked, if it is compressed with gzip.

    Args:
      path: see `check_file`.
      what: see `check_file`.
      remedy: see `check_file`.
      limit: bytes, before and after unpacking.

    Raises:
      OSError, ValueError: see `check_file`; or it is larger, or broken.
    """
    check_file(path, what, remedy)
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if content.startswith(GZIP):
        return unpack(content, str(path), limit)
    if len(content) > limit:
        raise ValueError(f"{path}: a {what} of more than {limit:,} bytes is not read; split it")
    return content


def read_object(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """The JSON object in a file, which a program of ours may have written, and anybody changed since.

    Args:
      path: see `check_file`.
      what: see `check_file`.
      remedy: what to do about a file that is missing or damaged.

    Raises:
      OSError, ValueError: see `read_bytes`; or what stands in it is no JSON object.
    """
    content = read_bytes(path, what, remedy)
    try:
        return parse_object(content, str(path))
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from None


def unpack(content: bytes, name: str, limit: int = MAX_BYTES) -> bytes:
    """The content of gzip, at most `limit` bytes of it.

    Raises:
      ValueError: it unpacks to more, or it is broken or cut short.
    """
    with unpacking(name), gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        found = file.read(limit + 1)
    if len(found) > limit:
        raise ValueError(f"{name}: it unpacks to more than {limit:,} bytes, and is not read; split it")
    return found


@contextmanager
def unpacking(where: str) -> Iterator[None]:
    """Around whatever reads a file that may be compressed.

    Args:
      where: the file, and how much of it was read, for the error.

    Raises:
      ValueError: the gzip in it is broken or cut short.
    """
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{where}: the compressed file is broken or cut short ({error}); copy it again"
        ) from None
