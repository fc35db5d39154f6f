"""What a warmed-up engine has compiled, and when one can be warmed up."""

import jax
import numpy as np

from sia_jax.decoding import window as programs
from sia_jax.decoding.state import empty_record
from sia_jax.engine.pool import Kind
from sia_jax.engine.reply import Reply
from sia_jax.engine.request import Request
from tests.support.engines import LENGTH, assert_same, make_engine, random_requests

FIRST = Request(prompt_ids=list(range(40, 60)), max_new_tokens=6, ignore_eos=True, threshold=0.7)


def next_turn(reply: Reply, **fields: object) -> Request:
    """What is said after the reply to `FIRST`."""
    return FIRST.override(prompt_ids=[*(FIRST.prompt_ids or ()), *reply.tokens.tolist(), 5, 6], **fields)


def test_between_two_requests_one_can_warm_up_whatever_rows_still_say() -> None:
    request = random_requests(1)[0]
    ids = {"prompt_ids": [3] * 8, "value_ids": None, "max_new_tokens": 50, "stop": (), "stop_ids": ()}
    long = request.override(**ids, ignore_eos=True, threshold=0.7)
    other = request.override(**ids | {"prompt_ids": [3] * 20, "max_new_tokens": 10})
    with make_engine() as engine:
        whole = engine.generate(long)
        assert not engine.is_warm(other)
        engine.submit(long).cancel()
        handle = engine.submit(long)
        next(iter(handle))
        handle.cancel()
        handle.result()
        engine.warmup([other])
        assert engine.is_warm(other)
        stopped = engine.generate(long.override(stop=[whole.text[4:6]]))
        engine.warmup([other])
        assert stopped.stop_string is not None
        assert_same(engine.generate(long), whole, exact=True)


def test_of_a_turn_that_goes_on_from_a_row_only_what_reads_the_rest_is_compiled() -> None:
    with make_engine(prefix_caching=True) as engine:
        (pool,) = engine._driver._pools.values()
        assert not engine.is_warm(FIRST)
        engine.warmup([FIRST], now=True)
        assert engine.is_warm(FIRST)
        second = next_turn(engine.generate(FIRST))
        alone = second.override(threshold=float("inf"))
        assert not engine.is_warm(second)
        engine.warmup([second], now=True)
        assert engine.is_warm(second)
        assert not engine.is_warm(alone)
        assert engine.is_warm(second.override(prompt_ids=[7] * 28))  # it is read whole
        assert pool.compiled == {Kind(32, True, extends=False), Kind(16, True, extends=True)}
        compiled = programs._admit._cache_size(), programs._extend._cache_size()
        engine.generate(second)
        assert (programs._admit._cache_size(), programs._extend._cache_size()) == compiled
        assert engine.statistics().reused_tokens == 25


def test_a_warm_up_for_requests_to_come_compiles_whatever_rows_will_hold() -> None:
    with make_engine(prefix_caching=True) as engine:
        engine.warmup([FIRST])
        second = next_turn(engine.generate(FIRST))
        assert engine.is_warm(second)
        engine.generate(second)
        assert engine.statistics().reused_tokens == 25


def test_what_has_run_is_warm_and_what_no_free_row_holds_is_read_whole() -> None:
    with make_engine(prefix_caching=True) as engine:
        second = next_turn(engine.generate(FIRST))
        assert engine.is_warm(FIRST.override(prompt_ids=[7] * 20))
        assert not engine.is_warm(second)
        endless = FIRST.override(prompt_ids=[3], max_new_tokens=LENGTH - 1)
        handles = [engine.submit(endless) for _ in range(engine.rows)]
        for handle in handles:
            next(iter(handle))
        assert engine.is_warm(second)


def test_the_record_of_a_reply_that_says_nothing_is_the_samplers_and_made_once() -> None:
    """For every reply begins with it; as arrays of the device it took longer than a short reply itself."""
    with make_engine(record="candidates", top_logprobs=2) as engine:
        (pool,) = engine._driver._pools.values()
        found = pool.empty_record
        assert pool.empty_record is found
        expected = jax.tree.map(lambda x: np.asarray(x)[0], empty_record(1, 0, 4, 2))
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for own, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert isinstance(own, np.ndarray)
            assert (own.shape, own.dtype) == (other.shape, other.dtype)
