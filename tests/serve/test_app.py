"""What a server says of itself, and texts in ids."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import sia_jax
from sia_jax.serve.presets import Preset
from sia_jax.serve.settings import State
from tests.support.engines import tokenizer
from tests.support.served import Served, StubValue, served
from tests.support.stub_engine import LENGTH, StubEngine


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(presets={"org/strong": Preset(beta=3.0)}) as found:
        yield found


def test_models_are_listed_with_their_numbers(server: Served) -> None:
    client = server.client()
    assert [model.id for model in client.models.list()] == ["tiny", "tiny-sia", "org/strong"]
    numbers = {one["id"]: one for one in server.get("/v1/models").json()["data"]}
    assert numbers["tiny"]["sia"] == {
        **{"threshold": "inf", "beta": 1.0, "gate": "entropy", "tilt": "additive"}
    }
    assert numbers["tiny-sia"]["sia"]["threshold"] == 1.0
    assert numbers["org/strong"]["sia"]["beta"] == 3.0
    assert {one["max_model_len"] for one in numbers.values()} == {LENGTH}
    one: Any = client.models.retrieve("org/strong")
    assert one.id == "org/strong"
    assert one.created == 1_700_000_000
    assert one.sia == numbers["org/strong"]["sia"]


@pytest.mark.parametrize("path", ["/health", "/health/"])
def test_health_is_200_only_when_the_server_is_ready(server: Served, path: str) -> None:
    try:
        for state in State:
            server.service.state = state
            answer = server.get(path)
            assert answer.status_code == (200 if state == State.READY else 503)
            assert answer.json() == {"status": state.value}
    finally:
        server.service.state = State.READY


def test_version_and_load_are_told(server: Served) -> None:
    assert server.get("/version").json() == {"version": sia_jax.__version__}
    assert server.get("/load").json() == {"server_load": 0, "running": 0, "waiting": 0}


def test_metrics_are_those_of_the_servers_own_registry(server: Served) -> None:
    answer = server.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")


def test_a_text_becomes_ids_and_ids_the_text(server: Served) -> None:
    text = "bread <|im_end|> and café"
    ids = list(tokenizer().encode(text, add_special_tokens=False))
    found = server.post("/tokenize", {"model": "tiny", "prompt": text, "return_token_strs": True}).json()
    assert found["tokens"] == ids
    assert found["count"] == len(ids)
    assert found["max_model_len"] == LENGTH
    assert len(found["token_strs"]) == len(ids)
    assert server.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()["tokens"] == ids
    assert server.post("/tokenize", {"prompt": ""}).json()["tokens"] == []
    assert server.post("/detokenize", {"tokens": ids}).json() == {"prompt": text}
    assert server.post("/detokenize", {"tokens": []}).json() == {"prompt": ""}


def test_a_conversation_becomes_the_ids_that_a_chat_generates_from(server: Served) -> None:
    messages = [{"role": "user", "content": "hello"}]
    found = server.post("/tokenize", {"messages": messages}).json()
    server.post("/v1/chat/completions", {"model": "tiny", "messages": messages, "max_tokens": 1})
    assert found["tokens"] == list(server.engine.requests[-1].prompt_ids or ())
    assert found["token_strs"] is None


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": "a" * 300_000}, "prompt"),
        ("/tokenize", {"prompt": "a", "chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        ("/tokenize", {"messages": [{"role": "assistant", "content": "a"}]}, "messages"),
        ("/tokenize", {"prompt": "a", "add_generation_prompt": False}, "add_generation_prompt"),
        ("/detokenize", {"tokens": [352]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
        ("/detokenize", {"tokens": ["a"]}, "tokens.0"),
        ("/detokenize", {}, "tokens"),
    ],
)
def test_what_cannot_be_tokenised_is_named(server: Served, path: str, body: Any, param: str) -> None:
    answer = server.post(path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_the_openapi_document_has_every_route_and_resolves_every_reference(server: Served) -> None:
    document = server.get("/openapi.json").json()
    assert {"/v1/completions", "/v1/chat/completions", "/v1/models", "/tokenize", "/detokenize"} <= set(
        document["paths"]
    )
    assert {"/health", "/version", "/load", "/metrics"} <= set(document["paths"])
    schemas = document["components"]["schemas"]
    assert {"CompletionBody", "ChatBody", "Steering", "StreamOptions"} <= set(schemas)

    def check(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                assert value["$ref"].removeprefix("#/components/schemas/") in schemas
            for part in value.values():
                check(part)
        elif isinstance(value, list):
            for part in value:
                check(part)

    check(document)


def test_a_policy_without_a_tokenizer_takes_ids_and_says_what_it_cannot() -> None:
    engine = StubEngine(value=StubValue())
    engine.policy = replace(engine.policy, tokenizer=None)
    with served(engine) as server:
        assert (
            server.post("/v1/completions", {"model": "tiny", "prompt": [5], "logprobs": 1}).status_code == 200
        )
        for path, body in (
            ("/v1/completions", {"model": "tiny", "prompt": "a"}),
            ("/v1/completions", {"model": "tiny", "prompt": [5], "echo": True}),
            ("/tokenize", {"prompt": "a"}),
        ):
            answer = server.post(path, body)
            assert answer.status_code == 400
            assert "tokenizer" in answer.json()["error"]["message"]
