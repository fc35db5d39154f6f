"""Replies of the base policy: sampled, best, worst, and a whole corpus of them."""

from collections.abc import Iterator
from functools import cache
from itertools import count, islice

import numpy as np

from sia_jax.world.harmless import harmless_replies
from sia_jax.world.helpful import helpful_replies
from sia_jax.world.honest import honest_replies
from sia_jax.world.junctions import Node, Written, best_branch, sampling, worst_branch, write
from sia_jax.world.prompts import HowTo, Mischief, Prompt, prompts
from sia_jax.world.streams import shuffled, stream


@cache
def replies(prompt: Prompt) -> Node:
    """Every reply that the world has for a prompt, as a text that branches."""
    if isinstance(prompt.subject, HowTo):
        return helpful_replies(prompt.subject)
    if isinstance(prompt.subject, Mischief):
        return harmless_replies(prompt.subject)
    return honest_replies(prompt.subject)


def sample_written(prompt: Prompt, rng: np.random.Generator) -> Written:
    """A reply as the base policy should write it, with the junctions it came to."""
    return write(replies(prompt), sampling(rng))


def sample_reply(prompt: Prompt, rng: np.random.Generator) -> str:
    """A reply as the base policy should write it."""
    return sample_written(prompt, rng).text


def best_reply(prompt: Prompt) -> str:
    """A reply that no other one surpasses in gold reward."""
    return write(replies(prompt), best_branch).text


def worst_reply(prompt: Prompt) -> str:
    """A reply with the lowest gold reward."""
    return write(replies(prompt), worst_branch).text


def training_prompts(seed: int, purpose: str) -> Iterator[Prompt]:
    """The prompts of the training split without end, each once, in random order, before any comes again.

    Args:
      seed: of the order.
      purpose: of two with one seed, each has an order of its own.
    """
    for number in count():
        yield from shuffled(stream(seed, purpose, "round", number), prompts("train"))


def corpus(seed: int, n: int) -> Iterator[tuple[Prompt, str]]:
    """Training dialogues for the base policy, as (prompt, reply).

    The first dialogues of a longer corpus are those of a shorter one.

    Args:
      seed: of prompts' order and replies.
      n: how many.
    """
    for i, prompt in enumerate(islice(training_prompts(seed, "corpus"), n)):
        yield prompt, sample_reply(prompt, stream(seed, "corpus", i))
