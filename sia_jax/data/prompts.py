"""Files of prompts: a text file with one prompt a line, or JSONL."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia_jax.data.chat import Message, check_messages

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class PromptLine:
    """One prompt, as a conversation or as ids, with what its line says about how to answer it."""

    index: int
    """Place among the prompts, from 0."""
    id: str | int
    """Its own name; the index where it has none."""
    messages: tuple[Message, ...] | None = None
    """A conversation that ends with the user; None: the prompt is `policy_ids`."""
    policy_ids: tuple[int, ...] | None = None
    value_ids: tuple[int, ...] | None = None
    """The same prompt as the value model sees it; None: as the policy does."""
    seed: int | None = None
    threshold: float | None = None
    """Nats."""


def read_prompts(path: Path, system: str | None = None) -> list[PromptLine]:
    """The prompts of a file.

    `.jsonl`, `.ndjson` and `.json` files have on each line {"prompt": text}, {"messages": [...]}, or
    {"prompt_ids": [...]} with or without "value_ids"; "id", "seed" and "threshold" may stand beside it, and
    other fields are not looked at. Any other file has a prompt on each line. Blank lines are skipped.

    Args:
      path: the file, UTF-8.
      system: a system message for conversations that have none.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file's name, the line's number and what is wrong with it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of prompts")
    is_jsonl = path.suffix.lower() in (".jsonl", ".json", ".ndjson")
    return parse_prompts(path.read_bytes(), str(path), is_jsonl, system)


def parse_prompts(content: bytes, name: str, is_jsonl: bool, system: str | None = None) -> list[PromptLine]:
    """`read_prompts` on what stands in a file.

    Args:
      content: UTF-8.
      name: what errors call the file.
      is_jsonl: whether its lines are JSON.
      system: a system message for conversations that have none.

    Raises:
      ValueError: the file's name, the line's number and what is wrong with it; or there are no prompts.
    """
    prompts: list[PromptLine] = []
    places: dict[str | int, int] = {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            text = line.decode().strip("\r")
            fields = _parse_json(text) if is_jsonl else {"prompt": text}
            prompt = _parse(fields, len(prompts), system)
            if prompt.id in places:
                raise ValueError(f"id {prompt.id!r} is that of line {places[prompt.id]} already")
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {error}") from None
        places[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise ValueError(f"{name}: there are no prompts in it")
    return prompts


def text_prompts(texts: Iterable[str], system: str | None = None) -> list[PromptLine]:
    """Prompts given as texts, each one user's turn.

    Raises:
      ValueError: a blank text.
    """
    return [_parse({"prompt": text}, index, system) for index, text in enumerate(texts)]


def parse_threshold(value: Any) -> float:
    """A threshold as JSON has it: a number, or one of the strings "inf" and "-inf".

    Raises:
      ValueError: anything else; NaN too.
    """
    if value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(f'threshold must be a number of nats, "inf" or "-inf", got {value!r}')
    return float(value)


def check_seed(seed: Any) -> int:
    """A seed that makes a key of its own.

    Raises:
      ValueError: no integer, or outside 0 .. 2^32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be an integer in 0 .. {MAX_SEED}, got {seed!r}")
    return seed


def _parse_json(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: it is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError(f'expected an object like {{"prompt": "..."}}, got {text[:40]!r}')
    return fields


def _parse(fields: dict[str, Any], index: int, system: str | None) -> PromptLine:
    kinds = [kind for kind in ("prompt", "messages", "prompt_ids") if kind in fields]
    if len(kinds) != 1:
        raise ValueError(
            f"expected one of 'prompt', 'messages' and 'prompt_ids', got {kinds or sorted(fields)}"
        )
    name = fields.get("id", index)
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise ValueError(f"id must be a string or an integer, got {name!r}")
    messages = None
    if kinds != ["prompt_ids"]:
        if "value_ids" in fields:
            raise ValueError("'value_ids' belong beside 'prompt_ids'; a conversation makes its own")
        messages = _conversation(fields, system)
    return PromptLine(
        index,
        name,
        messages,
        _ids("prompt_ids", fields),
        _ids("value_ids", fields),
        check_seed(fields["seed"]) if fields.get("seed") is not None else None,
        parse_threshold(fields["threshold"]) if fields.get("threshold") is not None else None,
    )


def _conversation(fields: dict[str, Any], system: str | None) -> tuple[Message, ...]:
    if "prompt" in fields:
        text = fields["prompt"]
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"a prompt must be a text that is not empty, got {text!r}")
        messages: Sequence[Message] = [{"role": "user", "content": text}]
    else:
        messages = fields["messages"]
    check_messages(messages)
    if system is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
        check_messages(messages)
    return tuple(messages)


def _ids(name: str, fields: dict[str, Any]) -> tuple[int, ...] | None:
    ids = fields.get(name)
    if ids is None and name not in fields:
        return None
    if not isinstance(ids, list) or not ids or any(type(i) is not int or i < 0 for i in ids):
        raise ValueError(f"{name} must be a list of ids from 0 on, at least one, got {str(ids)[:60]}")
    return tuple(ids)
