"""/v1/completions, as the official client sees it."""

from collections.abc import Iterator

import pytest

from tests.support.served import Served, served


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as found:
        yield found


def test_a_completion_has_the_reply_of_the_engine_and_its_exact_usage(server: Served) -> None:
    found = server.client().completions.create(model="tiny-sia", prompt="bread", seed=3, max_tokens=60)
    reply = server.engine.replies[len(server.engine.requests) - 1, 0]
    assert found.object == "text_completion"
    assert found.id.startswith("cmpl-")
    (choice,) = found.choices
    assert choice.text == reply.text == "reply 0 of seed 3: the bread, then the café."
    assert choice.finish_reason == "stop"
    assert found.usage is not None
    assert found.usage.prompt_tokens == reply.usage.prompt
    assert found.usage.completion_tokens == reply.usage.completion == len(reply.tokens)
    assert found.usage.total_tokens == reply.usage.prompt + reply.usage.completion
