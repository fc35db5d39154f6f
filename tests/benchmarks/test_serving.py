"""An engine asked as servers are, and what is asked of a server."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import sia_jax
from sia_jax.benchmarks.guidellm import Measured
from sia_jax.benchmarks.serving import Load, Looped, closed_loop, serving_rows, serving_targets
from tests.support.engines import make_engine
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def engine() -> Iterator[sia_jax.Engine]:
    with make_engine() as found:
        yield found


def requests(count: int) -> list[sia_jax.Request]:
    return [
        sia_jax.Request(
            prompt_ids=[5, 6, 7 + j], max_new_tokens=4 + j, ignore_eos=True, seed=j, threshold=math.inf
        )
        for j in range(count)
    ]


@pytest.mark.parametrize("streams", [1, 3, 20])
def test_every_request_is_answered_once_and_no_more_are_open_than_streams(
    streams: int, engine: sia_jax.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_now, most, seeds = 0, 0, []
    submit = engine.submit

    def counting(request: sia_jax.Request, *, listener):  # type: ignore[no-untyped-def]
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        seeds.append(request.seed)

        def listen(what: sia_jax.Piece) -> None:
            nonlocal open_now
            open_now -= what.reply is not None
            listener(what)

        return submit(request, listener=listen)

    monkeypatch.setattr(engine, "submit", counting)
    with ThreadPoolExecutor() as pool:
        with engine.paused():  # so that none has ended before the last is handed in
            running = pool.submit(closed_loop, engine, requests(8), streams)
            wait_until(lambda: open_now == min(streams, 8))
        found = running.result(60)
    assert seeds == list(range(8))
    assert most == min(streams, 8)
    assert open_now == 0
    assert found.tokens == sum(4 + j for j in range(8))
    assert found.tokens_per_second == pytest.approx(found.tokens / found.seconds)


def test_an_engine_that_ends_ends_the_loop() -> None:
    engine = make_engine()
    engine.warmup(requests(1))
    engine.close()
    with pytest.raises(sia_jax.EngineClosed):
        closed_loop(engine, requests(2), 1)


def measured(streams: int, seconds: float, first: float) -> Measured:
    return Measured(
        streams, 8, 1000, 90, seconds, {"p50": first, "p95": 2 * first}, {"p50": 1.0, "p95": 2.0}, 4.0
    )


def test_rows_have_the_medians_and_the_ratio_of_the_medians() -> None:
    tries = [[measured(16, 10.0, 5.0)], [measured(16, 4.0, 9.0)], [measured(16, 5.0, 6.0)]]
    alone = [[Looped(4.0, 1000)], [Looped(5.0, 1000)], [Looped(1.0, 1000)]]
    (row,) = serving_rows("server", "20%", tries, alone, {"steered": 0.2})
    assert row["tokens_per_second"] == 200.0
    assert row["best_tokens_per_second"] == 250.0
    assert row["first_token_ms"] == {"p50": 6.0, "p95": 12.0}
    assert row["engine_tokens_per_second"] == 250.0
    assert row["of_engine"] == 0.8
    assert row["steered"] == 0.2
    assert "of_engine" not in serving_rows("other", "unsteered", tries)[0]


def test_targets_are_of_sixteen_streams_and_of_servers_with_an_engine() -> None:
    of = {"streams": 16, "steering": "20%", "of_engine": 0.95}
    rows = [of, of | {"of_engine": 0.85}, of | {"streams": 64}, {"streams": 16, "steering": "unsteered"}]
    assert [(row["value"], row["target"], row["met"]) for row in serving_targets(rows)] == [
        (0.95, 0.9, True),
        (0.85, 0.9, False),
    ]


def test_every_stream_asks_so_often_and_few_streams_the_least() -> None:
    load = Load.of_rounds((1, 4, 64), rounds=2, least=10, new_tokens=8, tries=1)
    assert load.requests == (10, 10, 128)
