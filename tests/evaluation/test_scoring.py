"""Rewards and values that replies are chosen by, and the choice."""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sia_jax
from sia_jax.costs.reply import reward_flops
from sia_jax.decoding.search import best_branches
from sia_jax.evaluation.scoring import LastValues, Scorer, choose
from sia_jax.rewards.weighted import Term, WeightedSum, length_term
from tests.support.checkpoints import tiny_policy, tiny_reward_model, tiny_value_model
from tests.support.tokenizers import save_qwen3_tokenizer

PROMPT = [{"role": "user", "content": "Hello?"}]


def test_every_reply_that_can_be_scored_is_and_the_others_are_told(tmp_path: Path) -> None:
    """An empty one too; not one that the template refuses, nor one that is too long."""
    tokenizer = save_qwen3_tokenizer(tmp_path)
    refusal = "{% if 'bad' in messages[-1].content %}{{ raise_exception('no such word') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    sizes = {"vocab_size": 352, "num_layers": 1, "bos_token_id": None}
    reward = replace(tiny_reward_model(seed=2, max_position_embeddings=512, **sizes), tokenizer=tokenizer)
    scorer = Scorer((reward,), lambda what: nullcontext(), max_tokens=60)
    texts = ("", "a bad one", "Yes.", "ab " * 60)
    replies: Any = [[SimpleNamespace(text=text) for text in texts]]
    found = scorer.score([PROMPT], replies)
    (rewards,), (why,), (tokens,) = found.rewards, found.why, found.tokens
    for place in (0, 2):
        ids = reward.conversation_ids([*PROMPT, {"role": "assistant", "content": texts[place]}])
        assert tokens[place] == len(ids)
        assert rewards[place] == pytest.approx(float(reward.score([ids], [len(ids)])[0]), abs=1e-5)
        assert why[place] == ""
    assert [rewards[place] for place in (1, 3)] == [None, None]
    assert "no such word" in why[1]
    assert why[3].endswith("tokens, at most 60")
    assert math.isfinite(found.seconds)


def test_of_several_models_each_has_its_own_template_and_all_are_counted(tmp_path: Path) -> None:
    tokenizer = save_qwen3_tokenizer(tmp_path / "one")
    dated = save_qwen3_tokenizer(tmp_path / "two")
    dated.chat_template = "{{ date_string }}" + dated.chat_template
    sizes = {"vocab_size": 352, "bos_token_id": None}
    first = replace(tiny_reward_model(num_layers=1, **sizes), tokenizer=tokenizer)
    second = replace(tiny_reward_model(seed=1, num_layers=2, **sizes), tokenizer=dated)
    total = WeightedSum((Term("one", 2.0, None), Term("two", -0.5, None), length_term(0.1)))
    templates = ({}, {"date_string": "1 May"})
    scorer = Scorer((first, second), lambda what: nullcontext(), templates, total=total)
    replies: Any = [[SimpleNamespace(text=text) for text in ("Yes.", "No, not now.")]]
    found = scorer.score([PROMPT], replies)
    for place, reply in enumerate(replies[0]):
        messages = [*PROMPT, {"role": "assistant", "content": reply.text}]
        ids = [
            model.conversation_ids(messages, **own)
            for model, own in zip((first, second), templates, strict=True)
        ]
        one, two = (float(m.score([i], [len(i)])[0]) for m, i in zip((first, second), ids, strict=True))
        words = len(reply.text.split())
        assert found.parts[0][place] == pytest.approx({"one": one, "two": two, "words": words}, abs=1e-5)
        assert found.rewards[0][place] == pytest.approx(2 * one - 0.5 * two - 0.1 * words, abs=1e-5)
        assert len(ids[1]) > len(ids[0])
        assert found.tokens[0][place] == len(ids[0]) + len(ids[1])
        flops = reward_flops(first.config, [len(ids[0])]) + reward_flops(second.config, [len(ids[1])])
        assert found.flops[0][place] == pytest.approx(flops)


STOP, FAILED = sia_jax.FinishReason.STOP, sia_jax.FinishReason.NON_FINITE


@pytest.mark.parametrize(
    ("scores", "ends", "best"),
    [
        ([None, 1.0, 2.0], [STOP] * 3, 2),
        ([1.0, None, 2.0], [STOP] * 3, 2),
        ([1.0, 2.0, None], [STOP] * 3, 1),
        ([None, -1e38, None], [STOP] * 3, 1),
        ([2.0, 2.0, 1.0], [STOP] * 3, 0),
        ([None, None, None], [STOP] * 3, 0),
        ([9.0, None, None], [FAILED, STOP, STOP], 1),
        ([9.0, None, -5.0], [FAILED, STOP, STOP], 2),
        ([1.0, 2.0], [FAILED, FAILED], 0),
    ],
)
def test_the_best_reply_is_the_largest_number_as_in_best_of_n(
    scores: list[float | None], ends: list[sia_jax.FinishReason], best: int
) -> None:
    group: Any = [SimpleNamespace(finish_reason=end) for end in ends]
    assert choose([scores], [group]) == [best]
    numbers = [[math.nan if score is None else score for score in scores]]
    assert best_branches(numbers, [[end == FAILED for end in ends]]).tolist() == [best]


def test_values_of_last_tokens_are_those_of_the_value_model_whatever_else_there_is() -> None:
    policy = tiny_policy(num_layers=1)
    value = tiny_value_model(policy)
    rng, told = np.random.default_rng(0), []

    def aside(what: str) -> Any:
        told.append(what)
        return nullcontext()

    sequences = [rng.integers(0, policy.config.vocab_size, length).tolist() for length in (3, 20, 1, 16, 17)]
    params = sia_jax.SteeringParams(policy.params, value.params)
    values = LastValues(params, sia_jax.SamplerConfig(policy=policy.config, value=value.config), aside)
    found, seconds = values(sequences)
    assert math.isfinite(seconds)
    for ids, own in zip(sequences, found, strict=True):
        assert own == pytest.approx(float(value.values([ids], [len(ids)])[0, -1]), abs=1e-5)
        assert values([ids])[0] == [own]
    assert [what.rpartition("up to ")[2] for what in told] == ["16 tokens", "24 tokens"]
