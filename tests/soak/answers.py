"""What is right: an answer for its recipe, a refusal for its reason."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sia_jax.engine.reply import Reply
from tests.soak.recipes import CHAT, Recipe, reasons_of
from tests.soak.wire import Answer


@dataclass(frozen=True)
class Shape:
    """What of an answer is asked for beside what it says."""

    stream: bool = False
    usage: bool = False
    """Of a stream: that it tells its usage."""
    logprobs: int | None = None
    """The likeliest of each token; None: no log-probabilities."""
    ids: bool = False

    def fields(self, route: str) -> dict[str, Any]:
        """Of the body."""
        found: dict[str, Any] = {}
        if self.stream:
            found["stream"] = True
            if self.usage:
                found["stream_options"] = {"include_usage": True}
        if self.logprobs is not None:
            found |= {"logprobs": True, "top_logprobs": self.logprobs} if route == CHAT else {}
            found |= {} if route == CHAT else {"logprobs": self.logprobs}
        if self.ids:
            found["return_token_ids"] = True
        return found


def check_answer(answer: Answer, recipe: Recipe, shape: Shape) -> str:
    """A whole answer is the recipe's, in its shape.

    Returns:
      The answer's id.

    Raises:
      AssertionError: it is not.
    """
    assert answer.status == 200, answer.body
    chat = recipe.route == CHAT
    if shape.stream:
        head, choices, usage = _joined(answer.chunks, len(recipe.replies), chat, shape)
    else:
        head = answer.json
        choices, usage = head["choices"], head["usage"]
        for choice in choices if chat else ():
            choice["text"] = choice["message"]["content"]
    assert head["model"] == recipe.body["model"]
    assert head["sia"]["seed"] == recipe.body["seed"]
    assert [choice["index"] for choice in choices] == list(range(len(recipe.replies)))
    assert [choice["text"] for choice in choices] == [reply.text for reply in recipe.replies]
    assert [choice["finish_reason"] for choice in choices] == reasons_of(recipe.replies)
    for choice, reply in zip(choices, recipe.replies, strict=True):
        if shape.ids:
            assert choice["token_ids"] == reply.tokens.tolist()
        if shape.logprobs is not None:
            _check_logprobs(choice["logprobs"], reply, chat, shape.logprobs)
    if usage is not None:
        _check_usage(usage, recipe)
    found: str = head["id"]
    return found


def _joined(
    chunks: list[Any], count: int, chat: bool, shape: Shape
) -> tuple[Any, list[dict[str, Any]], dict[str, Any] | None]:
    """The choices of a stream put together, and its usage."""
    found: list[dict[str, Any]] = [
        {"index": i, "text": "", "finish_reason": None, "token_ids": [], "logprobs": []} for i in range(count)
    ]
    usage = None
    if shape.usage:
        last = chunks.pop()
        assert last["choices"] == []
        usage = last["usage"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    for chunk in chunks:
        for choice in chunk["choices"]:
            own = found[choice["index"]]
            assert own["finish_reason"] is None, "a choice goes on behind its end"
            own["text"] += choice["delta"].get("content", "") if chat else choice["text"]
            own["finish_reason"] = choice["finish_reason"]
            own["token_ids"] += choice.get("token_ids", [])
            if choice["logprobs"] is not None:
                own["logprobs"] += choice["logprobs"]["content" if chat else "token_logprobs"]
    for own in found:
        own["logprobs"] = {"content" if chat else "token_logprobs": own["logprobs"]}
    return chunks[0], found, usage


def _check_logprobs(told: dict[str, Any], reply: Reply, chat: bool, top: int) -> None:
    own = [one["logprob"] for one in told["content"]] if chat else told["token_logprobs"]
    assert own == [float(str(x)) for x in reply.policy_logprob]
    if chat:
        assert all(len(one["top_logprobs"]) == top for one in told["content"])


def _check_usage(usage: dict[str, Any], recipe: Recipe) -> None:
    assert usage["prompt_tokens"] == recipe.prompt_tokens
    assert usage["completion_tokens"] == recipe.completion_tokens
    assert usage["total_tokens"] == recipe.prompt_tokens + recipe.completion_tokens
    for name in ("steered", "shifted", "values_read", "value_tokens"):
        assert usage["sia"][name] == sum(getattr(reply.usage, name) for reply in recipe.replies), name
    assert usage["sia"]["contenders"] == sum(int(np.sum(reply.contenders)) for reply in recipe.replies)


def check_refusal(answer: Answer, status: int, code: str | None = None) -> None:
    """An answer is an error of a status, in OpenAI's shape.

    Args:
      answer: any.
      status: of HTTP; 503 tells when to ask again.
      code: of the error; None: none is expected.

    Raises:
      AssertionError: it is not.
    """
    assert answer.status == status, (answer.status, status, answer.body[:300])
    assert list(answer.json) == ["error"]
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert error["code"] == code, error
    assert error["message"]
    assert "Traceback" not in error["message"]
    if status == 503:
        assert 1 <= int(answer.headers.get("retry-after", "0")) <= 60
    else:
        assert "retry-after" not in answer.headers
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
