"""What the rounds of an iteration came to on validation prompts, beside the policy alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sia_jax.data.records import Record
from sia_jax.evaluation.statistics import Interval, mean_interval, paired_difference

ALONE = "policy alone"
"""The name of what nothing steers."""


@dataclass(frozen=True)
class Replies:
    """The scored replies of one sampler to the validation prompts."""

    rewards: Mapping[str, float]
    """By the id of the record, which tells prompt and branch."""
    groups: Mapping[str, str]
    """The prompt of each."""
    tokens: int
    """Of all of them."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Replies":
        """Those of a labelled set."""
        found = [record for record in records if record.reward is not None]
        return cls(
            {record.id: float(record.reward or 0.0) for record in found},
            {record.id: record.group for record in found},
            sum(len(record.reply_ids) for record in found),
        )

    def mean(self, resamples: int) -> Interval:
        """The mean reward, in which every prompt counts with all its replies."""
        return mean_interval(
            list(self.rewards.values()), [self.groups[id] for id in self.rewards], resamples=resamples
        )

    def minus(self, other: "Replies", resamples: int) -> Interval:
        """By how much the mean reward is above another's, pair by pair; replies without a partner are left
        out."""
        both = [id for id in self.rewards if id in other.rewards]
        return paired_difference(
            [self.rewards[id] for id in both],
            [other.rewards[id] for id in both],
            [self.groups[id] for id in both],
            resamples=resamples,
        )


def compare_rounds(
    replies: Mapping[str, Replies], asked: int, *, resamples: int = 10_000
) -> list[dict[str, Any]]:
    """A row for each sampler, as JSON.

    Args:
      replies: by name, `ALONE` first, then the value models in the order of their training.
      asked: replies that each sampler was asked for.
      resamples: of the intervals.

    Returns:
      rows of "name", "reward" (an `Interval`), "replies", "missing" (asked for, and without a reward),
      "tokens" (of a reply, in the mean), and, of what is steered, "gain" over the policy alone and, where
      there is one, "step" over the value model before; pairs of replies to one prompt under the same random
      numbers.
    """
    rows: list[dict[str, Any]] = []
    before: Replies | None = None
    for name, own in replies.items():
        count = len(own.rewards)
        row = {
            "name": name,
            "reward": own.mean(resamples).to_json(),
            "replies": count,
            "missing": asked - count,
            "tokens": own.tokens / count,
        }
        if name != ALONE:
            row["gain"] = own.minus(replies[ALONE], resamples).to_json()
            if before is not None:
                row["step"] = own.minus(before, resamples).to_json()
            before = own
        rows.append(row)
    return rows


def best_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The name of the value model whose steering has the largest mean reward; of equal ones, the first.

    Args:
      rows: of `compare_rounds`, one of them steered.
    """
    steered = [row for row in rows if row["name"] != ALONE]
    place = int(np.argmax([row["reward"]["mean"] for row in steered]))
    return str(steered[place]["name"])
