"""One's own data: a conversation a row, in any of the forms of `sia_jax.data.forms`."""

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from sia_jax.data.columns import ASKED, REPLIES
from sia_jax.data.forms import Turns, asked_of, turns_of
from sia_jax.data.records import Record
from sia_jax.data.sources.conversations import Entry, Rejected, entry
from sia_jax.data.sources.rows import Row
from sia_jax.files.shown import shown_value
from sia_jax.files.writing import make_folder, replacing
from sia_jax.text.messages import MessageError

WHAT = "own data"
FIELDS = (
    *(*ASKED, *REPLIES, "output", "chosen", "rejected"),
    *("reward", "id", "group", "complete", "finish_reason", "stop_string", "method", "branch"),
)

FAILED = {
    "non_finite": "the policy's logits are not finite",
    "cancelled": "the reply was cancelled",
    "deadline": "the reply took longer than it was given",
}
"""Why there is no reply, by the "finish_reason" that decode.generate writes."""

_ENDS = ("stop", "length", *FAILED)


def read_own(rows: Iterable[Row], *, with_replies: bool = True) -> Iterator[Entry]:
    """{"messages": [...]} that end with the assistant, or {"prompt": text, "response": text}, and their kin.

    See `sia_jax.data.forms` for all forms.

    Beside them may stand "reward", a number; "id" and "group", texts or integers; and "complete": false for a
    reply that was cut by length. Without an id a row is called after its file and line; without a group, its
    prompt makes one. In a record of decode.generate "finish_reason" and "stop_string" say what "complete"
    would, and "method" and "branch" tell replies to one prompt apart. A part of what is asked must not stand
    there; further fields are not looked at.

    Args:
      rows: of the .jsonl files.
      with_replies: False: the prompts; a row need not have a reply.

    Raises:
      ValueError: a row of another form, or an id that another row has.
    """
    places: dict[str, str] = {}
    for row in rows:
        name = _reply_name(row) or row.name
        if name in places:
            raise ValueError(
                f"{row.place}: id {shown_value(name, 60)} is that of {places[name]} already; give each row "
                'one of its own, or none: leave "id" out'
            )
        places[name] = row.place
        complete, why = _end(row) if with_replies else (True, None)
        if why is not None:
            yield Rejected(why, row.place)
            continue
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


def _reply_name(row: Row) -> str | None:
    """The row's id; of a record of decode.generate, whose id is the prompt's, that of the reply."""
    name, method, branch = _name(row, "id"), row.fields.get("method"), row.fields.get("branch")
    of_generate = isinstance(method, str) and isinstance(branch, int | str)
    return f"{name}:{method}:{branch}" if name is not None and of_generate else name


def _end(row: Row) -> tuple[bool, str | None]:
    """Whether the reply ended by itself, with the stop token; and why there is none.

    Raises:
      ValueError: fields that say something else.
    """
    complete, reason = row.fields.get("complete"), row.fields.get("finish_reason")
    if complete is None and reason is not None:
        if reason not in _ENDS:
            raise ValueError(
                f"{row.place}: 'finish_reason' must be one of decode.generate's, {', '.join(_ENDS)}, got "
                f'{shown_value(reason, 60)}; write "complete": true or false instead'
            )
        # A stop text cuts a reply: the policy was not about to end its turn. In a CSV file "" is none.
        return reason == "stop" and not row.fields.get("stop_string"), FAILED.get(reason)
    complete = True if complete is None else complete
    if not isinstance(complete, bool):
        raise ValueError(f"{row.place}: 'complete' must be true or false, got {shown_value(complete, 60)}")
    return complete, None
