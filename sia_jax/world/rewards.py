"""The gold reward as a reward function, for the programs that take one: `sia_jax.world.rewards:gold`."""

from collections.abc import Sequence
from functools import cache

from sia_jax.files.shown import shown_value
from sia_jax.text.chat import Message
from sia_jax.world.gold import gold_reward
from sia_jax.world.prompts import SPLITS, Prompt, prompts
from sia_jax.world.provenance import world_commits


def gold(conversations: Sequence[Sequence[Message]]) -> list[float]:
    """The gold rewards of replies to the world's prompts, each in [-3, 3].

    Args:
      conversations: a prompt of the world, found by its text, and a reply.

    Raises:
      ValueError: another prompt, which has no gold reward.
    """
    return [_gold(conversation) for conversation in conversations]


def reward_provenance() -> dict[str, str]:
    """The commits of what the reward depends on."""
    return {what: f"commit {commit}" for what, commit in world_commits().items()}


def _gold(conversation: Sequence[Message]) -> float:
    *asked, reply = conversation
    prompt = _by_text().get(asked[-1]["content"]) if asked else None
    if prompt is None or list(map(dict, asked)) != list(map(dict, prompt.messages)):
        question = shown_value(asked[-1]["content"] if asked else "", 80)
        raise ValueError(
            f"the prompt {question} is none of the embedded world's, whose gold reward alone is known"
        )
    return gold_reward(prompt, reply["content"])


@cache
def _by_text() -> dict[str, Prompt]:
    return {prompt.text: prompt for split in SPLITS for prompt in prompts(split)}
