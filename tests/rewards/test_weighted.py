"""Weighted sums of rewards: the numbers, their parts, and what becomes of a part that is missing."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sia_jax.rewards.functions import RewardFunction
from sia_jax.rewards.labelling import Labeller, Outcome, label
from sia_jax.rewards.weighted import (
    Term,
    WeightedLabeller,
    WeightedSum,
    check_parts,
    function_term,
    labeller_of,
    length_term,
    model_alone,
)
from tests.support.checkpoints import tiny_reward_model
from tests.support.judging import letters
from tests.support.tokenizers import save_qwen3_tokenizer


def asked(reply: str | None) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": reply}]


def picky(conversations: Sequence[Any]) -> list[float]:
    """None for what has the word "bad"; not a number for "worse"."""
    texts = [messages[-1]["content"] for messages in conversations]
    if any("bad" in text for text in texts):
        raise ValueError("no such word")
    return [math.nan if "worse" in text else 1.0 + len(text) for text in texts]


LETTERS, PICKY = RewardFunction("judging:letters", letters), RewardFunction("judging:picky", picky)


def test_a_sum_is_that_of_the_weighted_parts_which_stand_beside_it() -> None:
    total = WeightedSum((function_term(LETTERS, 2.0), function_term(PICKY, -0.5), length_term(0.25)))
    replies = ("One two.", "Yes.", "", " a\tb\nc ")
    found = total.score([asked(reply) for reply in replies])
    for place, (reply, own) in enumerate(zip(replies, found, strict=True)):
        outcome = total.combine(place, own)
        letter, pick, words = float(len(reply) % 5), 1.0 + len(reply), len(reply.split())
        assert outcome.reward == pytest.approx(2 * letter - 0.5 * pick - 0.25 * words)
        assert outcome.parts == {"judging:letters": letter, "judging:picky": pick, "words": words}
        assert (outcome.index, outcome.tokens) == (place, 0)


@pytest.mark.parametrize(
    ("reply", "reason", "told"),
    [
        ("a bad one", "failed", "judging:picky raised ValueError: no such word"),
        ("worse", "not finite", "is nan"),
    ],
)
def test_a_part_without_a_reward_leaves_the_whole_without_one(reply: str, reason: str, told: str) -> None:
    total = WeightedSum((function_term(LETTERS, 1.0), function_term(PICKY, 0.0)))
    (own,) = total.score([asked(reply)])
    outcome = total.combine(0, own)
    assert (outcome.reward, outcome.reason) == (None, reason)
    assert told in outcome.why
    assert outcome.parts == {"judging:letters": float(len(reply) % 5), "judging:picky": None}


def test_one_reward_as_it_stands_is_no_sum_and_has_no_parts() -> None:
    (own,) = WeightedSum((function_term(LETTERS, 1.0),)).score([asked("Yes.")])
    assert WeightedSum((function_term(LETTERS, 1.0),)).combine(7, own) == Outcome(7, 0, 4.0)
    halved = WeightedSum((function_term(LETTERS, 0.5),)).combine(7, own)
    assert halved == Outcome(7, 0, 2.0, parts={"judging:letters": 4.0})


def test_a_sum_that_no_float32_holds_is_no_reward() -> None:
    total = WeightedSum((function_term(LETTERS, 3e38),))
    outcome = total.combine(0, total.score([asked("Yes.")])[0])
    assert (outcome.reward, outcome.reason) == (None, "not finite")
    assert "the weighted sum is 1.2e+39" in outcome.why


def test_two_rewards_of_one_name_and_a_sum_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="two rewards are called 'judging:letters'; leave one out"):
        WeightedSum((function_term(LETTERS, 1.0), function_term(LETTERS, 2.0)))
    with pytest.raises(ValueError, match="no rewards"):
        WeightedSum(())
    with pytest.raises(ValueError, match="reward models must be the first terms"):
        WeightedSum((function_term(LETTERS, 1.0), Term("model", 1.0, None)))


def test_many_conversations_get_the_sum_of_what_model_and_functions_give_them_alone(tmp_path: Path) -> None:
    """More than functions are given at a time, in buckets of several lengths, with bad ones among them."""
    tokenizer = save_qwen3_tokenizer(tmp_path)
    model = replace(tiny_reward_model(num_layers=1, vocab_size=352), tokenizer=tokenizer)
    texts = ["word " * (i % 30) + ("bad" if i % 9 == 8 else f"end {i}") for i in range(150)]
    conversations = [asked(text) for text in texts]
    conversations[5] = asked(None)
    conversations[6] = asked("Water. " * 200)
    total = WeightedSum(
        (Term("model", 2.0, None), function_term(PICKY, 0.5), length_term(0.1)),
    )
    options: dict[str, Any] = {"batch_tokens": 512, "max_tokens": 300}
    labeller = labeller_of(total, [model], **options)
    assert isinstance(labeller, WeightedLabeller)
    found = [one for i, messages in enumerate(conversations) for one in labeller.add(i, messages)]
    assert len(found) > 64  # what is ready does not wait for the end
    found += [one for batch in labeller.finish() for one in batch]
    assert sorted(outcome.index for outcome in found) == list(range(150))
    alone = label(model, conversations, **options)
    for outcome in found:
        own, text = alone[outcome.index], texts[outcome.index]
        if outcome.index in (5, 6):
            assert outcome.reward is None
            assert outcome.reason == own.reason == ("no reply" if outcome.index == 5 else "too long")
        elif "bad" in text:
            assert (outcome.reward, outcome.reason, outcome.tokens) == (None, "failed", 0)
            assert outcome.parts == {"model": None, "judging:picky": None, "words": len(text.split())}
        else:
            assert own.reward is not None
            expected = 2 * own.reward + 0.5 * (1 + len(text)) - 0.1 * len(text.split())
            assert outcome.reward == pytest.approx(expected, abs=1e-6)
            assert outcome.tokens == own.tokens
            assert outcome.parts is not None
            assert outcome.parts["model"] == own.reward


def test_several_models_add_up_and_each_reads_what_those_before_it_have_a_reward_for(tmp_path: Path) -> None:
    """The second holds fewer tokens than the first; its template refuses a word, and a function another."""
    tokenizer = save_qwen3_tokenizer(tmp_path / "one")
    strict = save_qwen3_tokenizer(tmp_path / "two")
    refusal = "{% if 'refused' in messages[-1].content %}{{ raise_exception('no such word') }}{% endif %}"
    strict.chat_template = refusal + strict.chat_template
    sizes = {"num_layers": 1, "vocab_size": 352}
    first = replace(tiny_reward_model(max_position_embeddings=300, **sizes), tokenizer=tokenizer)
    second = replace(tiny_reward_model(seed=1, max_position_embeddings=80, **sizes), tokenizer=strict)
    ends = ("bad", "refused", "fine", "good")
    texts = ["word " * (i % 30) + ends[i % 4] + f" {i}" for i in range(150)]
    conversations = [asked(text) for text in texts]
    total = WeightedSum((Term("one", 2.0, None), Term("two", -3.0, None), function_term(PICKY, 0.5)))
    options: dict[str, Any] = {"batch_tokens": 512, "max_tokens": 400}
    labeller = labeller_of(total, [first, second], **options)
    found = [one for i, messages in enumerate(conversations) for one in labeller.add(i, messages)]
    found += [one for batch in labeller.finish() for one in batch]
    assert sorted(outcome.index for outcome in found) == list(range(150))
    ones, twos = (label(model, conversations, **options) for model in (first, second))
    reasons = set()
    for outcome in found:
        text, one, two = texts[outcome.index], ones[outcome.index], twos[outcome.index]
        if "bad" in text:
            assert outcome.parts == {"one": None, "two": None, "judging:picky": None}
            continue
        if two.reward is None:
            assert (outcome.reward, outcome.reason, outcome.why) == (None, two.reason, two.why)
            assert outcome.parts == {"one": one.reward, "two": None, "judging:picky": 1.0 + len(text)}
            reasons.add(outcome.reason)
            continue
        assert one.reward is not None
        expected = 2 * one.reward - 3 * two.reward + 0.5 * (1 + len(text))
        assert outcome.reward == pytest.approx(expected, abs=1e-5)
        assert outcome.tokens == one.tokens + two.tokens
        reasons.add("none")
    assert reasons == {"not a conversation", "too long", "none"}


def test_functions_alone_need_no_model_and_a_model_alone_is_a_plain_labeller(tmp_path: Path) -> None:
    labeller = labeller_of(WeightedSum((function_term(LETTERS, 1.0),)), [])
    assert labeller.add(3, asked("Yes.")) == []
    assert [one for batch in labeller.finish() for one in batch] == [Outcome(3, 0, 4.0)]
    assert labeller.drain() == []
    model = replace(tiny_reward_model(num_layers=1, vocab_size=352), tokenizer=save_qwen3_tokenizer(tmp_path))
    assert isinstance(labeller_of(model_alone("model"), [model]), Labeller)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([], "parts must be numbers by their names"),
        ({"a": "1"}, "part 'a' must be a number, or null"),
        ({"a": True}, "part 'a' must be a number"),
        ({"a": 1.0, "b": math.inf}, "part 'b' must be a number"),
    ],
)
def test_parts_of_a_record_that_are_no_numbers_are_refused(parts: Any, told: str) -> None:
    check_parts({"a": 1.0, "b": None, "c": 3})
    with pytest.raises(ValueError, match=told):
        check_parts(parts)
