"""What readers of raw data are given and what they find, in short."""

from pathlib import Path
from typing import Any

import pytest

from sia_jax.data.records import Record
from sia_jax.data.sources import open_source
from sia_jax.data.sources.conversations import Conversation, Rejected


def user(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """A conversation: the user begins, the roles alternate."""
    roles = ("user", "assistant") * len(contents)
    turns = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


def read(form: Any, path: Path, **options: Any) -> list[Conversation | Rejected | Record]:
    """All that is found in a file or folder of some form, read to its end."""
    source = open_source(form, path, vocab_size=100, **options)
    found = list(source.entries)
    assert source.files.fraction == pytest.approx(1.0)
    return found


def reasons(found: list[Any]) -> list[tuple[str, str]]:
    """(reason, place) of what was rejected."""
    return [(one.reason, one.place) for one in found if isinstance(one, Rejected)]
