"""What clients hold a server to: it is wrong if it counts, says or keeps what it should not."""

import copy
import dataclasses
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from sia_jax.decoding.state import FinishReason
from sia_jax.engine.reply import Reply, Usage
from tests.soak.answers import Shape, check_answer, check_refusal
from tests.soak.ledger import Ledger, counts_of
from tests.soak.recipes import COMPLETIONS, Recipe
from tests.soak.soak import Report
from tests.soak.verdict import problems
from tests.soak.wire import Answer

USAGE = Usage(
    prompt=3,
    completion=2,
    steered=1,
    shifted=0,
    policy_tokens=4,
    value_tokens=5,
    values_read=4,
    value_passes=1,
)
RECORD: Any = type("Record", (), {"tokens": np.array([7, 8]), "contenders": np.array([3, 0])})()
RECIPE = Recipe(
    COMPLETIONS,
    {"model": "tiny", "seed": 5, "max_tokens": 2},
    (Reply("ab", FinishReason.LENGTH, RECORD, USAGE),),
)
BODY: dict[str, Any] = {
    "id": "cmpl-1",
    "model": "tiny",
    "sia": {"seed": 5},
    "choices": [{"index": 0, "text": "ab", "finish_reason": "length", "logprobs": None, "token_ids": [7, 8]}],
    "usage": {
        **{"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        "sia": {"steered": 1, "shifted": 0, "values_read": 4, "value_tokens": 5, "contenders": 3},
    },
}
EXPOSITION = """# HELP x
vllm:num_requests_running{model_name="tiny"} 0.0
vllm:num_requests_waiting{model_name="tiny"} 0.0
vllm:kv_cache_usage_perc{model_name="tiny"} 0.0
"""


def answered(status: int, body: Any, **headers: str) -> Answer:
    return Answer(status, headers, json.dumps(body).encode())


def test_an_answer_is_right_only_as_it_is() -> None:
    shape = Shape(ids=True)
    assert check_answer(answered(200, BODY), RECIPE, shape) == "cmpl-1"
    for path, value in (
        (("choices", 0, "text"), "aB"),
        (("choices", 0, "finish_reason"), "stop"),
        (("choices", 0, "token_ids"), [7, 9]),
        (("choices", 0, "index"), 1),
        (("usage", "completion_tokens"), 3),
        (("usage", "sia", "steered"), 0),
        (("sia", "seed"), 6),
        (("choices",), BODY["choices"] * 2),
    ):
        wrong = copy.deepcopy(BODY)
        at: Any = wrong
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value
        with pytest.raises(AssertionError):
            check_answer(answered(200, wrong), RECIPE, shape)


def test_a_stream_is_right_only_if_it_ends_once() -> None:
    def chunk(text: str, reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
        return {"id": "cmpl-1", "model": "tiny", "sia": {"seed": 5}, "choices": [choice]}

    def stream(*chunks: dict[str, Any], end: str = "data: [DONE]\n\n") -> Answer:
        return Answer(200, {}, ("".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + end).encode())

    shape = Shape(stream=True)
    whole = chunk("a", None), chunk("b", "length")
    check_answer(stream(*whole), RECIPE, shape)
    for wrong in (
        stream(*whole, end=""),
        stream(*whole, chunk("", "length")),
        stream(chunk("a", None)),
        stream(chunk("b", None), chunk("a", "length")),
        stream(whole[0], whole[1] | {"id": "cmpl-2"}),
    ):
        with pytest.raises(AssertionError):
            check_answer(wrong, RECIPE, shape)


def test_a_refusal_has_its_status_shape_and_time_to_come_again() -> None:
    error = {"message": "full", "type": "server_error", "param": None, "code": "overloaded"}
    right = answered(503, {"error": error}, **{"retry-after": "3"})
    check_refusal(right, 503, "overloaded")
    for wrong in (
        dataclasses.replace(right, status=500),
        dataclasses.replace(right, headers={}),
        answered(503, {"error": error | {"code": None}}, **{"retry-after": "3"}),
        answered(503, {"error": error | {"type": "invalid_request_error"}}, **{"retry-after": "3"}),
        answered(503, {"detail": error}, **{"retry-after": "3"}),
    ):
        with pytest.raises(AssertionError):
            check_refusal(wrong, 503, "overloaded")


def counted(ledger: Ledger, **more: float) -> dict[str, float]:
    return dict(counts_of(EXPOSITION)) | dict(Counter(ledger.certain) + Counter(more))


def test_counters_must_be_those_of_the_clients() -> None:
    ledger, before = Ledger(), counts_of(EXPOSITION)
    ledger.answered("POST", COMPLETIONS, 200)
    ledger.accepted(RECIPE)
    after = counted(ledger)
    assert ledger.differences(before, after) == []
    for name in ledger.certain:
        assert ledger.differences(before, after | {name: after.get(name, 0) + 1}), name
        assert ledger.differences(before, after | {name: after.get(name, 0) - 1}), name
    for name in ("vllm:num_requests_running", "sia:disconnects_total"):
        assert ledger.differences(before, after | {name: 1}), name
    assert ledger.differences(before, after | {"vllm:request_success_total finished_reason=abort": 1})


def test_of_who_left_any_part_of_the_answer_may_be_counted_and_no_more() -> None:
    ledger, before = Ledger(), counts_of(EXPOSITION)
    ledger.left_early(RECIPE)
    http = f"http_requests_total handler={COMPLETIONS} method=POST status="
    nothing = dict(before) | {"http_requests_total handler=other method=POST status=499": 1}
    whole = counted(ledger, **{f"{http}200": 1}) | {
        name: x
        for name, x in ledger.possible.items()
        if not name.startswith(("http", "sia:r", "vllm:request_s"))
    }
    whole |= {"vllm:request_success_total finished_reason=abort": 1}
    assert ledger.differences(before, nothing) == []
    assert ledger.differences(before, whole) == []
    assert ledger.differences(before, before), "it was not counted at all"
    assert ledger.differences(before, whole | {f"{http}503": 1}), "it was counted twice"
    assert ledger.differences(before, whole | {"vllm:generation_tokens_total": 3})
    assert ledger.differences(before, whole | {"vllm:request_success_total finished_reason=stop": 1})


def test_memory_and_descriptors_that_grow_are_problems() -> None:
    flat = Report(1000, memory=[2**29] * 20, descriptors=[9] * 21)
    assert problems(flat) == []
    growing = [2**29 + 2**19 * k for k in range(20)]
    assert problems(dataclasses.replace(flat, memory=growing))
    assert problems(dataclasses.replace(flat, descriptors=[*range(9, 30)]))
    assert problems(dataclasses.replace(flat, differences=["one"]))
    early = [2**29 - 2**27, *[2**29] * 19]
    assert problems(dataclasses.replace(flat, memory=early)) == []
