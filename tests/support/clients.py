"""The clients that README.md shows, run as they stand against a server at another port."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHOWN = "http://127.0.0.1:8000"
"""Where `make serve` serves."""


def shown_clients(page: str = "README.md") -> tuple[str, str]:
    """The Python and the curl of a page."""
    blocks = re.findall(r"```(\w*)\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    (code,) = (text for kind, text in blocks if kind == "python" and SHOWN in text)
    (curl,) = (text for kind, text in blocks if not kind and text.startswith("curl "))
    return code, curl


def said_by_python(code: str, url: str) -> str:
    """What it prints, in a process of its own."""
    assert SHOWN in code
    return _said([sys.executable, "-c", code.replace(SHOWN, url)])


def said_by_curl(command: str, url: str) -> str:
    """What it prints."""
    assert SHOWN in command
    return _said(shlex.split(command.replace("\\\n", " ").replace(SHOWN, url)))


def _said(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
