"""One's own data: a conversation a row, in any of the forms of `sia_jax.data.forms`."""

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from sia_jax.data.columns import ASKED, REPLIES
from sia_jax.data.forms import Turns, asked_of, turns_of
from sia_jax.data.messages import MessageError
from sia_jax.data.records import Record
from sia_jax.data.sources.conversations import Entry, Rejected, entry
from sia_jax.data.sources.rows import Row
from sia_jax.files.shown import shown_value
from sia_jax.files.writing import make_folder, replacing

WHAT = "own data"
FIELDS = (*ASKED, *REPLIES, "output", "chosen", "rejected", "reward", "id", "group", "complete")


def read_own(rows: Iterable[Row], *, with_replies: bool = True) -> Iterator[Entry]:
    """{"messages": [...]} that end with the assistant, or {"prompt": text, "response": text}, and their kin.

    See `sia_jax.data.forms` for all forms.

    Beside them may stand "reward", a number; "id" and "group", texts or integers; and "complete": false for a
    reply that was cut by length. Without an id a row is called after its file and line; without a group, its
    prompt makes one. A part of what is asked must not stand there; further fields are not looked at.

    Args:
      rows: of the .jsonl files.
      with_replies: False: the prompts; a row need not have a reply.

    Raises:
      ValueError: a row of another form, or an id that another row has.
    """
    places: dict[str, str] = {}
    for row in rows:
        name = _name(row, "id") or row.name
        if name in places:
            raise ValueError(f"{row.place}: id {name[:60]!r} is that of {places[name]} already")
        places[name] = row.place
        complete = row.fields.get("complete", True)
        if not isinstance(complete, bool):
            got = shown_value(complete, 60)
            raise ValueError(f"{row.place}: 'complete' must be true or false, got {got}")
        try:
            turns = turns_of(row.fields) if with_replies else Turns(asked_of(row.fields), None)
        except MessageError as error:
            yield Rejected("not a conversation", f"{row.place} ({error})")
            continue
        except ValueError as error:
            raise ValueError(f"{row.place}: {error}") from None
        yield entry(
            row.place,
            name,
            turns.prompt,
            turns.reply,
            with_reply=with_replies,
            group=_name(row, "group"),
            reward=row.fields.get("reward"),
            complete=complete,
        )


def write_conversations(path: Path, records: Iterable[Record], stop_ids: Collection[int]) -> int:
    """Write records in the form that `read_own` reads; the file is there when it is whole.

    Args:
      path: replaced if it exists.
      records: read once.
      stop_ids: the tokens in one of which complete replies end.

    Returns:
      How many were written.

    Raises:
      ValueError: a record without its text.
    """
    make_folder(path.parent)
    count = 0
    with replacing(path) as new, new.open("w", encoding="utf-8") as file:
        for record in records:
            count += 1
            if not record.messages:
                raise ValueError(f"record {record.id!r} has ids alone, and no text to write")
            fields: dict[str, Any] = {"id": record.id, "group": record.group}
            fields["messages"] = [dict(message) for message in record.messages]
            fields["complete"] = int(record.reply_ids[-1]) in stop_ids
            if record.reward is not None:
                fields["reward"] = record.reward
            file.write(json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n")
    return count


def _name(row: Row, field: str) -> str | None:
    value = row.fields.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"{row.place}: {field!r} must be a text or an integer, got {shown_value(value, 60)}")
    return str(value)
