"""Rows of JSON in Parquet and back, with nothing lost: Python's json writes the same text of both.

A column has the type that all its values have: truth, int64, float64, text, lists and structs of these. A
column of values that no such type holds alike (an integer beside a float, objects with other fields, integers
beyond int64) is the JSON text of each. Which columns these are, and in which a null means that the row lacks
the field, the file's schema says under the key "sia_jax".
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sia_jax.extras import installed_with
from sia_jax.files.strict_json import parse_json
from sia_jax.files.writing import replacing

SUFFIXES = (".parquet", ".pq")
_KEY = b"sia_jax"
_GROUP = 1000
"""Rows of a group."""
_MIXED = "json"

Kind = Any
"""None: of nulls alone; "bool", "int", "float", "text", "json"; ("list", kind);
("struct", ((name, kind), ...))."""


@dataclass(frozen=True)
class Written:
    """What the schema of a file says of its columns.

    Args:
      json: names of those that are JSON text; null where the row lacks the field.
      absent: of others, in which null means the same.
    """

    json: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def restored(self, fields: Mapping[str, Any], place: str) -> dict[str, Any]:
        """A row as it was.

        Args:
          fields: of the row as Parquet has it.
          place: what errors call it.

        Raises:
          ValueError: a text that is no JSON.
        """
        row = dict(fields)
        for name in self.json:
            if name not in row:
                continue  # a column that was not asked for
            text = row[name]
            if text is None:
                del row[name]
            elif isinstance(text, str):
                row[name] = parse_json(text.encode(), f"{place}, column {name[:60]}")
            else:
                raise ValueError(f"{place}: column {name[:60]!r} should be JSON, and is no text")
        for name in self.absent:
            if name in row and row[name] is None:
                del row[name]
        return row


def written_of(metadata: Mapping[bytes, bytes] | None, name: str) -> Written:
    """What the metadata of a schema says; of a file that others wrote, nothing.

    Args:
      metadata: of `pyarrow.Schema`.
      name: of the file, which errors begin with.

    Raises:
      ValueError: it says something else than this module writes.
    """
    said = (metadata or {}).get(_KEY)
    if said is None:
        return Written()
    value = parse_json(said, f"{name}, what its schema says under sia_jax")
    if isinstance(value, dict) and value.keys() == {"json", "absent"}:
        lists = [value["json"], value["absent"]]
        if all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in lists):
            return Written(*map(tuple, lists))
    raise ValueError(f"{name}: what its schema says under sia_jax is not understood; write the file again")


def write_parquet(path: Path, rows: Callable[[], Iterable[dict[str, Any]]]) -> None:
    """Write a file of rows, whole or not at all; one group of them is in memory at a time.

    Args:
      path: replaced if it is there.
      rows: called twice, gives the same rows: fields of JSON. Columns stand in the order in which they come
        first.

    Raises:
      ValueError: a value that JSON has not, or rows that have no field at all.
      WriteError: it cannot be written; what was there is as it was.
    """
    with installed_with("train"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    columns = _columns(rows())
    of_json = [name for name, column in columns.items() if column.is_json]
    absent = [name for name, column in columns.items() if column.is_absent and not column.is_json]
    said = json.dumps({"json": of_json, "absent": absent}, ensure_ascii=False)
    types = [(name, _arrow(None if c.is_json else c.kind, pa)) for name, c in columns.items()]
    schema = pa.schema(types, metadata={_KEY: said.encode()})
    with replacing(path) as new, pq.ParquetWriter(new, schema, compression="zstd") as writer:
        whole = iter(rows())
        while group := list(islice(whole, _GROUP)):
            made = [_cells(group, name, columns[name].is_json) for name in columns]
            arrays = [pa.array(cells, kind) for cells, (_, kind) in zip(made, types, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=_GROUP)


@dataclass
class _Column:
    kind: Kind = None
    rows: int = 0
    has_null: bool = False
    is_absent: bool = field(default=False)

    @property
    def is_json(self) -> bool:
        return self.kind == _MIXED or (self.has_null and self.is_absent)


def _columns(rows: Iterable[dict[str, Any]]) -> dict[str, _Column]:
    columns: dict[str, _Column] = {}
    total = 0
    for row in rows:
        total += 1
        for name, value in row.items():
            column = columns.setdefault(name, _Column())
            column.rows += 1
            column.has_null |= value is None
            column.kind = _merged(column.kind, _kind(value))
    if total and not columns:
        raise ValueError("rows without a field cannot be written as Parquet; write JSONL")
    for column in columns.values():
        column.is_absent = column.rows < total
    return columns


def _kind(value: Any) -> Kind:
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else _MIXED
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no number of JSON")
        return "float"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        inner: Kind = None
        for one in value:
            inner = _merged(inner, _kind(one))
        return _MIXED if inner == _MIXED else ("list", inner)
    if isinstance(value, dict):
        fields = tuple((name, _kind(one)) for name, one in value.items())
        return ("struct", fields) if fields and all(k != _MIXED for _, k in fields) else _MIXED
    raise ValueError(f"JSON has no {type(value).__name__}")


def _merged(a: Kind, b: Kind) -> Kind:
    """The kind of values of both kinds."""
    if a == b or b is None:
        return a
    if a is None:
        return b
    if isinstance(a, str) or isinstance(b, str) or a[0] != b[0]:
        return _MIXED
    if a[0] == "list":
        inner = _merged(a[1], b[1])
        return _MIXED if inner == _MIXED else ("list", inner)
    if [name for name, _ in a[1]] != [name for name, _ in b[1]]:
        return _MIXED
    fields = tuple((name, _merged(x, y)) for (name, x), (_, y) in zip(a[1], b[1], strict=True))
    return _MIXED if any(kind == _MIXED for _, kind in fields) else ("struct", fields)


def _arrow(kind: Kind, pa: Any) -> Any:
    """The type of pyarrow; of nulls alone, and of JSON, text."""
    if kind is None or isinstance(kind, str):
        plain = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
        return plain.get(kind or "text", pa.string())
    if kind[0] == "list":
        return pa.list_(_arrow(kind[1], pa))
    return pa.struct([(name, _arrow(inner, pa)) for name, inner in kind[1]])


def _cells(rows: Iterable[dict[str, Any]], name: str, is_json: bool) -> Iterator[Any]:
    if not is_json:
        return iter([row.get(name) for row in rows])
    return iter(
        [json.dumps(row[name], ensure_ascii=False, allow_nan=False) if name in row else None for row in rows]
    )
