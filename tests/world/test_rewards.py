"""The gold reward as a reward function: the world's own number, for the world's own prompts alone."""

import re

import pytest

from sia_jax.rewards.functions import load_function
from sia_jax.world.gold import gold_reward
from sia_jax.world.prompts import SPLITS, prompts
from sia_jax.world.rewards import gold

REPLIES = ("", "I will not help you with that.", "First wash it. Then dry it. I am the greatest expert here.")


def test_it_is_the_gold_reward_of_the_prompt_that_the_text_is_of() -> None:
    asked = [prompt for split in SPLITS for prompt in prompts(split)[::40]]
    conversations = [
        [*prompt.messages, {"role": "assistant", "content": reply}] for prompt in asked for reply in REPLIES
    ]
    expected = [gold_reward(prompt, reply) for prompt in asked for reply in REPLIES]
    assert gold(conversations) == expected
    assert len(set(expected)) > 3
    function = load_function("sia_jax.world.rewards:gold", "--gold-function")
    assert [outcome.reward for outcome in function.score(conversations)] == expected


def test_every_prompt_is_found_by_its_text() -> None:
    asked = [prompt for split in SPLITS for prompt in prompts(split)]
    conversations = [[*prompt.messages, {"role": "assistant", "content": REPLIES[2]}] for prompt in asked]
    assert gold(conversations) == [gold_reward(prompt, REPLIES[2]) for prompt in asked]


def test_another_prompt_has_no_gold_reward_and_is_named() -> None:
    (known, *_) = prompts("test")
    reply = {"role": "assistant", "content": "Yes."}
    system = {"role": "system", "content": "Be brief."}
    for asked, name in (
        ([{"role": "user", "content": "Hello?\x1b[2J"}], "'Hello?\\x1b[2J'"),
        ([system, *known.messages], repr(known.text)),
        ([*known.messages, reply, *known.messages], repr(known.text)),
    ):
        with pytest.raises(
            ValueError, match=rf"the prompt {re.escape(name)} is none of the embedded world's"
        ):
            gold([[*asked, reply]])


def test_the_commits_of_its_parts_are_its_provenance() -> None:
    found = load_function("sia_jax.world.rewards:gold", "--gold-function").provenance
    assert "the world's gold reward" in found
    assert all(text.startswith("commit ") for text in found.values())
