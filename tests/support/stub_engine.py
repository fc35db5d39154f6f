"""An engine that runs no model: a thread hands out the pieces of scripted replies, with records in NumPy."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from sia_jax.decoding.state import FinishReason
from sia_jax.engine.handle import EngineClosed, Handle, Listener, Piece
from sia_jax.engine.reply import Reply, Timing, Usage
from sia_jax.engine.request import Request, as_request
from sia_jax.engine.statistics import Statistics
from sia_jax.engine.stream import TextStream
from sia_jax.pretrained import Policy
from sia_jax.steering.config import SteeringConfig
from sia_jax.steering.types import CandidateRecord, TokenRecord
from tests.support.engines import tokenizer

VOCABULARY = 352
LENGTH = 128
"""Tokens of prompt and reply."""
CANDIDATES = 4
TOP = 5
WINDOW = 3
"""Tokens of a piece."""
THRESHOLD = 1.0
CACHED = 2
"""Ids of every prompt that its row held already."""

Script = Callable[[Request, int], tuple[Sequence[int], FinishReason]]
"""The ids of a request's reply j, and why they end, before max_new_tokens and stop texts are looked at."""


@dataclass(frozen=True)
class Record(TokenRecord):
    """With the likeliest ids."""

    top: Any = None


@dataclass(frozen=True)
class Top:
    """[T, K] each."""

    ids: np.ndarray
    logprobs: np.ndarray


@dataclass
class _Live:
    handle: Handle
    texts: list[TextStream]
    scripts: list[tuple[list[int], FinishReason]]
    said: list[int]
    shown: list[str]
    ended: list[bool]
    cancelled: bool = False
    windows: int = 0


@dataclass
class StubEngine:
    """See above; what is public is to be set by tests."""

    script: Script | None = None
    """None: a text of the seed and the place, to its end."""
    value: Any = None
    steering: SteeringConfig = field(default_factory=SteeringConfig)
    hold_after: int | None = None
    """Windows after which a request goes on only once it is cancelled, late, or this is None again."""
    hold_scores: bool = False
    """Prompts that are to be scored wait until somebody cancels them."""
    top_logprobs: int = TOP
    scorings: "list[Future[list[Any]]]" = field(default_factory=list)
    """All that was to be scored."""
    requests: list[Request] = field(default_factory=list)
    """All that were handed in."""
    handles: list[Handle] = field(default_factory=list)
    replies: dict[tuple[int, int], Reply] = field(default_factory=dict)
    """By the place of the request and of the reply."""
    cancelled: int = 0
    """Requests that somebody cancelled before they had ended."""

    def __post_init__(self) -> None:
        self.tokenizing = threading.Lock()
        eos = tokenizer().convert_tokens_to_ids("<|im_end|>")
        shape = SimpleNamespace(vocab_size=VOCABULARY, eos_token_ids=(eos,))
        self.eos = eos
        self.policy = Policy(config=shape, params={}, tokenizer=tokenizer(), name="tiny")  # type: ignore[arg-type]
        self._changed = threading.Condition()
        self._live: list[_Live] = []
        self._closed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="stub engine", daemon=True)
        self._thread.start()

    @property
    def terms(self) -> Any:
        """What it was made for."""
        config = SimpleNamespace(
            steering=self.steering,
            record="candidates",
            top_logprobs=self.top_logprobs,
            value_passes=self.value is not None,
        )
        return SimpleNamespace(
            policy=self.policy,
            value=self.value,
            config=config,
            lengths=(LENGTH,),
            threshold=THRESHOLD,
            max_new_tokens=64,
            max_stop_ids=8,
            max_logit_bias=4,
            tokenizing=self.tokenizing,
        )

    def submit(self, asked: Any, *, listener: Listener | None = None, **named: Any) -> Handle:
        """As `Engine.submit`."""
        request = as_request(asked, **named)
        ids = list(request.prompt_ids or ())
        room = LENGTH - len(ids)
        most = min(64, room) if request.max_new_tokens is None else request.max_new_tokens
        if not ids:
            raise ValueError(
                "the policy's prompt is empty; it needs at least one id, such as a BOS, got shape (0,)"
            )
        wrong = [id_ for id_ in ids if id_ >= VOCABULARY]
        if wrong:
            raise ValueError(f"the policy's prompt must have ids in 0 .. {VOCABULARY - 1}, got {wrong[:10]}")
        if most > room:
            raise ValueError(f"a prompt of {len(ids)} ids and {most} new tokens do not fit")
        if len(request.logit_bias) > 4:
            raise ValueError(f"logit_bias has {len(request.logit_bias)} ids, and the engine room for 4")
        handle = Handle(request, self._cancel, listener)
        scripts = []
        for choice in range(request.n):
            said, reason = (self.script or self._default)(request, choice)
            said = list(said)
            if len(said) > most:
                said, reason = said[:most], FinishReason.LENGTH
            scripts.append((said, reason))
        stops = tuple(request.stop)
        texts = [TextStream(tokenizer(), stops, int(request.min_new_tokens or 0)) for _ in range(request.n)]
        live = _Live(handle, texts, scripts, [0] * request.n, [""] * request.n, [False] * request.n)
        with self._changed:
            if self._closed is not None:
                raise EngineClosed("the engine was closed; make another")
            self.requests.append(request)
            self.handles.append(handle)
            self._live.append(live)
            self._changed.notify_all()
        return handle

    def submit_score(self, prompts: Sequence[Sequence[int]], top: int = 0) -> "Future[list[Any]]":
        """Numbers made of the ids alone."""
        if self._closed is not None:
            raise EngineClosed("the engine was closed; make another")
        found: Future[list[Any]] = Future()
        self.scorings.append(found)
        if not self.hold_scores:
            found.set_result([scored(ids, top) for ids in prompts])
        return found

    def statistics(self) -> Statistics:
        """How many replies are open."""
        with self._changed:
            return Statistics(in_rows=sum(not ended for live in self._live for ended in live.ended))

    def close(self) -> None:
        """End; requests that are open fail."""
        self.fail(EngineClosed("it was closed"))
        self._thread.join(5)

    def fail(self, error: BaseException) -> None:
        """As if the engine's thread had failed."""
        with self._changed:
            self._closed = error
            left, self._live = self._live, []
            self._changed.notify_all()
        for live in left:
            live.handle.fail(error)

    def release(self) -> None:
        """Let go on what is held."""
        with self._changed:
            self.hold_after = None
            self._changed.notify_all()

    def _default(self, request: Request, choice: int) -> tuple[Sequence[int], FinishReason]:
        text = f"reply {choice} of seed {request.seed}: the bread, then the café."
        return [*tokenizer().encode(text, add_special_tokens=False), self.eos], FinishReason.STOP

    def _cancel(self, handle: Handle) -> None:
        with self._changed:
            for live in self._live:
                if live.handle is handle and not live.cancelled:
                    live.cancelled = True
                    self.cancelled += 1
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed is not None or self._ready(), timeout=0.02)
                if self._closed is not None:
                    return
                turn = list(self._ready())
            for live in turn:
                self._window(live)
            with self._changed:
                self._live = [live for live in self._live if not all(live.ended)]

    def _ready(self) -> list[_Live]:
        hold = self.hold_after
        return [
            one for one in self._live if hold is None or one.windows < hold or one.cancelled or _late(one)
        ]

    def _window(self, live: _Live) -> None:
        live.windows += 1
        broken = FinishReason.CANCELLED if live.cancelled else FinishReason.DEADLINE if _late(live) else None
        for choice, (ids, reason) in enumerate(live.scripts):
            if live.ended[choice]:
                continue
            begin = live.said[choice]
            end = begin if broken is not None else min(begin + WINDOW, len(ids))
            live.said[choice] = end
            text = ""
            stream = live.texts[choice]
            with self.tokenizing:
                if end > begin:
                    text = stream.push(ids[begin:end])
                last = broken is not None or stream.cut is not None or end == len(ids)
                if last:
                    text += stream.finish(broken_off=broken is not None)
            live.shown[choice] += text
            piece_record = record_of(ids[begin:end], live.handle.request)
            reply = None
            if last:
                kept, stop = ids[:end], None
                if stream.cut is not None:
                    kept, stop = ids[: len(stream.cut.pieces)], stream.cut.stop
                reason = FinishReason.STOP if stop is not None else broken or reason
                reply = self._reply(live, choice, kept, reason, stop)
                live.ended[choice] = True
                self.replies[self.handles.index(live.handle), choice] = reply
            live.handle.say(Piece(text, choice, piece_record, reply))

    def _reply(
        self, live: _Live, choice: int, ids: list[int], reason: FinishReason, stop: str | None
    ) -> Reply:
        record = record_of(ids, live.handle.request)
        prompt = len(live.handle.request.prompt_ids or ())
        usage = Usage(
            prompt=prompt,
            completion=len(ids),
            steered=int(record.junction.sum()),
            shifted=int(record.shifted.sum()),
            policy_tokens=prompt + len(ids),
            value_tokens=3 * len(ids),
            values_read=int(record.values_read.sum()),
            value_passes=int((np.asarray(record.values_read) > 0).sum()),
        )
        timing = Timing(0.0, 0.001, 0.002)
        cached = 0 if choice else CACHED  # others are copies of the first one's row
        return Reply(live.shown[choice], reason, record, usage, stop, timing, cached, tokenizer=tokenizer())


def record_of(ids: Sequence[int], request: Request) -> Record:
    """Numbers made of the ids and of the request's threshold alone."""
    tokens = np.array(ids, np.int32).reshape(-1)
    threshold = THRESHOLD if request.threshold is None else request.threshold
    entropy = (tokens % 9).astype(np.float32) / np.float32(4)
    junction = entropy >= threshold
    logprob = -(tokens % 13).astype(np.float32) / np.float32(8) - np.float32(0.125)
    steps = np.arange(CANDIDATES, dtype=np.float32)
    ranks = np.arange(TOP, dtype=np.float32)
    candidates = CandidateRecord(
        ids=(tokens[:, None] + np.arange(CANDIDATES)) % VOCABULARY,
        logits=-steps[None] + entropy[:, None],
        values=np.where(junction[:, None], steps[None] / 2, np.nan).astype(np.float32),
        policy_logprobs=logprob[:, None] - steps[None],
        logprobs=np.where(junction[:, None], logprob[:, None] - 2 * steps[None], np.nan).astype(np.float32),
        policy_choice=(tokens + 1) % VOCABULARY,
        kl=np.zeros(len(tokens), np.float32),
    )
    return Record(
        tokens=tokens,
        junction=junction,
        shifted=junction & (tokens % 2 == 1),
        entropy=entropy,
        policy_logprob=logprob,
        logprob=np.where(junction, logprob / 2, logprob),
        value=np.where(junction, entropy / 2, np.nan).astype(np.float32),
        contenders=np.where(junction, CANDIDATES, 0),
        values_read=np.where(junction, CANDIDATES - 1, 0),
        candidates=candidates,
        top=Top((tokens[:, None] + 1 + np.arange(TOP)) % 346, -ranks[None] / 4 + logprob[:, None] / 2),
    )


def scored(ids: Sequence[int], top: int) -> Any:
    """What `StubEngine.submit_score` says of a prompt."""
    tokens = np.array(ids, np.int32)
    logprobs = -(tokens % 11).astype(np.float32) / np.float32(4) - np.float32(0.25)
    logprobs[0] = np.nan
    return SimpleNamespace(
        ids=tokens,
        logprobs=logprobs,
        top_ids=(tokens[:, None] + np.arange(top)) % 346,
        top_logprobs=logprobs[:, None] - np.arange(top, dtype=np.float32)[None],
    )


def _late(live: _Live) -> bool:
    deadline = live.handle.request.deadline
    return deadline is not None and time.monotonic() - live.handle.submitted > deadline
