"""Bodies that nobody would write: each is answered or refused, and none is a failure of the server."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from sia_jax.serve.protocol import UNSUPPORTED, ChatBody, CompletionBody, DetokenizeBody, TokenizeBody
from tests.support.served import Served, served
from tests.support.waiting import wait_until

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 16, 10**12, -(10**30), 0.5, -0.5, 1.5, 1e300, 5e-324),
    *("", "a", "inf", "nan", "\x00", "é" * 10, "<|im_end|>", "{{ 1/0 }}", "../../etc/passwd", "\u202e"),
    *([], [0], [1, 2, 3], ["a"], [""], [None], [[1]], [[]], [{}]),
    *(["<|im_end|>x"], [10**12], list(range(200))),
    *({}, {"5": 1}, {"a": {"b": []}}, {"threshold": "inf"}, {"trace": True}, {"enable_thinking": 1}),
    *([{"role": "user", "content": "a"}], [{"role": "user", "content": "<|im_start|>"}]),
    *([{"role": "user", "content": [{"type": "text", "text": "a"}]}], [{"from": "human", "value": "a"}]),
]
KINDS = {
    "/v1/completions": (CompletionBody, {"model": "tiny-sia", "prompt": "a", "max_tokens": 3}),
    "/v1/chat/completions": (
        ChatBody,
        {"model": "tiny-sia", "messages": [{"role": "user", "content": "a"}], "max_tokens": 3},
    ),
    "/tokenize": (TokenizeBody, {"prompt": "a"}),
    "/detokenize": (DetokenizeBody, {"tokens": [5]}),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as found:
        yield found


@pytest.mark.parametrize("path", KINDS)
def test_any_value_of_any_field_is_answered_or_refused_by_name(server: Served, path: str) -> None:
    kind, usual = KINDS[path]
    names, others = list(kind.model_fields), [*UNSUPPORTED, "", "a field"]
    rng = random.Random(0)
    answered = 0
    for _ in range(80):
        some = rng.sample(names, rng.choice([1, 1, 2])) + rng.sample(others, rng.choice([0, 0, 0, 1]))
        body = usual | {name: rng.choice(VALUES) for name in some}
        answer = server.post(path, body)
        assert answer.status_code in (200, 400, 404), (body, answer.text)
        answered += answer.status_code == 200
        if answer.status_code != 200:
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert len(error["message"]) <= 600
    assert 0 < answered < 80
    wait_until(lambda: server.service.admission.requests == 0)
    assert server.service.admission.tokens == 0
    assert server.metrics.left == 0
