"""One of several equal shares of a program's input, for machines that know nothing of each other.

Shard i of n has the rows whose place in the whole input, from 0, leaves i when divided by n. Every shard
reads the whole input, so that it makes the same programs as a run of all of it.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

FROM_ENVIRONMENT = "env"
COUNT = "SIA_JAX_SHARDS"
"""The variable that says how many shards there are where the scheduler does not."""

_SLURM = "SLURM_ARRAY_TASK_ID"
_INDEXED_JOB = "JOB_COMPLETION_INDEX"
_MOST = 1_000_000


@dataclass(frozen=True)
class Shard:
    """Share `index`, from 0, of `count`.

    Raises:
      ValueError: there is no such share.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= _MOST:
            raise ValueError(f"--shard i/n: n must lie in 1 .. {_MOST:,}, got {self.count}")
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"--shard i/n: i counts from 0, so it must lie in 0 .. {self.count - 1}, got {self.index}"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def owns(self, place: int) -> bool:
        """Whether the row at this place of the whole input, from 0, is the shard's."""
        return place % self.count == self.index

    def places(self, total: int) -> range:
        """The shard's places in an input of so many rows."""
        return range(self.index, total, self.count)

    def part_of(self, path: Path) -> Path:
        """Where the shard's part of a file goes: replies.0-of-4.jsonl of replies.jsonl."""
        return path.with_name(f"{path.stem}.{self.index}-of-{self.count}{path.suffix}")


@dataclass(frozen=True, kw_only=True)
class ShardArgs:
    """Which share of the work is done."""

    shard: Annotated[str | None, tyro.conf.arg(metavar="I/N", help_behavior_hint="")] = None
    """Only share I, from 0, of N: the rows whose place is I modulo N, into a part of the output, for sia
    merge. env: as a Slurm array or an Indexed Job of Kubernetes says."""


def goes_on_smaller(text: str | None) -> str:
    """How a run goes on that is to take less memory: a shard's bits are pinned with what it takes.

    Args:
      text: what --shard says.
    """
    if text is None:
        return "and the same command goes on"
    return "in all shards, which begin anew with --overwrite"


def find_shard(text: str | None, environment: Mapping[str, str] | None = None) -> Shard | None:
    """The shard that an option names.

    Args:
      text: "i/n", or "env"; None: no shard.
      environment: the variables that "env" looks at; None: those of this process.

    Raises:
      ValueError: anything else, and what would be right; variables that say no shard, or two.
    """
    if text is None:
        return None
    if text == FROM_ENVIRONMENT:
        return _of_environment(os.environ if environment is None else environment)
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        raise ValueError(f"--shard must be i/n, such as 0/4 for the first of four, or env, got {text[:60]!r}")
    return Shard(int(found[1]), int(found[2]))


def _of_environment(environment: Mapping[str, str]) -> Shard:
    given = [name for name in (_SLURM, _INDEXED_JOB) if name in environment]
    if not given:
        raise ValueError(
            f"--shard env: neither {_SLURM} (a Slurm array) nor {_INDEXED_JOB} (an Indexed Job of "
            "Kubernetes) is set; write --shard i/n"
        )
    if len(given) > 1:
        raise ValueError(f"--shard env: {' and '.join(given)} are both set; write --shard i/n")
    task = _number(environment, given[0])
    if COUNT in environment:
        return Shard(task, _number(environment, COUNT))
    if given[0] == _INDEXED_JOB:
        raise ValueError(
            f"--shard env: an Indexed Job tells no pod how many there are; set {COUNT}, or write "
            f"--shard ${_INDEXED_JOB}/N"
        )
    names = (f"SLURM_ARRAY_TASK_{name}" for name in ("MIN", "MAX", "COUNT"))
    first, last, count = (_number(environment, name) for name in names)
    if first > 1 or last - first + 1 != count:
        raise ValueError(
            f"--shard env: the array has {count} tasks from {first} to {last}, which may be some of a larger "
            f"one; set {COUNT} to the number of shards (tasks then count from 0), or write --shard i/n"
        )
    return Shard(task - first, count)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name)
    if text is None or re.fullmatch(r"[0-9]{1,9}", text) is None:
        got = "nothing" if text is None else repr(text[:40])
        raise ValueError(f"--shard env: {name} must be a whole number, got {got}; write --shard i/n")
    return int(text)
