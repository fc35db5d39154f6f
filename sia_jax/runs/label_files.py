"""The files of a run that labels, and what its journal says of each conversation."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.data.labelled import Conversations, noun
from sia_jax.rewards.labelling import REASONS, Outcome
from sia_jax.rewards.weighted import check_parts
from sia_jax.runs.shards import Shard


@dataclass(frozen=True)
class LabelFiles:
    """What a run writes, or one of its shards.

    Args:
      out: the labelled conversations.
      shard: which; None: the run has them all.
    """

    out: Path
    shard: Shard | None = None

    @property
    def partial(self) -> Path:
        """The journal."""
        path = self.out.with_name(f"{self.out.name}.partial.jsonl")
        return path if self.shard is None else self.shard.part_of(path)

    @property
    def report(self) -> Path:
        """What a run that is over says of itself."""
        return self.out.with_name(f"{self.out.name}.report.json")


class Labels:
    """What became of each line, as the journal's records say.

    Args:
      source: the conversations.
    """

    def __init__(self, source: Conversations):
        self.outcomes: dict[int, Outcome] = {}
        self._source = source

    def take(self, record: dict[str, Any]) -> int:
        """The line of a record, which is kept.

        Raises:
          ValueError: the record is of another conversation, or has neither a reward nor a reason.
        """
        given = {name: record[name] for name in ("tokens", "reward", "reason", "why")}
        outcome = Outcome(record["line"], **given, parts=record.get("parts"))
        if self._source.digests.get(outcome.index) != record["conversation"]:
            raise ValueError(
                f"{noun(self._source.path)} {outcome.index} of {self._source.path} is not the conversation "
                "that was scored"
            )
        is_number = isinstance(outcome.reward, float) and math.isfinite(outcome.reward)
        if not (
            is_number if outcome.reason is None else outcome.reward is None and outcome.reason in REASONS
        ):
            raise ValueError(f"expected a reward or a reason, got {outcome.reward!r} and {outcome.reason!r}")
        if outcome.parts is not None:
            check_parts(outcome.parts)
        self.outcomes[outcome.index] = outcome
        return outcome.index
