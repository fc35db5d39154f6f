"""How files are written: whole or not at all, with the mode that the umask says, and with plain errors.

What is written stands in a folder of its own beside its place until it is whole, and is then renamed: a
reader, and a run after a kill, see the old file or the new one. What a killed writer left is removed by the
next writer of the same name; one that still writes holds a lock, and is let be.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished-"
"""What the names of files and folders begin with that are not whole yet, or that a killed run has left."""
_IN_RUST = re.compile(r"\(os error (\d+)\)")
_REMEDIES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room in your share of the disk",
    errno.EFBIG: "the file system, or a limit of the shell (ulimit -f), takes no larger file",
    errno.EACCES: "name a place where you may write",
    errno.EPERM: "name a place where you may write",
    errno.EROFS: "name a place where you may write",
    errno.ENOENT: "make its folder, or name another place",
    errno.ENOTDIR: "a file stands where its folder would be; name another place",
    errno.ENAMETOOLONG: "name a shorter one",
}


class WriteError(OSError):
    """A file that could not be written; the message says which, why, and what helps."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around whatever writes `path`: its OSError comes out with the file's name and a remedy.

    Raises:
      WriteError: in place of any other OSError, with its errno, and of what safetensors and tokenizers, which
        are written in Rust, make of one. An error that names another file, which may
        have been read meanwhile, passes as it is.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        if error.filename is not None and not _is_part(Path(os.fsdecode(error.filename)), path):
            raise
        raise write_error(path, error) from error
    except Exception as error:
        number = _IN_RUST.search(str(error))
        if number is None:
            raise
        raise write_error(path, OSError(int(number[1]), str(error))) from error


def write_error(path: Path, error: OSError) -> WriteError:
    """What a failed write of `path` means."""
    why = os.strerror(error.errno) if error.errno else str(error)
    remedy = _REMEDIES.get(error.errno or 0)
    told = WriteError(
        f"{path} cannot be written: {why[:1].lower()}{why[1:]}" + (f"; {remedy}" if remedy else "")
    )
    told.errno = error.errno
    return told


def make_folder(path: Path) -> None:
    """A folder and those above it, where they are missing.

    Raises:
      WriteError: a file stands in the way, or the place may not be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise write_error(path, NotADirectoryError(errno.ENOTDIR, "")) from error
    except OSError as error:
        raise write_error(path, error) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what will be `path`: `with replacing(path) as new: new.write_text(...)`.

    The new file takes the place of the old one at the end, unless an exception, or a kill, comes before.
    A symbolic link is replaced, and what it points to is left alone.

    Args:
      path: in a folder that exists; a file that is there is replaced.

    Raises:
      WriteError: it cannot be written; what was there is as it was.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a device or a pipe, which cannot be replaced"
        raise WriteError(f"{path} cannot be written: it is {what}; name a file")
    with writing(path), staging(path.parent, path.name) as folder:
        new = folder / "new"
        yield new
        publish(new, path)


@contextmanager
def staging(folder: Path, name: str) -> Iterator[Path]:
    """A new folder inside `folder` for files that are not whole yet; it is gone at the end.

    Args:
      folder: exists.
      name: of what is made; what a killed writer left of the same name is removed.

    Raises:
      WriteError: `folder` does not exist or may not be written.
    """
    prefix = f"{UNFINISHED}{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}-"
    with writing(folder / name):
        for left in folder.glob(f"{prefix}*"):
            _remove_if_left(left)
        new, lock = _locked_folder(folder, prefix)
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)
        os.close(lock)


def publish(new: Path, path: Path) -> None:
    """Give a whole file its place: mode by the umask, on the disk before the old one is gone.

    Args:
      new: in a `staging` folder beside `path`.
      path: replaced if it is there.

    Raises:
      WriteError: it cannot be written.
    """
    with writing(path):
        new.chmod(_mode(new.parent))
        with new.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(new, path)
        # Not every file system can; the rename itself is done.
        with contextlib.suppress(OSError), _opened(path.parent) as folder:
            os.fsync(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file, in UTF-8, whole or not at all.

    Raises:
      WriteError: it cannot be written; what was there is as it was.
    """
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8", newline="\n")


def copy_file(source: Path, path: Path) -> None:
    """Copy a file's bytes, whole or not at all.

    Raises:
      OSError: the source cannot be read.
      WriteError: `path` cannot be written; what was there is as it was.
    """
    with replacing(path) as new:
        shutil.copyfile(source, new)


def _is_part(named: Path, path: Path) -> bool:
    """Whether a file is `path`, or what will be."""
    return named == path or any(part.startswith(UNFINISHED) for part in named.parts)


def _mode(folder: Path) -> int:
    """What the umask, or the folder's own default, leaves of 0o666: asked by making a file."""
    probe = folder / "mode"
    handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)
        probe.unlink()


def _locked_folder(folder: Path, prefix: str) -> tuple[Path, int]:
    """A new folder, and the open file that holds its lock."""
    while True:
        new = folder / f"{prefix}{os.urandom(6).hex()}"
        new.mkdir()
        try:
            handle = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # another writer took it for one that was left
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if new.exists():
            return new, handle
        os.close(handle)


def _remove_if_left(folder: Path) -> None:
    with contextlib.suppress(OSError), _opened(folder) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: it is in use, or nobody can say
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)
