"""Files of rows are read within bounds of memory, whatever they are compressed to."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sia_jax.data.prompts import parse_prompts, read_prompts
from sia_jax.data.tables import Table
from tests.support.sources import read

MIB = 2**20


def repeated(path: Path, text: str, rows: int) -> Path:
    """A Parquet file of one text in all its rows, which stands in it once."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    pq.write_table(pa.table({"prompt": column, "response": column}), path, store_schema=False)
    return path


def test_rows_of_parquet_are_unpacked_as_memory_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sia_jax.data.tables._BATCH_BYTES", 8 * MIB)
    path = repeated(tmp_path / "a.parquet", "a" * MIB, 200)
    assert path.stat().st_size < MIB
    before = pa.total_allocated_bytes()
    with path.open("rb") as file:
        rows = iter(Table(file, "a.parquet", only_rows=True))
        assert next(rows).fields["prompt"] == "a" * MIB
        assert pa.total_allocated_bytes() - before < 40 * MIB
        assert sum(1 for _ in rows) == 199


def test_what_prompts_unpack_to_is_bounded_in_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sia_jax.data.tables.MAX_BYTES", 100_000)
    lines = (json.dumps({"prompt": "a" * 1000, "response": "b"}) + "\n").encode() * 200
    repeated(tmp_path / "a.parquet", "a" * 1000, 200)
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"prompt,response\n" + b"a,b\n" * 50_000))
    (tmp_path / "a.txt").write_bytes(b"a?\n" * 50_000)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=rf"{path.name}: more than 100,000 bytes are not read; split it"):
            read_prompts(path)
        with pytest.raises(ValueError, match=rf"^{path.name}: more than 100,000 bytes"):
            parse_prompts(path.read_bytes(), path.name)
    # Raw data is read row by row, and is not kept.
    for name in ("a.parquet", "a.jsonl", "a.jsonl.gz"):
        assert len(read("jsonl", tmp_path / name)) == 200
