"""How a server is timed: streams that each ask again once they are answered, and the engine by itself."""

import queue
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

import sia_jax
from sia_jax.benchmarks.guidellm import Measured

SYSTEM = "sia serve"
STEERINGS = {"unsteered": "unsteered", "sparse": "20%", "dense": "dense, contenders"}
"""How requests are steered, by the name that the server has for it: not at all, a fifth of their tokens with
the values of all candidates read, and every token with those of the candidates that may win."""
TARGET_STREAMS, TARGET_RATIO = 16, 0.9
"""At so many streams the server is to have so much of its own engine's speed."""


@dataclass(frozen=True)
class Load:
    """What a server is asked."""

    streams: tuple[int, ...]
    """Requests that are open at a time."""
    requests: tuple[int, ...]
    """In all, at each of `streams`."""
    new_tokens: int
    """Of every reply: ends of text end nothing."""
    tries: int
    """Of each side; the median counts."""

    @staticmethod
    def of_rounds(streams: Sequence[int], rounds: int, least: int, new_tokens: int, tries: int) -> "Load":
        """Every stream asks `rounds` times; at least so many requests in all."""
        requests = tuple(max(rounds * count, least) for count in streams)
        return Load(tuple(streams), requests, new_tokens, tries)


@dataclass(frozen=True)
class Looped:
    """What an engine did."""

    seconds: float
    """From the first request to the last reply."""
    tokens: int
    """Of the replies."""

    @property
    def tokens_per_second(self) -> float:
        """Of all streams together."""
        return self.tokens / self.seconds


def closed_loop(engine: sia_jax.Engine, requests: Sequence[sia_jax.Request], streams: int) -> Looped:
    """Ask an engine as a load generator asks a server: a stream's next request follows its last reply.

    Args:
      engine: warmed up.
      requests: in the order in which they are handed in.
      streams: requests that are open at a time.

    Raises:
      ValueError, TypeError, EngineClosed: as of `Engine.submit`; or the engine ended.
    """
    ended: queue.SimpleQueue[sia_jax.Reply | BaseException] = queue.SimpleQueue()

    def listen(what: sia_jax.Piece | BaseException) -> None:
        if isinstance(what, BaseException):
            ended.put(what)
        elif what.reply is not None:
            ended.put(what.reply)

    left, tokens = iter(requests), 0
    began = time.perf_counter()
    for request in islice(left, streams):
        engine.submit(request, listener=listen)
    for _ in requests:
        reply = ended.get()
        if isinstance(reply, BaseException):
            raise reply
        tokens += reply.usage.completion
        for request in islice(left, 1):
            engine.submit(request, listener=listen)
    return Looped(time.perf_counter() - began, tokens)


def serving_rows(
    system: str,
    steering: str,
    tries: Sequence[Sequence[Measured]],
    alone: Sequence[Sequence[Looped]] = (),
    counts: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """A row for each number of streams; of several tries, the median of each number.

    Args:
      system: what was asked.
      steering: how its replies were steered.
      tries: of each, what was measured at each number of streams.
      alone: the same of the engine by itself; empty: it was not timed.
      counts: shares and means over all of these replies.
    """
    rows = []
    for place, one in enumerate(tries[0]):
        found = [measured[place] for measured in tries]
        row: dict[str, Any] = {
            "system": system,
            "steering": steering,
            "streams": one.streams,
            "requests": one.requests,
            "tokens_per_second": median(measured.tokens_per_second for measured in found),
            "best_tokens_per_second": max(measured.tokens_per_second for measured in found),
            "tokens_per_chunk": median(measured.tokens_per_chunk for measured in found),
        }
        for name in ("first_token_ms", "between_tokens_ms"):
            of_tries = [getattr(measured, name) for measured in found]
            row[name] = {part: median(each[part] for each in of_tries) for part in of_tries[0]}
        if alone:
            speeds = [looped[place].tokens_per_second for looped in alone]
            row["engine_tokens_per_second"] = median(speeds)
            row["of_engine"] = row["tokens_per_second"] / median(speeds)
        rows.append(row | dict(counts or {}))
    return rows


def serving_targets(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the design asks for, and what was measured.

    Args:
      rows: of `serving_rows`.
    """
    return [
        {
            "name": f"server / its own engine, {row['streams']} streams, {row['steering']}",
            "value": row["of_engine"],
            "target": TARGET_RATIO,
            "met": row["of_engine"] >= TARGET_RATIO,
        }
        for row in rows
        if row["streams"] == TARGET_STREAMS and "of_engine" in row
    ]
