"""The clients that pages show, run as they stand against a server at another port."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHOWN = "http://127.0.0.1:8000"
"""Where `make serve` serves."""


def python_of(page: str = "docs/serving.md") -> str:
    """The Python client of a page."""
    (code,) = (text for kind, text in _blocks(page) if kind == "python" and SHOWN in text)
    return code


def curl_of(page: str = "docs/serving.md") -> str:
    """The call of curl of a page."""
    (command,) = (text for kind, text in _blocks(page) if kind == "sh" and text.startswith("curl "))
    return command


def _blocks(page: str) -> list[tuple[str, str]]:
    return re.findall(r"```(\w*)\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


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
