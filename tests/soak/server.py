"""The server in a process of its own, and what the system says of it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import httpx

ROOT = Path(__file__).parents[2]
_STARTING = 600.0
"""Seconds."""
_OWN = ("RssAnon", "VmSwap")


class ServerProcess:
    """`python -m decode.serve` on the loopback; killed at the end of a `with`, if it still runs.

    Args:
      words: its options.
      folder: for what it prints.
      cache: of compiled programs; None: as this process has it.
    """

    def __init__(self, words: Sequence[str], folder: Path, cache: Path | None = None):
        self.output, self.errors = folder / "output", folder / "errors"
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        if cache is not None:
            environment["SIA_JAX_COMPILATION_CACHE"] = str(cache)
            environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # whatever is compiled
            environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # which would hold
        with open(self.output, "wb") as output, open(self.errors, "wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "decode.serve", *words],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=errors,
            )
        self.port = 0

    def wait_until_ready(self) -> None:
        """Until /health says so.

        Raises:
          AssertionError: the process ended, or it takes too long.
        """
        late = time.monotonic() + _STARTING
        while not self._is_ready():
            assert self._process.poll() is None, self.errors.read_text()[-2000:]
            assert time.monotonic() < late, "the server does not become ready"
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        if not self.port:
            found = re.search(r"The page: http://127\.0\.0\.1:(\d+)/$", self.output.read_text(), re.MULTILINE)
            if found is None:
                return False
            self.port = int(found[1])
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def memory(self) -> int:
        """Bytes of its own, in memory or swapped out; pages of files come and go as the kernel likes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * sum(int(re.findall(rf"^{name}:\s+(\d+) kB$", status, re.M)[0]) for name in _OWN)

    @property
    def descriptors(self) -> int:
        """Files and sockets that it has open."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; waits until it is gone."""
        self._process.kill()
        self._process.wait()

    def status(self, seconds: float) -> int:
        """Of the process, once it has ended.

        Raises:
          subprocess.TimeoutExpired: it has not, within so long.
        """
        return self._process.wait(seconds)

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
