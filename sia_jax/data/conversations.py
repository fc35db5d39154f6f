"""Files of finished conversations: JSONL, one a line, with whatever else the line says."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, eq=False)
class ConversationLine:
    """One line of a file."""

    number: int
    """Of the line in its file, from 1."""
    fields: dict[str, Any]
    """Everything that the line says."""
    messages: Any
    """The conversation; whether it really is one is for `sia_jax.data.chat.check_messages` to say."""

    @property
    def digest(self) -> str:
        """Of the conversation alone: two lines with the same one have the same reward."""
        return hashlib.sha256(json.dumps(self.messages, sort_keys=True).encode()).hexdigest()[:16]

    def with_reward(self, reward: float) -> bytes:
        """The line, all other fields as they were, with "reward" in it."""
        text = json.dumps(self.fields | {"reward": reward}, ensure_ascii=False, allow_nan=False)
        # Half a surrogate pair has no UTF-8; the backslash makes the JSON escape of it that stood there.
        return text.encode(errors="backslashreplace") + b"\n"


def read_conversations(path: Path, limit: int | None = None) -> Iterator[ConversationLine]:
    """The conversations of a file, one after the other.

    A line is {"messages": [...]}, {"prompt": text, "response": text}, or {"prompt": [messages], "text": text}
    as decode.generate writes it; a text may be null, which makes a line without a reply or a prompt. Further
    fields may stand beside them. Blank lines are skipped.

    Args:
      path: JSONL, UTF-8.
      limit: stop after so many conversations.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file's name, the line's number and what is wrong with it; or there are no conversations.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of conversations")
    count = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            if count == limit:
                break
            try:
                fields = _parse_object(line)
                messages = _messages(fields)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            count += 1
            yield ConversationLine(number, fields, messages)
    if not count:
        raise ValueError(f"{path}: there are no conversations in it")


def _parse_object(line: bytes) -> dict[str, Any]:
    """Strict JSON: what a reader would drop or turn into something else is refused."""
    try:
        fields = json.loads(
            line.decode(),
            parse_float=_parse_float,
            parse_constant=_parse_float,
            object_pairs_hook=_parse_pairs,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: it is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError(f'expected an object like {{"messages": [...]}}, got {str(fields)[:40]!r}')
    return fields


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number; write null where there is none")
    return number


def _parse_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"the fields {twice} stand there twice; keep one of each")
    return fields


def _messages(fields: dict[str, Any]) -> Any:
    kinds = [kind for kind in ("messages", "prompt", "response") if kind in fields]
    if kinds == ["messages"]:
        if not isinstance(fields["messages"], list):
            raise ValueError(f"'messages' must be a list, got {str(fields['messages'])[:40]!r}")
        return fields["messages"]
    if kinds == ["prompt"] and "text" in fields:
        return _generated(fields)
    if kinds != ["prompt", "response"]:
        raise ValueError(
            "expected either 'messages', or 'prompt' and 'response', or the 'prompt' and 'text' of "
            f"decode.generate, got {kinds or sorted(fields)}"
        )
    for name in kinds:
        if fields[name] is not None and not isinstance(fields[name], str):
            raise ValueError(f"{name!r} must be a text or null, got {str(fields[name])[:40]!r}")
    roles = ("user", "assistant")
    return [{"role": role, "content": fields[name]} for role, name in zip(roles, kinds, strict=True)]


def _generated(fields: dict[str, Any]) -> list[Any]:
    """The conversation of a reply that decode.generate has written."""
    prompt, text = fields["prompt"], fields["text"]
    if isinstance(prompt, dict):
        raise ValueError(
            "the reply is to a prompt of ids, and a conversation takes texts; generate from texts"
        )
    if not isinstance(prompt, list):
        raise ValueError(f"'prompt' must be a list of messages beside 'text', got {str(prompt)[:40]!r}")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"'text' must be a text or null, got {str(text)[:40]!r}")
    return [*prompt, {"role": "assistant", "content": text}]
