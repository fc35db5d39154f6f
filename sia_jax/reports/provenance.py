"""Which state of the software a result came from."""

import subprocess
from collections.abc import Sequence


def commit(ignored: Sequence[str] = ()) -> str:
    """The commit of the working folder, "+changes" behind it if files differ from it; "unknown" without git.

    Args:
      ignored: files and folders whose changes do not matter, such as those that results are written to.
    """
    try:
        others = ["--", ".", *(f":!{path}" for path in ignored)]
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain", *others) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def last_change(*paths: str) -> str:
    """The commit that changed one of these files last; "unknown" without git."""
    try:
        return _git("log", "-1", "--format=%h", "--abbrev=12", "--", *paths) or "unknown"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
