"""An engine scores prompts as the float64 network does, beside whatever else it is at."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest

import sia_jax
from sia_jax.decoding.score import score_with_top
from sia_jax.engine import aio, scoring
from sia_jax.engine.engine import Engine
from sia_jax.engine.handle import EngineClosed
from sia_jax.engine.scoring import Scored
from tests.decoding.test_over_a_mesh import placed
from tests.support.engines import LENGTH, assert_same, make_engine, pair, random_requests
from tests.support.marks import long
from tests.support.oracle import NumpyModel

REAL, TOP = 346, 5
LENGTHS = (1, 2, 31, 32, 33, 64)


@pytest.fixture(scope="module")
def engine():
    with make_engine(top_logprobs=TOP) as engine:
        yield engine


def prompts_of(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, REAL, length).tolist() for length in lengths]


def assert_equal(found: Scored, expected: Scored) -> None:
    for name in ("ids", "logprobs", "top_ids", "top_logprobs"):
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name


def test_a_prompts_scores_are_those_of_the_float64_network(engine: Engine) -> None:
    policy, _ = pair()
    model = NumpyModel(policy.params, policy.config)
    prompts = prompts_of(LENGTHS)
    prompts[3][7] = REAL + 2  # an id that has no token
    for prompt, found in zip(prompts, engine.score(prompts, TOP), strict=True):
        assert found.ids.tolist() == prompt
        assert found.top_ids.shape == found.top_logprobs.shape == (len(prompt), TOP)
        assert np.isnan(found.logprobs[0])
        assert (found.top_ids[0] == -1).all()
        assert np.isnan(found.top_logprobs[0]).all()
        for t in range(1, len(prompt)):
            m = np.append(model.logits(prompt[:t])[:REAL], np.full(352 - REAL, -np.inf))
            expected = m - m.max() - np.log(np.exp(m - m.max()).sum())
            np.testing.assert_allclose(found.logprobs[t], expected[prompt[t]], rtol=1e-4, atol=1e-5)
            best = np.argsort(-expected, kind="stable")[:TOP]
            np.testing.assert_array_equal(found.top_ids[t], best)
            np.testing.assert_allclose(found.top_logprobs[t], expected[best], rtol=1e-4, atol=1e-5)


def test_a_replys_scores_are_what_was_recorded_of_it(engine: Engine) -> None:
    request = random_requests(1)[0].override(logit_bias={}, stop=(), threshold=0.7)
    reply = engine.generate(request)
    assert reply.top is not None
    prompt = list(request.prompt_ids or ())
    (found,) = engine.score([[*prompt, *reply.tokens.tolist()]], TOP)
    np.testing.assert_allclose(found.logprobs[len(prompt) :], reply.policy_logprob, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.top_ids[len(prompt) :], reply.top.ids)
    np.testing.assert_allclose(found.top_logprobs[len(prompt) :], reply.top.logprobs, rtol=1e-4, atol=1e-5)


def test_neighbours_and_replies_under_way_change_no_bit_and_the_likeliest_are_as_many_as_are_asked_for(
    engine: Engine,
) -> None:
    prompts = prompts_of([*LENGTHS, 7, 19, 40, 5, 5, 60, 12], seed=1)
    alone = [engine.score([prompt], TOP)[0] for prompt in prompts]
    requests = random_requests(48)
    before = engine.generate(requests)
    handles = [engine.submit(request) for request in requests]
    futures = [engine.submit_score(prompts, TOP), engine.submit_score(prompts[::-1], 2)]
    for found, one in zip(futures[0].result(60), alone, strict=True):
        assert_equal(found, one)
    for found, one in zip(futures[1].result(60)[::-1], alone, strict=True):
        assert_equal(found, replace(one, top_ids=one.top_ids[:, :2], top_logprobs=one.top_logprobs[:, :2]))
    for handle, reply in zip(handles, before, strict=True):
        assert_same(handle.result(), reply, exact=True)
    (none,) = engine.score(prompts[:1])
    assert none.top_ids.shape == (1, 0)


def test_prompts_of_several_callers_share_a_call_and_those_of_one_are_read_in_turns(engine: Engine) -> None:
    prompts = prompts_of([20] * 6, seed=2)
    engine.score(prompts[:1])
    with engine.paused():
        before = engine.statistics()
        futures = [engine.submit_score([prompt]) for prompt in prompts]
        assert not any(future.done() for future in futures)
    for future in futures:
        assert len(future.result(60)) == 1
    after = engine.statistics()
    a_call = engine._driver._pools[LENGTH].entries(32)
    assert a_call == 2  # of 64 ids, on a CPU
    assert after.scorings - before.scorings == len(prompts) // a_call
    assert after.scored_tokens - before.scored_tokens == 20 * len(prompts)


def test_what_is_scored_compiles_nothing_after_the_warm_up_whatever_its_length() -> None:
    with make_engine(top_logprobs=3) as engine:
        before = score_with_top._cache_size()
        engine.warmup([], scoring=True)
        assert score_with_top._cache_size() == before + 2  # of 32 and 64 ids
        engine.score(prompts_of(range(1, LENGTH + 1, 9)), 3)
        engine.score(prompts_of([3]))
        assert score_with_top._cache_size() == before + 2


@pytest.mark.parametrize(
    ("prompts", "top", "error", "match"),
    [
        ([[1], []], 0, ValueError, "prompt 1 is empty"),
        ([[1], [352]], 0, ValueError, r"prompt 1 must have ids in 0 .. 351, got \[352\]"),
        ([[-1]], 0, ValueError, "prompt 0 must have ids"),
        ([[0.5]], 0, ValueError, "prompt 0 must be ids"),
        ([1, 2], 0, ValueError, "prompt 0 is|prompt 0 must be one list"),
        ([[1] * 65], 0, ValueError, "prompt 0 has 65 ids and does not fit .* 64; cut it"),
        ([[1]], TOP + 1, ValueError, r"top must lie in 0 .. 5 \(the engine's top_logprobs\), got 6"),
        ([[1]], -1, ValueError, "top must lie in"),
        ([[1]], 1.0, TypeError, "top must be an integer"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_it_is_queued(
    engine: Engine, prompts, top, error, match
) -> None:
    before = engine.statistics()
    with pytest.raises(error, match=match):
        engine.score(prompts, top)
    assert engine.statistics().scorings == before.scorings


def test_no_prompts_have_no_scores(engine: Engine) -> None:
    assert engine.score([]) == []


def test_what_is_cancelled_is_not_read_and_others_are(engine: Engine) -> None:
    prompts = prompts_of([20] * 50, seed=3)
    expected = engine.score(prompts[:2])
    with engine.paused():
        before = engine.statistics()
        left, first, between, second = (
            engine.submit_score(own) for own in (prompts, prompts[:1], prompts, prompts[1:2])
        )
        assert left.cancel()
        assert between.cancel()
    for kept, other in zip((first, second), expected, strict=True):
        assert_equal(kept.result(60)[0], other)
    after = engine.statistics()
    assert after.scored_tokens == before.scored_tokens + 40
    assert after.scorings == before.scorings + 1  # what is left out takes no room in a call
    with pytest.raises(CancelledError):
        left.result()


def test_closing_fails_what_waits_and_refuses_what_comes() -> None:
    engine = make_engine()
    with engine.paused():
        waits = engine.submit_score(prompts_of([5, 6]))
        engine.close()
    with pytest.raises(EngineClosed, match="before the prompts were scored: it was closed"):
        waits.result(60)
    with pytest.raises(EngineClosed, match="the engine was closed; make another"):
        engine.score([[1]])


def test_an_error_while_prompts_are_read_fails_all_that_wait_with_its_cause(monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the device is gone")

    engine = make_engine()
    with engine.paused():
        futures = [engine.submit_score(prompts_of([5, 60])) for _ in range(9)]
        handle = engine.submit(random_requests(1)[0])
        monkeypatch.setattr(scoring, "score_with_top", fail)
    for future in futures:
        with pytest.raises(EngineClosed, match="the device is gone") as caught:
            future.result(60)
        assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(EngineClosed, match="the device is gone"):
        handle.result(60)
    with pytest.raises(EngineClosed, match="the engine has failed: the device is gone"):
        engine.score([[1]])
    engine.close()


def test_asyncio_gets_the_same_scores_and_a_cancelled_task_leaves_its_prompts(engine: Engine) -> None:
    prompts = prompts_of([9, 50, 3], seed=4)
    expected = engine.score(prompts, 2)

    async def run() -> None:
        many = await asyncio.gather(*[aio.score(engine, prompts, 2) for _ in range(5)])
        for found in many:
            for one, other in zip(found, expected, strict=True):
                assert_equal(one, other)
        with pytest.raises(ValueError, match="top must lie in"):
            await aio.score(engine, prompts, 99)
        with engine.paused():
            task = asyncio.create_task(aio.score(engine, prompts))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            before = engine.statistics().scored_tokens
        await aio.score(engine, [[1, 2]])
        assert engine.statistics().scored_tokens == before + 2

    asyncio.run(run())


def test_threads_that_score_at_the_same_time_are_not_mixed(engine: Engine) -> None:
    prompts = prompts_of([3, 30, 33, 64, 8, 20] * 4, seed=5)
    expected, found = engine.score(prompts, TOP), {}

    def ask(places: range) -> None:
        for place in places:
            (found[place],) = engine.score([prompts[place]], TOP)

    threads = [threading.Thread(target=ask, args=(range(i, len(prompts), 4),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, other in enumerate(expected):
        assert_equal(found[place], other)


@pytest.mark.parametrize("sizes", [long((2, 2, 2)), long((4, 2, 1))])
def test_an_engine_on_a_mesh_gives_the_same_scores(engine: Engine, sizes: tuple[int, int, int]) -> None:
    policy, value = pair()
    mesh = sia_jax.make_mesh(*sizes)
    params = placed(sia_jax.SteeringParams(policy.params, value.params), mesh)
    policy = replace(policy, params=params.policy)
    value = replace(value, params=params.value, base=params.policy["model"])
    prompts = prompts_of([*LENGTHS, 7, 19, 40], seed=6)
    with make_engine(models=(policy, value), top_logprobs=TOP) as spread:
        for found, other in zip(spread.score(prompts, TOP), engine.score(prompts, TOP), strict=True):
            np.testing.assert_array_equal(found.top_ids, other.top_ids)
            for name in ("logprobs", "top_logprobs"):
                np.testing.assert_allclose(
                    getattr(found, name), getattr(other, name), rtol=1e-4, atol=1e-5, err_msg=name
                )
