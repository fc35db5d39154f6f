"""The parts of all shards into the one file that a run of the whole input writes."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from sia_jax.data.row_files import read_rows, write_rows
from sia_jax.runs.parts import Statement, differences, key_text, read_statement, statement_of
from sia_jax.runs.shards import Shard

_TOLD = 5
"""Records of a kind that an error names; it counts the others."""
_SAME = ("program", "input", "settings", "made_by", "fields", "branches")


@dataclass(frozen=True)
class Merged:
    """What a merge has written."""

    shards: int
    units: int
    records: int


def merge(paths: Sequence[Path], out: Path) -> Merged:
    """Write one file of the parts of all shards, once every record is found to be there once.

    Args:
      paths: of the parts, in any order, JSONL or Parquet.
      out: written whole or not at all; Parquet or JSONL by its name. Its records stand in the order of the
        input, the same bytes as those of a run without shards.

    Raises:
      FileNotFoundError, ValueError: parts of other runs, or that are not whole; records that are missing,
        that are there twice, or that differ, by their names; a file that cannot be read.
    """
    statements = [read_statement(path) for path in paths]
    _check_alike(statements)
    _check_records(statements)
    by_index = sorted(statements, key=lambda one: one.shard.index)
    records = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal records
        records = 0
        for record in _in_order(by_index):
            records += 1
            yield record

    write_rows(out, rows)
    return Merged(len(statements), statements[0].total, records)


def _check_alike(statements: Sequence[Statement]) -> None:
    """All parts are of one work, cut into as many shards."""
    first = statements[0]
    for other in statements[1:]:
        if other.shard.count != first.shard.count:
            raise ValueError(
                f"{first.path} is shard {first.shard} and {other.path} shard {other.shard}: parts of other "
                "divisions cannot be merged; give those of one"
            )
        differing = list(differences(other.said, first.said, _SAME))
        if differing:
            raise ValueError(
                f"{other.path} is no part of the same work as {first.path}: {'; '.join(differing[:_TOLD])}"
            )


@dataclass
class _Found:
    """What is wrong with the records, by the words for it."""

    named: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, name: str, count: int = 1) -> None:
        names = self.named.setdefault(what, [])
        if len(names) < _TOLD:
            names.append(name)
        self.counts[what] = self.counts.get(what, 0) + count

    def check(self) -> None:
        """Raise ValueError if there is anything."""
        if not self.counts:
            return
        told = []
        for what, names in self.named.items():
            count = self.counts[what]
            noun = "record is" if count == 1 else "records are"
            more = "; ..." if len(names) == _TOLD and count > _TOLD else ""
            told.append(f"{count:,} {noun} {what}: {'; '.join(names)}{more}")
        raise ValueError(f"nothing was written: {'. '.join(told)}")


def _check_records(statements: Sequence[Statement]) -> None:
    """Every record of the work is there once."""
    found = _Found()
    owners = {one.shard.index: one for one in reversed(statements)}
    expected = {key: index for index, one in owners.items() for key in one.all_keys()}
    met: dict[str, tuple[bytes, str]] = {}
    for one in statements:
        for place, record in read_rows(one.path):
            if record.get("settings") != one.said["settings"]:
                raise ValueError(
                    f"{one.path}, {place}: it was written with other settings than "
                    f"{statement_of(one.path).name} says; start the shard's command again with --overwrite"
                )
            key, name = one.key_of(record, place), f"{one.path}, {place}"
            digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest()[:16]
            if key in met:
                before, where = met[key]
                what = "there twice" if digest == before else "there twice and differ"
                found.add(what, f"{one.name_of(key)} ({where} and {name})")
            elif expected.get(key) != one.shard.index:
                found.add("none of their shard's", f"{one.name_of(key)} ({name})")
            met.setdefault(key, (digest, name))
    total, count = statements[0].total, statements[0].shard.count
    for index in range(count):
        part = owners.get(index)
        if part is None:
            places = Shard(index, count).places(total)
            first = ", ".join(map(str, places[:_TOLD])) + (", ..." if len(places) > _TOLD else "")
            rows = f"rows {first} of the input, from 0" if places else "which has none, as its part says"
            branches = statements[0].said["branches"]
            found.add("missing", f"all of shard {index}/{count}, {rows}", len(places) * len(branches))
            continue
        for key in part.all_keys():
            if key not in met:
                found.add("missing", f"{part.name_of(key)} (shard {part.shard}, {part.path})")
    found.check()
    if len(statements) > count:
        again = next(one for one in statements if owners[one.shard.index] is not one)
        raise ValueError(f"{again.path}: shard {again.shard} is given twice; give each part once")


def _in_order(statements: Sequence[Statement]) -> Iterator[dict[str, Any]]:
    """The records of all parts, unit by unit of the input.

    Args:
      statements: by their index, of all shards; every record is there once.

    Raises:
      ValueError: a part whose records stand in another order than its statement says.
    """
    units = [_units(one) for one in statements]
    for place in range(statements[0].total):
        index = place % len(statements)
        one = statements[index]
        unit = one.said["units"][place // len(statements)]
        records = next(units[index])
        branches = one.said["branches"]
        if [one.key_of(record, "") for record in records] != [key_text(unit, own) for own in branches]:
            raise ValueError(
                f"{one.path}: its records are not in the order of the input, as its run leaves them; start "
                "the shard's command again"
            )
        yield from records


def _units(statement: Statement) -> Iterator[list[dict[str, Any]]]:
    names = statement.said["fields"]["unit"]
    rows = (record for _, record in read_rows(statement.path))
    for _, records in groupby(rows, key=lambda record: [record[name] for name in names]):
        yield list(records)
