"""What a program writes is nothing that it reads: found by the files themselves, not by their names.

A relative path, a symbolic link, a hard link, another case on a file system that knows none: all of them
name the same file, and so does standard input that was redirected from it.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

Named = Mapping[str, str | Path | None]
"""What the user calls it, "--prompts", and where it is; None: not given; "-" among inputs: standard input."""


def check_suffix(name: str, path: str | Path | None, suffix: str) -> None:
    """Refuse to write, and so to replace, a file of another kind.

    Args:
      name: what the user calls it, "--plot".
      path: None: not given.
      suffix: of the kind, ".png".

    Raises:
      ValueError: the path ends otherwise.
    """
    if path is not None and Path(path).suffix != suffix:
        raise ValueError(f"{name} must be a {suffix} file, got {path}")


def check_outputs(*, inputs: Named, files: Named | None = None, folders: Named | None = None) -> None:
    """Refuse outputs that would replace an input, or each other, and those that cannot be made.

    Args:
      inputs: files and folders that are read; what is no path (a Hub id) harms nothing.
      files: that are written or replaced.
      folders: that are written whole: whatever is in them may be replaced or removed.

    Raises:
      ValueError: an output that is an input or another output, stands inside an input folder or inside one of
        the folders, or has an input inside itself; a folder where a file is to be written, a file where a
        folder is.
    """
    written, whole = _given(files), _given(folders)
    for name, path in written.items():
        if path.is_dir():
            raise ValueError(f"{name} must be a file, {path} is a folder")
        if path.exists() and not path.is_file():
            raise ValueError(f"{name} must be a file, {path} is a device or a pipe")
    for name, path in whole.items():
        if path.exists() and not path.is_dir():
            raise ValueError(f"{name} must be a folder, {path} is a file")
    outputs = written | whole
    for name, path in outputs.items():
        _check_place(name, path)
        for other, given in inputs.items():
            if given is not None:
                _check_apart(name, path, other, given, whole=name in whole)
    names = list(outputs)
    for place, name in enumerate(names):
        for other in names[:place]:
            if _is_same(outputs[name], outputs[other]):
                raise ValueError(f"{other} and {name} are both {outputs[name]}; name another place for one")
    for name, path in outputs.items():
        for other, folder in whole.items():
            if any(_is_same(above, folder) for above in _above(path)):
                raise ValueError(
                    f"{name} {path} lies in {other} {folder}, which is written whole; name another place"
                )


def _given(named: Named | None) -> dict[str, Path]:
    return {name: Path(path) for name, path in (named or {}).items() if path is not None}


def _check_place(name: str, path: Path) -> None:
    """The nearest folder that exists is one, and takes new files."""
    for above in path.absolute().parents:
        if above.is_dir():
            if not path.exists() and not os.access(above, os.W_OK | os.X_OK):
                raise ValueError(f"{name} {path}: you may not write in {above}; name another place")
            return
        if above.exists():
            raise ValueError(f"{name} {path}: {above} is a file, not a folder; name another place")


def _check_apart(name: str, path: Path, other: str, given: str | Path, *, whole: bool) -> None:
    if str(given) == "-":
        if _is_stdin(path):
            raise ValueError(f"{name} and standard input are both {path}; name another place to write to")
        return
    source = Path(given)
    if _is_same(path, source):
        raise ValueError(f"{name} and {other} are both {source}; name another place to write to")
    if source.is_dir() and any(_is_same(above, source) for above in _above(path)):
        raise ValueError(f"{name} {path} lies in {other} {source}, which is read; name another place")
    if whole and source.exists() and any(_is_same(above, path) for above in _above(source)):
        raise ValueError(
            f"{other} {source} lies in {name} {path}, which is written whole; name another place"
        )


def _is_same(a: Path, b: Path) -> bool:
    """Whether both are one file or folder, or would be."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return os.path.realpath(a) == os.path.realpath(b)


def _is_stdin(path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdin.fileno()))
    except (OSError, ValueError, AttributeError):  # no such file; no open standard input
        return False


def _above(path: Path) -> Iterator[Path]:
    """The folders that a path lies in, links followed."""
    yield from Path(os.path.realpath(path)).parents
