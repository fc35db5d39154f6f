"""Clients that leave: what was being written for them ends, and is counted once."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from sia_jax.serve.settings import Settings
from tests.support.served import SECONDS, Served, StubValue, served
from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until

BODIES = {
    "/v1/completions": {"model": "tiny", "prompt": ["a", "b"], "n": 2},
    "/v1/chat/completions": {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "n": 2},
}


@pytest.fixture
def server() -> Iterator[Served]:
    with served(StubEngine(value=StubValue(), hold_after=1)) as found:
        yield found


def raw(server: Served, route: str, body: dict[str, Any]) -> socket.socket:
    """A connection over which a request has been sent."""
    content = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=SECONDS)
    head = f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("route", BODIES, ids=["completions", "chat"])
def test_who_leaves_ends_all_of_the_request_and_counts_once(server: Served, route: str, stream: bool) -> None:
    body = BODIES[route] | {"stream": stream}
    requests = len(body["prompt"]) if "prompt" in body else 1
    connection = raw(server, route, body)
    wait_until(lambda: len(server.engine.requests) == requests)
    if stream:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    assert server.service.admission.requests == 2 * requests
    connection.close()
    wait_until(lambda: server.service.admission.requests == 0)
    assert server.engine.cancelled == requests
    assert server.metrics.left == 1
    assert server.metrics.ended == ["abort"] * 2 * requests
    assert server.engine.statistics().in_rows == 0
    server.engine.release()
    assert server.post(route, BODIES[route]).status_code == 200
    assert server.metrics.left == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("max_tokens", [0, 5])
def test_who_leaves_while_the_prompt_is_scored_has_it_left_unread(stream: bool, max_tokens: int) -> None:
    with served(StubEngine(value=StubValue(), hold_scores=True)) as server:
        body = {"model": "tiny", "prompt": "a", "echo": True, "logprobs": 1}
        connection = raw(server, "/v1/completions", body | {"stream": stream, "max_tokens": max_tokens})
        wait_until(lambda: len(server.engine.scorings) == 1)
        assert server.service.admission.requests == 1
        connection.close()
        wait_until(lambda: server.service.admission.requests == 0)
        assert server.engine.scorings[0].cancelled()
        assert server.metrics.left == 1
        assert not server.engine.requests
        server.engine.hold_scores = False
        assert server.post("/v1/completions", body | {"max_tokens": max_tokens}).status_code == 200


def test_who_has_read_all_and_goes_is_not_counted(server: Served) -> None:
    server.engine.release()
    for route, body in BODIES.items():
        for stream in (False, True):
            connection = raw(server, route, body | {"stream": stream})
            seen = b""
            while (b"[DONE]" if stream else b'"usage"') not in seen:
                seen += connection.recv(65536)
            connection.close()
    wait_until(lambda: server.service.admission.requests == 0)
    assert server.metrics.left == 0
    assert server.engine.cancelled == 0


def test_many_clients_that_time_out_leave_nothing_behind_and_the_next_is_answered(server: Served) -> None:
    def ask(timeout: float) -> None:
        client = server.client().with_options(timeout=timeout)
        client.completions.create(model="tiny", prompt="a")

    # One that ran out of time on its way never came: what came is counted.
    while len(server.engine.requests) < 8:
        with pytest.raises(openai.APITimeoutError):
            ask(0.2)
    wait_until(lambda: server.metrics.left == len(server.engine.requests))
    left = server.metrics.left
    server.engine.release()
    ask(SECONDS)
    wait_until(lambda: server.service.admission.requests == 0)
    assert server.service.admission.tokens == 0
    assert server.engine.statistics().in_rows == 0
    assert server.metrics.left == left >= 8


def test_a_stream_that_is_closed_by_the_client_ends_its_request(server: Served) -> None:
    stream = server.client().chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "a"}], stream=True
    )
    next(iter(stream))
    stream.close()
    wait_until(lambda: server.engine.cancelled == 1)
    wait_until(lambda: server.metrics.left == 1)


def test_a_reply_that_takes_too_long_ends_as_it_is() -> None:
    engine = StubEngine(value=StubValue(), hold_after=1)
    with served(engine, Settings(request_seconds=0.3)) as server:
        found = server.post("/v1/completions", {"model": "tiny", "prompt": "a", "seed": 3}).json()
        assert found["choices"][0]["finish_reason"] == "abort"
        assert "reply 0 of seed 3".startswith(found["choices"][0]["text"])
        assert found["usage"]["completion_tokens"] == 3
        assert server.metrics.ended == ["abort"]


def test_tokens_are_counted_as_they_come_and_none_that_a_stop_text_takes_off() -> None:
    with served() as server:
        fields = {"model": "tiny", "prompt": "a", "seed": 3, "max_tokens": 60, "n": 2, "stop": [", th"]}
        for stream in (False, True):
            server.metrics.pieces.clear()
            server.post("/v1/completions", fields | {"stream": stream})
            found = [server.engine.replies[len(server.engine.requests) - 1, j] for j in range(2)]
            assert sum(tokens for tokens, _ in server.metrics.pieces) == sum(len(one.tokens) for one in found)
            assert sum(first for _, first in server.metrics.pieces) == 2
        assert server.metrics.arrivals == [(2, 60), (2, 60)]
        assert server.metrics.ended == ["stop"] * 4


def test_there_is_room_again_once_prompts_are_read_and_replies_have_ended() -> None:
    settings = Settings(max_queued_requests=2, max_queued_tokens=8)
    engine = StubEngine(value=StubValue(), hold_after=1)
    with served(engine, settings) as server:
        connection = raw(server, "/v1/completions", {"model": "tiny", "prompt": "a", "n": 2})
        wait_until(lambda: server.service.admission.requests == 2)
        wait_until(lambda: server.service.admission.tokens == 0)
        asked = len(engine.requests)
        refused = server.post("/v1/completions", {"model": "tiny", "prompt": "b"})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "server_error"
        assert len(engine.requests) == asked
        assert server.metrics.refusals == [503]
        engine.release()
        connection.close()
        wait_until(lambda: server.service.admission.requests == 0)
        assert server.post("/v1/completions", {"model": "tiny", "prompt": "b"}).status_code == 200


def test_a_request_that_is_refused_after_it_was_admitted_leaves_its_place() -> None:
    with served() as server:
        for body in (
            {"model": "tiny", "prompt": ""},
            {"model": "tiny", "prompt": ["a", "b" * 4000]},
            {"model": "tiny", "prompt": [[5], [5] * 120], "max_tokens": 30},
        ):
            assert server.post("/v1/completions", body).status_code == 400
        wait_until(lambda: server.service.admission.requests == 0)
        assert server.service.admission.tokens == 0
        assert server.engine.statistics().in_rows == 0
        assert server.metrics.left == 0


def test_a_slow_reader_gets_all(server: Served) -> None:
    server.engine.release()
    body = BODIES["/v1/completions"] | {"stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=SECONDS) as answer:
        wait_until(lambda: server.service.admission.requests == 0)
        assert list(answer.iter_lines())[-2:] == ["data: [DONE]", ""]
