"""What an engine refuses, how it ends, and that nobody waits for ever."""

import asyncio
import gc
import math
import threading
import weakref
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

import sia_jax
from sia_jax.decoding import window as programs
from sia_jax.decoding.state import FinishReason
from sia_jax.engine import aio
from sia_jax.engine.engine import Engine
from sia_jax.engine.handle import EngineClosed
from sia_jax.engine.job import make_job
from sia_jax.engine.pool import Pool
from sia_jax.engine.request import Request
from sia_jax.steering.gates import Bernoulli
from tests.support.engines import LENGTH, STEERING, assert_same, make_engine, pair, random_requests
from tests.support.marks import long
from tests.support.waiting import wait_until

ENDLESS = Request(prompt_ids=[5, 6], max_new_tokens=LENGTH - 2, ignore_eos=True)


@pytest.fixture(scope="module")
def engine():
    with make_engine() as engine:
        yield engine


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        (
            {"prompt_ids": list(range(60)), "max_new_tokens": 10},
            "60 ids and 10 new tokens do not fit.* 64; cut",
        ),
        ({"prompt_ids": [1] * 64}, "64 ids and 1 new tokens do not fit"),
        ({"prompt_ids": [1], "value_ids": [1] * 60, "max_new_tokens": 10}, "60 ids and 10 new tokens"),
        ({"prompt_ids": []}, "policy's prompt is empty"),
        ({"prompt_ids": [1], "value_ids": []}, "value model's prompt is empty"),
        ({"prompt_ids": [352]}, r"policy's prompt must have ids in 0 .. 351, got \[352\]"),
        ({"prompt_ids": [-1]}, "policy's prompt must have ids"),
        ({"prompt_ids": [1.5]}, "policy's prompt must be ids"),
        ({"prompt_ids": [[1], [2, 3]]}, "policy's prompt must be ids, got rows of different lengths"),
        ({"prompt_ids": [1], "stop_ids": [2**40]}, "stop_ids must be ids, got"),
        ({"prompt_ids": [1], "value_ids": [999]}, "value model's prompt must have ids"),
        ({"prompt_ids": [1], "temperature": math.nan}, "temperature must be"),
        ({"prompt_ids": [1], "top_p": 0.0}, "top_p must be"),
        ({"prompt_ids": [1], "threshold": math.nan}, "threshold must not be NaN"),
        ({"prompt_ids": [1], "max_new_tokens": 0}, "max_new_tokens must lie in 1"),
        ({"prompt_ids": [1], "max_new_tokens": 4, "min_new_tokens": 5}, "min_new_tokens must be at most"),
        (
            {"prompt_ids": [1], "stop_ids": [3, 4, 5, 6, 7]},
            "stop_ids has [67] ids, and the engine room for 4",
        ),
        ({"prompt_ids": [1], "stop_ids": [-2]}, "stop_ids must be ids, got -2"),
        ({"prompt_ids": [1], "stop": ["ab<|im_end|>"]}, "holds more than the special token"),
        ({"prompt_ids": [1], "logit_bias": {1: 1.0, 2: 1.0, 3: 1.0}}, "logit_bias has 3 ids.*max_logit_bias"),
        ({"prompt_ids": [1], "logit_bias": {1: math.nan}}, "bias must be finite"),
        ({"prompt_ids": [1], "logit_bias": {400: 1.0}}, "bias_ids must lie in 0 .. 351"),
        ({"prompt_ids": [1], "gate": Bernoulli(0.2)}, "must be of the form"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "from the assistant, expected the user"),
    ],
)
def test_a_request_that_cannot_be_is_refused_by_name_before_it_is_queued(engine, fields, match) -> None:
    before = engine.statistics().requests
    with pytest.raises(ValueError, match=match):
        engine.submit(Request(**fields))
    assert engine.statistics().requests == before


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({}, "one of messages, prompt and prompt_ids, got none"),
        ({"prompt": "a", "prompt_ids": [1]}, "got prompt and prompt_ids"),
        ({"prompt": "a", "value_ids": [1]}, "value_ids go with prompt_ids"),
        ({"prompt_ids": [1], "form": "raw"}, "form and template are for messages"),
        ({"prompt_ids": [1], "n": 0}, "n must be 1 or more"),
        ({"prompt_ids": [1], "stop": [""]}, "a stop text must not be empty"),
        ({"prompt_ids": [1], "seed": -1}, "seed must lie in"),
        ({"prompt_ids": [1], "deadline": 0.0}, "deadline must be over 0"),
    ],
)
def test_a_request_that_makes_no_sense_cannot_be_made(fields, match) -> None:
    with pytest.raises(ValueError, match=match):
        Request(**fields)


@pytest.mark.parametrize(
    "fields", [{"prompt": 5}, {"prompt_ids": [1], "stop": "egg"}, {"prompt_ids": [1], "n": 1.5}]
)
def test_an_argument_of_another_kind_is_a_type_error(fields) -> None:
    with pytest.raises(TypeError):
        Request(**fields)


def test_one_bad_request_of_a_list_keeps_all_from_running(engine) -> None:
    before = engine.statistics().requests
    with pytest.raises(ValueError, match="do not fit"):
        engine.generate([ENDLESS, Request(prompt_ids=[1] * 70)])
    assert engine.statistics().requests == before


def test_rows_that_no_memory_holds_are_refused_before_any_is_taken() -> None:
    policy, _ = pair()
    with pytest.raises(MemoryError, match=r"rows of 4000000 tokens take .* GB .* lower rows or max_length"):
        Engine(_of_many_positions(policy), None, rows=4096, lengths=(4_000_000,))


def _of_many_positions(policy: sia_jax.Policy) -> sia_jax.Policy:
    return replace(policy, config=replace(policy.config, max_position_embeddings=2**23))


def test_rows_may_be_no_longer_than_the_models_positions() -> None:
    policy, value = pair()
    held = policy.config.max_position_embeddings
    with pytest.raises(ValueError, match=f"max_length must lie in 2 .. {held}"):
        Engine(policy, value, max_length=held + 1)


def test_an_error_on_the_devices_thread_fails_all_requests_with_its_cause(monkeypatch) -> None:
    broken = make_engine()
    handles = [broken.submit(ENDLESS.override(seed=i)) for i in range(80)]
    handles[0].result()
    assert broken.failure is None

    def fail(*_: object) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(Pool, "dispatch", fail)
    with pytest.raises(EngineClosed, match="the device is gone") as caught:
        handles[-1].result(timeout=60)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert broken.failure is caught.value.__cause__
    assert all(handle.done for handle in handles)
    with pytest.raises(EngineClosed, match="the engine has failed: the device is gone"):
        broken.submit(ENDLESS)
    broken.close()


def test_closing_fails_what_is_open_and_refuses_what_comes() -> None:
    with make_engine() as engine:
        handles = [engine.submit(ENDLESS.override(seed=i)) for i in range(30)]
        handles[0].result()
    with pytest.raises(EngineClosed, match="it was closed"):
        handles[-1].result(timeout=60)
    with pytest.raises(EngineClosed, match="it was closed"):
        list(handles[-1])
    with pytest.raises(EngineClosed, match="the engine was closed; make another"):
        engine.generate(ENDLESS)
    engine.close()
    assert engine.failure is None


def test_all_replies_are_ended_together_and_the_engine_goes_on(engine) -> None:
    whole = engine.generate(ENDLESS)
    handles = [engine.submit(ENDLESS.override(seed=i, n=1 + i % 3)) for i in range(40)]
    next(iter(handles[0]))
    engine.cancel_all()
    replies = [handle.result(timeout=60) for handle in handles]
    replies = [each for reply in replies for each in reply.choices or (reply,)]
    assert len(replies) == sum(1 + i % 3 for i in range(40))
    assert replies[-1].finish_reason == FinishReason.CANCELLED
    assert {reply.finish_reason for reply in replies} <= {FinishReason.CANCELLED, FinishReason.LENGTH}
    assert len(replies[-1].tokens) == 0  # it was in the queue
    assert_same(engine.generate(ENDLESS), whole)
    engine.cancel_all()  # of nothing


def test_an_engine_that_nobody_holds_ends_its_thread() -> None:
    engine = make_engine()
    engine.generate(ENDLESS)
    threads = [thread for thread in threading.enumerate() if thread.name == "sia_jax engine"]
    count = len(threads)
    del engine
    gc.collect()
    wait_until(lambda: len(_threads()) < count)


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sia_jax engine"]


def test_a_stream_keeps_its_engine() -> None:
    text = "".join(piece.text for piece in make_engine().stream(ENDLESS))
    with make_engine() as engine:
        assert engine.generate(ENDLESS).text == text


def test_a_stream_that_is_left_cancels_its_request(engine) -> None:
    before = engine.statistics().ended.get("cancelled", 0)
    for _ in engine.stream(ENDLESS):
        break
    engine.generate(ENDLESS.override(seed=1))
    assert engine.statistics().ended["cancelled"] == before + 1


def test_results_that_take_too_long_leave_the_request_running(engine) -> None:
    handles = [engine.submit(ENDLESS.override(seed=i)) for i in range(40)]
    with pytest.raises(TimeoutError, match="wait longer, or cancel"):
        handles[-1].result(timeout=1e-4)
    assert handles[-1].result().finish_reason == FinishReason.LENGTH


@pytest.mark.parametrize("error", [KeyError("no such thing"), SystemExit("no such thing")])
def test_a_listener_that_raises_harms_its_own_request_alone(engine, error) -> None:
    def listen(what: object) -> None:
        raise error

    handle = engine.submit(ENDLESS, listener=listen)
    first, second = (engine.generate(ENDLESS.override(seed=3)) for _ in range(2))
    assert_same(first, second, exact=True)
    with pytest.raises(type(error), match="no such thing"):
        handle.result(timeout=60)
    with pytest.raises(TypeError, match="go to that"):
        list(handle)


def test_a_stream_that_nobody_begins_is_cancelled_when_nobody_holds_it(engine) -> None:
    before = engine.statistics().ended.get("cancelled", 0)
    stream = engine.stream(ENDLESS, n=20)
    del stream
    engine.generate(ENDLESS.override(seed=1))
    assert engine.statistics().ended["cancelled"] > before


def test_a_closed_engine_holds_nothing_on_the_device_and_nobody_in_rows() -> None:
    with make_engine() as engine:
        handles = [engine.submit(ENDLESS.override(seed=i)) for i in range(30)]
        handles[0].result()
    totals = engine.statistics()
    assert (totals.waiting, totals.in_rows) == (0, 0)
    assert all(pool.state is None for pool in engine._driver._pools.values())
    assert all(handle.done for handle in handles)


def test_a_handle_that_is_done_holds_no_engine() -> None:
    gc.disable()
    try:
        engine = make_engine()
        seen = weakref.ref(engine)
        handle = engine.submit(ENDLESS)
        handle.result()
        del engine
        wait_until(lambda: seen() is None)
        seen_handle = weakref.ref(handle)
        del handle
        assert seen_handle() is None
    finally:
        gc.enable()


def test_an_iterator_of_stops_counts_every_time(engine) -> None:
    request = Request(prompt_ids=[5, 6], max_new_tokens=40, stop=iter(["e"]), stop_ids=iter([7]))
    assert (request.stop, request.stop_ids) == (("e",), (7,))


def test_an_engine_may_have_numbers_of_its_own() -> None:
    steering = replace(STEERING, min_new_tokens=5, temperature=0.5)
    with make_engine(steering=steering) as engine:
        assert int(make_job(ENDLESS, engine._terms).numbers.min_new_tokens[0]) == 5
    with pytest.raises(ValueError, match="NaN"):
        make_engine(threshold=math.nan)
    with pytest.raises(ValueError, match="without a value model nothing can be steered"):
        Engine(pair()[0], threshold=1.0, rows=2, lengths=(LENGTH,))


def test_warmup_comes_after_requests_too(engine) -> None:
    engine.generate(Request(prompt_ids=[5, 6], max_new_tokens=40, stop=["e", "a"], ignore_eos=True))
    engine.warmup([ENDLESS])
    assert engine.generate(ENDLESS).finish_reason == FinishReason.LENGTH


def test_asyncio_gets_the_same_pieces_and_a_cancelled_task_cancels_its_request(engine) -> None:
    requests = random_requests(12)
    expected = engine.generate(requests)

    async def text(request: Request) -> str:
        return "".join([piece.text async for piece in aio.stream(engine, request)])

    async def run() -> None:
        texts = await asyncio.gather(*map(text, requests))
        assert texts == [reply.text for reply in expected]
        replies = await asyncio.gather(*[aio.generate(engine, request) for request in requests])
        for found, other in zip(replies, expected, strict=True):
            assert_same(found, other, exact=True)
        task = asyncio.create_task(aio.generate(engine, ENDLESS, n=30))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ValueError, match="do not fit"):
            await aio.generate(engine, Request(prompt_ids=[1] * 70))

    before = engine.statistics().ended.get("cancelled", 0)
    asyncio.run(run())
    engine.generate(ENDLESS)
    totals = engine.statistics()
    assert totals.waiting == 0
    assert totals.ended["cancelled"] > before


@pytest.mark.parametrize("lengths", [(64,), long((32, 64))])
def test_warmup_compiles_all_that_random_requests_need(lengths) -> None:
    def compiled() -> int:
        return sum(
            f._cache_size() for f in (programs._admit, programs._window, programs.fork, programs.allocate)
        )

    with make_engine(lengths=lengths, rows=4, max_logit_bias=3) as engine:
        engine.warmup()
        count = compiled()
        engine.generate([request.override(n=1 + i % 3) for i, request in enumerate(random_requests(40))])
        assert compiled() == count


def test_nothing_is_compiled_twice_for_weights_that_are_held_to_a_device() -> None:
    """As those that were loaded are; and buffers of prompts are of the lengths that were asked for."""
    policy, value = pair()
    policy, value = (
        replace(model, params=jax.device_put(model.params, jax.devices()[0])) for model in (policy, value)
    )
    before = programs._admit._cache_size()
    sizes: dict[str, Any] = {"rows": 2, "lengths": (LENGTH,), "max_stop_ids": 4, "steering": STEERING}
    with Engine(policy, value, prompt_lengths=[40, 12, 40], **sizes) as engine:
        engine.warmup([Request(prompt_ids=[1] * 13, threshold=1.0, max_new_tokens=4)])
        for length in (1, 12, 13, 39, 40, 41):
            engine.generate(Request(prompt_ids=[1] * length, threshold=1.0, max_new_tokens=4))
        assert programs._admit._cache_size() == before + 3  # of 12, 40 and 64 ids
    with pytest.raises(ValueError, match=r"a length of prompts must be 1 or more, got \[0, 5\]"):
        Engine(policy, value, prompt_lengths=[5, 0], **sizes)


def test_two_engines_run_in_one_process_at_the_same_time(engine) -> None:
    requests = random_requests(30)
    with make_engine() as other:
        one, two = [], []
        threads = [
            threading.Thread(target=lambda: one.extend(engine.generate(requests))),
            threading.Thread(target=lambda: two.extend(other.generate(requests))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for found, reply in zip(one, two, strict=True):
        assert_same(found, reply)


def test_statistics_of_a_reply_add_up(engine) -> None:
    reply = engine.generate(ENDLESS, threshold=0.7)
    timing, usage = reply.timing, reply.usage
    assert timing is not None
    assert 0 <= timing.queued <= timing.first_token <= timing.ended
    assert timing.between_tokens(len(reply.tokens)) == pytest.approx(
        (timing.ended - timing.first_token) / (len(reply.tokens) - 1)
    )
    assert math.isnan(timing.between_tokens(1))
    assert (usage.prompt, usage.completion) == (2, LENGTH - 2)
    assert usage.steered == reply.junction.sum() == len(reply.junctions) == usage.value_passes
    assert usage.shifted == reply.shifted.sum()
    assert np.isfinite(reply.value).sum() == usage.value_passes


def test_a_policy_alone_is_not_steered_and_refuses_thresholds() -> None:
    policy, _ = pair()
    with Engine(policy, rows=2, lengths=(LENGTH,), steering=STEERING, max_stop_ids=4) as alone:
        reply = alone.generate(ENDLESS)
        assert reply.usage.steered == reply.usage.value_tokens == 0
        with pytest.raises(ValueError, match="without a value model nothing can be steered"):
            alone.generate(ENDLESS, threshold=1.0)
    with make_engine() as engine:
        assert_same(engine.generate(ENDLESS, threshold=math.inf), reply)
