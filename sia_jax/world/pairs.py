"""Noisy preference pairs, from which the proxy reward model learns what the gold reward is like."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from sia_jax.world.gold import gold_reward
from sia_jax.world.grammar import sample_reply, training_prompts
from sia_jax.world.prompts import Prompt
from sia_jax.world.streams import stream


@dataclass(frozen=True)
class Preference:
    """Two different replies to a prompt, and which of them somebody liked better."""

    prompt: Prompt
    chosen: str
    rejected: str


def preference_probability(difference: float, noise: float) -> float:
    """Bradley and Terry: P(a > b) = sigmoid((g_a - g_b) / noise).

    Args:
      difference: g_a - g_b, of gold rewards.
      noise: the judge's, in units of gold reward; at 0 the better reply always wins, and equal ones half the
        time.
    """
    if noise == 0:
        return 0.5 * (1 + (difference > 0) - (difference < 0))
    # This form of the sigmoid overflows nowhere.
    return 0.5 * (1 + math.tanh(difference / (2 * noise)))


def preference_pairs(seed: int, n: int, noise: float) -> Iterator[Preference]:
    """Pairs of the base policy's replies to training prompts.

    The first pairs of a longer sequence are those of a shorter one, and no reply depends on the noise.

    Args:
      seed: of prompts' order, replies and the judge.
      n: how many.
      noise: see `preference_probability`.

    Raises:
      ValueError: a noise that is negative or not finite.
    """
    if not (noise >= 0 and math.isfinite(noise)):
        raise ValueError(f"noise must be 0 or more, and finite, got {noise}")
    return _pairs(seed, n, noise)


def _pairs(seed: int, n: int, noise: float) -> Iterator[Preference]:
    for i, prompt in enumerate(islice(training_prompts(seed, "pairs"), n)):
        rng = stream(seed, "pairs", i)
        a = b = sample_reply(prompt, rng)
        while a == b:
            b = sample_reply(prompt, rng)
        difference = gold_reward(prompt, a) - gold_reward(prompt, b)
        likes_a = rng.random() < preference_probability(difference, noise)
        yield Preference(prompt, *((a, b) if likes_a else (b, a)))
