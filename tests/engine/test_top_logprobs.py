"""The policy's likeliest ids, as an engine records them."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sia_jax
from tests.support.engines import STEERING, assert_same, make_engine, random_requests, sampled
from tests.support.marks import long

COUNT, TOP = 32, 4
LOOK_AHEAD = {"schedule": sia_jax.Shared(look_ahead=True)}


@pytest.mark.parametrize("options", [{}, long(LOOK_AHEAD)])
def test_an_engines_likeliest_ids_are_those_of_sample_whatever_else_runs(options: dict[str, Any]) -> None:
    requests = random_requests(COUNT)
    with make_engine(top_logprobs=TOP, **options) as engine:
        replies = engine.generate(requests)
        for found, other in zip(replies, sampled(engine, requests), strict=True):
            assert other.top is not None
            assert other.top.ids.shape == (len(other.tokens), TOP)
            assert_same(found, other)
    assert any(reply.num_junctions for reply in replies)


def test_likeliest_ids_change_no_reply_and_hold_the_token_where_it_is_one_of_them() -> None:
    requests = random_requests(COUNT)
    with make_engine(top_logprobs=TOP) as engine:
        recorded = engine.generate(requests)
    with make_engine() as engine:
        for reply, plain in zip(recorded, engine.generate(requests), strict=True):
            assert plain.top is None
            assert_same(replace(reply, record=replace(reply.record, top=None)), plain)
    inside = 0
    for reply in recorded:
        assert reply.top is not None
        assert (np.diff(reply.top.logprobs, axis=-1) <= 0).all()
        at, place = np.nonzero(reply.top.ids == reply.tokens[:, None])
        np.testing.assert_allclose(reply.top.logprobs[at, place], reply.policy_logprob[at], atol=1e-6)
        outside = np.setdiff1d(np.arange(len(reply.tokens)), at)
        assert (reply.policy_logprob[outside] <= reply.top.logprobs[outside, -1]).all()
        inside += len(at)
    assert inside > 200


def test_the_pieces_of_a_stream_have_the_likeliest_ids_of_their_tokens_and_records_are_strict_json() -> None:
    request = random_requests(3)[2].override(stop=(), threshold=0.7)
    with make_engine(top_logprobs=TOP) as engine:
        *_, last = pieces = list(engine.stream(request))
    reply = last.reply
    assert reply is not None
    assert reply.top is not None
    said = np.concatenate([piece.record.top.ids for piece in pieces])
    np.testing.assert_array_equal(said, reply.top.ids)
    record = json.loads(json.dumps(reply.to_json(), allow_nan=False))
    assert record["top"]["ids"] == reply.top.ids.tolist()
    np.testing.assert_allclose(np.array(record["top"]["logprobs"]), reply.top.logprobs, rtol=1e-6)


def test_a_reply_without_tokens_has_no_likeliest_ids() -> None:
    with make_engine(top_logprobs=TOP) as engine:
        handles = [engine.submit(request) for request in random_requests(40)]
        for handle in handles:
            handle.cancel()
        replies = [handle.result() for handle in handles]
    empty = [reply for reply in replies if not len(reply.tokens)]
    assert empty
    assert all(reply.top is not None and reply.top.ids.shape == (0, TOP) for reply in empty)


def test_more_likely_ids_than_the_policy_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"top_logprobs must lie in 0 .. 352 .*, got 353"):
        make_engine(top_logprobs=353)
    with pytest.raises(TypeError, match="top_logprobs must be an integer"):
        make_engine(top_logprobs=1.5)
    assert STEERING.num_candidates == TOP  # as many, which are others where a penalty or a filter acts
