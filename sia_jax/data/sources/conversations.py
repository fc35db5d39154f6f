"""What a reader of raw data yields: a finished conversation, a prompt alone, or why a row holds neither."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sia_jax.text.chat import Message, check_messages
from sia_jax.text.messages import empty_turn


@dataclass(frozen=True)
class Conversation:
    """A reply in its conversation."""

    id: str
    group: str
    """Replies to one prompt share it."""
    messages: tuple[Message, ...]
    """Ends with the assistant."""
    place: str
    """File and number: 'flan.jsonl, line 12'."""
    reward: float | None = None
    complete: bool = True
    """False: the reply was cut by length, and no stop token belongs to it."""


@dataclass(frozen=True)
class OpenConversation:
    """A prompt that waits for a reply."""

    id: str
    group: str
    """That of the replies to it."""
    messages: tuple[Message, ...]
    """Ends with the user."""
    place: str


@dataclass(frozen=True)
class Rejected:
    """A row, or one reply of it, that holds nothing to learn from."""

    reason: str
    """In words that can be counted."""
    place: str


Entry = Conversation | OpenConversation | Rejected
"""Of a reader: conversations where it is asked for replies, open ones where it is asked for prompts."""


def entry(
    place: str,
    name: str,
    prompt: Sequence[Message],
    reply: str | None,
    *,
    with_reply: bool,
    group: str | None = None,
    **reply_fields: Any,
) -> Entry:
    """`conversation`; or, without the reply and what is said of it, `open_conversation`."""
    if with_reply:
        return conversation(place, name, prompt, reply, group=group, **reply_fields)
    return open_conversation(place, name, prompt, group=group)


def conversation(
    place: str,
    name: str,
    prompt: Sequence[Message],
    reply: str | None,
    *,
    group: str | None = None,
    reward: Any = None,
    complete: bool = True,
) -> Conversation | Rejected:
    """A conversation, if these make one.

    Args:
      place: where they come from.
      name: the reply's id.
      prompt: ends with the user.
      reply: of the assistant.
      group: None: `prompt_group(prompt)`.
      reward: a number, or None.
      complete: whether the reply ended by itself.
    """
    if reply is None or not reply.strip():
        return Rejected("no reply", place)
    messages = (*prompt, {"role": "assistant", "content": reply})
    try:
        check_messages(messages, last="assistant")
    except ValueError as error:
        return Rejected("not a conversation", f"{place} ({error})")
    if empty_turn(prompt) is not None:
        return Rejected("empty prompt", place)
    why = None if reward is None else reward_problem(reward)
    if why is not None:
        return Rejected(why, place)
    group = prompt_group(prompt) if group is None else group
    return Conversation(name, group, messages, place, None if reward is None else float(reward), complete)


def open_conversation(
    place: str, name: str, prompt: Sequence[Message], *, group: str | None = None
) -> OpenConversation | Rejected:
    """A prompt, if these messages make one.

    Args:
      place: where they come from.
      name: the prompt's id.
      prompt: ends with the user.
      group: None: `prompt_group(prompt)`.
    """
    try:
        check_messages(prompt)
    except ValueError as error:
        return Rejected("not a conversation", f"{place} ({error})")
    if empty_turn(prompt) is not None:
        return Rejected("empty prompt", place)
    return OpenConversation(name, prompt_group(prompt) if group is None else group, tuple(prompt), place)


def reward_problem(reward: Any) -> str | None:
    """Why this cannot be a reward, in words that can be counted; None if it can."""
    if isinstance(reward, bool) or not isinstance(reward, int | float):
        return "reward is not a number"
    try:
        return None if math.isfinite(reward) else "reward is not finite"
    except OverflowError:  # an integer that no float holds
        return "reward is not finite"


def prompt_group(prompt: Sequence[Message]) -> str:
    """A name for a prompt that is the same wherever the prompt stands: 16 hex digits.

    System messages do not count: replies to one question under several of them are of one group, so that a
    split into training and validation does not part them.
    """
    turns = [[message["role"], message["content"]] for message in prompt if message["role"] != "system"]
    return digest(json.dumps(turns))


def digest(text: str) -> str:
    """16 hex digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
