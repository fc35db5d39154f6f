"""The file of replies that a run writes, JSONL or Parquet, whole or the part of a shard."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.data.row_files import is_parquet, put_in_order, read_rows, write_rows
from sia_jax.runs.journal import Journal
from sia_jax.runs.parts import statement_of
from sia_jax.runs.shards import find_shard


@dataclass(frozen=True)
class ReplyFiles:
    """What a run writes.

    Args:
      out: the file of replies.
      is_part: whether it is a shard's part.
    """

    out: Path
    is_part: bool

    @property
    def journal(self) -> Path:
        """Where replies are written as they come: into a JSONL file itself, beside a Parquet file."""
        return self.out.with_name(f"{self.out.name}.partial.jsonl") if is_parquet(self.out) else self.out

    def named(self, option: str) -> dict[str, Path]:
        """All files by what an error calls them.

        Args:
          option: that names the first: "--out".
        """
        found = {option: self.out}
        if self.journal != self.out:
            found[f"{option}'s journal"] = self.journal
        if self.is_part:
            found[f"{option}'s statement"] = statement_of(self.out)
        return found

    def open(
        self, settings: dict[str, Any], key: Callable[[dict[str, Any]], Hashable], *, overwrite: bool
    ) -> Journal:
        """The journal; where there is none, it knows of what a finished Parquet file holds.

        Raises:
          ValueError: what is there is of another run.
        """
        journal = Journal(self.journal, settings, key, overwrite=overwrite)
        if not (self.journal.exists() or overwrite) and self.out.exists():
            for place, record in read_rows(self.out):
                journal.take(record, f"{self.out}, {place}")
        return journal

    def check_grows(self, journal: Journal) -> None:
        """Replies can be added to what is there.

        Raises:
          ValueError: it is a finished Parquet file.
        """
        if journal.done and not self.journal.exists():
            raise ValueError(
                f"{self.out} is a finished file of {len(journal.done):,} replies, and Parquet does not grow; "
                "name another file, or pass --overwrite"
            )

    def finish(self, journal: Journal, order: Callable[[dict[str, Any]], Any]) -> None:
        """Put the replies in order; of Parquet, write the file and remove the journal.

        Args:
          journal: closed, with all replies in it, or in a Parquet file that is whole.
          order: where a record stands.
        """
        if not journal.path.exists():
            if self.out.exists():
                return
            with journal:  # of a shard without rows
                pass
        put_in_order(journal.path, order)
        if journal.path != self.out:
            write_rows(self.out, lambda: (row for _, row in read_rows(journal.path)))
            journal.path.unlink()


def reply_files(output: str | None, shard: str | None) -> ReplyFiles | None:
    """What a run writes to.

    Args:
      output: what --out says; None: the terminal.
      shard: what --shard says.

    Raises:
      ValueError: --shard says none.
    """
    own = find_shard(shard)
    if output is None:
        return None
    return ReplyFiles(Path(output) if own is None else own.part_of(Path(output)), own is not None)
