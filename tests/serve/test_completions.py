"""/v1/completions, as the official client sees it."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from sia_jax.decoding.state import FinishReason
from sia_jax.engine.reply import Reply
from sia_jax.text.decoder import token_text
from tests.support.engines import tokenizer
from tests.support.served import Served, served
from tests.support.stub_engine import CACHED, THRESHOLD, record_of, scored

SAID = "reply 0 of seed 3: the bread, then the café."


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as found:
        yield found


def replies(server: Served, requests: int = 1, n: int = 1) -> list[Reply]:
    """Those of the last requests, in order."""
    first = len(server.engine.requests) - requests
    return [server.engine.replies[first + place, choice] for place in range(requests) for choice in range(n)]


def ids_of(text: str) -> list[int]:
    return list(tokenizer().encode(text, add_special_tokens=False))


def names(ids: Sequence[int]) -> list[str]:
    return [token_text(tokenizer(), int(id_)) for id_ in ids]


def test_a_completion_has_the_reply_of_the_engine_and_its_exact_usage(server: Served) -> None:
    found = server.client().completions.create(model="tiny-sia", prompt="bread", seed=3, max_tokens=60)
    (reply,) = replies(server)
    assert found.object == "text_completion"
    assert found.id.startswith("cmpl-")
    assert found.model == "tiny-sia"
    (choice,) = found.choices
    assert choice.text == reply.text == SAID
    assert choice.finish_reason == "stop"
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(ids_of("bread"))
    assert found.usage.completion_tokens == len(ids_of(SAID)) + 1
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found.usage.prompt_tokens_details is not None
    assert found.usage.prompt_tokens_details.cached_tokens == CACHED
    assert found.usage.completion_tokens_details is not None
    assert found.usage.completion_tokens_details.reasoning_tokens == 0


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("bread", [ids_of("bread")]),
        (["bread", "wine"], [ids_of("bread"), ids_of("wine")]),
        ([5, 6, 7], [[5, 6, 7]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
    ],
    ids=["a text", "texts", "ids", "lists of ids"],
)
def test_every_form_of_a_prompt_reaches_the_engine_as_ids(server: Served, prompt: Any, ids: Any) -> None:
    found = server.client().completions.create(model="tiny", prompt=prompt, seed=9, max_tokens=60, n=2)
    asked = server.engine.requests[-len(ids) :]
    assert [list(request.prompt_ids or ()) for request in asked] == ids
    assert [request.seed for request in asked] == [9 + place for place in range(len(ids))]
    assert [choice.index for choice in found.choices] == list(range(2 * len(ids)))
    expected = replies(server, len(ids), 2)
    assert len({one.text for one in expected}) == len(expected)
    assert [choice.text for choice in found.choices] == [one.text for one in expected]
    assert found.usage is not None
    assert found.usage.prompt_tokens == sum(map(len, ids))
    assert found.usage.completion_tokens == sum(len(one.tokens) for one in expected)


def test_a_text_is_read_by_the_value_model_and_ids_by_both_alike(server: Served) -> None:
    client = server.client()
    client.completions.create(model="tiny-sia", prompt="bread", max_tokens=1)
    assert list(server.engine.requests[-1].value_ids or ()) == ids_of("bread")
    client.completions.create(model="tiny-sia", prompt=[5, 6], max_tokens=1)
    assert list(server.engine.requests[-1].value_ids or ()) == [5, 6]


def test_n_choices_are_distinct_and_in_their_places(server: Served) -> None:
    found = server.client().completions.create(model="tiny", prompt="a", seed=3, n=4, max_tokens=60)
    assert [choice.text for choice in found.choices] == [
        f"reply {j} of seed 3: the bread, then the café." for j in range(4)
    ]
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]


def test_a_reply_says_16_tokens_if_nothing_is_said_of_it_and_ends_by_length(server: Served) -> None:
    found = server.client().completions.create(model="tiny", prompt="a", seed=3)
    assert server.engine.requests[-1].max_new_tokens == 16
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert found.usage.completion_tokens == 16


def test_a_stop_text_ends_a_reply_before_it_and_the_token_that_ends_it_counts(server: Served) -> None:
    found = server.client().completions.create(
        model="tiny", prompt="a", seed=3, stop=[", then", "never"], max_tokens=60
    )
    (reply,) = replies(server)
    assert found.choices[0].text == "reply 0 of seed 3: the bread"
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None
    assert found.usage.completion_tokens == len(reply.tokens) < len(ids_of(SAID))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_logprobs_are_the_policys_with_the_chosen_among_the_top(server: Served, count: int) -> None:
    found = server.client().completions.create(
        model="tiny-sia", prompt="a", seed=3, logprobs=count, max_tokens=60
    )
    (reply,) = replies(server)
    told = found.choices[0].logprobs
    assert told is not None
    assert told.tokens == names(reply.tokens)
    assert told.token_logprobs == pytest.approx(reply.policy_logprob.tolist())
    assert told.text_offset == np.cumsum([0, *map(len, reply.pieces)])[:-1].tolist()
    assert told.top_logprobs is not None
    top: Any = reply.record
    for place, entry in enumerate(told.top_logprobs):
        likeliest = dict(
            zip(
                reversed(names(top.top.ids[place][:count])),
                reversed(top.top.logprobs[place][:count].tolist()),
                strict=True,
            )
        )
        own = names(reply.tokens)[place]
        assert entry == pytest.approx({own: float(reply.policy_logprob[place])} | likeliest)


def test_more_logprobs_than_are_recorded_or_than_20_are_refused_and_the_server_lives_on(
    server: Served,
) -> None:
    for count, telling in ((6, "5, what this server records"), (21, "20"), (-1, "0")):
        body = {"model": "tiny", "prompt": "a", "logprobs": count}
        answer = server.post("/v1/completions", body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "logprobs"
        assert telling in answer.json()["error"]["message"]
    assert server.post("/v1/completions", {"model": "tiny", "prompt": "a"}).status_code == 200


def echoed(server: Served, **fields: Any) -> Any:
    answer = server.post("/v1/completions", {"model": "tiny", "echo": True, "seed": 3, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_echo_scores_the_prompt_before_the_reply_as_lm_eval_reads_it(server: Served) -> None:
    context, ids = 3, ids_of("the bread and then the wine")
    assert max(map(len, names(ids))) > 1
    found = echoed(server, prompt=ids, max_tokens=1, logprobs=1, temperature=0)
    (choice,) = found["choices"]
    told = choice["logprobs"]
    expected = scored(ids, 1)
    assert told["tokens"] == [*names(ids), *names(replies(server)[0].tokens)]
    assert told["token_logprobs"][0] is None
    assert told["top_logprobs"][0] is None
    assert told["token_logprobs"][context:-1] == expected.logprobs[context:].tolist()
    for place in range(context, len(ids)):
        own, best = names([ids[place]])[0], names(expected.top_ids[place])[0]
        assert told["top_logprobs"][place][own] == expected.logprobs[place]
        assert told["top_logprobs"][place][best] == expected.top_logprobs[place][0]
    text = tokenizer().decode(ids)
    assert choice["text"] == text + replies(server)[0].text
    offsets = np.cumsum([0, *map(len, names(ids))])
    assert told["text_offset"] == offsets.tolist()
    assert found["usage"]["prompt_tokens"] == len(ids)
    assert found["usage"]["completion_tokens"] == 1


def test_no_new_tokens_with_echo_is_scoring_alone(server: Served) -> None:
    before = len(server.engine.requests)
    found = echoed(server, prompt=["bread and", "wine"], max_tokens=0, logprobs=2)
    assert len(server.engine.requests) == before
    assert [choice["text"] for choice in found["choices"]] == ["bread and", "wine"]
    assert [choice["finish_reason"] for choice in found["choices"]] == ["length", "length"]
    for choice, text in zip(found["choices"], ("bread and", "wine"), strict=True):
        told = [float("nan") if x is None else x for x in choice["logprobs"]["token_logprobs"]]
        np.testing.assert_array_equal(told, scored(ids_of(text), 2).logprobs)
    assert found["usage"]["completion_tokens"] == 0
    assert server.service.admission.requests == 0


def test_echo_without_logprobs_gives_the_text_alone(server: Served) -> None:
    found = echoed(server, prompt="bread<|im_end|>", max_tokens=60)
    assert found["choices"][0]["text"] == "bread<|im_end|>" + SAID
    assert found["choices"][0]["logprobs"] is None


def test_ids_are_returned_on_request(server: Served) -> None:
    body = {"model": "tiny", "prompt": "bread", "seed": 3, "return_token_ids": True, "max_tokens": 60}
    found = server.post("/v1/completions", body).json()
    assert found["prompt_token_ids"] == ids_of("bread")
    assert found["choices"][0]["token_ids"] == [*ids_of(SAID), server.engine.eos]
    several = server.post("/v1/completions", body | {"prompt": [[5], [6, 7]]}).json()
    assert several["prompt_token_ids"] == [[5], [6, 7]]


def test_a_seed_is_told_and_gives_the_same_reply_again(server: Served) -> None:
    client = server.client(strict=False)
    told = []
    for _ in range(2):
        found: Any = client.completions.create(model="tiny", prompt="a", max_tokens=60)
        told.append(found.sia["seed"])
        again = client.completions.create(model="tiny", prompt="a", max_tokens=60, seed=found.sia["seed"])
        assert again.choices[0].text == found.choices[0].text
    assert told[0] != told[1]


@pytest.mark.parametrize(("seed", "folded"), [(-1, 2**32 - 1), (2**32 + 5, 5), (10**40, 10**40 % 2**32)])
def test_any_whole_number_is_a_seed(server: Served, seed: int, folded: int) -> None:
    found = server.post("/v1/completions", {"model": "tiny", "prompt": "a", "seed": seed})
    assert found.status_code == 200
    assert server.engine.requests[-1].seed == folded == found.json()["sia"]["seed"]


def test_a_trace_tells_what_was_recorded_of_every_token(server: Served) -> None:
    body = {"model": "tiny-sia", "prompt": "a", "seed": 3, "sia": {"trace": True}, "max_tokens": 60}
    choice = server.post("/v1/completions", body).json()["choices"][0]
    (reply,) = replies(server)
    found = choice["sia"]["trace"]
    assert "".join(entry["text"] for entry in found) == choice["text"] == SAID
    expected: Any = record_of(reply.tokens.tolist(), server.engine.requests[-1])
    assert len(found) == len(reply.tokens)
    assert 0 < expected.junction.sum() < len(found)
    for place, entry in enumerate(found):
        assert entry["id"] == expected.tokens[place]
        for name in ("junction", "shifted", "contenders", "values_read"):
            assert entry[name] == getattr(expected, name)[place], name
        for name in ("entropy", "policy_logprob", "logprob", "value"):
            number = float(getattr(expected, name)[place])
            assert entry[name] == (None if math.isnan(number) else pytest.approx(number)), name
        assert ("candidates" in entry) == ("policy_choice" in entry) == entry["junction"]
        if entry["junction"]:
            assert entry["policy_choice"] == expected.candidates.policy_choice[place]
        for rank, candidate in enumerate(entry.get("candidates", ())):
            assert candidate["id"] == expected.candidates.ids[place, rank]
            assert candidate["text"] == names([candidate["id"]])[0]
            assert candidate["value"] == pytest.approx(rank / 2)
            assert candidate["policy_logprob"] == pytest.approx(
                float(expected.candidates.policy_logprobs[place, rank])
            )


def test_usage_says_what_was_steered_over_all_choices(server: Served) -> None:
    body = {"model": "tiny-sia", "prompt": "a", "seed": 3, "n": 3, "max_tokens": 60}
    found = server.post("/v1/completions", body).json()["usage"]["sia"]
    records: list[Any] = [
        record_of(one.tokens.tolist(), server.engine.requests[-1]) for one in replies(server, 1, 3)
    ]
    for name, field in (("steered", "junction"), ("shifted", "shifted"), ("contenders", "contenders")):
        assert found[name] == sum(int(getattr(record, field).sum()) for record in records), name
    assert found["values_read"] == sum(int(record.values_read.sum()) for record in records)
    entropies = np.concatenate([record.entropy for record in records]).astype(np.float64)
    assert found["mean_entropy"] == pytest.approx(entropies.mean())
    assert found["value_tokens"] == sum(3 * len(record.tokens) for record in records)
    unsteered = server.post("/v1/completions", body | {"model": "tiny"}).json()["usage"]["sia"]
    assert unsteered["steered"] == 0
    assert THRESHOLD > 0


def test_a_number_that_is_not_finite_is_an_error_and_what_else_was_asked_ends() -> None:
    with served() as server:
        server.engine.script = lambda request, j: (ids_of("abc"), FinishReason.NON_FINITE)
        answer = server.post("/v1/completions", {"model": "tiny", "prompt": ["a", "b"]})
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "non_finite"
        assert answer.json()["error"]["type"] == "server_error"
        assert server.metrics.left == 0
        assert server.get("/health").status_code == 200
