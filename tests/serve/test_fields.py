"""Every field of a body, and what it asks of the engine."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from sia_jax.engine.request import Request
from sia_jax.serve.presets import Preset
from sia_jax.serve.settings import Settings
from sia_jax.steering.config import SteeringConfig
from sia_jax.steering.gates import Always, Budget, Entropy, Position
from sia_jax.steering.tilts import Advantage, Clipped
from tests.support.served import Served, StubValue, served
from tests.support.stub_engine import LENGTH, StubEngine

TEXT = {"model": "tiny-sia", "prompt": "a", "seed": 1}
CHAT = {"model": "tiny-sia", "messages": [{"role": "user", "content": "a"}], "seed": 1}
ROUTES = {"/v1/completions": TEXT, "/v1/chat/completions": CHAT}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as found:
        yield found


@pytest.fixture(params=ROUTES, ids=["completions", "chat"])
def route(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def asked(server: Served, route: str, **fields: Any) -> Request:
    """What a body with these fields asks of the engine."""
    answer = server.post(route, ROUTES[route] | fields)
    assert answer.status_code == 200, answer.text
    return server.engine.requests[-1]


def refused(server: Served, route: str, **fields: Any) -> dict[str, Any]:
    before = len(server.engine.requests)
    answer = server.post(route, ROUTES[route] | fields)
    assert answer.status_code == 400, answer.text
    assert len(server.engine.requests) == before
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


MEANINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"temperature": None, "top_p": None, "n": 1, "top_k": None, "min_p": None, "stop": (), "seed": 1}),
    ({}, {"ignore_eos": False, "stop_ids": (), "logit_bias": {}, "min_new_tokens": None, "deadline": 600.0}),
    ({"temperature": 0}, {"temperature": 0}),
    ({"temperature": 0.7}, {"temperature": 0.7}),
    ({"top_p": 0.9}, {"top_p": 0.9}),
    ({"top_k": 7}, {"top_k": 7}),
    ({"top_k": 0}, {"top_k": 0}),
    ({"top_k": -1}, {"top_k": 0}),
    ({"min_p": 0.1}, {"min_p": 0.1}),
    ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
    ({"presence_penalty": -0.5}, {"presence_penalty": -0.5}),
    ({"frequency_penalty": 2}, {"frequency_penalty": 2}),
    ({"min_tokens": 3, "max_tokens": 9}, {"min_new_tokens": 3, "max_new_tokens": 9}),
    ({"ignore_eos": True}, {"ignore_eos": True}),
    ({"stop": "x"}, {"stop": ("x",)}),
    ({"stop": ["x", "yy"]}, {"stop": ("x", "yy")}),
    ({"stop": None}, {"stop": ()}),
    ({"stop_token_ids": [4, 5]}, {"stop_ids": (4, 5)}),
    ({"logit_bias": {"5": -100, "6": 2, "7": -99.5}}, {"logit_bias": {5: -math.inf, 6: 2.0, 7: -99.5}}),
    ({"n": 3}, {"n": 3}),
    ({"user": "me"}, {}),
    ({"sia": {"threshold": 0.3, "beta": 2}}, {"threshold": 0.3, "beta": 2.0}),
    ({"sia": {"threshold": "-inf"}}, {"threshold": -math.inf, "beta": None}),
    ({"sia": {"threshold": "inf"}}, {"threshold": math.inf}),
    ({"sia": {}}, {"threshold": None, "gate": None, "tilt": None}),
    ({"model": "tiny"}, {"threshold": math.inf}),
    ({"model": "tiny", "sia": {"threshold": 0.5}}, {"threshold": 0.5}),
    ({"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "store": False}, {}),
    ({"best_of": None, "logprobs": None, "suffix": None, "audio": None}, {}),
]


@pytest.mark.parametrize(("fields", "expected"), MEANINGS)
def test_what_a_field_asks_of_the_engine(
    server: Served, route: str, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    if "chat" in route:
        fields = {name: x for name, x in fields.items() if name != "best_of"}
    request = asked(server, route, **fields)
    assert {name: getattr(request, name) for name in expected} == expected


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"min_p": 1.5}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"presence_penalty": 2.5}, "presence_penalty"),
    ({"frequency_penalty": -2.5}, "frequency_penalty"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"n": "1"}, "n"),
    ({"seed": 1.5}, "seed"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": LENGTH}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"max_tokens": 4, "min_tokens": 5}, "min_tokens"),
    ({"min_tokens": 65}, "min_tokens"),
    ({"repetition_penalty": 5e-324}, "repetition_penalty"),
    ({"repetition_penalty": 1e38}, "repetition_penalty"),
    ({"stop": [""]}, "stop.0"),
    ({"stop": ""}, "stop.0"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": ["x" * 1001]}, "stop.0"),
    ({"stop": 5}, "stop"),
    ({"stop_token_ids": [-1]}, "stop_token_ids.0"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"352": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5"),
    ({"logit_bias": {str(id_): 1 for id_ in range(5)}}, "logit_bias"),
    ({"stream": "yes"}, "stream"),
    ({"sia": {"threshold": "never"}}, "sia.threshold"),
    ({"sia": {"beta": "2"}}, "sia.beta"),
    ({"sia": {"bound": -1}}, "sia.bound"),
    ({"sia": {"budget": 1.5}}, "sia.budget"),
    ({"sia": {"trace": 1}}, "sia.trace"),
    ({"sia": {"weight": 1}}, "sia.weight"),
    ({"sia": 3}, "sia"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"functions": [{}]}, "functions"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"guided_json": {}}, "guided_json"),
    ({"audio": {}}, "audio"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"parallel_tool_calls": True}, "parallel_tool_calls"),
    ({"suffix": "end"}, "suffix"),
    ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ({"add_generation_prompt": False}, "add_generation_prompt"),
    ({"skip_special_tokens": False}, "skip_special_tokens"),
    ({"no_such_field": 1}, "no_such_field"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG)
def test_what_cannot_be_is_a_400_that_names_the_field_and_asks_nothing_of_the_engine(
    server: Served, route: str, fields: dict[str, Any], param: str
) -> None:
    error = refused(server, route, **fields)
    assert error["param"] == param
    assert param.split(".")[-1] in error["message"] or param.split(".")[0] in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 2}, "best_of"),
        ({"best_of": 3, "n": 2}, "best_of"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a"] * 257}, "prompt"),
        ({"prompt": [1] * LENGTH}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"messages": []}, "messages"),
        ({"max_completion_tokens": 4}, "max_completion_tokens"),
    ],
)
def test_what_a_completion_cannot_be(server: Served, fields: dict[str, Any], param: str) -> None:
    assert refused(server, "/v1/completions", **fields)["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages",
        ),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 6}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
        ({"chat_template_kwargs": {"no_such_variable": 1}}, "messages"),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"form": "raw"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": 5}, "chat_template_kwargs"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"echo": True}, "echo"),
        ({"prompt": "a"}, "prompt"),
        ({"best_of": 1}, "best_of"),
    ],
)
def test_what_a_chat_cannot_be(server: Served, fields: dict[str, Any], param: str) -> None:
    error = refused(server, "/v1/chat/completions", **fields)
    assert error["param"] == param
    assert "/tmp" not in error["message"]


def test_max_completion_tokens_counts_over_max_tokens(server: Served) -> None:
    both = asked(server, "/v1/chat/completions", max_tokens=4, max_completion_tokens=9)
    assert both.max_new_tokens == 9
    assert asked(server, "/v1/chat/completions", max_tokens=4).max_new_tokens == 4
    assert asked(server, "/v1/chat/completions").max_new_tokens is None


def test_a_conversation_is_rendered_by_the_policys_template_and_read_by_the_value_model_in_its_own(
    server: Served,
) -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a"}]
    policy = server.engine.policy
    request = asked(server, "/v1/chat/completions", messages=messages)
    assert list(request.prompt_ids or ()) == policy.prompt_ids(messages)
    assert list(request.value_ids or ()) == [7, 8, 9]
    thinking = asked(
        server, "/v1/chat/completions", messages=messages, chat_template_kwargs={"enable_thinking": True}
    )
    assert list(thinking.prompt_ids or ()) == policy.prompt_ids(messages, enable_thinking=True)
    assert request.prompt_ids != thinking.prompt_ids
    parts = [messages[0], {"role": "user", "content": [{"type": "text", "text": "a"}]}]
    assert asked(server, "/v1/chat/completions", messages=parts).prompt_ids == request.prompt_ids


def test_bound_and_budget_reach_the_tilt_and_every_budget_of_the_gate() -> None:
    gate = (Entropy() & Budget(0.2)) | ~Budget(0.3)
    tilt = Clipped(2.0, of=Advantage())
    engine = StubEngine(value=StubValue(), steering=SteeringConfig(gate=gate, tilt=tilt))
    with served(engine) as server:
        request = asked(server, "/v1/completions", sia={"bound": 0.5, "budget": 0.1})
        assert request.tilt == replace(tilt, bound=0.5)
        assert request.gate == ((Entropy() & Budget(0.1)) | ~Budget(0.1))
        assert asked(server, "/v1/completions").tilt is None


def test_steering_that_the_server_has_no_use_for_is_refused_with_the_remedy(server: Served) -> None:
    assert "server's is additive" in refused(server, "/v1/completions", sia={"bound": 1})["message"]
    assert "server's is entropy" in refused(server, "/v1/completions", sia={"budget": 0.1})["message"]
    with served(StubEngine(value=StubValue(), steering=SteeringConfig(gate=Always()))) as dense:
        assert [one["id"] for one in dense.get("/v1/models").json()["data"]] == ["tiny-sia"]
        assert refused(dense, "/v1/completions", sia={"threshold": 1})["param"] == "sia.threshold"
    with served(StubEngine()) as bare:
        for name in ("threshold", "beta", "bound", "budget"):
            error = refused(bare, "/v1/completions", model="tiny", sia={name: 0.5})
            assert error["param"] == f"sia.{name}"
            assert "no value model" in error["message"]
        assert asked(bare, "/v1/completions", model="tiny").threshold == math.inf


def test_a_preset_gives_the_numbers_that_the_body_does_not() -> None:
    preset = Preset(threshold=0.4, beta=3.0)
    steering = SteeringConfig(gate=Entropy() | Position(2))
    engine = StubEngine(value=StubValue(), steering=steering)
    with served(engine, presets={"strong": preset}) as server:
        request = asked(server, "/v1/completions", model="strong")
        assert (request.threshold, request.beta) == (0.4, 3.0)
        request = asked(server, "/v1/completions", model="strong", sia={"threshold": 0.9})
        assert (request.threshold, request.beta) == (0.9, 3.0)


@pytest.mark.parametrize(("most", "given"), [(8, 8), (16, 16), (20, 16), (None, 16)])
def test_a_completion_that_does_not_say_gets_16_tokens_or_what_the_server_allows(
    most: int | None, given: int
) -> None:
    with served(settings=Settings(max_new_tokens=most)) as server:
        assert asked(server, "/v1/completions").max_new_tokens == given


def test_the_limits_of_the_settings_are_told() -> None:
    limits = Settings(max_n=2, max_new_tokens=8, max_prompt_tokens=4, max_batch_prompts=2)
    with served(settings=limits) as server:
        for fields, param, most in (
            ({"n": 3}, "n", 2),
            ({"max_tokens": 9}, "max_tokens", 8),
            ({"prompt": [1] * 5}, "prompt", 4),
            ({"prompt": "a b c d e f g h"}, "prompt", 4),
            ({"prompt": ["a"] * 3}, "prompt", 2),
        ):
            error = refused(server, "/v1/completions", **({"max_tokens": 1} | fields))
            assert error["param"] == param
            assert str(most) in error["message"]
        assert server.service.admission.requests == 0
        too_long = refused(server, "/v1/completions", prompt=[1] * 5, max_tokens=1)
        assert too_long["code"] == "context_length_exceeded"
        chat = server.post("/v1/chat/completions", CHAT)
        assert chat.status_code == 400
        assert chat.json()["error"]["code"] == "context_length_exceeded"
