"""Readers of raw data: each takes the rows of files and yields replies, or prompts, or why a row has none."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sia_jax.data.records import Record
from sia_jax.data.sources import hh_rlhf, own, ultrafeedback, wildguardmix
from sia_jax.data.sources.conversations import Entry
from sia_jax.data.sources.official import OfficialFiles
from sia_jax.data.sources.rows import RowFiles, files_of

Format = Literal["ultrafeedback", "wildguardmix", "hh-rlhf", "jsonl", "official"]


@dataclass(frozen=True)
class Source:
    """Raw data that is open."""

    entries: Iterator[Entry | Record]
    """Read once; a Record where the data has ids already."""
    files: RowFiles | OfficialFiles
    """How far the reading has come."""


def open_source(
    form: Format, path: Path, *, vocab_size: int, system_prompts: bool = True, with_replies: bool = True
) -> Source:
    """Open a file, or the files of a folder, as data of a format.

    Args:
      form: what the files claim to be.
      path: a file, or a folder whose files are read in the order of their names.
      vocab_size: V, for formats that have ids.
      system_prompts: False drops UltraFeedback's system prompts, as the official code does.
      with_replies: False: the prompts are read, as open conversations, whatever was replied to them.

    Raises:
      FileNotFoundError: no such file, or a folder without files of the format.
      ValueError: an unknown format, or one of ids, in which prompts have no text.
    """
    if form == "official":
        if not with_replies:
            raise ValueError(
                "format official holds ids, and prompts are needed as text; write the set as conversations "
                "(train.prepare --export-conversations), and read those as jsonl"
            )
        files = OfficialFiles(files_of(path, (".json",)), vocab_size)
        return Source(iter(files), files)
    if form == "ultrafeedback":
        rows = RowFiles(files_of(path), ultrafeedback.WHAT, ultrafeedback.REQUIRED)
        return Source(
            ultrafeedback.read_ultrafeedback(rows, system_prompts=system_prompts, with_replies=with_replies),
            rows,
        )
    if form == "wildguardmix":
        rows = RowFiles(files_of(path), wildguardmix.WHAT, wildguardmix.REQUIRED)
        return Source(wildguardmix.read_wildguardmix(rows, with_replies=with_replies), rows)
    if form == "hh-rlhf":
        rows = RowFiles(files_of(path), hh_rlhf.WHAT, hh_rlhf.REQUIRED, hh_rlhf.OPTIONAL)
        return Source(hh_rlhf.read_hh_rlhf(rows, with_replies=with_replies), rows)
    if form == "jsonl":
        rows = RowFiles(files_of(path), own.WHAT, (), own.FIELDS)
        return Source(own.read_own(rows, with_replies=with_replies), rows)
    raise ValueError(f"format must be ultrafeedback, wildguardmix, hh-rlhf, jsonl or official, got {form!r}")
