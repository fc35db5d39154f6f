"""What labelling reads and writes: a file of conversations, or a set of records."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sia_jax.data.conversations import ConversationLine, read_conversations
from sia_jax.data.records import RESERVED, Record, read_records, write_records
from sia_jax.data.row_files import write_rows
from sia_jax.data.set_folder import set_folder


@dataclass(frozen=True)
class Conversations:
    """The input, once all of it was found to be conversations; a set's are numbered from 1, as lines are."""

    path: Path
    limit: int | None
    sha256: str
    digests: dict[int, str]
    """By the number of a conversation's line or record."""

    def lines(self) -> Iterator[ConversationLine]:
        """The conversations.

        Raises:
          ValueError: the data are no longer what they were.
        """
        for line in _read(self.path, self.limit):
            if self.digests.get(line.number) != line.digest:
                where = place(self.path, line.number)
                raise ValueError(f"{where}: changed while it was read; start again")
            yield line

    def write(
        self,
        out: Path,
        rewards: Mapping[int, float],
        settings: dict[str, Any],
        parts: Mapping[int, Mapping[str, Any]],
    ) -> None:
        """Write those that have a reward, in their order; `out` is there when it is whole.

        Args:
          out: a file, Parquet or JSONL by its name, or the folder of a set; replaced if it exists.
          rewards: by number.
          settings: what the rewards depend on; a set keeps it as "labels".
          parts: by number, of rewards that are sums; a set has no place for them.

        Raises:
          ValueError: the data are no longer what they were.
        """
        if self.path.is_dir():
            source = read_records(self.path)
            # What its writer counted is not so any more.
            meta = {n: value for n, value in source.meta.items() if n not in (*RESERVED, "counts")}
            write_records(out, self._records(rewards), meta | {"labels": settings}, overwrite=True)
            return
        write_rows(out, lambda: self._rows(rewards, parts))

    def _rows(
        self, rewards: Mapping[int, float], parts: Mapping[int, Mapping[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        for line in self.lines():
            if line.number in rewards:
                yield line.rewarded(rewards[line.number], parts.get(line.number))

    def _records(self, rewards: Mapping[int, float]) -> Iterator[Record]:
        source = read_records(self.path)
        for line in self.lines():
            if line.number in rewards:
                yield replace(source[line.number - 1], reward=rewards[line.number])


def survey(path: Path, limit: int | None, *, relabel: bool) -> Conversations:
    """Read all conversations, before anything is scored.

    Args:
      path: a file, JSONL or Parquet, or the folder of a set.
      limit: only so many.
      relabel: whether they may have a reward.

    Raises:
      FileNotFoundError, ValueError: what the readers find, or a conversation that has a reward.
    """
    digests = {}
    for line in _read(path, limit):
        reward = line.fields.get("reward")
        if reward is not None and not relabel:
            where = place(path, line.number)
            raise ValueError(f"{where}: it has a reward, {str(reward)[:20]}; pass --relabel to replace it")
        digests[line.number] = line.digest
    return Conversations(path, limit, content_sha256(path), digests)


def read_rewards(path: Path) -> list[float]:
    """The rewards of what `Conversations.write` has written."""
    return [line.fields["reward"] for line in _read(path, None)]


def is_written(path: Path) -> bool:
    """Whether there is a file or a set."""
    return set_folder(path).exists() if path.is_dir() else path.exists()


def content_sha256(path: Path) -> str:
    """Of a file, or of the files of a set with their names."""
    if path.is_dir():
        files = sorted(file for file in set_folder(path).iterdir() if file.is_file())
        digests = "".join(f"{file.name} {content_sha256(file)}\n" for file in files)
        return hashlib.sha256(digests.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def noun(path: Path) -> str:
    """What is numbered in it: 'line', 'row' of Parquet, or 'record' of a set."""
    if path.is_dir():
        return "record"
    with path.open("rb") as file:
        return "row" if file.read(4) == b"PAR1" else "line"


def place(path: Path, number: int) -> str:
    """'replies.jsonl, line 3' or 'data/sampled, record 3'."""
    return f"{path}, {noun(path)} {number}"


def _read(path: Path, limit: int | None) -> Iterator[ConversationLine]:
    if not path.is_dir():
        yield from read_conversations(path, limit)
        return
    for number, record in enumerate(read_records(path), start=1):
        if limit is not None and number > limit:
            return
        messages = [dict(message) for message in record.messages]
        yield ConversationLine(number, {"reward": record.reward}, messages)
