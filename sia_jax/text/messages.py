"""Messages as files have them: the forms that mean one conversation alone, and the names of the rest."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sia_jax.files.strict_json import kind_of
from sia_jax.text.chat import Message

ROLES = ("system", "user", "assistant")

_SHAREGPT = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}
"""What ShareGPT's "from" says."""

_HH_ROLES = {"Human": "user", "Assistant": "assistant"}
"""What begins the turns of HH-RLHF."""

_EXPLAINED = {
    "human": "'human' is ShareGPT's and Anthropic's name of the 'user'; rename it",
    "gpt": "'gpt' is ShareGPT's name of the 'assistant'; rename it",
    "bot": "'bot' is another name of the 'assistant'; rename it",
    "model": "'model' is Gemini's and Gemma's name of the 'assistant'; rename it",
    "developer": "'developer' is OpenAI's name of the 'system'; rename it",
    "tool": "replies of tools are no part of such conversations; leave the conversation out",
    "function": "replies of functions are no part of such conversations; leave the conversation out",
    "prompter": "'prompter' is OpenAssistant's name of the 'user'; rename it",
}
"""Roles of other forms."""

_QUOTED = 60


class MessageError(ValueError):
    """Messages that are none, where the row's form is clear: a row can be left out for it."""


def read_messages(value: Any, name: str = "messages") -> list[Message]:
    """A conversation of a file as messages of a role and a content each.

    Taken are {"role", "content"}, with further keys that are null, as Arrow writes them where other rows
    have them; ShareGPT's {"from": "human" | "gpt" | "system", "value"}; and a content that is a list of one
    part of text. The order of the turns is for `sia_jax.text.chat.check_messages` to judge.

    Args:
      value: what stands in the file.
      name: of its field, for errors.

    Returns:
      The messages; the content of the last is None where it was null.

    Raises:
      ValueError: no list of messages.
      MessageError: a message of another form; what that is called, if it has a name.
    """
    rows = value if isinstance(value, list) else []
    got = [message for message in rows if not isinstance(message, Mapping)]
    if not isinstance(value, list) or got:
        raise ValueError(
            f'{name!r} must be a list like [{{"role": "user", "content": "..."}}], got {kind_of(value)}'
            + (f" with {kind_of(got[0])} in it" if got else "")
        )
    found = []
    for index, message in enumerate(value):
        place = f"{name}[{index}]"
        found.append(_message(message, place, is_last=index == len(value) - 1))
    return found


def parse_transcript(text: str) -> list[Message]:
    r"""The turns of a transcript, without the white space around their contents.

    A turn begins wherever "\n\nHuman:" or "\n\nAssistant:" stands: the format cannot quote them.

    Raises:
      ValueError: it does not begin with the human.
    """
    first, *turns = re.split(r"\n\n(Human|Assistant):", "\n\n" + text.lstrip())
    if first.strip() or not turns or turns[0] != "Human":
        raise ValueError(f"it must begin with 'Human:', got {text.strip()[:40]!r}")
    return [
        {"role": _HH_ROLES[name], "content": content.strip()}
        for name, content in zip(turns[::2], turns[1::2], strict=True)
    ]


def empty_turn(messages: Sequence[Message]) -> int | None:
    """The place of the first turn of the user in which nothing is asked; None: there is none."""
    blank = (i for i, one in enumerate(messages) if one["role"] == "user" and not one["content"].strip())
    return next(blank, None)


def _message(message: Mapping[str, Any], place: str, *, is_last: bool) -> Message:
    given = {key: value for key, value in message.items() if value is not None}
    if not {"role", "content"} & set(given) and "from" in given:
        return _sharegpt(given, place)
    role = message.get("role")
    if "role" not in message or "content" not in message:
        raise MessageError(
            f"{place} must have the keys 'role' and 'content' and no other, got {_names(message)}"
        )
    further = sorted(set(map(str, given)) - {"role", "content"})
    if further:
        raise MessageError(
            f"{place} must have the keys 'role' and 'content' and no other, got {_names(message)}; "
            f"drop {_names(further)}, or leave the conversation out"
        )
    if not isinstance(role, str):
        raise MessageError(f"{place}: role must be a text, got {kind_of(role)}")
    if role not in ROLES:
        why = _EXPLAINED.get(role.lower(), "")
        if role.lower() in ROLES:
            why = "write it in lower case"
        raise MessageError(
            f"{place} has role {role[:_QUOTED]!r}, expected 'system', 'user' or 'assistant'"
            + (f": {why}" if why else "")
        )
    return {"role": role, "content": _content(message["content"], place, is_last=is_last)}


def _sharegpt(given: Mapping[str, Any], place: str) -> Message:
    if set(given) - {"from", "value"} or "value" not in given:
        raise MessageError(
            f"{place}: a message of ShareGPT has the keys 'from' and 'value' alone, got {_names(given)}"
        )
    role = given["from"]
    if not isinstance(role, str) or role not in _SHAREGPT:
        raise MessageError(
            f"{place} is from {str(role)[:_QUOTED]!r}, and ShareGPT's speakers are {', '.join(_SHAREGPT)}"
        )
    return {"role": _SHAREGPT[role], "content": _content(given["value"], place, is_last=False)}


def _content(content: Any, place: str, *, is_last: bool) -> Any:
    if isinstance(content, str) or (content is None and is_last):
        return content
    if isinstance(content, list):
        parts = [
            {key: value for key, value in part.items() if value is not None} if isinstance(part, dict) else {}
            for part in content
        ]
        if len(parts) == 1 and set(parts[0]) == {"type", "text"} and parts[0]["type"] == "text":
            return _content(parts[0]["text"], place, is_last=False)
        raise MessageError(
            f"{place}: content must be a text, got a list of {len(parts)} parts; one part of text is taken "
            "for it, no more, and no images"
        )
    raise MessageError(f"{place}: content must be a text, got {kind_of(content)}")


def _names(keys: Any) -> str:
    names = [str(key)[:_QUOTED] for key in keys]
    return str(sorted(names)[:10])
