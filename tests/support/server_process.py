"""The server in a process of its own, on the embedded models: started, waited for, and told to end."""

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
SECONDS = 600.0
"""That it may take to be ready."""


@dataclass(frozen=True)
class ServerProcess:
    """A server that is ready."""

    url: str
    """Without a slash at its end."""
    said: list[str]
    """The lines of its stderr so far."""


@contextmanager
def server_process(*words: str, environment: Mapping[str, str] | None = None) -> Iterator[ServerProcess]:
    """`decode.serve` on a free port; told to end, it ends with status 0 and has nothing to complain of.

    Args:
      words: further options.
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
    said: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    errors = process.stderr
    reading = threading.Thread(target=lambda: said.extend(errors), daemon=True)
    reading.start()
    try:
        url = next(filter(None, (re.search(r"The page: (\S+)/$", line) for line in process.stdout)))[1]
        late = time.monotonic() + SECONDS
        while httpx.get(f"{url}/health").status_code != 200:
            assert process.poll() is None, said
            assert time.monotonic() < late
            time.sleep(0.2)
        yield ServerProcess(url, said)
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
