"""Streams of both routes: what the pieces come to, and how they end."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

import httpx
import pytest

from sia_jax.decoding.state import FinishReason
from tests.support.engines import tokenizer
from tests.support.served import SECONDS, Served, StubValue, served
from tests.support.stub_engine import StubEngine

ROUTES = {
    "/v1/completions": {"model": "tiny-sia", "prompt": "bread"},
    "/v1/chat/completions": {"model": "tiny-sia", "messages": [{"role": "user", "content": "bread"}]},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as found:
        yield found


@pytest.fixture(params=ROUTES, ids=["completions", "chat"])
def route(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def frames(server: Served, route: str, **fields: Any) -> list[dict[str, Any]]:
    """The objects of a stream, which ends as streams do."""
    body = ROUTES[route] | {"stream": True, "seed": 3, "max_tokens": 60, **fields}
    answer = server.post(route, body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    parts = answer.text.split("\n\n")
    assert parts.pop() == ""
    assert parts.pop() == "data: [DONE]"
    assert all(part.startswith("data: ") and "\n" not in part for part in parts)
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def said(choice: dict[str, Any]) -> str:
    return str(choice["text"] if "text" in choice else choice["delta"].get("content", ""))


def whole(server: Served, route: str, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = server.post(route, ROUTES[route] | {"seed": 3, "max_tokens": 60, **fields}).json()
    return found


def text_of(choice: dict[str, Any]) -> str:
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stop": [" seed 3: the br"]},
        {"stop": ["the bread, then the caf", "zzz"], "n": 3},
        {"max_tokens": 7},
        {"n": 4},
    ],
    ids=["to its end", "a stop text", "a stop text within n", "a length", "n"],
)
def test_the_pieces_of_each_choice_joined_are_the_whole_and_one_has_the_end(
    server: Served, route: str, fields: dict[str, Any]
) -> None:
    expected = whole(server, route, **fields)
    found = frames(server, route, **fields)
    assert len({chunk["id"] for chunk in found}) == 1
    for choice in expected["choices"]:
        own = [c for chunk in found for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(map(said, own)) == text_of(choice)
        ends = [c["finish_reason"] for c in own]
        assert ends == [None] * (len(own) - 1) + [choice["finish_reason"]]
    assert len(found) > len(expected["choices"]) * 2


def test_choices_come_interleaved(server: Served, route: str) -> None:
    order = [choice["index"] for chunk in frames(server, route, n=3) for choice in chunk["choices"]]
    first_end = max(order.index(j) for j in range(3))
    assert first_end < order.index(0) + len(order) // 2
    assert sorted(set(order)) == [0, 1, 2]
    assert order != sorted(order)


def test_the_first_chunk_of_each_choice_of_a_chat_says_who_speaks(server: Served) -> None:
    seen: dict[int, int] = {}
    for chunk in frames(server, "/v1/chat/completions", n=2):
        assert chunk["object"] == "chat.completion.chunk"
        for choice in chunk["choices"]:
            first = choice["index"] not in seen
            seen[choice["index"]] = seen.get(choice["index"], 0) + 1
            assert ("role" in choice["delta"]) == first
            if first:
                assert choice["delta"] == {"role": "assistant", "content": ""}


def test_usage_comes_last_and_alone_and_is_that_of_the_whole(server: Served, route: str) -> None:
    found = frames(server, route, n=2, stream_options={"include_usage": True})
    assert found[-1]["choices"] == []
    assert found[-1]["usage"] == whole(server, route, n=2)["usage"]
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in found[:-1])


def test_continuous_usage_grows_to_that_of_the_whole(server: Served, route: str) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    found = frames(server, route, n=2, stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in found]
    assert counts == sorted(counts)
    assert len(set(counts)) > 5
    expected = whole(server, route, n=2)["usage"]
    assert counts[-1] == counts[-2] == expected["completion_tokens"]
    assert {chunk["usage"]["prompt_tokens"] for chunk in found} == {expected["prompt_tokens"]}
    for chunk in found:
        usage = chunk["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_no_usage_comes_unasked(server: Served, route: str) -> None:
    assert all("usage" not in chunk and chunk["choices"] for chunk in frames(server, route))


@pytest.mark.parametrize("stop", [[], ["bread, th"]], ids=["to its end", "a stop text"])
def test_logprobs_trace_and_ids_in_pieces_are_those_of_the_whole(
    server: Served, route: str, stop: list[str]
) -> None:
    chat = "chat" in route
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 3} if chat else {"logprobs": 3}
    fields |= {"sia": {"trace": True}, "return_token_ids": True, "n": 2, "stop": stop}
    expected = whole(server, route, **fields)
    found = frames(server, route, **fields)
    assert found[0]["prompt_token_ids"] == expected["prompt_token_ids"]
    assert sum("prompt_token_ids" in chunk for chunk in found) == 1
    for choice in expected["choices"]:
        own = [c for chunk in found for c in chunk["choices"] if c["index"] == choice["index"]]
        traces = [entry for c in own for entry in c.get("sia", {}).get("trace", [])]
        assert traces == choice["sia"]["trace"]
        assert "".join(entry["text"] for entry in traces) == text_of(choice)
        assert [id_ for c in own for id_ in c.get("token_ids", [])] == choice["token_ids"]
        told = [c["logprobs"] for c in own if c["logprobs"]]
        for name in ("content",) if chat else ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert [x for part in told for x in part[name]] == choice["logprobs"][name], name
    assert sum(bool(c["logprobs"]) for chunk in found for c in chunk["choices"]) > 4


def test_no_token_is_told_before_its_text_is(server: Served, route: str) -> None:
    # " seed 3: the bread" is held back whole until it turns out to be no stop text.
    found = frames(server, route, sia={"trace": True}, stop=[" seed 3: the bread, then never"])
    text = trace = ""
    for chunk in found:
        for choice in chunk["choices"]:
            text += said(choice)
            trace += "".join(entry["text"] for entry in choice.get("sia", {}).get("trace", []))
            assert text.startswith(trace)
    assert text == trace


def test_echo_comes_first_in_the_stream_of_each_choice(server: Served) -> None:
    fields = {"echo": True, "logprobs": 1, "n": 2}
    expected = whole(server, "/v1/completions", **fields)
    found = frames(server, "/v1/completions", **fields)
    for choice in expected["choices"]:
        own = [c for chunk in found for c in chunk["choices"] if c["index"] == choice["index"]]
        assert own[0]["text"] == "bread"
        assert "".join(map(said, own)) == choice["text"]
        told = [c["logprobs"] for c in own if c["logprobs"]]
        assert [x for part in told for x in part["text_offset"]] == choice["logprobs"]["text_offset"]
    alone = frames(server, "/v1/completions", echo=True, max_tokens=0)
    assert "".join(said(c) for chunk in alone for c in chunk["choices"]) == "bread"
    assert [c["finish_reason"] for chunk in alone for c in chunk["choices"]] == [None, "length"]


def test_stream_options_are_refused_without_a_stream(server: Served, route: str) -> None:
    for stream in ({}, {"stream": False}, {"stream": None}):
        body = ROUTES[route] | stream | {"stream_options": {"include_usage": True}}
        answer = server.post(route, body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "stream_options"


def test_what_fails_after_the_first_byte_is_an_error_in_the_stream(route: str) -> None:
    with served() as server:
        ids = tokenizer().encode("a reply that goes on", add_special_tokens=False)
        server.engine.script = lambda request, choice: (ids, FinishReason.NON_FINITE)
        found = frames(server, route)
        assert set(found[-1]) == {"error"}
        assert found[-1]["error"]["code"] == "non_finite"
        assert found[-1]["error"]["type"] == "server_error"
        assert len(found) > 2
        assert server.metrics.left == 0
        assert server.metrics.ended == ["error"]


def test_an_engine_that_fails_ends_its_streams_with_an_error_and_the_server_is_dead(route: str) -> None:
    engine = StubEngine(value=StubValue(), hold_after=1)
    with served(engine) as server:
        body = ROUTES[route] | {"stream": True}
        with httpx.stream("POST", f"{server.url}{route}", json=body, timeout=SECONDS) as answer:
            lines = (line for line in answer.iter_lines() if line)
            first = json.loads(next(lines).removeprefix("data: "))
            assert first["choices"]
            engine.fail(RuntimeError("/secret/path broke at 0x7f1234567890"))
            rest = list(lines)
        assert rest[-1] == "data: [DONE]"
        error = json.loads(rest[-2].removeprefix("data: "))["error"]
        assert error["type"] == "server_error"
        assert "secret" not in error["message"]
        assert server.get("/health").status_code == 503
        assert server.get("/health").json() == {"status": "dead"}
        refused = server.post(route, ROUTES[route])
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0


def sent(server: Served, route: str, **fields: Any) -> list[str]:
    """What a stream sends in one go each time: the chunks of HTTP."""
    body = json.dumps(ROUTES[route] | {"stream": True, "seed": 3, "max_tokens": 60, **fields}).encode()
    head = f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), SECONDS) as one:
        one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        found = b"".join(iter(lambda: one.recv(65536), b""))
    rest, parts = found.split(b"\r\n\r\n", 1)[1], []
    while size := int((line := rest.split(b"\r\n", 1)[0]), 16):
        begin = len(line) + 2
        parts.append(rest[begin : begin + size].decode())
        rest = rest[begin + size + 2 :]
    return parts


def test_what_comes_together_is_sent_together(server: Served, route: str) -> None:
    parts = sent(server, route, stream_options={"include_usage": True})
    counts = [part.count("data: ") for part in parts]
    opening = 1 if "chat" in route else 0
    assert counts == [1 + opening, *[1] * (len(parts) - 2), 3]
    assert parts[-1].endswith("data: [DONE]\n\n")
    assert len(parts) > 5
    assert [json.loads(line[6:]) for line in "".join(parts).split("\n\n")[:-2]] == [
        chunk | dict.fromkeys(("id", "created"), ANY)
        for chunk in frames(server, route, stream_options={"include_usage": True})
    ]


def test_the_official_client_reads_both_streams(server: Served) -> None:
    client = server.client()
    chat = client.chat.completions.create(
        **ROUTES["/v1/chat/completions"],  # type: ignore[call-overload]
        stream=True,
        seed=3,
        stream_options={"include_usage": True},
    )
    chunks = list(chat)
    assert "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices).startswith("reply 0 of")
    assert chunks[-1].usage is not None
    # Its type of a chunk of this route has no finish_reason of null, which OpenAI itself sends.
    texts = server.client(strict=False).completions.create(
        **ROUTES["/v1/completions"],  # type: ignore[call-overload]
        stream=True,
        seed=3,
        max_tokens=60,
    )
    assert (
        "".join(c.text for chunk in texts for c in chunk.choices)
        == "reply 0 of seed 3: the bread, then the café."
    )
