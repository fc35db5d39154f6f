"""Files of finished conversations: JSONL or Parquet, one a line or row, with whatever else it says."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.data.columns import CONVERSATIONS
from sia_jax.data.forms import turns_of
from sia_jax.data.tables import Table
from sia_jax.files.reading import check_file
from sia_jax.text.messages import MessageError

PARTS = "reward_parts"
"""The field that holds what a line's reward is the sum of."""


@dataclass(frozen=True, eq=False)
class ConversationLine:
    """One line of a file."""

    number: int
    """Of the line in its file, or of the row of Parquet, from 1."""
    fields: dict[str, Any]
    """Everything that the line says, by the names of `sia_jax.data.columns.by_known_names`."""
    messages: Any
    """The conversation; whether it really is one is for `sia_jax.text.chat.check_messages` to say."""

    @property
    def digest(self) -> str:
        """Of the conversation alone: two lines with the same one have the same reward."""
        return hashlib.sha256(json.dumps(self.messages, sort_keys=True).encode()).hexdigest()[:16]

    def rewarded(self, reward: float, parts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The fields of the line, all others as they were, with "reward" among them.

        Args:
          reward: replaces one that the line has, with its parts.
          parts: of a reward that is a sum, by their names: "reward_parts".
        """
        fields = self.fields
        if "reward" in fields:
            fields = {name: value for name, value in fields.items() if name != PARTS}
        return fields | {"reward": reward} | ({} if parts is None else {PARTS: dict(parts)})


def read_conversations(path: Path, limit: int | None = None) -> Iterator[ConversationLine]:
    """The conversations of a file, one after the other.

    A line is {"messages": [...]}, {"prompt": text or messages, "response": text}, or what decode.generate
    writes; `sia_jax.data.forms` has all forms. A reply or a prompt may be null, which makes a line without.
    Further fields may stand beside them. Blank lines are skipped.

    Args:
      path: JSONL, UTF-8, or Parquet.
      limit: stop after so many conversations.

    Raises:
      FileNotFoundError, IsADirectoryError: no such file.
      ValueError: the file's name, the line's number and what is wrong with it; another form, by its name;
        or there are no conversations.
    """
    check_file(path, "file of conversations")
    count = 0
    with path.open("rb") as file:
        table = Table(file, str(path), only_rows=True)
        if table.form not in ("JSONL", "Parquet") or table.is_packed:
            packed = "gzip, and " if table.is_packed else ""
            form = {"JSON": "one JSON list"}.get(table.form, table.form)
            raise ValueError(
                f"{path}: this is {packed}{form}, and the output repeats the input's lines; write it as "
                "JSONL, an object on each line, or as Parquet"
            )
        for row in table:
            if count == limit:
                break
            try:
                if table.form == "Parquet":
                    _check_fields(row.fields)
                messages = _messages(row.fields)
            except ValueError as error:
                raise ValueError(f"{path}, {row.place}: {error}") from None
            count += 1
            yield ConversationLine(row.number, row.fields, messages)
    if not count:
        raise ValueError(f"{path}: there are no conversations in it")


def _check_fields(fields: dict[str, Any]) -> None:
    """Raise ValueError if a field is nothing that JSON has, such as a date."""
    for name, value in fields.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"field {name[:60]!r}: {error}; leave the column out") from None


def _messages(fields: dict[str, Any]) -> Any:
    """The conversation; messages that are none as they stand, for the row to be left out and counted."""
    try:
        turns = turns_of(fields)
    except MessageError:
        return next((fields[name] for name in CONVERSATIONS if fields.get(name)), fields.get("prompt"))
    if "prompt" not in fields and turns.reply is None:
        return [*turns.prompt]
    is_null = fields.get("prompt", "") is None and not any(fields.get(name) for name in CONVERSATIONS)
    prompt = [{"role": "user", "content": None}] if is_null else turns.prompt
    return [*prompt, {"role": "assistant", "content": turns.reply}]
