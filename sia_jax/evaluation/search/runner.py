"""Many searches at a time over one engine, and what each of them took.

A round answers what all open searches ask: what the policy is asked goes to the engine together, then what a
reward is asked to the reward. A draft is a prompt to the engine; with prefix caching a row that holds its
beginning goes on from there. What a search finds does not depend on what else is open, as of all requests.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sia_jax.costs.reply import ReadChunk
from sia_jax.decoding.state import FinishReason
from sia_jax.engine.engine import Engine
from sia_jax.engine.reply import Reply
from sia_jax.engine.request import Request
from sia_jax.evaluation.search.drafts import (
    Chunk,
    Continue,
    Draft,
    Look,
    Outlook,
    Score,
    Search,
    outlook_of,
)
from sia_jax.text.decoder import IncrementalDecoder
from sia_jax.text.tokenizer import Tokenizer


class Requests(Protocol):
    """The request for what comes after a draft."""

    def __call__(self, place: int, draft: Draft, ask: Continue | Look) -> Request:
        """Of the prompt at a place. For a `Look` it is one token, unsteered, at temperature 0."""
        ...


@dataclass(frozen=True)
class Rated:
    """What some drafts are worth."""

    rewards: Sequence[float | None]
    """None: a draft without one."""
    tokens: Sequence[int]
    """Of each conversation that was read for that, by all models together; 0 of a reward that is no model."""
    flops: Sequence[float]
    """Of reading each."""
    seconds: float
    """Those of compiling left out."""


Rate = Callable[[Sequence[int], Sequence[Draft], Sequence[str]], Rated]
"""(the place of each draft's prompt, the drafts, their texts) -> what they are worth."""


@dataclass
class Ledger:
    """What a search took."""

    draws: list[tuple[int, int]] = field(default_factory=list)
    """(tokens of the draft before, tokens drawn) of each time that the policy went on with a draft. Each
    token takes one pass of the policy, over the token before it."""
    chunks: list[tuple[Chunk, Chunk | None]] = field(default_factory=list)
    """All that was drawn, each with the chunk before it."""
    scored: list[int] = field(default_factory=list)
    """Tokens of each conversation that was read to score a draft (`Rated`)."""
    scored_flops: float = 0.0
    """Of reading them."""
    seconds: float = 0.0
    """Its share of the rounds' time, without compiling."""

    @property
    def drawn(self) -> int:
        """Tokens."""
        return sum(count for _, count in self.draws)

    def read_chunks(self) -> list[ReadChunk]:
        """What the value model reads of all drafts, the beginnings that they share once."""
        read_whole: set[int] = set()
        found = []
        for chunk, before in reversed(self.chunks):  # what goes on with a chunk came later
            read, whole = np.asarray(chunk.record.values_read), id(chunk) in read_whole
            if before is not None and (whole or read.any()):
                read_whole.add(id(before))
            found.append(ReadChunk(chunk.begin, read, whole))
        return found[::-1]


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found."""

    draft: Draft
    text: str
    ledger: Ledger


@dataclass(eq=False)
class _Open:
    """A search that is under way."""

    place: int
    search: Search
    asks: Sequence[Look | Continue | Score]
    answers: list[Any] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)


class SearchRunner:
    """Runs searches.

    Args:
      engine: records candidates; warm.
      requests: makes what it is asked.
      rate: the reward.
      ends: whether an id ends a reply.
      tokenizer: of the policy.
      limit: tokens of a reply at most.
      at_once: searches that are open at a time.
    """

    def __init__(
        self,
        engine: Engine,
        requests: Requests,
        rate: Rate,
        *,
        ends: Callable[[int], bool],
        tokenizer: Tokenizer,
        limit: int,
        at_once: int,
    ):
        self._engine, self._requests, self._rate = engine, requests, rate
        self._ends, self._tokenizer, self._limit, self._at_once = ends, tokenizer, limit, at_once

    def run(self, searches: Sequence[Search]) -> Iterator[tuple[int, Found]]:
        """(place, what it found) of searches, as they end.

        Args:
          searches: not begun; the place of each is that of its prompt.

        Raises:
          EngineClosed: the engine failed.
        """
        waiting = deque(enumerate(searches))
        open_: list[_Open] = []
        while waiting or open_:
            while waiting and len(open_) < self._at_once:
                place, search = waiting.popleft()
                open_.append(_Open(place, search, next(search)))
            self._answer(open_)
            going = []
            for one in open_:
                try:
                    one.asks = one.search.send(one.answers)
                except StopIteration as end:
                    yield one.place, Found(end.value, self._text(end.value), one.ledger)
                else:
                    going.append(one)
            open_ = going

    def _answer(self, open_: Sequence[_Open]) -> None:
        """One round."""
        for one in open_:
            one.answers = [None] * len(one.asks)
        begin = time.perf_counter()
        self._generate(open_)
        seconds = time.perf_counter() - begin
        seconds += self._score(open_)
        for one in open_:
            one.ledger.seconds += seconds / len(open_)

    def _generate(self, open_: Sequence[_Open]) -> None:
        asked: list[tuple[_Open, int, Look | Continue]] = []
        for one in open_:
            for i, ask in enumerate(one.asks):
                if not isinstance(ask, Score):
                    asked.append((one, i, ask))
        requests = (self._requests(one.place, ask.draft, ask) for one, _, ask in asked)
        for place, reply in self._engine.as_completed(requests):
            one, i, ask = asked[place]
            one.answers[i] = (
                self._outlook(ask, reply) if isinstance(ask, Look) else self._continued(ask, reply)
            )
        for one, i, ask in asked:  # in the order of the asks: replies came in any
            self._note(one.ledger, ask, one.answers[i])

    def _outlook(self, ask: Look, reply: Reply) -> Outlook:
        if reply.finish_reason == FinishReason.NON_FINITE:
            return Outlook((), np.zeros(0), _after(ask.draft, reply, self._limit))
        return outlook_of(ask.draft, reply.record, self._ends, self._limit)

    def _continued(self, ask: Continue, reply: Reply) -> list[Draft]:
        return [_after(ask.draft, own, self._limit) for own in reply.choices or (reply,)]

    def _note(self, ledger: Ledger, ask: Look | Continue, answer: Outlook | list[Draft]) -> None:
        begin, before = len(ask.draft), ask.draft.chunks[-1] if ask.draft.chunks else None
        if isinstance(answer, Outlook):
            ledger.draws.append((begin, 1))
            return
        for draft in answer:
            ledger.draws.append((begin, len(draft) - begin))
            if len(draft) > begin:
                ledger.chunks.append((draft.chunks[-1], before))

    def _score(self, open_: Sequence[_Open]) -> float:
        """Seconds."""
        asked = [
            (one, i, ask.draft) for one in open_ for i, ask in enumerate(one.asks) if isinstance(ask, Score)
        ]
        if not asked:
            return 0.0
        drafts = [draft for _, _, draft in asked]
        texts = [self._text(draft) for draft in drafts]
        found = self._rate([one.place for one, _, _ in asked], drafts, texts)
        for (one, i, _), reward, tokens, flops in zip(
            asked, found.rewards, found.tokens, found.flops, strict=True
        ):
            one.answers[i] = reward
            one.ledger.scored.append(tokens)
            one.ledger.scored_flops += flops
        return found.seconds

    def _text(self, draft: Draft) -> str:
        decoder = IncrementalDecoder(self._tokenizer)
        return decoder.push(draft.tokens) + decoder.finish()


def _after(draft: Draft, reply: Reply, limit: int) -> Draft:
    """A draft and a reply to it. One that was cut at the end of a chunk may go on."""
    reason = reply.finish_reason
    tokens = len(draft) + len(reply.tokens)
    if reason == FinishReason.LENGTH and tokens < limit:
        reason = FinishReason.RUNNING
    if not len(reply.tokens):
        return Draft(draft.chunks, reason)
    return draft.continued(reply.record, reason)
