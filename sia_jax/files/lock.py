"""One run at a time for what is written: a lock that a program holds from its start to its end.

The lock is the kernel's (flock) on a small file beside what is written, so a killed process leaves none: the
file that it leaves is taken over by the next run, and removed at its end.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sia_jax.files.shown import shown
from sia_jax.files.writing import make_folder, writing

_LOG = logging.getLogger(__name__)
LOCK = ".lock"
"""The lock of a folder, inside it; the end of the name of a file's."""

_LONGEST = 40  # characters of a file's name in its lock's; names of files end at 255 bytes
_BUSY = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def locked(*, folders: tuple[Path | None, ...] = (), files: tuple[Path | None, ...] = ()) -> Iterator[None]:
    """Keep other runs from folders and files until the end; folders that are missing are made.

    A folder that was made here and holds nothing at the end is removed again.

    Args:
      folders: each whole, with all that will stand in it; None is passed over.
      files: each alone; its neighbours are free.

    Raises:
      ValueError: another run holds one of them, and which process that is.
      OSError: a place that cannot be written.
    """
    with ExitStack() as stack:
        for folder in folders:
            if folder is not None:
                stack.enter_context(_made(folder))
                stack.enter_context(_held(folder / LOCK, folder))
        for file in files:
            if file is not None:
                real = Path(os.path.realpath(file))
                stack.enter_context(_made(real.parent))
                stack.enter_context(_held(real.with_name(_lock_name(real.name)), file))
        yield


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # they hold something, as they should
            for path in new:
                path.rmdir()


@contextmanager
def _held(path: Path, what: Path) -> Iterator[None]:
    handle = _take(path, what)
    try:
        yield
    finally:
        # Removed while it is held: who waits for this very file finds that it is no longer the lock.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _take(path: Path, what: Path) -> int:
    """The open lock file, which this process holds.

    Raises:
      ValueError: another one holds it.
    """
    while True:
        with writing(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
                os.close(handle)
                raise ValueError(
                    f"{what}: another run is writing it{f' ({holder})' if holder else ''}; wait for its end, "
                    "end it, or name another place"
                ) from None
            _LOG.warning(
                "%s: this file system has no locks (%s): nothing keeps a second run from writing there too",
                shown(what),
                os.strerror(error.errno or 0),
            )
        if _is(handle, path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            return handle
        os.close(handle)  # its holder removed it between the two calls


def _is(handle: int, path: Path) -> bool:
    """Whether the open file is still the one that has this name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _lock_name(name: str) -> str:
    """The lock's name of a file: readable, and short enough."""
    if len(name) <= _LONGEST:
        return f".{name}{LOCK}"
    return f".{name[:_LONGEST]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}{LOCK}"
