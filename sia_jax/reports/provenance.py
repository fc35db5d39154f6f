"""From which commit something was made, and on what."""

import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import jax

from sia_jax.evaluation.roofline import usable_cores

UNKNOWN = "unknown"


def head_commit(ignored: Sequence[str] = (), folder: Path | None = None) -> str:
    """The commit that is checked out, with "+changes" if files differ from it; "unknown" without git.

    Args:
      ignored: paths whose changes do not count, such as what the run itself has written.
      folder: where to ask; None: the current one.
    """
    head = _git("rev-parse", "--short=12", "HEAD", folder=folder)
    if not head:
        return UNKNOWN
    # Only what git knows: a run's own results are untracked, and change nothing that is measured.
    others = ["--", ".", *(f":!{path}" for path in ignored)]
    dirty = _git("status", "--porcelain", "--untracked-files=no", *others, folder=folder)
    return head + ("+changes" if dirty else "")


def last_commit(paths: Sequence[Path], folder: Path | None = None) -> str:
    """The last commit that changed any of some files, with its date; "+changes" if they differ from it.

    Args:
      paths: files or folders.
      folder: where to ask; None: the current one.
    """
    names = [str(path) for path in paths]
    found = _git("log", "-1", "--format=%h of %cs", "--abbrev=12", "--", *names, folder=folder)
    if not found:
        return UNKNOWN
    return found + ("+changes" if _git("status", "--porcelain", "--", *names, folder=folder) else "")


def machine() -> str:
    """What this process computes on and with: 'cpu, 2 cores, Python 3.11.7, jax 0.10.2'."""
    device = f"{jax.devices()[0].device_kind}, {usable_cores()} cores"
    return f"{device}, Python {platform.python_version()}, jax {version('jax')}"


def _git(*command: str, folder: Path | None) -> str:
    """What a git command prints; "" if there is no git or no repository."""
    try:
        done = subprocess.run(["git", *command], capture_output=True, text=True, check=True, cwd=folder)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
