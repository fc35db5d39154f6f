"""A server in a process of its own: waited for, asked for its counts, and ended."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

_TICK = 0.2
_ASKING = 5.0
"""Seconds that an answer of the server may take while it starts."""
_ENDING = 60.0
"""And its end."""
_FIRST = 300.0
"""And its first reply."""
_SHOWN = 2000
"""Characters of what a server that failed has said."""


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    url: str

    def counters(self, *names: str) -> dict[str, float]:
        """Sums of counters of /metrics over their labels.

        Args:
          *names: as Prometheus has them, "vllm:generation_tokens_total".

        Raises:
          OSError: the server does not answer.
          ValueError: it has no such counter.
        """
        text = _opener().open(f"{self.url}/metrics", timeout=_ASKING).read().decode()
        return counters_in(text, *names)

    def warm_up(self, model: str, tokens: int) -> None:
        """Have one reply written, for what a server does at its first.

        Args:
          model: as the server calls it.
          tokens: of the reply.

        Raises:
          OSError: the server refuses, or does not answer.
        """
        body = {"model": model, "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": tokens}
        asked = urllib.request.Request(
            f"{self.url}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with _opener().open(asked, timeout=_FIRST) as answer:
            answer.read()


def counters_in(exposition: str, *names: str) -> dict[str, float]:
    """Sums of counters in Prometheus's text form over their labels.

    Args:
      exposition: what a server says.
      *names: of counters.

    Raises:
      ValueError: there is none such.
    """
    found = {}
    for name in names:
        values = re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", exposition, re.MULTILINE)
        if not values:
            raise ValueError(f"the server's metrics have no {name}")
        found[name] = sum(map(float, values))
    return found


@contextlib.contextmanager
def running(words: Sequence[str], port: int, seconds: float) -> Iterator[Running]:
    """Start a server, wait until it is ready, and end it by SIGTERM afterwards.

    Args:
      words: its command.
      port: of 127.0.0.1, on which it is to listen; /health answers 200 there once it is ready.
      seconds: that it may take to be ready.

    Raises:
      ValueError: it ended before it was ready, or is not ready in time, or ended with another status than 0
        or that of SIGTERM.
    """
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as said:
        # A session of its own: Ctrl-C is for the one who started it, who ends it then.
        process = subprocess.Popen(words, stdout=said, stderr=said, env=os.environ, start_new_session=True)
        try:
            late = time.monotonic() + seconds
            while not _is_ready(url):
                if process.poll() is not None:
                    raise ValueError(f"{words[2]} ended before it was ready:\n{_last(said)}")
                if time.monotonic() > late:
                    raise ValueError(f"{words[2]} was not ready within {seconds:.0f} s:\n{_last(said)}")
                time.sleep(_TICK)
            yield Running(url)
            process.send_signal(signal.SIGTERM)
            status = process.wait(_ENDING)
            if status not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
                raise ValueError(f"{words[2]} ended with status {status}:\n{_last(said)}")
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _is_ready(url: str) -> bool:
    try:
        with _opener().open(f"{url}/health", timeout=_ASKING) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _opener() -> urllib.request.OpenerDirector:
    """Without a proxy: the server is on this machine."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _last(said: TextIO) -> str:
    said.seek(0)
    return said.read()[-_SHOWN:]
