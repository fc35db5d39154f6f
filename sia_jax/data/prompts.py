"""Files of prompts, in any of the forms that such files have."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, overload

from sia_jax.data.columns import CONVERSATIONS, column_named, known_name, prompt_column
from sia_jax.data.forms import is_transcript, prompt_of
from sia_jax.data.tables import Table
from sia_jax.files.reading import check_file
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import kind_of
from sia_jax.text.chat import Message, check_messages
from sia_jax.text.messages import empty_turn

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
    has_id: bool = False
    """Whether its row brings the id."""


@dataclass(frozen=True)
class PromptFile(Sequence[PromptLine]):
    """The prompts of a file, in order."""

    prompts: tuple[PromptLine, ...]
    form: str
    """What the file was read as, to be said once: 'CSV, column goal'."""

    @overload
    def __getitem__(self, place: int) -> PromptLine: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[PromptLine, ...]: ...
    def __getitem__(self, place: int | slice) -> PromptLine | tuple[PromptLine, ...]:
        return self.prompts[place]

    def __len__(self) -> int:
        return len(self.prompts)


def read_prompts(path: Path, system: str | None = None, column: str | None = None) -> PromptFile:
    """The prompts of a file.

    The content tells the form; the name's suffix only where the content cannot:

    - JSONL, or one JSON list: rows of {"prompt": text or messages}, {"messages": [...]}, ShareGPT's
      {"conversations": [...]}, or {"prompt_ids": [...]} with or without "value_ids"; or of texts alone.
    - CSV, TSV and Parquet: the prompt is in the column `prompt` or `goal`, or in the only one that published
      sets use for it (`instruction`, `question`, ...; see `sia_jax.data.columns`), or that is asked for. A
      CSV file of one column may have no header.
    - text: a prompt on each line. A file that looks like one of the others is read as that.

    "id", "seed" and "threshold" may stand beside a prompt; a part of what is asked must not, and further
    fields are not looked at. Blank lines are skipped. A file may be compressed with gzip.

    Args:
      path: the file, UTF-8.
      system: a system message for conversations that have none.
      column: the field or column that holds the prompt; None: as above.

    Raises:
      FileNotFoundError, IsADirectoryError: no such file.
      ValueError: the file's name, the line's or row's number and what is wrong with it.
    """
    check_file(path, "file of prompts")
    with path.open("rb") as file:
        return _read(file, str(path), system, column)


def parse_prompts(
    content: bytes, name: str, system: str | None = None, column: str | None = None
) -> PromptFile:
    """`read_prompts` on what stands in a file.

    Args:
      content: of the file.
      name: what errors call the file, and whose suffix may tell its form.
      system: a system message for conversations that have none.
      column: the field or column that holds the prompt; None: see `read_prompts`.

    Raises:
      ValueError: the file's name, the line's number and what is wrong with it; or there are no prompts.
    """
    return _read(io.BytesIO(content), name, system, column)


def text_prompts(texts: Iterable[str], system: str | None = None) -> list[PromptLine]:
    """Prompts given as texts, each one user's turn.

    Raises:
      ValueError: one text instead of a list, a blank text, or one that cannot be written as UTF-8.
    """
    if isinstance(texts, str | bytes | Mapping):
        raise ValueError(f"prompts must be a list of texts, got {kind_of(texts)}; write [text] for one")
    return [_parse({"prompt": text}, index, system, None) for index, text in enumerate(texts)]


def parse_threshold(value: Any) -> float:
    """A threshold as JSON has it: a number, or one of the strings "inf" and "-inf".

    Raises:
      ValueError: anything else; NaN, and integers that no float holds, too.
    """
    if value in ("inf", "-inf"):
        return float(value)
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and not math.isnan(value):
            return float(value)
    except OverflowError:
        pass
    raise ValueError(f'threshold must be a number of nats, "inf" or "-inf", got {shown_value(value, 40)}')


def check_seed(seed: Any, name: str = "seed") -> int:
    """A seed that makes a key of its own.

    Args:
      seed: out of a file or of options.
      name: what an error calls it: a field, or "--seed".

    Raises:
      ValueError: no integer, or outside 0 .. 2^32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"{name} must be an integer in 0 .. {MAX_SEED}, got {shown_value(seed, 40)}")
    return seed


def _read(file: BinaryIO, name: str, system: str | None, column: str | None) -> PromptFile:
    table = Table(file, name, column=column)
    prompts: list[PromptLine] = []
    places: dict[str | int, str] = {}
    transcripts = 0
    for row in table:
        try:
            prompt = _parse(row.fields, len(prompts), system, column)
            if prompt.id in places:
                raise ValueError(f"id {shown_value(prompt.id, 60)} is that of {places[prompt.id]} already")
        except ValueError as error:
            raise ValueError(f"{name}, {row.place}: {error}") from None
        places[prompt.id] = row.place
        prompts.append(prompt)
        transcripts += _is_transcript(row.fields, column)
    if not prompts:
        raise ValueError(f"{name}: there are no prompts in it")
    turns = f", {transcripts:,} of them transcripts of Human and Assistant" if transcripts else ""
    return PromptFile(tuple(prompts), _described(table, column) + turns)


def _parse(fields: dict[str, Any], index: int, system: str | None, column: str | None) -> PromptLine:
    kinds = [kind for kind in ("prompt", "prompt_ids", *CONVERSATIONS) if fields.get(kind) is not None]
    is_ids = column is None and "prompt_ids" in fields
    if is_ids and kinds != ["prompt_ids"] and kinds:
        raise ValueError(f"expected one of 'prompt', 'messages' and 'prompt_ids', got {sorted(kinds)}")
    name = index if fields.get("id") is None else fields["id"]
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise ValueError(f"id must be a string or an integer, got {kind_of(name)}")
    messages = None
    if not is_ids:
        if fields.get("value_ids") is not None:
            raise ValueError("'value_ids' belong beside 'prompt_ids'; a conversation makes its own")
        messages = _conversation(prompt_of(fields, column), system)
    return PromptLine(
        index,
        name,
        messages,
        _ids("prompt_ids", fields) if is_ids else None,
        _ids("value_ids", fields) if fields.get("value_ids") is not None else None,
        check_seed(fields["seed"]) if fields.get("seed") is not None else None,
        parse_threshold(fields["threshold"]) if fields.get("threshold") is not None else None,
        fields.get("id") is not None,
    )


def _conversation(messages: Sequence[Message], system: str | None) -> tuple[Message, ...]:
    check_messages(messages)
    blank = empty_turn(messages)
    if blank is not None:
        raise ValueError(f"messages[{blank}]: the user says nothing; write what is asked, or drop the row")
    if system is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
        check_messages(messages)
    return tuple(messages)


def _described(table: Table, column: str | None) -> str:
    """'JSONL', 'CSV, column goal', 'CSV without a header'."""
    if table.form in ("JSONL", "JSON", "text"):
        form = {"JSON": "a JSON list", "text": "text, a prompt a line"}.get(table.form, table.form)
        return form if column is None or table.form == "text" else f"{form}, field {column}"
    if table.header is None:
        return f"{table.form} without a header"
    if column is not None:
        return f"{table.form}, column {column_named(column, table.header)}"
    known = [name for name in table.header if known_name(name) in ("prompt_ids", *CONVERSATIONS)]
    return f"{table.form}, column {known[0] if known else prompt_column(table.header)}"


def _is_transcript(fields: Mapping[str, Any], column: str | None) -> bool:
    try:
        name = prompt_column(list(fields)) if column is None else column_named(column, list(fields))
    except ValueError:  # no text, but messages or ids
        return False
    return is_transcript(fields[name])


def _ids(name: str, fields: dict[str, Any]) -> tuple[int, ...]:
    ids = fields[name]
    if not isinstance(ids, list) or not ids or any(type(i) is not int or i < 0 for i in ids):
        raise ValueError(f"{name} must be a list of ids from 0 on, at least one, got {shown_value(ids, 60)}")
    return tuple(ids)
