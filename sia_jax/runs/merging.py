"""The parts of all shards into the one file that a run of the whole input writes, or behind what it has."""

import hashlib
import json
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from sia_jax.data.row_files import is_parquet, read_rows, write_rows
from sia_jax.runs.journal import Journal
from sia_jax.runs.parts import Statement, differences, key_text, read_statement, statement_of
from sia_jax.runs.shards import Shard

_TOLD = 5
"""Records of a kind that an error names; it counts the others."""
_SAME = ("program", "input", "settings", "varying", "made_by", "made_with", "fields", "branches")


@dataclass(frozen=True)
class Merged:
    """What a merge has written.

    Args:
      shards: parts.
      units: rows of the whole input.
      records: that were written.
      there: of the work, that the file had before.
    """

    shards: int
    units: int
    records: int
    there: int = 0


def merge(paths: Sequence[Path], out: Path, *, add: bool = False) -> Merged:
    """Write one file of the parts of all shards, once every record is found to be there once.

    Args:
      paths: of the parts, in any order, JSONL or Parquet.
      out: written whole or not at all; Parquet or JSONL by its name. Its records stand in the order of the
        input, the same bytes as those of a run without shards.
      add: leave what `out` has, and put what it lacks behind that, line by line: a merge that is stopped can
        be done again. Parts may hold records that are there already, if they are the same.

    Raises:
      FileNotFoundError, ValueError: parts of other runs, or that are not whole; records that are missing,
        that are there twice, or that differ, by their names; a file that cannot be read, or that has other
        settings.
    """
    statements = [read_statement(path) for path in paths]
    _check_alike(statements)
    there = _There(out, statements[0]) if add and out.exists() else None
    held = {} if there is None else dict(there.digests)
    _check_records(statements, held, out)
    by_index = sorted(statements, key=lambda one: one.shard.index)
    records = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal records
        records = 0
        for record in _in_order(by_index, held):
            records += 1
            yield record

    if there is None:
        write_rows(out, rows)
    else:
        for _ in rows():  # all that is wrong is found before the first line is written
            pass
        there.add(rows())
    return Merged(len(statements), statements[0].total, records, len(_of_work(held, statements[0])))


class _There:
    """A file that parts are added to.

    Args:
      path: JSONL.
      statement: of one of the parts.

    Raises:
      ValueError: Parquet, or records of other settings than the parts'.
    """

    def __init__(self, path: Path, statement: Statement):
        if is_parquet(path):
            raise ValueError(f"{path} is a finished file, and Parquet does not grow; merge into another file")
        self.digests: dict[str, bytes] = {}
        """Of its records, by their keys."""
        said = statement.said
        fields = [said["fields"][kind] for kind in ("unit", "branch")]

        def take(record: dict[str, Any]) -> str:
            key = key_text(*([record[name] for name in names] for names in fields))
            self.digests[key] = _digest(record)
            return key

        self._journal = Journal(path, said["settings"], take, varying=said["varying"])

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Put records of the parts' settings behind what is there.

        Raises:
          ValueError: another run is writing the file.
        """
        with self._journal:
            for record in rows:
                self._journal.write({name: x for name, x in record.items() if name != "settings"})


def _digest(record: dict[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest()[:16]


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


def _check_records(statements: Sequence[Statement], held: Mapping[str, bytes], out: Path) -> None:
    """Every record of the work is there once, in a part or in the file that these are added to.

    Args:
      statements: of the parts.
      held: digests of that file's records, by their keys; what a part repeats of it must be the same.
      out: the file.
    """
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
            digest = _digest(record)
            if key in held:
                if held[key] != digest:
                    found.add("there twice and differ", f"{one.name_of(key)} ({out} and {name})")
                continue
            if key in met:
                before, where = met[key]
                what = "there twice" if digest == before else "there twice and differ"
                found.add(what, f"{one.name_of(key)} ({where} and {name})")
            elif expected.get(key) != one.shard.index:
                found.add("none of their shard's", f"{one.name_of(key)} ({name})")
            met.setdefault(key, (digest, name))
    for _, one in sorted(owners.items()):
        for key in one.all_keys():
            if key not in met and key not in held:
                found.add("missing", f"{one.name_of(key)} (shard {one.shard}, {one.path})")
    _find_absent(statements[0], owners, _of_work(held.keys() - expected.keys(), statements[0]), found)
    found.check()
    if len(statements) > len(owners):
        again = next(one for one in statements if owners[one.shard.index] is not one)
        raise ValueError(f"{again.path}: shard {again.shard} is given twice; give each part once")


def _find_absent(
    any_part: Statement, owners: Mapping[int, Statement], theirs: Collection[str], found: _Found
) -> None:
    """Shards whose part is not given.

    Args:
      any_part: one that is.
      owners: all that are, by their index.
      theirs: keys of what the file that parts are added to has of the others.
      found: told.
    """
    total, count = any_part.total, any_part.shard.count
    for index in range(count):
        if index in owners:
            continue
        places = Shard(index, count).places(total)
        first = ", ".join(map(str, places[:_TOLD])) + (", ..." if len(places) > _TOLD else "")
        rows = f"rows {first} of the input, from 0" if places else "which has none, as its part says"
        lacking = len(places) * len(any_part.said["branches"])
        found.add("missing", f"all of shard {index}/{count}, {rows}", lacking)
    if len(owners) < count:
        found.counts["missing"] -= len(theirs)


def _of_work(keys: Iterable[str], statement: Statement) -> list[str]:
    """Those of a statement's branches."""
    branches = {json.dumps(branch) for branch in statement.said["branches"]}
    return [key for key in keys if json.dumps(json.loads(key)[1]) in branches]


def _in_order(statements: Sequence[Statement], held: Container[str]) -> Iterator[dict[str, Any]]:
    """The records of all parts, unit by unit of the input.

    Args:
      statements: by their index, of all shards; every record is there once.
      held: keys of records that are left out.

    Raises:
      ValueError: a part whose records stand in another order than its statement says.
    """
    units = [_units(one, held) for one in statements]
    for place in range(statements[0].total):
        index = place % len(statements)
        one = statements[index]
        unit = one.said["units"][place // len(statements)]
        wanted = [key for key in (key_text(unit, own) for own in one.said["branches"]) if key not in held]
        if not wanted:
            continue
        records = next(units[index], [])
        if [one.key_of(record, "") for record in records] != wanted:
            raise ValueError(
                f"{one.path}: its records are not in the order of the input, as its run leaves them; start "
                "the shard's command again"
            )
        yield from records


def _units(statement: Statement, held: Container[str]) -> Iterator[list[dict[str, Any]]]:
    names = statement.said["fields"]["unit"]
    rows = (row for place, row in read_rows(statement.path) if statement.key_of(row, place) not in held)
    for _, records in groupby(rows, key=lambda record: [record[name] for name in names]):
        yield list(records)
