"""Several sets as one."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sia_jax.data.records import RESERVED, Record, RecordSource, read_records, write_records


def join_sets(folder: Path, sets: Mapping[str, Path]) -> int:
    """Write the records of several sets as one set, with their ids; a set that is there is replaced.

    Args:
      folder: where to.
      sets: by the name that goes before the ids of its records, "NAME/ID", in their order. Replies to one
        prompt share their group across the sets.

    Returns:
      How many records there are.

    Raises:
      FileNotFoundError, ValueError: a set that cannot be read, or sets of other tokenizers or prompts.
    """
    sources = {name: read_records(path) for name, path in sets.items()}
    return write_records(folder, _records(sources), _meta(sources), overwrite=True)


def _records(sources: Mapping[str, RecordSource]) -> Iterator[Record]:
    for name, source in sources.items():
        for record in source:
            yield replace(record, id=f"{name}/{record.id}")


def _meta(sources: Mapping[str, RecordSource]) -> dict[str, Any]:
    """What all of the sets say alike, and how many records each has.

    Raises:
      ValueError: they say otherwise what a value model is trained by.
    """
    first, *others = sources.values()
    kept = {name: x for name, x in first.meta.items() if name not in RESERVED}
    for name in ("tokenizer", "markup", "vocab_size", "record_prompt"):
        for other in others:
            if other.meta.get(name) != kept.get(name):
                raise ValueError(
                    f"{first.folder} and {other.folder} differ in their {name}; sets that are joined are of "
                    "one tokenizer and one form of prompt"
                )
    same = {name: x for name, x in kept.items() if all(other.meta.get(name) == x for other in others)}
    return same | {"joined": {name: len(source) for name, source in sources.items()}}
