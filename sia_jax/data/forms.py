"""What the row of a file says: a prompt, or a conversation that is finished. One rule for all readers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sia_jax.data.columns import (
    CONVERSATIONS,
    OTHER_COLUMNS,
    PARTS,
    PROMPT_COLUMNS,
    REPLIES,
    SETTINGS,
    SYSTEM,
    column_named,
    names_of,
    prompt_column,
)
from sia_jax.files.strict_json import kind_of
from sia_jax.text.chat import Message
from sia_jax.text.messages import parse_transcript, read_messages

_OUTPUT = "output"  # a reply as well, of sets whose prompts have other names
_PRINTED = re.compile(r"\s*\[\s*\{\s*['\"](role|content|from|value)['\"]\s*:")
_TRANSCRIPT = re.compile(r"\s*Human:.*\n\nAssistant:\s*", re.DOTALL)
"""A prompt of HH-RLHF: the turns of a conversation, and the opened one of the assistant."""


@dataclass(frozen=True)
class Turns:
    """A conversation that is finished, or should be."""

    prompt: Sequence[Message]
    reply: str | None
    """None: there is none."""


def prompt_of(fields: Mapping[str, Any], column: str | None = None) -> list[Message]:
    """The conversation that waits for a reply.

    Without a column that is asked for it is "messages" (or ShareGPT's "conversations"), or a "prompt": a
    text, messages as TRL has them, or a transcript of HH-RLHF. Where both stand, they must say the same: the
    messages are the prompt, with or without a reply. A row with none of these has one column of another name,
    see `prompt_column`; or "chosen" and "rejected", which begin with one and the same prompt. What belongs to
    the prompt and stands in another field alone would be lost, and is refused.

    Raises:
      ValueError: none of that, or more than one prompt.
    """
    if column is not None:
        name = column_named(column, list(fields))
        return _as_prompt(fields[name], name)
    return _prompt_of(fields, by_column=True)


def turns_of(fields: Mapping[str, Any]) -> Turns:
    """The conversation with its reply.

    It is "messages" (or ShareGPT's "conversations") that end with the assistant, or a "prompt" (a text, or
    messages) beside its "response", TRL's "completion", or the "text" of decode.generate; a "response" or
    "completion" also ends messages that wait for one. The prompt is as of `prompt_of`, but may be empty.

    Raises:
      ValueError: none of that, or two that differ; the name of a form that is known.
    """
    conversation = _conversation_field(fields)
    replies = [name for name in REPLIES if name in fields]
    if "prompt" not in fields and conversation is None:
        if {"chosen", "rejected"} <= set(fields):
            raise _pair_error()
        raise ValueError(f"expected 'messages', or 'prompt' and 'response', got {names_of(fields)}")
    if conversation is not None:
        return _with_reply(fields, conversation)
    if {"chosen", "rejected"} <= set(fields) and not replies:
        raise _pair_error()
    if not replies:
        raise ValueError(
            "there is a 'prompt' but no 'response' (nor TRL's 'completion', nor decode.generate's 'text')"
        )
    found = {name: _reply(fields[name], name) for name in replies}
    said = {name: reply for name, reply in found.items() if reply is not None}
    if len(set(said.values())) > 1:
        raise ValueError(f"expected one reply, got {names_of(said)}, which differ; drop all but one")
    prompt = _as_turns(fields["prompt"], "prompt")
    _check_whole(fields, "prompt", prompt, by_column=False)
    return Turns(prompt, next(iter(said.values()), None))


def asked_of(fields: Mapping[str, Any]) -> Sequence[Message]:
    """The prompt of a row, whatever was or was not replied to it; its text may be empty.

    Raises:
      ValueError: see `turns_of` and `prompt_of`.
    """
    if "prompt" not in fields and _conversation_field(fields) is None:
        return _prompt_of(fields, by_column=False)
    bare = {name: value for name, value in fields.items() if name not in (*REPLIES, _OUTPUT)}
    name = _conversation_field(bare)
    rows = bare.get(name or "")
    if isinstance(rows, list) and rows and _is_reply(rows[-1]):
        bare[name or ""] = [*rows[:-1], {"role": "assistant", "content": ""}]
    return turns_of(bare | {"response": None}).prompt


def is_transcript(value: Any) -> bool:
    """Whether a prompt's text is one of HH-RLHF, whose turns are read as such."""
    return isinstance(value, str) and _TRANSCRIPT.fullmatch(value) is not None


def _prompt_of(fields: Mapping[str, Any], *, by_column: bool) -> list[Message]:
    conversation = _conversation_field(fields)
    if conversation is not None:
        messages, prompt = _in_conversation(fields, conversation, by_column=by_column)
        return messages if fields.get("prompt") is None else prompt
    if fields.get("prompt") is None and isinstance(fields.get("chosen"), list):
        return _common_prompt(fields, by_column=by_column)
    name = prompt_column(list(fields))
    prompt = _as_prompt(fields[name], name)
    _check_whole(fields, name, prompt, by_column=by_column)
    return prompt


def _is_reply(message: Any) -> bool:
    return isinstance(message, dict) and "assistant" in (message.get("role"), message.get("from"))


def _conversation_field(fields: Mapping[str, Any]) -> str | None:
    found = [name for name in CONVERSATIONS if fields.get(name) is not None]
    if len(found) > 1:
        raise ValueError(f"expected one conversation, got {names_of(found)}; drop all but one")
    if not found and "prompt" not in fields:
        found = [name for name in CONVERSATIONS if name in fields]
    return found[0] if found else None


def _in_conversation(
    fields: Mapping[str, Any], name: str, *, by_column: bool
) -> tuple[list[Message], list[Message]]:
    """What a field of messages says: all of them, and those in front of the reply."""
    messages = read_messages(fields[name], name)
    prompt = messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages
    if fields.get("prompt") is not None and _as_turns(fields["prompt"], "prompt") != prompt:
        raise ValueError(
            f"'prompt' and {name!r} differ in more than a reply; "
            + _remedy("prompt", name, by_column=by_column)
        )
    _check_whole(fields, name, prompt, by_column=by_column)
    return messages, prompt


def _with_reply(fields: Mapping[str, Any], name: str) -> Turns:
    """The turns of a field of messages, with the reply at their end or beside them: not one in each."""
    messages, prompt = _in_conversation(fields, name, by_column=False)
    turns = Turns(prompt, None if messages == prompt else messages[-1]["content"])
    is_finished = messages != prompt
    for other in (*REPLIES, _OUTPUT):
        value = fields.get(other)
        is_reply = other in ("response", "completion")
        if not _says(value) or not (is_reply or isinstance(value, str)):
            continue
        reply = _reply(value, other)
        if (is_finished or not messages) and reply != turns.reply:
            # Some sets repeat the whole conversation as a text.
            own = (turns.reply or "").strip()
            if is_reply or not own or own not in (reply or ""):
                raise ValueError(f"{other!r} and the reply in {name!r} differ; drop one of them")
        elif not (is_finished or is_reply):
            raise ValueError(
                f"{other!r} stands beside {name!r}, which end without a reply; call it 'response' if it is "
                "the reply, or drop it"
            )
        elif not is_finished:
            turns, is_finished = Turns(prompt, reply), True
    return turns


def _remedy(*names: str, by_column: bool) -> str:
    if not by_column:
        return "drop one of them"
    return "take one alone: " + " or ".join(f"--column {name[:60]}" for name in names)


def _check_whole(fields: Mapping[str, Any], name: str, prompt: Sequence[Message], *, by_column: bool) -> None:
    """Raise ValueError if a part of what is asked, or of how, stands in another field alone.

    Args:
      fields: the row.
      name: of the field that the prompt was read from.
      prompt: its messages.
      by_column: whether a column can be asked for.
    """
    contents = [message["content"] or "" for message in prompt]
    system = [message["content"] for message in prompt if message["role"] == "system"]
    places = dict.fromkeys(PARTS, contents) | dict.fromkeys(SYSTEM, system)
    for other, value in fields.items():
        known = other.strip().lower()
        if known not in (*places, *SETTINGS) or other == name or not _says(value):
            continue
        if not _stands_in(value, places.get(known, [])):
            remedy = "write both into messages, or " if known in places else ""
            remedy += _remedy(name, by_column=True) if by_column else "drop one of the fields"
            raise ValueError(
                f"{other[:60]!r} stands beside {name[:60]!r}, and may be a part of what is asked, which one "
                f"field alone would lose; {remedy}"
            )
    if name == "chosen" or not isinstance(fields.get("chosen"), list):
        return
    try:
        own = _own_prompt(fields)
    except ValueError:  # whatever they are, they are not what is asked
        return
    if own is not None and own != [*prompt]:
        raise ValueError(
            f"{name[:60]!r} and the prompt that 'chosen' and 'rejected' begin with differ; "
            + _remedy(name, by_column=by_column)
        )


def _says(value: Any) -> bool:
    """Whether there is anything in a value, however it is nested."""
    if isinstance(value, str):
        return value.strip() not in ("", "[]", "{}", "null")
    if isinstance(value, Mapping):
        return any(map(_says, value.values()))
    if isinstance(value, list):
        return any(map(_says, value))
    return value is not None and value is not False and value == value  # NaN is a null of pandas


def _stands_in(value: Any, contents: Sequence[str]) -> bool:
    """Whether all that a value says is texts that stand in one of the contents."""
    if isinstance(value, Mapping | list):
        parts = value.values() if isinstance(value, Mapping) else value
        return all(not _says(part) or _stands_in(part, contents) for part in parts)
    return isinstance(value, str) and any(value.strip() in content for content in contents)


def _as_prompt(value: Any, name: str) -> list[Message]:
    if isinstance(value, list):
        return read_messages(value, name)
    if not isinstance(value, str) or not value.strip():
        got = "an empty text" if isinstance(value, str) else kind_of(value)
        raise ValueError(f"{name!r}: a prompt must be a text that is not empty, or messages; got {got}")
    if _PRINTED.match(value):
        raise ValueError(
            f"{name!r} is a text that looks like a printed list of messages; write the list itself, not "
            "a text of it"
        )
    return parse_transcript(value)[:-1] if is_transcript(value) else [{"role": "user", "content": value}]


def _as_turns(value: Any, name: str) -> list[Message]:
    """`_as_prompt`, where a text may be empty, or null: then the row is one without a prompt."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return [{"role": "user", "content": value or ""}]
    if isinstance(value, dict) and "prompt_ids" in value:
        raise ValueError(
            "the reply is to a prompt of ids, and a conversation takes texts; generate from texts"
        )
    if not isinstance(value, str | list):
        raise ValueError(f"{name!r} must be a text, null or messages, got {kind_of(value)}")
    return _as_prompt(value, name)


def _reply(value: Any, name: str) -> str | None:
    if isinstance(value, list):  # TRL's completion
        messages = read_messages(value, name)
        if len(messages) != 1 or messages[0]["role"] != "assistant":
            raise ValueError(f"{name!r} must be a text, or one message of the assistant, got {len(messages)}")
        return messages[0]["content"]
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name!r} must be a text or null, got {kind_of(value)}")
    return value


def _common_prompt(fields: Mapping[str, Any], *, by_column: bool) -> list[Message]:
    prompt = _own_prompt(fields)
    if prompt is None:
        raise ValueError("'chosen' and 'rejected' (TRL's pairs) do not begin with one prompt; add a 'prompt'")
    _check_whole(fields, "chosen", prompt, by_column=False)
    for name, value in fields.items():
        is_prompt = name.strip().lower() in (*PROMPT_COLUMNS, *OTHER_COLUMNS)
        if is_prompt and _says(value) and not _stands_in(value, [message["content"] for message in prompt]):
            raise ValueError(
                f"{name[:60]!r} is not in the prompt that 'chosen' and 'rejected' begin with; "
                f"{_remedy(name, by_column=by_column)}"
            )
    return prompt


def _own_prompt(fields: Mapping[str, Any]) -> list[Message] | None:
    """What "chosen" and "rejected" both begin with, but for their last messages; None: they do not."""
    chosen, rejected = (read_messages(fields.get(name), name) for name in ("chosen", "rejected"))
    return chosen[:-1] if chosen[:-1] == rejected[:-1] and chosen[:-1] else None


def _pair_error() -> ValueError:
    return ValueError(
        "this is a preference pair ('chosen' and 'rejected', as of TRL), two replies in one row; write a row "
        "for each reply, or read transcripts and pairs of messages with train.prepare --format hh-rlhf"
    )
