"""The official SIA code's training files: JSON lists of trajectories in ids."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sia_jax.data.records import Record
from sia_jax.data.sources.conversations import Rejected, digest, reward_problem
from sia_jax.files.reading import read_bytes
from sia_jax.files.strict_json import kind_of, parse_json
from sia_jax.files.writing import make_folder, replacing
from sia_jax.text.chat import Message, check_messages, raw_prompt_text, value_prompt_text
from sia_jax.text.markup import MARKUPS, Markup

WHAT = "the official SIA format"

_IDS = ("rm_prompt_tokens_ids", "generated_tokens_ids", "rm_guided_tokens_mask")


class OfficialFiles:
    """The trajectories of such files in order, read once; they say how far that has come.

    A file is a JSON list, so it is read whole. Ids are taken as they are: no stop token is appended to a
    reply that has none. (The official code appends one of two at random, and trains on it.) A reply of which
    the mask leaves tokens out is rejected, because a record has no mask.

    Args:
      files: at least one.
      vocab_size: ids must be smaller.

    Raises:
      ValueError: while iterating: a file that is not what it claims, with its name and the line or row.
    """

    def __init__(self, files: Sequence[Path], vocab_size: int):
        self.files = tuple(files)
        self.current = self.files[0].name
        """The file that is being read."""
        self.place = ""
        """The row that was read last: 'a.json, row 12'."""
        self.fraction = 0.0
        """How much is read."""
        self._vocab_size = vocab_size

    def __iter__(self) -> Iterator[Record | Rejected]:
        for index, path in enumerate(self.files):
            self.current = path.name
            prefix = f"{path.name}:" if len(self.files) > 1 else ""
            rows = _read_list(path)
            for number, fields in enumerate(rows, start=1):
                self.fraction = (index + number / len(rows)) / len(self.files)
                self.place = f"{path.name}, row {number}"
                try:
                    found = _record(fields, prefix, self.place, number, self._vocab_size)
                except ValueError as error:
                    raise ValueError(f"{path}, row {number}: {error}") from None
                yield found
        self.fraction = 1.0


def write_official(path: Path, records: Iterable[Record], markup: Markup) -> int:
    """Write records for the official code; the file is there when it is whole.

    All reply tokens are in the mask. The official code itself appends a stop token to replies that have none.
    "group" and "messages" are fields of ours, which it does not look at.

    Args:
      path: replaced if it exists.
      records: read once.
      markup: of the ids, for the text of the value model's prompt.

    Returns:
      How many were written.
    """
    make_folder(path.parent)
    count = 0
    with replacing(path) as new, new.open("w", encoding="utf-8") as file:
        for count, record in enumerate(records, start=1):
            file.write("[\n" if count == 1 else ",\n")
            json.dump(_fields(record, markup), file, ensure_ascii=False, allow_nan=False)
        file.write("\n]\n" if count else "[]\n")
    return count


def _read_list(path: Path) -> list[Any]:
    rows = parse_json(read_bytes(path, "file of trajectories"), str(path))
    if not isinstance(rows, list):
        raise ValueError(f"{path}: {WHAT} is a JSON list, got {kind_of(rows)}")
    return rows


def _record(fields: Any, prefix: str, place: str, number: int, vocab_size: int) -> Record | Rejected:
    if not isinstance(fields, dict):
        raise ValueError(f"expected an object, got {kind_of(fields)}")
    missing = [field for field in _IDS if field not in fields]
    if missing:
        raise ValueError(
            f"{WHAT} has the fields {missing}, found only {sorted(name[:60] for name in fields)[:20]}"
        )
    for field in _IDS:
        if not isinstance(fields[field], str):
            raise ValueError(
                f"{field!r} must be ids joined by commas in a text, got {kind_of(fields[field])}"
            )
    try:
        prompt, reply, mask = (_numbers(fields[field]) for field in _IDS)
    except ValueError as error:
        return Rejected("ids are not numbers", f"{place} ({error})")
    reward = fields.get("reward")
    why = _problem(prompt, reply, mask, vocab_size)
    if why is None and reward is not None:
        why = reward_problem(reward)
    if why is not None:
        return Rejected(why, place)
    # Replies to one prompt have the same prompt ids.
    group = fields.get("group") or digest(fields[_IDS[0]])
    return Record(
        id=f"{prefix}{fields.get('id', number)}",
        group=str(group),
        messages=_messages(fields),
        prompt_ids=np.array(prompt, np.int32),
        reply_ids=np.array(reply, np.int32),
        reward=None if reward is None else float(reward),
    )


def _numbers(text: str) -> list[int]:
    if not re.fullmatch(r"[-0-9,\s]*", text):
        raise ValueError(f"expected numbers and commas, got {text[:40]!r}")
    return [int(part) for part in text.split(",") if part.strip()]


def _problem(prompt: list[int], reply: list[int], mask: list[int], vocab_size: int) -> str | None:
    for name, ids in (("prompt", prompt), ("reply", reply)):
        if not ids:
            return f"no {name}"
        if min(ids) < 0 or max(ids) >= vocab_size:
            return f"{name} has ids outside the vocabulary"
    if len(mask) != len(reply):
        return "mask and reply differ in length"
    if any(entry != 1 for entry in mask):
        return "mask leaves reply tokens out"
    return None


def _messages(fields: dict[str, Any]) -> tuple[Message, ...]:
    """Our own field; else the two turns, if they are exactly what the ids' text was made of; else ()."""
    if isinstance(fields.get("messages"), list):
        return tuple(fields["messages"])
    prompt, result = fields.get("prompt"), fields.get("result")
    opening, closing = "Human:\n", "\nAssistant:\n"
    if not isinstance(prompt, str) or not isinstance(result, str) or not result:
        return ()
    if not prompt.startswith(opening) or not prompt.endswith(closing) or len(prompt) < len(opening + closing):
        return ()
    user: Message = {"role": "user", "content": prompt[len(opening) : -len(closing)]}
    messages = (user, {"role": "assistant", "content": result})
    try:
        check_messages(messages, last="assistant")
    except ValueError:
        return ()
    texts = [value_prompt_text([user], markup) for markup in MARKUPS.values()]
    return messages if fields.get("rm_prompt") in texts else ()


def _fields(record: Record, markup: Markup) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": record.id, "group": record.group}
    if record.messages:
        *prompt, reply = record.messages
        fields |= {
            "prompt": raw_prompt_text(prompt),
            "result": reply["content"],
            "rm_prompt": value_prompt_text(prompt, markup),
            "messages": [dict(message) for message in record.messages],
        }
    for field, ids in zip(_IDS, (record.prompt_ids, record.reply_ids), strict=False):
        fields[field] = ",".join(map(str, ids.tolist()))
    fields[_IDS[2]] = ",".join("1" * len(record.reply_ids))
    fields["intervene_ratio"] = 1.0
    if record.reward is not None:
        fields["reward"] = record.reward
    return fields
