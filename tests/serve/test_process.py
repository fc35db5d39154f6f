"""The program in a process of its own, on the embedded models: it answers as an engine made alike does."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from scipy.special import log_softmax

import sia_jax
from decode import serve
from sia_jax.engine.reply import Reply
from sia_jax.runs import runner
from tests.support.clients import curl_of, python_of, said_by_curl, said_by_python
from tests.support.served_process import served_process

pytestmark = [pytest.mark.long, pytest.mark.optimised]

ARGS = serve.Args(port=0, rows=4, max_length=512, top_logprobs=5)
ASKED: list[dict[str, Any]] = [
    {"model": "world", "seed": 1, "temperature": 0.8},
    {"model": "world-sia", "seed": 2, "temperature": 0},
    {
        "model": "world-sia",
        "seed": 3,
        "top_p": 0.9,
        "extra_body": {"sia": {"threshold": "-inf", "beta": 2.0}},
    },
    {"model": "world-sia", "seed": 4, "n": 2, "stop": ["."], "extra_body": {"sia": {"threshold": 0.5}}},
    {"model": "world", "seed": 5, "frequency_penalty": 0.5, "logit_bias": {"40": -100}, "max_tokens": 9},
]
FIELDS = ("temperature", "seed", "top_p", "n", "stop", "frequency_penalty")
HELLO: Any = [{"role": "user", "content": "How do I keep basil alive in winter?"}]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a server that is ready; told to end, it ends with status 0 and has nothing to complain of."""
    with served_process("--rows", "4", "--max-length", "512", "--top-logprobs", "5") as process:
        yield process.url
    assert not [line for line in process.said if "basil" in line], "the log has prompts"


@pytest.fixture(scope="module")
def engine() -> Iterator[sia_jax.Engine]:
    sampling = serve.sampling_args(ARGS)
    with serve.make_engine(ARGS, sampling, runner.load_models(sampling)) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60, _strict_response_validation=True
    )


def replied(engine: sia_jax.Engine, asked: dict[str, Any]) -> tuple[Reply, ...]:
    """What an engine says to the same."""
    steering = asked.get("extra_body", {}).get("sia", {})
    fields = {name: asked[name] for name in FIELDS if name in asked}
    if asked["model"] == "world":
        fields["threshold"] = np.inf
    elif "threshold" in steering:
        fields["threshold"] = float(steering["threshold"])
    if "beta" in steering:
        fields["beta"] = steering["beta"]
    if "logit_bias" in asked:
        fields["logit_bias"] = {int(id_): -np.inf for id_ in asked["logit_bias"]}
    fields["max_new_tokens"] = asked.get("max_tokens")
    reply = engine.generate(HELLO, **fields)
    return reply.choices or (reply,)


@pytest.mark.parametrize("asked", ASKED)
def test_an_answer_is_the_reply_of_an_engine_that_is_made_alike(
    asked: dict[str, Any], client: openai.OpenAI, engine: sia_jax.Engine
) -> None:
    found = client.chat.completions.create(messages=HELLO, **asked)
    replies = replied(engine, asked)
    assert [choice.message.content for choice in found.choices] == [reply.text for reply in replies]
    assert [choice.finish_reason for choice in found.choices] == [
        reply.finish_reason.name.lower() for reply in replies
    ]
    assert found.usage is not None
    assert found.usage.prompt_tokens == replies[0].usage.prompt
    assert found.usage.completion_tokens == sum(reply.usage.completion for reply in replies)
    told = found.usage.model_extra["sia"]  # type: ignore[index]
    for name in ("steered", "shifted", "values_read"):
        assert told[name] == sum(getattr(reply.usage, name) for reply in replies), name


@pytest.mark.parametrize("asked", ASKED)
def test_a_stream_joined_is_the_answer_and_tells_its_usage(
    asked: dict[str, Any], client: openai.OpenAI
) -> None:
    whole = client.chat.completions.create(messages=HELLO, **asked)
    texts, reasons, usages = [""] * len(whole.choices), list[str](), list[Any]()
    stream = client.chat.completions.create(
        messages=HELLO, stream=True, stream_options={"include_usage": True}, **asked
    )
    for chunk in stream:
        usages += [chunk.usage] if chunk.usage is not None else []
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason is not None else []
    assert texts == [choice.message.content for choice in whole.choices]
    assert sorted(reasons) == sorted(choice.finish_reason for choice in whole.choices)
    assert len(usages) == 1
    assert whole.usage is not None
    assert usages[0].completion_tokens == whole.usage.completion_tokens


def test_a_reply_does_not_depend_on_who_asks_beside_it(url: str, client: openai.OpenAI) -> None:
    alone = [client.chat.completions.create(messages=HELLO, **asked) for asked in ASKED]

    async def together() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=120) as others:
            return await asyncio.gather(
                *(others.chat.completions.create(messages=HELLO, **asked) for asked in ASKED * 4)
            )

    for place, found in enumerate(asyncio.run(together())):
        expected = alone[place % len(ASKED)]
        assert [c.message.content for c in found.choices] == [c.message.content for c in expected.choices]


def test_an_echoed_prompt_has_the_log_probabilities_of_the_policy(url: str, engine: sia_jax.Engine) -> None:
    """As lm-eval asks for them: ids, echo, one token at temperature 0.

    The first token has none, and a strict client refuses the null that OpenAI writes there.
    """
    ids = list(engine.policy.prompt_ids(HELLO))
    lenient = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
    found = lenient.completions.create(
        model="world", prompt=ids, echo=True, max_tokens=1, logprobs=1, temperature=0, seed=1
    )
    told: Any = found.choices[0].logprobs
    assert len(told.token_logprobs) == len(ids) + 1
    assert told.token_logprobs[0] is None
    logits = np.asarray(engine.policy.logits([ids], [len(ids)])[0], np.float64)
    expected = log_softmax(logits, axis=-1)
    own = [expected[place, id_] for place, id_ in enumerate(ids[1:])]
    np.testing.assert_allclose(told.token_logprobs[1:-1], own, atol=1e-4)
    assert told.token_logprobs[-1] == pytest.approx(expected[-1].max(), abs=1e-4)
    best = [max(top.values()) for top in told.top_logprobs[1:]]
    np.testing.assert_allclose(best, expected.max(axis=-1), atol=1e-4)


def test_every_token_is_counted_once(url: str, client: openai.OpenAI) -> None:
    def counts() -> dict[str, float]:
        text = httpx.get(f"{url}/metrics").text
        found = re.findall(r"^(\S+?)\{[^}]*\} (\S+)$", text, re.MULTILINE)
        return {name: float(x) for name, x in found}

    before = counts()
    usage = [
        client.chat.completions.create(messages=HELLO, model="world-sia", seed=seed, n=2).usage
        for seed in range(3)
    ]
    tokens = sum(one.completion_tokens for one in usage if one is not None)
    after = counts()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["vllm:generation_tokens_total"] == tokens
    assert grown["vllm:time_to_first_token_seconds_count"] == 6
    assert grown["vllm:inter_token_latency_seconds_count"] == tokens - 6
    assert grown["vllm:e2e_request_latency_seconds_count"] == 6
    steered = sum(one.model_extra["sia"]["steered"] for one in usage if one is not None)  # type: ignore[index]
    assert grown["sia:steered_tokens_total"] == steered > 0
    assert (after["vllm:num_requests_running"], after["vllm:num_requests_waiting"]) == (0, 0)


def test_the_clients_of_the_page_on_the_server_are_answered_as_they_stand(url: str) -> None:
    text, _, told = said_by_python(python_of(), url).strip().rpartition(" {")
    assert len(text.split()) > 3
    assert "'steered': " in told
    answer = json.loads(said_by_curl(curl_of(), url))
    assert answer["model"] == "world-sia"
    assert len(answer["choices"][0]["message"]["content"].split()) > 3
    assert answer["usage"]["sia"]["steered"] >= 0


def test_the_client_of_the_page_on_the_api_is_answered_as_it_stands(url: str) -> None:
    text, _, told = said_by_python(python_of("docs/api.md"), url).strip().rpartition(" {")
    assert len(text.split()) > 3
    assert "'steered': " in told
