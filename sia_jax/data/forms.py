"""What the row of a file says: a prompt, or a conversation that is finished. One rule for all readers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sia_jax.data.chat import Message
from sia_jax.data.columns import CONVERSATIONS, REPLIES, column_named, names_of, prompt_column
from sia_jax.data.messages import read_messages
from sia_jax.files.strict_json import kind_of

_SYSTEM = ("system", "system_prompt")
"""Fields of a system message: ShareGPT's and OpenOrca's."""

_BESIDE = ("input", "context", "contextstring", *_SYSTEM)
"""Fields that say a part of what is asked, or how: Alpaca's, Dolly's, HarmBench's."""

_PRINTED = re.compile(r"\s*\[\s*\{\s*['\"](role|content|from|value)['\"]\s*:")


@dataclass(frozen=True)
class Turns:
    """A conversation that is finished, or should be."""

    prompt: Sequence[Message]
    reply: str | None
    """None: there is none."""


def prompt_of(fields: Mapping[str, Any], column: str | None = None) -> list[Message]:
    """The conversation that waits for a reply.

    Without a column that is asked for it is "messages" (or ShareGPT's "conversations"), or a "prompt": a
    text, or messages as TRL has them. Where both stand, they must say the same: the messages are the prompt,
    with or without a reply. A row with none of these has one column of another name, see `prompt_column`; or
    "chosen" and "rejected", which begin with one and the same prompt.

    Raises:
      ValueError: none of that, or more than one prompt.
    """
    if column is not None:
        name = column_named(column, list(fields))
        return _as_prompt(fields[name], name)
    conversation = _conversation_field(fields)
    if conversation is not None:
        messages = read_messages(fields[conversation], conversation)
        if fields.get("prompt") is None:
            if not messages or messages[0]["role"] != "system":
                _check_alone(fields, conversation, _SYSTEM, f"take one alone: --column {conversation}")
            return messages
        prompt = _as_prompt(fields["prompt"], "prompt")
        if messages == prompt or (messages[:-1] == prompt and messages[-1]["role"] == "assistant"):
            return prompt
        raise ValueError(
            f"'prompt' and {conversation!r} differ in more than a reply; say which is the prompt: --column "
            f"prompt or --column {conversation}"
        )
    if "prompt" not in fields and isinstance(fields.get("chosen"), list):
        return _common_prompt(fields)
    name = prompt_column(list(fields))
    _check_alone(fields, name, _BESIDE, f"take one alone: --column {name[:60]}")
    return _as_prompt(fields[name], name)


def turns_of(fields: Mapping[str, Any]) -> Turns:
    """The conversation with its reply.

    It is "messages" (or ShareGPT's "conversations") that end with the assistant, or a "prompt" (a text, or
    messages) beside its "response", TRL's "completion", or the "text" of decode.generate.

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
        messages = read_messages(fields[conversation], conversation)
        if not messages or messages[0]["role"] != "system":
            _check_alone(fields, conversation, _SYSTEM, "drop one of the fields")
        finished = bool(messages) and messages[-1]["role"] == "assistant"
        turns = Turns(messages[:-1], messages[-1]["content"]) if finished else Turns(messages, None)
        if fields.get("prompt") is not None and _as_turns(fields["prompt"], "prompt") != turns.prompt:
            raise ValueError(f"'prompt' and {conversation!r} differ in more than a reply; drop one of them")
        if fields.get("response") not in (None, turns.reply):
            raise ValueError(f"'response' and the reply in {conversation!r} differ; drop one of them")
        return turns
    if {"chosen", "rejected"} <= set(fields) and not replies:
        raise _pair_error()
    if not replies:
        raise ValueError(
            "there is a 'prompt' but no 'response' (nor TRL's 'completion', nor decode.generate's 'text')"
        )
    if len(replies) > 1 and len({str(fields[name]) for name in replies}) > 1:
        raise ValueError(f"expected one reply, got {names_of(replies)}, which differ; drop all but one")
    if isinstance(fields["prompt"], str):
        _check_alone(fields, "prompt", _SYSTEM, "drop one of the fields")
    return Turns(_as_turns(fields["prompt"], "prompt"), _reply(fields[replies[0]], replies[0]))


def asked_of(fields: Mapping[str, Any]) -> Sequence[Message]:
    """The prompt of a row, whatever was or was not replied to it; its text may be empty.

    Raises:
      ValueError: see `turns_of` and `prompt_of`.
    """
    if "prompt" not in fields and _conversation_field(fields) is None:
        return prompt_of(fields)
    bare = {name: value for name, value in fields.items() if name not in REPLIES}
    name = _conversation_field(bare)
    rows = bare.get(name or "")
    if isinstance(rows, list) and rows and _is_reply(rows[-1]):
        bare[name or ""] = [*rows[:-1], {"role": "assistant", "content": ""}]
    return turns_of(bare | {"response": None}).prompt


def _is_reply(message: Any) -> bool:
    return isinstance(message, dict) and "assistant" in (message.get("role"), message.get("from"))


def _conversation_field(fields: Mapping[str, Any]) -> str | None:
    found = [name for name in CONVERSATIONS if fields.get(name) is not None]
    if len(found) > 1:
        raise ValueError(f"expected one conversation, got {names_of(found)}; drop all but one")
    if not found and "prompt" not in fields:
        found = [name for name in CONVERSATIONS if name in fields]
    return found[0] if found else None


def _check_alone(fields: Mapping[str, Any], name: str, beside: Sequence[str], remedy: str) -> None:
    """Raise ValueError if a part of what is asked stands in another field."""
    for other, value in fields.items():
        if other != name and other.strip().lower() in beside and isinstance(value, str) and value.strip():
            raise ValueError(
                f"{other[:60]!r} stands beside {name[:60]!r}, and may be a part of what is asked, which one "
                f"field alone would lose; write both into messages, or {remedy}"
            )


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
    return [{"role": "user", "content": value}]


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


def _common_prompt(fields: Mapping[str, Any]) -> list[Message]:
    chosen = read_messages(fields["chosen"], "chosen")
    rejected = read_messages(fields.get("rejected"), "rejected")
    if chosen[:-1] != rejected[:-1] or not chosen[:-1]:
        raise ValueError("'chosen' and 'rejected' (TRL's pairs) do not begin with one prompt; add a 'prompt'")
    return chosen[:-1]


def _pair_error() -> ValueError:
    return ValueError(
        "this is a preference pair ('chosen' and 'rejected', as of TRL), two replies in one row; write a row "
        "for each reply, or read transcripts and pairs of messages with train.prepare --format hh-rlhf"
    )
