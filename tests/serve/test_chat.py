"""/v1/chat/completions, as the official clients see it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from sia_jax.text.decoder import token_text
from tests.support.engines import tokenizer
from tests.support.served import SECONDS, Served, served

HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as found:
        yield found


def test_a_chat_has_the_reply_of_the_engine_and_its_exact_usage(server: Served) -> None:
    found = server.client().chat.completions.create(model="tiny-sia", messages=HELLO, seed=3, n=2)
    request = server.engine.requests[-1]
    assert found.object == "chat.completion"
    assert found.id.startswith("chatcmpl-")
    for place, choice in enumerate(found.choices):
        assert choice.index == place
        assert choice.message.role == "assistant"
        assert choice.message.content == f"reply {place} of seed 3: the bread, then the café."
        assert choice.finish_reason == "stop"
        assert choice.logprobs is None
    replies = [server.engine.replies[len(server.engine.requests) - 1, j] for j in range(2)]
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(request.prompt_ids or ())
    assert found.usage.completion_tokens == sum(len(reply.tokens) for reply in replies)
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens


@pytest.mark.parametrize("count", [None, 0, 5])
def test_logprobs_of_a_chat_are_the_policys_with_the_bytes_of_each_token(
    server: Served, count: int | None
) -> None:
    found = server.client().chat.completions.create(
        model="tiny-sia", messages=HELLO, seed=3, logprobs=True, top_logprobs=count
    )
    reply = server.engine.replies[len(server.engine.requests) - 1, 0]
    told = found.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert len(told.content) == len(reply.tokens)
    record: Any = reply.record
    for place, entry in enumerate(told.content):
        id_ = int(reply.tokens[place])
        assert entry.token == token_text(tokenizer(), id_)
        assert entry.logprob == pytest.approx(float(reply.policy_logprob[place]))
        assert [one.logprob for one in entry.top_logprobs] == pytest.approx(
            record.top.logprobs[place][: count or 0].tolist()
        )
        assert [one.token for one in entry.top_logprobs] == [
            token_text(tokenizer(), int(i)) for i in record.top.ids[place][: count or 0]
        ]
    spelt = bytes(x for entry in told.content[:-1] for x in entry.bytes or ())
    parts = [entry for entry in told.content[:-1] if entry.bytes is None]
    # "é" is two tokens, neither of which is a character; the last one ends the turn.
    assert len(parts) in (0, 2)
    said = found.choices[0].message.content or ""
    assert spelt.decode() == (said if not parts else said.replace("é", ""))


def test_the_asynchronous_client_gets_many_answers_at_once_each_its_own(server: Served) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1",
            api_key="none",
            max_retries=0,
            timeout=SECONDS,
            _strict_response_validation=True,
        ) as client:

            async def one(seed: int) -> str:
                if seed % 2:
                    stream = await client.chat.completions.create(
                        model="tiny", messages=HELLO, seed=seed, stream=True
                    )
                    return "".join([c.delta.content or "" async for chunk in stream for c in chunk.choices])
                whole = await client.chat.completions.create(model="tiny-sia", messages=HELLO, seed=seed)
                return whole.choices[0].message.content or ""

            return await asyncio.gather(*map(one, range(24)))

    assert asyncio.run(ask()) == [f"reply 0 of seed {j}: the bread, then the café." for j in range(24)]


def test_the_extensions_reach_a_client_that_asks_for_them_in_extra_body(server: Served) -> None:
    found: Any = server.client().chat.completions.create(
        model="tiny",
        messages=HELLO,
        seed=3,
        extra_body={"sia": {"threshold": 0.5, "trace": True}, "return_token_ids": True, "top_k": 5},
    )
    assert server.engine.requests[-1].threshold == 0.5
    assert found.sia == {"seed": 3}
    assert found.prompt_token_ids == list(server.engine.requests[-1].prompt_ids or ())
    assert (
        "".join(entry["text"] for entry in found.choices[0].sia["trace"]) == found.choices[0].message.content
    )
    assert found.usage.sia["steered"] == sum(entry["junction"] for entry in found.choices[0].sia["trace"])
