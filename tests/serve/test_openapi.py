"""The OpenAPI document tells what the routes take and answer: real answers are held against its shapes."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from sia_jax.serve.app import create_app
from sia_jax.serve.openapi import OPEN, ROUTES
from sia_jax.serve.settings import Settings
from tests.support.served import Served, served

HELLO = [{"role": "user", "content": "hello"}]
ALL = {"model": "tiny-sia", "n": 2, "seed": 1, "max_tokens": 9, "return_token_ids": True}
SHOWN = {"sia": {"threshold": "-inf", "trace": True}}
CHAT = {"messages": HELLO, "logprobs": True, "top_logprobs": 5}
ASKED: list[tuple[str, str, dict[str, Any] | None]] = [
    ("post", "/v1/completions", {"model": "tiny", "prompt": "a"}),
    ("post", "/v1/completions", {**ALL, **SHOWN, "prompt": ["bread", "café"], "echo": True, "logprobs": 5}),
    ("post", "/v1/completions", {"model": "tiny", "prompt": [5, 6], "echo": True, "max_tokens": 0}),
    ("post", "/v1/chat/completions", {"model": "tiny", "messages": HELLO}),
    (
        "post",
        "/v1/chat/completions",
        {**ALL, **SHOWN, "messages": HELLO, "logprobs": True, "top_logprobs": 5},
    ),
    ("post", "/tokenize", {"prompt": "a", "return_token_strs": True}),
    ("post", "/tokenize", {"messages": HELLO}),
    ("post", "/detokenize", {"tokens": [5]}),
    ("get", "/v1/models", None),
    ("get", "/v1/models/{name}", None),
    ("get", "/health", None),
    ("get", "/version", None),
    ("get", "/load", None),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(settings=Settings(max_n=3, max_new_tokens=20)) as found:
        yield found


@pytest.fixture(scope="module")
def document(server: Served) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/openapi.json").json()
    return found


def test_every_route_tells_what_it_answers(document: dict[str, Any]) -> None:
    paths = document["paths"]
    assert {(method, path) for path in paths for method in paths[path]} == set(ROUTES)
    assert {path for method, path, _ in ASKED} == {path for _, path in ROUTES} - {"/metrics"}


@pytest.mark.parametrize(("method", "path", "body"), ASKED)
def test_an_answer_has_the_shape_that_is_told(
    server: Served, method: str, path: str, body: dict[str, Any] | None
) -> None:
    kind = ROUTES[method, path].success
    assert kind is not None
    answer = server.http.request(method, path.replace("{name}", "tiny"), json=body)
    assert answer.status_code == 200, answer.text
    TypeAdapter(kind).validate_json(answer.content, strict=True)


@pytest.mark.parametrize(
    ("path", "body"), [(path, body) for method, path, body in ASKED if body and path.startswith("/v1/")]
)
@pytest.mark.parametrize("options", [None, {"include_usage": True, "continuous_usage_stats": True}])
def test_a_chunk_has_the_shape_that_is_told(
    server: Served, path: str, body: dict[str, Any], options: Any
) -> None:
    kind = ROUTES["post", path].chunk
    assert kind is not None
    answer = server.post(path, {**body, "stream": True, "stream_options": options})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, done = answer.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    for chunk in chunks:
        TypeAdapter(kind).validate_json(chunk.removeprefix("data: "), strict=True)


def test_the_fields_tell_the_limits_of_this_server(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    fields = schemas["CompletionBody"]["properties"]
    assert fields["model"]["enum"] == ["tiny", "tiny-sia"]
    assert [fields[name]["anyOf"][0]["maximum"] for name in ("n", "max_tokens", "logprobs")] == [3, 20, 5]
    assert schemas["DetokenizeBody"]["properties"]["tokens"]["items"]["maximum"] == 351
    assert fields["logit_bias"]["anyOf"][0]["maxProperties"] == 4


def test_two_servers_tell_of_their_own_limits(server: Served, document: dict[str, Any]) -> None:
    with served(settings=Settings(max_n=7)) as other:
        told = other.get("/openapi.json").json()["components"]["schemas"]["ChatBody"]["properties"]
    assert told["n"]["anyOf"][0]["maximum"] == 7
    assert create_app(server.service).openapi() == document


def test_where_keys_are_asked_for_the_document_says_so(server: Served, document: dict[str, Any]) -> None:
    assert "securitySchemes" not in document["components"]
    keyed = create_app(server.service, keyed=True).openapi()
    for path, operations in keyed["paths"].items():
        for operation in operations.values():
            assert operation.get("security") == (None if path in OPEN else [{"bearer": []}])
            assert ("401" in operation["responses"]) == (path not in OPEN)
    assert keyed["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
