"""A soak: rounds of requests, and after each what the server counts, holds and keeps open."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import numpy as np

from tests.soak.ledger import GAUGES, counts_of
from tests.soak.load import KEY, Load
from tests.soak.recipes import Book
from tests.soak.server import ServerProcess

ROUNDS = 20
_QUIET = 30.0
"""Seconds until nothing runs, once nobody asks."""
_KEPT_ALIVE = 8.0
"""Seconds until idle connections are closed, and sockets with them."""
_SKIPPED = 0.2
"""Of the rounds, in which the process takes the memory that it goes on to use."""


@dataclass
class Report:
    """What a soak found."""

    requests: int
    asked: int = 0
    """Requests, with those that asked after each round for all the room that there is."""
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    memory: list[int] = field(default_factory=list)
    """Bytes after each round; see `ServerProcess.memory`."""
    descriptors: list[int] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    """Between what the server has counted and what it was asked."""

    @property
    def grown(self) -> int:
        """Bytes by which the process has grown since the first fifth of the rounds."""
        return self.memory[-1] - self.memory[int(_SKIPPED * len(self.memory))]

    @property
    def slope(self) -> float:
        """Bytes a request, by least squares over the last four fifths of the rounds."""
        start = int(_SKIPPED * len(self.memory))
        of_rounds = self.memory[start:]
        return float(np.polyfit(np.arange(len(of_rounds)), of_rounds, 1)[0]) * ROUNDS / self.requests

    def described(self) -> str:
        """For people."""
        at = {share: self.memory[max(round(share * len(self.memory)) - 1, 0)] for share in (0.1, 0.5, 1)}
        sizes = ", ".join(f"{share:.0%} {size / 2**20:.1f} MiB" for share, size in at.items())
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.kinds.items()))
        lines = (
            f"{self.requests} requests in {self.seconds:.0f} s, {self.requests / self.seconds:.1f} a second",
            f"kinds: {kinds}",
            f"memory: {sizes}; over the last four fifths {self.grown / 2**20:+.1f} MiB, "
            f"{self.slope:+.1f} bytes a request",
            f"descriptors: {self.descriptors[0]} .. {self.descriptors[-1]}",
            f"counts that differ: {self.differences or 'none'}",
        )
        return "\n".join(lines)


def soak(
    server: ServerProcess,
    book: Book,
    requests: int,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Ask a server so many times; in every other round some leave early.

    Args:
      server: ready.
      book: what is asked, with what is right.
      requests: of HTTP.
      seed: of all choices.
      say: told of each round.

    Raises:
      ExceptionGroup: of AssertionError, an answer that is not right.
    """
    load, report = Load(server, book, seed), Report(requests)
    began = time.monotonic()
    for number in range(ROUNDS):
        before = scraped(server.port)
        count = (number + 1) * requests // ROUNDS - number * requests // ROUNDS
        asyncio.run(load.round(count, leaving=number % 2 == 1))
        load.ledger.answered("GET", "/metrics", 200)  # the one before
        quiet(server.port, load)
        load.ledger.answered("GET", "/metrics", 200)
        asyncio.run(load.fill())
        after = quiet(server.port, load)
        differences = load.ledger.differences(before, after)
        report.differences += [f"round {number}: {one}" for one in differences]
        report.memory.append(server.memory)
        report.descriptors.append(server.descriptors)
        report.kinds, report.asked, report.seconds = load.kinds, load.asked, time.monotonic() - began
        say(
            f"round {number + 1} of {ROUNDS}: {report.seconds:.0f} s, {server.memory / 2**20:.1f} MiB, "
            f"{server.descriptors} descriptors, {len(differences)} differences"
        )
    time.sleep(_KEPT_ALIVE)
    report.descriptors.append(server.descriptors)
    return report


def scraped(port: int) -> dict[str, float]:
    """What a server counts."""
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    return counts_of(answer.text)


def quiet(port: int, load: Load) -> dict[str, float]:
    """The same, once nothing runs any more; or all the same, after a while."""
    late = time.monotonic() + _QUIET
    while True:
        found = scraped(port)
        ended = sum(x for name, x in found.items() if name.startswith("vllm:request_success_total"))
        rest = ended - found.get("vllm:request_params_n_sum", 0)
        if (not rest and not any(found[name] for name in GAUGES)) or time.monotonic() > late:
            return found
        load.ledger.answered("GET", "/metrics", 200)
        time.sleep(0.1)
