"""`... | head`: a reader that leaves is no error, however what it reads is printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = "from sia_jax.runs.cli import program\nwith program('it') as messages:\n    "


def unread(code: str, stream: str = "stdout") -> subprocess.CompletedProcess[str]:
    """A process that writes to a pipe which nobody reads."""
    read, write = os.pipe()
    os.close(read)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: write}
    buffered = {name: x for name, x in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=buffered, text=True, check=False, **streams)
    os.close(write)
    return done


@pytest.mark.parametrize(
    "code",
    [
        PROGRAM + "print('a')",
        PROGRAM + "from sia_jax.runs.console import Terminal; Terminal().print('a')",
        PROGRAM + "print('a'); raise SystemExit(0)",
        "from decode.trace import Args, read_options; read_options(Args, ['--help'])",
        "from sia_jax.console import main; main(['trace', '--help'])",
    ],
)
def test_what_nobody_reads_ends_as_a_shell_expects_and_without_a_word(code: str) -> None:
    done = unread(code)
    assert (done.returncode, done.stderr) == (141, "")


def test_messages_that_nobody_reads_likewise() -> None:
    assert unread(PROGRAM + "messages.say('a')", "stderr").returncode == 141


def test_an_error_is_told_all_the_same() -> None:
    done = unread(PROGRAM + "print('a'); raise ValueError('no such thing')")
    assert (done.returncode, done.stderr) == (1, "it: no such thing\n")
