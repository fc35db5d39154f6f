"""What is refused before any work: too many, too early, too large, too slow."""

import asyncio
import http.client
import itertools
import json
import random
from contextlib import suppress
from typing import Any

import pytest

from sia_jax.serve.asgi import Receive, Scope, Send
from sia_jax.serve.limits import Admission, BodyLimit, ReadyOnly, Refused
from sia_jax.serve.settings import Settings, State
from tests.support.tiny_app import TinyService, ask, running, tiny_app, with_settings
from tests.support.waiting import wait_until


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def admission(requests: int = 4, tokens: int = 100) -> tuple[Admission, Clock]:
    clock = Clock()
    return Admission(with_settings(max_queued_requests=requests, max_queued_tokens=tokens), clock), clock


def test_n_replies_count_n_and_leave_room_when_they_end() -> None:
    own, _ = admission()
    first, second = own.enter(3, 0), own.enter(1, 0)
    assert own.requests == 4
    with pytest.raises(Refused) as caught:
        own.enter(1, 0)
    assert (caught.value.status, caught.value.retry_after) == (503, 1)
    second.leave()
    with pytest.raises(Refused):
        own.enter(2, 0)
    own.enter(1, 0)
    first.leave()
    assert own.requests == 1


def test_leaving_and_being_read_count_once() -> None:
    own, _ = admission()
    ticket, other = own.enter(2, 60), own.enter(1, 40)
    for _ in range(3):
        ticket.admitted()
    assert (own.requests, own.tokens) == (3, 40)
    for _ in range(3):
        ticket.leave()
        ticket.admitted()
    assert (own.requests, own.tokens) == (1, 40)
    other.leave()
    assert (own.requests, own.tokens) == (0, 0)


def test_a_ticket_leaves_with_its_block_also_by_an_error() -> None:
    own, _ = admission()
    with suppress(KeyError), own.enter(2, 60):
        assert (own.requests, own.tokens) == (2, 60)
        raise KeyError
    assert (own.requests, own.tokens) == (0, 0)


def test_prompts_that_wait_to_be_read_hold_up_others_and_those_that_are_read_do_not() -> None:
    own, _ = admission()
    first = own.enter(1, 100)
    own.enter(1, 0)
    with pytest.raises(Refused) as caught:
        own.enter(1, 1)
    assert caught.value.status == 503
    first.admitted()
    own.enter(1, 100)


def test_a_prompt_larger_than_the_queue_is_taken_where_nothing_waits() -> None:
    own, _ = admission()
    own.enter(1, 1000).admitted()
    own.enter(1, 1000)


def test_more_replies_than_there_is_room_for_at_all_are_no_matter_of_time() -> None:
    own, _ = admission()
    with pytest.raises(Refused, match="split the request") as caught:
        own.enter(5, 0)
    assert (caught.value.status, caught.value.retry_after) == (400, None)


def test_a_refusal_changes_nothing() -> None:
    own, _ = admission()
    own.enter(3, 90)
    for requests, tokens in ((5, 0), (2, 0), (1, 11)):
        with pytest.raises(Refused):
            own.enter(requests, tokens)
    assert (own.requests, own.tokens) == (3, 90)


def test_counts_agree_with_a_ledger_over_random_traffic() -> None:
    own, _ = admission(16, 300)
    rng = random.Random(0)
    open_: dict[Any, list[int]] = {}
    refusals = 0
    for _ in range(5000):
        move = rng.random()
        if move < 0.5:
            n, tokens = rng.randint(1, 6), rng.randint(0, 120)
            requests, waiting = sum(x[0] for x in open_.values()), sum(x[1] for x in open_.values())
            fits = requests + n <= 16 and (waiting == 0 or waiting + tokens <= 300)
            if fits:
                open_[own.enter(n, tokens)] = [n, tokens]
            else:
                with pytest.raises(Refused) as caught:
                    own.enter(n, tokens)
                assert caught.value.status == 503
                assert 1 <= (caught.value.retry_after or 0) <= 60
                refusals += 1
        elif open_:
            ticket = rng.choice(list(open_))
            if move < 0.75:
                ticket.admitted()
                open_[ticket][1] = 0
            else:
                ticket.leave()
                del open_[ticket]
        assert own.requests == sum(x[0] for x in open_.values())
        assert own.tokens == sum(x[1] for x in open_.values())
    assert refusals > 100


def test_the_wait_that_is_asked_for_follows_how_long_replies_take() -> None:
    own, clock = admission(4)
    for _ in range(100):
        ticket = own.enter(1, 0)
        clock.now += 20.0
        ticket.leave()
    own.enter(4, 0)
    waits = []
    for n in (1, 2, 4):
        with pytest.raises(Refused) as caught:
            own.enter(n, 0)
        waits.append(caught.value.retry_after)
    # Of 4 that take 20 s each, one ends every 5 s.
    assert waits == [5, 10, 20]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Its body, and whether the client was there after it."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body, more = body + message["body"], message["more_body"]
    after = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body + b"|" + after["type"].encode()})


LIMITED = BodyLimit(echo, with_settings(max_body_bytes=10, body_seconds=0.3))


@pytest.mark.parametrize(
    "chunks", [[b"0123456789"], [b"01234", b"56789"], [b"", b"0", b"", b"123456789", b""], [b""]]
)
def test_a_body_within_the_limit_comes_whole_and_what_follows_it_too(chunks: list[bytes]) -> None:
    answer = ask(LIMITED, chunks=chunks)
    assert answer is not None
    assert answer.body == b"".join(chunks) + b"|http.disconnect"


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("chunks", [[b"0123456789a"], [b"0123456789", b"a"], [b"0"] * 11])
def test_a_longer_body_is_refused_whether_or_not_its_length_is_told(chunks: list[bytes], told: bool) -> None:
    headers = [("content-length", str(sum(map(len, chunks))))] if told else []
    answer = ask(LIMITED, headers=headers, chunks=chunks)
    assert answer is not None
    assert answer.status == 413
    assert answer.error["code"] == "body_too_large"
    assert "10 bytes" in answer.error["message"]
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("told", ["41", "9" * 400])
def test_a_body_that_is_told_to_be_far_too_long_is_refused_before_it_is_read(told: str) -> None:
    async def receive() -> Any:
        raise AssertionError("the body was read")

    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", told.encode())]}
    asyncio.run(LIMITED(scope, receive, send))  # type: ignore[arg-type]
    assert said[0]["status"] == 413


@pytest.mark.parametrize(("size", "read"), [(11, 11), (40, 40), (41, 41), (1000, 41)])
def test_of_a_body_without_end_only_so_much_is_read(size: int, read: int) -> None:
    messages = iter([{"type": "http.request", "body": b"0", "more_body": k + 1 < size} for k in range(size)])
    said: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"transfer-encoding", b"chunked")]}
    asyncio.run(LIMITED(scope, receive, send))
    assert said[0]["status"] == 413
    assert size - sum(1 for _ in messages) == read


def test_a_client_that_sends_too_much_gets_its_answer_over_a_real_connection() -> None:
    service = TinyService(with_settings(max_body_bytes=1_000_000))
    with running(service, BodyLimit(tiny_app(service), service.settings)) as server:
        for body in (b"0" * 3_900_000, iter([b"0" * 500_000] * 7)):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            connection.request("POST", "/v1/whole", body, encode_chunked=not isinstance(body, bytes))
            answer = connection.getresponse()
            assert answer.status == 413
            assert json.loads(answer.read())["error"]["code"] == "body_too_large"
            connection.close()


def test_a_length_that_is_told_too_small_lets_no_more_in() -> None:
    answer = ask(LIMITED, headers=[("content-length", "3")], chunks=[b"0123456789", b"a"])
    assert answer is not None
    assert answer.status == 413


def test_a_body_that_drips_in_is_refused_in_time() -> None:
    answer = ask(LIMITED, chunks=[b"0"] * 9, pause=0.1)
    assert answer is not None
    assert answer.status == 408
    assert answer.error["code"] == "body_timeout"
    assert ask(LIMITED, chunks=[b"0"] * 3, pause=0.01).status == 200  # type: ignore[union-attr]


def test_who_leaves_in_the_middle_of_a_body_is_answered_nothing() -> None:
    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the app was asked")

    messages = itertools.chain([{"type": "http.request", "body": b"0", "more_body": True}])

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        raise AssertionError("it was answered")

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"transfer-encoding", b"chunked")]}
    asyncio.run(BodyLimit(gone, Settings())(scope, receive, send))


@pytest.mark.parametrize("state", list(State))
def test_work_is_taken_when_the_server_is_ready_and_other_paths_always(state: State) -> None:
    app = ReadyOnly(echo, lambda: state)
    for path, method in (("/health", "GET"), ("/metrics", "GET"), ("/v1/models", "GET"), ("/", "POST")):
        assert ask(app, path, method).status == 200  # type: ignore[union-attr]
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/chat/completions/"):
        answer = ask(app, path)
        assert answer is not None
        if state == State.READY:
            assert answer.status == 200
            continue
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.error["code"] == f"server_{state.value}"
        assert answer.error["type"] == "server_error"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"max_n": 0}, "max_n must be 1 or more, got 0"),
        ({"max_prompt_tokens": -1}, "max_prompt_tokens must be 1 or more"),
        ({"drain_seconds": -1.0}, "drain_seconds must be a number of seconds, 0 or more"),
        ({"body_seconds": 0.0}, "body_seconds must be a number of seconds, over 0"),
        ({"request_seconds": float("nan")}, "request_seconds must be a number"),
        ({"keep_alive_seconds": float("inf")}, "keep_alive_seconds must be a number"),
    ],
)
def test_limits_that_cannot_be_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        with_settings(**changes)


def test_over_the_most_connections_a_request_is_refused_like_any_other_and_health_is_told() -> None:
    service = TinyService(with_settings(max_connections=3, keep_alive_seconds=60.0))
    with running(service) as server:
        wait_until(lambda: service.state == State.READY)
        service.engine.release.set()
        idle = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=20) for _ in range(3)]
        for connection in idle:
            connection.request("GET", "/health")
            connection.getresponse().read()
        asking = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        asking.request("POST", "/v1/whole")
        found = asking.getresponse()
        assert (found.status, found.headers["retry-after"], found.headers["connection"]) == (
            503,
            "1",
            "close",
        )
        assert json.loads(found.read())["error"]["code"] == "too_many_connections"
        assert server.get("/health") == (200, {"status": "ready"})
        idle[0].close()
        wait_until(lambda: server.get("/v1/whole", "POST") == (200, {"finish_reason": "stop"}))
        for connection in idle:
            connection.close()
