"""Names of fields and columns: which mean something here, in any case of letters; which is the prompt's."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CONVERSATIONS = ("messages", "conversations", "conversation")
"""Fields that hold messages; the second is ShareGPT's name."""

PROMPT_COLUMNS = ("prompt", "goal")
"""Columns of a prompt's text that win over all others: AdvBench and JailbreakBench call it `goal`."""

OTHER_COLUMNS = ("instruction", "question", "query", "behavior", "forbidden_prompt", "user_input", "request")
"""Further names of such columns, of published sets; one of them alone is taken."""

REPLIES = ("response", "completion", "text")
"""Fields of a reply beside a "prompt": ours, TRL's, and those of decode.generate."""

SYSTEM = ("system", "system_prompt", "system_message", "system_instruction")
"""Fields of a system message: ShareGPT's, OpenOrca's, ..."""

PARTS = (
    *("input", "context", "contexts", "contextstring", "passage", "document", "documents", "history"),
    *("choices", "options", "tools", "functions"),
)
"""Fields that say a part of what is asked: Alpaca's, Dolly's, HarmBench's, BoolQ's, MMLU's, ..."""

SETTINGS = ("image", "images", "audio", "audios", "video", "videos", "chat_template_kwargs")
"""Fields that belong to what is asked, and that no text can hold."""

ASKED = (*CONVERSATIONS, *PROMPT_COLUMNS, *OTHER_COLUMNS, *SYSTEM, *PARTS, *SETTINGS)
"""All fields that say what is asked."""

_KNOWN = frozenset(
    [
        *(*CONVERSATIONS, *REPLIES, "prompt", "prompt_ids", "value_ids", "chosen", "rejected"),
        *("output", "id", "seed", "threshold", "reward", "group", "complete"),
        *("finish_reason", "stop_string", "method", "branch"),
    ]
)
_EXAMPLE = '{"prompt": "..."}, {"messages": [...]} or {"prompt_ids": [...]}'


def known_name(name: str) -> str:
    """The name that a field is looked up by: in lower case, if it is one that means something here."""
    lower = name.strip().lower()
    return lower if lower in _KNOWN else name


def by_known_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a row by the names that they are looked up by, whose case of letters may be any.

    Raises:
      ValueError: two of them are one, and neither is null.
    """
    found: dict[str, Any] = {}
    for name, value in fields.items():
        known = known_name(name)
        if found.get(known) is None:
            found[known] = value
        elif value is not None:
            twice = [other for other in fields if known_name(other) == known]
            raise ValueError(f"the fields {names_of(twice)} are one, whatever the case; drop all but one")
    return found


def prompt_column(names: Sequence[str]) -> str:
    """The column that holds the prompt's text.

    `prompt` or `goal`, in any case of letters; else the only one of `OTHER_COLUMNS`.

    Raises:
      ValueError: there is none, or there are several.
    """
    for known in PROMPT_COLUMNS:
        found = [name for name in names if name.strip().lower() == known]
        if found:
            break
    else:
        found = [name for name in names if name.strip().lower() in OTHER_COLUMNS]
    if len(found) > 1:
        raise ValueError(f"the prompt might stand in any of {names_of(found)}; say which: --column NAME")
    if not found:
        raise ValueError(
            f"expected {_EXAMPLE}, got {names_of(names)}; name the prompt's column: --column NAME"
        )
    return found[0]


def column_named(column: str, names: Sequence[str]) -> str:
    """A column that was asked for, in any case of letters if there is just one such.

    Raises:
      ValueError: there is none.
    """
    if column in names:
        return column
    found = [name for name in names if name.strip().lower() == column.strip().lower()]
    if len(found) != 1:
        raise ValueError(f"there is no column {column[:60]!r}, only {names_of(names)}")
    return found[0]


def has_column(column: str, names: Sequence[str]) -> bool:
    """Whether `column_named` finds one, or several."""
    return any(name.strip().lower() == column.strip().lower() for name in names)


def names_of(names: Iterable[object]) -> str:
    """Names for an error, in order, not all of them if there are many."""
    return str(sorted(str(name)[:60] for name in names)[:20])
