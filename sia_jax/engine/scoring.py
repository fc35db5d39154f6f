"""How likely the policy finds given prompts, token by token: what an API's `echo` shows.

Prompts are read in buffers of few lengths, so many at a time as requests of that length are admitted; those
of callers that wait at the same time share a call. A prompt's numbers are the same bits whatever else there
is.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from sia_jax.arguments import check_whole
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.score import POSITIONS, score_with_top
from sia_jax.engine.handle import EngineClosed
from sia_jax.engine.job import Terms, check_ids
from sia_jax.parallel.mesh import row_sharding
from sia_jax.steering.config import SteeringConfig
from sia_jax.steering.types import TopLogprobs
from sia_jax.types import Params


@dataclass(frozen=True, eq=False)
class Scored:
    """A prompt's tokens under the policy, at temperature 1 and before penalties: L ids, NumPy."""

    ids: np.ndarray
    """[L] the prompt."""
    logprobs: np.ndarray
    """[L] nats, of each id given those before it; NaN at the first, -inf of an id that has no token."""
    top_ids: np.ndarray
    """[L, K] the likeliest ids in each one's place, as of `Reply.top`; -1 at the first."""
    top_logprobs: np.ndarray
    """[L, K] nats; NaN at the first."""


@dataclass(eq=False)
class Scoring:
    """Prompts that somebody waits for."""

    prompts: Sequence[np.ndarray]
    top: int
    future: "Future[list[Scored]]" = field(default_factory=Future)
    """Of all of them, in their order. Cancelled, what is left of them is not read."""
    found: dict[int, Scored] = field(default_factory=dict)

    def put(self, place: int, scored: Scored) -> None:
        """One prompt's; with the last, all are handed out."""
        self.found[place] = scored
        self.hand_out()

    def hand_out(self) -> None:
        """All of them, once all have been found."""
        if len(self.found) == len(self.prompts):
            self._end(lambda: self.future.set_result([self.found[i] for i in range(len(self.prompts))]))

    def fail(self, cause: BaseException) -> None:
        """There will be no more."""
        error = EngineClosed(f"the engine ended before the prompts were scored: {cause}")
        error.__cause__ = cause
        self._end(lambda: self.future.set_exception(error))

    def _end(self, end: Callable[[], None]) -> None:
        with suppress(InvalidStateError):  # it was cancelled, maybe just now
            end()


def make_scoring(prompts: Sequence[Sequence[int]], top: int, terms: Terms) -> Scoring:
    """Prompts that were checked.

    Args:
      prompts: ids of each.
      top: K.
      terms: of the engine.

    Raises:
      ValueError: an empty prompt, ids that the policy does not have, a prompt or K beyond what the engine was
        made for.
      TypeError: K is no integer.
    """
    config = terms.config
    check_whole("top", top)
    if not 0 <= top <= config.top_logprobs:
        raise ValueError(
            f"top must lie in 0 .. {config.top_logprobs} (the engine's top_logprobs), got {top}; ask for "
            "fewer, or make the engine with more"
        )
    found = [check_ids(f"prompt {i}", ids, config.policy) for i, ids in enumerate(prompts)]
    for i, ids in enumerate(found):
        if len(ids) > terms.lengths[-1]:
            raise ValueError(
                f"prompt {i} has {len(ids)} ids and does not fit into the engine's max_length of "
                f"{terms.lengths[-1]}; cut it, or raise max_length"
            )
    return Scoring(found, top)


class _Prompt(NamedTuple):
    """One of a scoring's prompts, in the queue."""

    number: int
    """In the order of all that came."""
    scoring: Scoring
    place: int

    @property
    def ids(self) -> np.ndarray:
        return self.scoring.prompts[self.place]


class Scorer:
    """Scores prompts, one call at a time. For the thread that drives the device.

    Args:
      policy: the policy's tree.
      config: of the engine; says which ids have a token, K, and the mesh.
      length: ids of the longest prompt.
      entries: prompts of a call, by the length of its buffers; a multiple of the mesh's groups.
    """

    def __init__(self, policy: Params, config: SamplerConfig, length: int, entries: Callable[[int], int]):
        self._policy, self._top, self._mesh = policy, config.top_logprobs, config.mesh
        # What else the engine's configuration says has no part in it, and would be programs of its own.
        self._config = SamplerConfig(
            policy=config.policy, steering=SteeringConfig(num_candidates=1), num_tokens=config.num_tokens
        )
        self._entries = entries
        self._waiting: dict[int, deque[_Prompt]] = {bucket: deque() for bucket in _buckets(length)}
        self._numbers = itertools.count()
        self._under_way: list[_Prompt] = []
        self._found: Any = None

    @property
    def is_busy(self) -> bool:
        """Whether a prompt waits, or is being read."""
        return bool(self._under_way) or any(self._waiting.values())

    def take(self, scorings: Iterable[Scoring]) -> None:
        """Queue their prompts."""
        for scoring in scorings:
            for place, ids in enumerate(scoring.prompts):
                bucket = next(size for size in self._waiting if len(ids) <= size)
                self._waiting[bucket].append(_Prompt(next(self._numbers), scoring, place))
            scoring.hand_out()  # where there are none

    def dispatch(self) -> None:
        """Begin a call, of the prompt that has waited for longest and those behind it of its length."""
        while not self._under_way:
            heads = [(queue[0].number, bucket) for bucket, queue in self._waiting.items() if queue]
            if not heads:
                return
            _, bucket = min(heads)
            queue = self._waiting[bucket]
            while queue and len(self._under_way) < self._entries(bucket):
                one = queue.popleft()
                if not one.scoring.future.done():  # else it was cancelled
                    self._under_way.append(one)
        self._found = self._read([one.ids for one in self._under_way], bucket)

    def read(self) -> list[tuple[Scoring, int, Scored]]:
        """What the call under way has found, once it is there: of each prompt, whose it is and which."""
        if not self._under_way:
            return []
        logprobs, likeliest = jax.device_get(self._found)
        read, self._under_way, self._found = self._under_way, [], None
        found = []
        for row, one in enumerate(read):
            n, k = len(one.ids), one.scoring.top
            top_ids, top_logprobs = np.full((n, 0), -1, np.int32), np.full((n, 0), np.nan, np.float32)
            if k:
                # Copies, here and below: a view would keep those of all rows.
                top_ids, top_logprobs = (x[row, :n, :k].copy() for x in (likeliest.ids, likeliest.logprobs))
            scored = Scored(one.ids, logprobs[row, :n].copy(), top_ids, top_logprobs)
            found.append((one.scoring, one.place, scored))
        return found

    def compile(self) -> None:
        """Run every program once, on nobody's behalf."""
        for bucket in self._waiting:
            jax.block_until_ready(self._read([], bucket))

    def fail(self, cause: BaseException) -> None:
        """Nothing that waits or is under way will be scored."""
        left = [*self._under_way, *(one for queue in self._waiting.values() for one in queue)]
        self._under_way, self._found = [], None
        for queue in self._waiting.values():
            queue.clear()
        for one in left:
            one.scoring.fail(cause)

    def _read(self, prompts: Sequence[np.ndarray], bucket: int) -> tuple[Any, TopLogprobs | None]:
        entries = self._entries(bucket)
        tokens, lengths = np.zeros((entries, bucket), np.int32), np.ones(entries, np.int32)
        for row, ids in enumerate(prompts):
            tokens[row, : len(ids)], lengths[row] = ids, len(ids)
        placed: Any = (tokens, lengths)
        if self._mesh is not None:
            placed = jax.device_put(placed, row_sharding(self._mesh))
        return score_with_top(self._policy, *placed, config=self._config, top=self._top)


def _buckets(length: int) -> list[int]:
    """Ids of the buffers: 32, 64, 128, ... up to `length`, which is the last."""
    sizes = [POSITIONS]
    while sizes[-1] < length:
        sizes.append(2 * sizes[-1])
    return [min(size, length) for size in sizes]
