"""Rows of JSON in Parquet: nothing lost, and nothing read that others did not write."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia_jax.data.parquet_rows import write_parquet
from sia_jax.data.row_files import read_rows

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5)
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2)
)


def written(rows: list[dict[str, Any]], path: Path) -> list[str]:
    """The text of rows that went through a file."""
    write_parquet(path, lambda: iter(rows))
    return [json.dumps(row, sort_keys=True) for _, row in read_rows(path)]


@settings(max_examples=60)
@given(rows=st.lists(st.dictionaries(st.sampled_from(["a", "b", "é", "index"]), VALUES), max_size=4))
def test_rows_come_back_with_the_same_text(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    if rows and not any(rows):
        with pytest.raises(ValueError, match="rows without a field"):
            written(rows, path)
        return
    assert written(rows, path) == [json.dumps(row, sort_keys=True) for row in rows]


def test_values_that_are_alike_are_columns_of_their_type_and_others_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows: list[dict[str, Any]] = [
        {"tokens": [1, 2], "entropy": [0.5, None], "turns": [{"role": "user"}], "id": 1, "seed": None},
        {"tokens": [], "entropy": [], "turns": [{"role": "user"}], "id": "x", "value": 0.5},
    ]
    written(rows, path)
    schema = pq.read_schema(path)
    assert schema.field("tokens").type == pa.list_(pa.int64())
    assert schema.field("entropy").type == pa.list_(pa.float64())
    assert schema.field("turns").type == pa.list_(pa.struct([("role", pa.string())]))
    assert schema.field("value").type == pa.float64()
    assert json.loads(schema.metadata[b"sia_jax"]) == {"json": ["id", "seed"], "absent": ["value"]}
    assert pq.read_table(path).column("id").to_pylist() == ["1", '"x"']


def test_more_rows_than_a_group_come_back_in_their_order(tmp_path: Path) -> None:
    rows = [{"number": n} for n in range(2500)]
    assert written(rows, tmp_path / "rows.parquet") == [json.dumps(row) for row in rows]
    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_json_has_not_is_refused_and_the_old_file_stays(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_text("mine")
    with pytest.raises(ValueError, match="JSON"):
        write_parquet(path, lambda: iter([{"a": 1.5}, {"a": value}]))
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("said", "cells", "message"),
    [
        ('{"json": ["a"], "absent": []}', ["{"], r"row 1, column a"),
        ('{"json": ["a"], "absent": []}', [1], r"row 1: column 'a' should be JSON, and is no text"),
        ('{"json": "a", "absent": []}', ["1"], r"what its schema says under sia_jax is not understood"),
        ("[", ["1"], r"what its schema says under sia_jax"),
    ],
)
def test_what_a_schema_says_is_checked(said: str, cells: list[Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"a": cells}).replace_schema_metadata({"sia_jax": said})
    pq.write_table(table, path)
    with pytest.raises(ValueError, match=rf"rows.parquet.*{message}"):
        list(read_rows(path))


def test_a_file_that_was_cut_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    written([{"a": n} for n in range(100)], path)
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 10):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"rows\.parquet"):
            list(read_rows(path))
