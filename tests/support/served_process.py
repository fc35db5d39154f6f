"""`python -m decode.serve` in a process of its own, on a free port of this machine."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
READY_SECONDS = 500.0
"""That loading and warming up may take."""


@dataclass(frozen=True)
class Process:
    """A server that is ready."""

    url: str
    """Without a slash at its end."""
    said: list[str]
    """The lines of its log; all of them once the `with` is left."""


@contextmanager
def served_process(*words: str, environment: Mapping[str, str] | None = None) -> Iterator[Process]:
    """A server once it is ready; told to end, it ends with status 0 and has logged no traceback.

    Args:
      words: of its command line, beside the port.
      environment: variables beside this process's own.
    """
    variables = {"SIA_JAX_COMPILATION_CACHE": "off", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "decode.serve", "--port", "0", *words],
        cwd=ROOT,
        env={**os.environ, **variables, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors, said = process.stderr, list[str]()
    reading = threading.Thread(target=lambda: said.extend(errors), daemon=True)
    reading.start()
    try:
        found = next(filter(None, (re.search(r"The page: (\S+)/$", line) for line in process.stdout)), None)
        assert found is not None, said
        url = found[1]
        late = time.monotonic() + READY_SECONDS
        # While it compiles on a busy machine it may leave a question alone for long.
        while httpx.get(f"{url}/health", timeout=READY_SECONDS).status_code != 200:
            assert process.poll() is None, said
            assert time.monotonic() < late
            time.sleep(0.2)
        yield Process(url, said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        reading.join(10)
        assert not [line for line in said if "Traceback" in line], said
    finally:
        process.kill()
        process.wait()
        reading.join(10)
        process.stdout.close()
        errors.close()
