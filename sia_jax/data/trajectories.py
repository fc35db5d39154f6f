"""A trajectory: what a value model learns from. Prompt, reply, and the reward of the whole."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One reply to one prompt, in the value model's ids, with its reward."""

    prompt_ids: np.ndarray  # [P] int32, at least one
    reply_ids: np.ndarray  # [T] int32, at least one; ends in the stop token unless it was cut by length
    reward: float  # R(x, y), of any unit
    number: int = 0  # its place in the data set
    group: str = ""  # what its prompt is called; replies to one prompt share it

    @property
    def length(self) -> int:
        """Tokens, prompt and reply."""
        return len(self.prompt_ids) + len(self.reply_ids)


def check_trajectory(
    prompt_ids: Any, reply_ids: Any, reward: Any, *, vocab_size: int, max_length: int
) -> str | None:
    """Why these cannot be a trajectory, in words that can be counted; None if they can.

    Args:
      prompt_ids: ids.
      reply_ids: ids.
      reward: a number.
      vocab_size: V of the value model.
      max_length: tokens that a row holds.
    """
    for name, ids in (("prompt", prompt_ids), ("reply", reply_ids)):
        array = np.asarray(ids)
        if array.size == 0:
            return f"no {name}"
        if array.ndim != 1 or array.dtype.kind not in "iu":
            return f"{name} is not a list of ids"
        if array.min() < 0 or array.max() >= vocab_size:
            return f"{name} has ids outside the vocabulary"
    if reward is None or isinstance(reward, bool) or not isinstance(reward, int | float | np.number):
        return "no reward"
    if not math.isfinite(reward):
        return "reward is not finite"
    if len(prompt_ids) + len(reply_ids) > max_length:
        return "longer than a row"
    return None
