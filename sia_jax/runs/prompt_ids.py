"""What a prompt draws with, and what it is called, wherever and beside whatever it runs.

    draws     = SHA-256 of [the ids that the policy reads, the row's own id or null, the number of its
                repetition]
    key       = key(seed) with the first two words of `draws` folded in, one after the other; branch j folds
                j in
    prompt_id = SHA-256 of [`draws`, the numbers that the row brings, the run's settings]

Both hashes are of JSON without spaces and with sorted keys, and keep 32 hex digits.

The key does not depend on the settings, so that runs of other settings meet the same random numbers.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from sia_jax.data.prompts import PromptLine
from sia_jax.engine.reply import json_threshold
from sia_jax.runs.runner import own_key

SETTINGS = {"draws": "content"}
"""What a run's settings say of it; files of versions that drew by the place of a prompt lack it."""

_DIGITS = 32
_NOT_ASKED = ("samples", "record")
"""Settings that change no reply."""


def draws_of(prompts: Sequence[PromptLine], policy_ids: Sequence[Sequence[int]]) -> list[str]:
    """What tells the prompts of an input apart; no two of them are the same.

    Args:
      prompts: all of the input. A row that brings an id is told apart by it, and its order does not matter;
        of rows that are alike and bring none, the first is repetition 0, the second 1, ...
      policy_ids: of each, what the policy reads.
    """
    seen: Counter[tuple[int, ...]] = Counter()
    found = []
    for prompt, ids in zip(prompts, policy_ids, strict=True):
        read, own, repetition = [int(token) for token in ids], None, 0
        if prompt.has_id:
            own = prompt.id
        else:
            repetition = seen[tuple(read)]
            seen[tuple(read)] += 1
        found.append(_digest([read, own, repetition]))
    return found


def key_of_digest(digest: str, seed: int) -> jax.Array:
    """key(seed) with the first two words of a digest folded in, one after the other.

    Args:
      digest: 16 hex digits or more.
      seed: of the run.
    """
    key = own_key(seed)
    for word in np.frombuffer(bytes.fromhex(digest[:16]), ">u4"):
        key = jax.random.fold_in(key, np.uint32(word))
    return key


def key_of_draws(prompt: PromptLine, draws: str, seed: int, branches: int) -> jax.Array:
    """The key of a prompt's request.

    Args:
      prompt: one that brings a seed has the key of that seed alone, as a request to the engine has.
      draws: of `draws_of`.
      seed: of the run.
      branches: replies to the prompt; a request folds in the number of a branch where there are several, so
        of one it is done here.
    """
    if prompt.seed is not None:
        return own_key(prompt.seed)
    key = key_of_digest(draws, seed)
    return jax.random.fold_in(key, 0) if branches == 1 else key


def prompt_id(prompt: PromptLine, draws: str, settings: dict[str, Any]) -> str:
    """The name of a prompt in a run: with the number of a branch, that of a record.

    Args:
      prompt: it may bring numbers.
      draws: of `draws_of`.
      settings: of the run, JSON; how many replies there are does not count.
    """
    own = {
        "value_ids": None if prompt.value_ids is None else list(prompt.value_ids),
        "seed": prompt.seed,
        "threshold": None if prompt.threshold is None else json_threshold(prompt.threshold),
    }
    asked = {name: value for name, value in settings.items() if name not in _NOT_ASKED}
    return _digest([draws, own, asked])


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
