"""A hypothesis state machine drives an engine: submit, stream, cancel, several replies, close."""

import functools

import jax
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from sia_jax.decoding.state import FinishReason
from sia_jax.engine.handle import EngineClosed, Handle
from sia_jax.engine.reply import Reply
from sia_jax.engine.request import Request
from tests.support.engines import assert_same, is_beginning, make_engine, random_requests, sampled

COUNT = 24


@functools.cache
def requests() -> list[Request]:
    return random_requests(COUNT, seed=5)


@functools.cache
def expected() -> list[Reply]:
    with make_engine() as engine:
        return sampled(engine, requests())


@functools.cache
def branches(place: int, n: int) -> list[Reply]:
    request = requests()[place]
    key = jax.random.key(request.seed, impl="threefry2x32")
    with make_engine() as engine:
        return sampled(engine, [request.override(key=jax.random.fold_in(key, j)) for j in range(n)])


class EngineMachine(RuleBasedStateMachine):
    """What was asked, and whether it may have been cancelled, beside the engine."""

    open = Bundle("open")

    def __init__(self) -> None:
        super().__init__()
        self.engine = make_engine()
        self.closed = False
        self.cancelled: set[Handle] = set()
        self.asked = self.ended = 0

    @rule(target=open, place=st.integers(0, COUNT - 1), n=st.sampled_from([1, 1, 1, 3]))
    def submit(self, place: int, n: int):
        if self.closed:
            with pytest.raises(EngineClosed):
                self.engine.submit(requests()[place])
            return multiple()
        self.asked += n
        return place, n, self.engine.submit(requests()[place], n=n)

    @rule(one=open)
    def cancel(self, one: tuple[int, int, Handle]) -> None:
        one[2].cancel()
        self.cancelled.add(one[2])

    @rule(one=consumes(open))
    def wait(self, one: tuple[int, int, Handle]) -> None:
        place, n, handle = one
        if self.closed and not handle.done:
            return
        try:
            reply = handle.result(timeout=120)
        except EngineClosed:
            assert self.closed
            return
        self.check(place, n, handle, reply)

    @rule(one=consumes(open))
    def stream(self, one: tuple[int, int, Handle]) -> None:
        place, n, handle = one
        pieces = []
        try:
            pieces = list(handle)
        except EngineClosed:
            assert self.closed
            return
        reply = handle.result(timeout=120)
        self.check(place, n, handle, reply)
        for j, choice in enumerate(reply.choices or (reply,)):
            assert "".join(piece.text for piece in pieces if piece.choice == j) == choice.text

    @rule()
    def close_seldom(self) -> None:
        if self.asked > 12:
            self.engine.close()
            self.closed = True

    def check(self, place: int, n: int, handle: Handle, reply: Reply) -> None:
        choices = reply.choices or (reply,)
        assert len(choices) == n
        for found, other in zip(choices, [expected()[place]] if n == 1 else branches(place, n), strict=True):
            if found.finish_reason == FinishReason.CANCELLED:
                assert handle in self.cancelled
                assert is_beginning(found, other)
            else:
                assert_same(found, other)
        self.ended += n

    @invariant()
    def nothing_is_lost_or_twice(self) -> None:
        totals = self.engine.statistics()
        assert self.ended <= totals.replies <= self.asked
        assert totals.in_rows <= 8

    def teardown(self) -> None:
        self.engine.close()


@pytest.mark.parametrize("examples", [pytest.param(6), pytest.param(60, marks=pytest.mark.long)])
def test_whatever_is_done_to_an_engine_its_replies_are_those_of_sample(examples: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        EngineMachine,
        settings=settings(max_examples=examples, stateful_step_count=25, suppress_health_check=checks),
    )
