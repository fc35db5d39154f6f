"""What a shard's part of a program's output says of itself, in a file beside it: PART.shard.json.

It is written twice: when the shard begins, with "whole": false, and when all of its records are there. A
part without one that says "whole": true is no whole part. What the records' bits depend on beside their
settings (the rows of the engine, the device) is pinned by the first of the two: a run that goes on in another
way is refused.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sia_jax.files.reading import check_file, read_bytes
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import parse_object
from sia_jax.files.writing import make_folder, write_text
from sia_jax.runs.shards import Shard

_MOST = 60


@dataclass(frozen=True)
class Work:
    """All records that a run of the whole input makes: each unit of it has one record for each branch.

    Args:
      program: "decode.generate".
      settings: of the run's journal.
      made_by: what records' bits depend on beside their settings.
      unit_fields: fields of a record that name its unit.
      branch_fields: fields that tell the records of a unit apart.
      units: the values of `unit_fields`, of the whole input, in its order.
      branches: the values of `branch_fields`, in the order of a unit's records.
      varying: settings in which records of a file that parts are added to may differ from those of the parts.
      made_with: what records of a branch depend on beside that, by what an error calls the branch; JSON. It
        must be alike in all parts.
    """

    program: str
    settings: dict[str, Any]
    made_by: dict[str, Any]
    unit_fields: tuple[str, ...]
    branch_fields: tuple[str, ...]
    units: Sequence[Sequence[Any]]
    branches: Sequence[Sequence[Any]]
    varying: tuple[str, ...] = ()
    made_with: Mapping[str, Any] = field(default_factory=dict)

    def statement(self, shard: Shard, *, whole: bool) -> dict[str, Any]:
        """What the part of a shard says of itself; JSON."""
        made: dict[str, Any] = json.loads(
            json.dumps(
                {
                    "program": self.program,
                    "shard": {"index": shard.index, "count": shard.count},
                    "whole": whole,
                    "input": {"units": len(self.units), "sha256": self._input_sha256()},
                    "settings": self.settings,
                    "varying": self.varying,
                    "made_by": self.made_by,
                    "made_with": dict(self.made_with),
                    "fields": {"unit": self.unit_fields, "branch": self.branch_fields},
                    "branches": self.branches,
                    "units": [self.units[place] for place in shard.places(len(self.units))],
                },
                allow_nan=False,
            )
        )
        return made

    def _input_sha256(self) -> str:
        digest = hashlib.sha256()
        for unit in self.units:
            digest.update(json.dumps(list(unit), allow_nan=False).encode() + b"\n")
        return digest.hexdigest()


@dataclass(frozen=True)
class Part:
    """The part of one shard, while its run writes it.

    Args:
      path: of the records.
      work: that it is a part of.
      shard: which.
      remedy: what can be done where it was begun in another way.
    """

    path: Path
    work: Work
    shard: Shard
    remedy: str = "name another file"

    def begin(self, *, has_records: bool, overwrite: bool) -> None:
        """Say that the part is not whole, before records are added to it.

        Args:
          has_records: whether some are there already.
          overwrite: whatever was there before does not count.

        Raises:
          ValueError: what is there was made in another way, or nothing says how.
        """
        ours = self.work.statement(self.shard, whole=False)
        path = statement_of(self.path)
        if has_records and not overwrite and not path.exists():
            raise ValueError(
                f"{self.path} has records, and {path.name}, which says how they were made, is not beside it; "
                "bring it, name another file, or pass --overwrite"
            )
        if path.exists() and not overwrite:
            theirs = _read(path)
            if theirs == ours | {"whole": True}:
                return
            differing = list(differences(theirs, ours, ("made_by", "input", "settings", "shard", "program")))
            if differing:
                raise ValueError(
                    f"{self.path} was begun in another way: {'; '.join(differing[:5])}; go on as it was "
                    f"begun, {self.remedy}, or pass --overwrite"
                )
        make_folder(path.parent)
        _write(path, ours)

    def end(self) -> None:
        """Say that the part is whole; its file has all records, in their order."""
        path, ours = statement_of(self.path), self.work.statement(self.shard, whole=True)
        if not path.exists() or _read(path) != ours:
            _write(path, ours)


def statement_of(path: Path) -> Path:
    """The file beside a part that says what it is."""
    return path.with_name(f"{path.name}.shard.json")


@dataclass(frozen=True)
class Statement:
    """What a finished part says of itself, checked.

    Args:
      path: of the part.
      said: everything.
      shard: which part it is.
    """

    path: Path
    said: dict[str, Any]
    shard: Shard

    @property
    def total(self) -> int:
        """Units of the whole input."""
        total: int = self.said["input"]["units"]
        return total

    def all_keys(self) -> Iterator[str]:
        """The keys of the part's records, in their order."""
        for unit in self.said["units"]:
            yield from (key_text(unit, branch) for branch in self.said["branches"])

    def key_of(self, record: dict[str, Any], place: str) -> str:
        """The key of a record.

        Raises:
          ValueError: it lacks a field.
        """
        values = []
        for kind in ("unit", "branch"):
            names = self.said["fields"][kind]
            missing = [name for name in names if name not in record]
            if missing:
                raise ValueError(f"{self.path}, {place}: no {missing[0]!r} in it; run its shard again")
            values.append([record[name] for name in names])
        return key_text(*values)

    def name_of(self, key: str) -> str:
        """A key in words: 'prompt_id 3f2a, branch 0'."""
        fields = [*self.said["fields"]["unit"], *self.said["fields"]["branch"]]
        values = [value for part in json.loads(key) for value in part]
        return ", ".join(f"{name} {value}" for name, value in zip(fields, values, strict=True))


def key_text(unit: Sequence[Any], branch: Sequence[Any]) -> str:
    """What tells a record from all others."""
    return json.dumps([list(unit), list(branch)], ensure_ascii=False)


def read_statement(path: Path) -> Statement:
    """What a part says of itself.

    Raises:
      FileNotFoundError, IsADirectoryError: no such part.
      ValueError: it says nothing, or that it is not whole.
    """
    check_file(path, "shard's part")
    own = statement_of(path)
    if not own.exists():
        raise ValueError(
            f"{path}: {own.name} is not beside it, so it is no whole part of a run with --shard; start its "
            "command again, which ends it"
        )
    said = _read(own)
    shard = Shard(said["shard"]["index"], said["shard"]["count"])
    if not said["whole"]:
        raise ValueError(
            f"{path}: shard {shard} has not come to its end; start its command again, which goes on"
        )
    if len(said["units"]) != len(shard.places(said["input"]["units"])):
        raise ValueError(f"{own}: names {len(said['units'])} units, which are not those of shard {shard}")
    return Statement(path, said, shard)


def differences(a: dict[str, Any], b: dict[str, Any], names: Sequence[str]) -> Iterator[str]:
    """What two statements say otherwise, in words: 'made_by: rows 4 (here 8)'."""
    for name in names:
        one, other = a[name], b[name]
        if one == other:
            continue
        if not isinstance(one, dict) or not isinstance(other, dict):
            yield f"{name} {shown_value(one, _MOST)} (here {shown_value(other, _MOST)})"
            continue
        for inner in {**one, **other}:
            if one.get(inner) != other.get(inner):
                theirs, ours = (shown_value(x.get(inner), _MOST) for x in (one, other))
                yield f"{name}: {inner[:60]} {theirs} (here {ours})"


def _write(path: Path, said: dict[str, Any]) -> None:
    write_text(path, json.dumps(said, ensure_ascii=False, allow_nan=False) + "\n")


def _read(path: Path) -> dict[str, Any]:
    """A statement, checked as far as its form goes.

    Raises:
      ValueError: it is none.
    """
    said = parse_object(read_bytes(path, "statement of a shard"), str(path))
    kinds: dict[str, type] = {
        **{"program": str, "shard": dict, "whole": bool, "input": dict, "settings": dict, "varying": list},
        **{"made_by": dict, "made_with": dict, "fields": dict, "branches": list, "units": list},
    }
    is_one = said.keys() == kinds.keys() and all(isinstance(said[name], kind) for name, kind in kinds.items())
    if is_one:
        shard, given, fields = said["shard"], said["input"], said["fields"]
        is_one = (
            shard.keys() == {"index", "count"}
            and all(type(number) is int for number in shard.values())
            and given.keys() == {"units", "sha256"}
            and type(given["units"]) is int
            and isinstance(given["sha256"], str)
            and fields.keys() == {"unit", "branch"}
            and all(_are_texts(names) for names in (said["varying"], *fields.values()))
            and all(_is_key(unit, fields["unit"]) for unit in said["units"])
            and all(_is_key(branch, fields["branch"]) for branch in said["branches"])
        )
    if not is_one:
        raise ValueError(f"{path}: this is no statement of a shard; start the shard's command again")
    return said


def _are_texts(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _is_key(values: Any, names: Sequence[str]) -> bool:
    return (
        isinstance(values, list)
        and len(values) == len(names)
        and all(isinstance(value, str | int) for value in values)
    )
