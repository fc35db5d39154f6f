"""Turns of conversations go on from what rows hold, and say what `sample` says to the whole prompt."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from sia_jax.engine.reply import Reply
from sia_jax.engine.request import Request
from tests.support.engines import assert_same, make_engine, sampled

TURNS, REPLY, ADDED, LONGEST = 3, 6, 3, 32


@dataclass
class Conversation:
    """What was said so far, as each model reads it."""

    rng: np.random.Generator
    threshold: float
    policy_ids: list[int] = field(default_factory=list)
    value_ids: list[int] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)

    def ask(self) -> Request:
        new = self.rng.integers(0, 346, ADDED if self.asked else 8).tolist()
        self.policy_ids += new
        self.value_ids += new[::-1]
        self.asked.append(
            Request(
                prompt_ids=list(self.policy_ids),
                value_ids=list(self.value_ids),
                threshold=self.threshold,
                max_new_tokens=REPLY,
                ignore_eos=True,
                seed=len(self.asked),
            )
        )
        return self.asked[-1]

    def hear(self, reply: Reply) -> None:
        self.replies.append(reply)
        self.policy_ids += reply.tokens.tolist()
        self.value_ids += reply.tokens.tolist()


def conversations(count: int) -> list[Conversation]:
    thresholds = (-np.inf, 0.7, 1.0, np.inf)
    return [Conversation(np.random.default_rng(i), thresholds[i % 4]) for i in range(count)]


def check(talks: list[Conversation]) -> None:
    with make_engine() as engine:
        whole = sampled(engine, [one for talk in talks for one in talk.asked], longest=LONGEST)
    for found, other in zip([one for talk in talks for one in talk.replies], whole, strict=True):
        assert_same(found, other)


def test_turns_of_several_conversations_read_only_what_is_new() -> None:
    talks, cached = conversations(8), 0
    with make_engine(prefix_caching=True) as engine:
        for _ in range(TURNS):
            for talk, reply in zip(talks, engine.generate([talk.ask() for talk in talks]), strict=True):
                talk.hear(reply)
                cached += reply.cached
        totals = engine.statistics()
    # After each turn but the last all that was said is held, but for the last token, which nobody has read.
    held = sum(8 + REPLY - 1 + turn * (ADDED + REPLY) for turn in range(TURNS - 1))
    assert totals.reused_tokens == cached == len(talks) * held
    check(talks)


@pytest.mark.long
def test_conversations_that_others_push_out_of_their_rows_begin_anew() -> None:
    talks = conversations(20)
    with make_engine(prefix_caching=True) as engine:
        for turn in range(TURNS):
            order = np.random.default_rng(turn).permutation(len(talks))
            handles = [(talks[i], engine.submit(talks[i].ask())) for i in order]
            for talk, handle in handles:
                talk.hear(handle.result())
        totals = engine.statistics()
    assert 0 < totals.reused_tokens < len(talks) * 40
    check(talks)


@pytest.mark.long
def test_a_reply_that_was_cut_by_a_stop_text_or_cancelled_leaves_a_beginning_that_holds() -> None:
    first = Request(prompt_ids=list(range(40, 56)), max_new_tokens=20, ignore_eos=True, threshold=0.7)
    with make_engine(prefix_caching=True) as engine:
        text = engine.generate(first).text
        cut = engine.generate(first, stop=[text[3:5]])
        handle = engine.submit(first.override(seed=1))
        handle.cancel()
        handle.result()
        ids = [*first.prompt_ids, *cut.tokens.tolist(), 5, 6]
        second = Request(prompt_ids=ids, max_new_tokens=REPLY, ignore_eos=True, threshold=0.7)
        before = engine.statistics().reused_tokens
        reply = engine.generate(second)
        assert engine.statistics().reused_tokens > before
        (other,) = sampled(engine, [second], longest=LONGEST)
    assert_same(reply, other)


def test_without_it_nothing_is_reused() -> None:
    (talk,) = conversations(1)
    with make_engine() as engine:
        for _ in range(2):
            talk.hear(engine.generate(talk.ask()))
        assert engine.statistics().reused_tokens == 0
