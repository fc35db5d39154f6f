"""decode.generate in shards and in any order: the same replies; and as Parquet."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decode import generate, merge
from decode.generate import Args
from sia_jax.data.row_files import json_line, read_rows
from sia_jax.runs.parts import statement_of
from sia_jax.runs.shards import Shard
from tests.support.marks import long
from tests.support.replying import PROMPTS, after, generation_args, save_models

ROWS: list[dict[str, Any]] = [
    *({"prompt": prompt} for prompt in PROMPTS[:3]),
    {"prompt": PROMPTS[0]},
    {"prompt": PROMPTS[0], "id": "named"},
    {"prompt": PROMPTS[3], "seed": 7, "threshold": "inf"},
    {"prompt": PROMPTS[0], "id": "other name"},
]


@pytest.fixture(scope="module")
def args(tmp_path_factory: pytest.TempPathFactory) -> Args:
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return replace(generation_args(folder), prompts=write(folder / "prompts.jsonl", ROWS), samples=2, batch=4)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_bytes(b"".join(map(json_line, rows)))
    return str(path)


@pytest.fixture(scope="module")
def finished(args: Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of all prompts has written."""
    path = tmp_path_factory.mktemp("finished") / "replies.jsonl"
    generate.main(replace(args, output=str(path)))
    return path


def run_shards(args: Args, out: Path, count: int) -> list[str]:
    for index in range(count):
        generate.main(replace(args, output=str(out), shard=f"{index}/{count}"))
    return [str(Shard(index, count).part_of(out)) for index in range(count)]


def by_name(path: Path) -> dict[Any, list[Any]]:
    """What was replied, by the row's id and seed and the number of its repetition among equal rows."""
    found: dict[Any, list[Any]] = {}
    for _, record in read_rows(path):
        name = (
            record["id"] if isinstance(record["id"], str) else (json.dumps(record["prompt"]), record["seed"])
        )
        found.setdefault(name, []).append((record["branch"], record["tokens"], record["prompt_id"]))
    return {name: sorted(values) for name, values in found.items()}


@pytest.mark.parametrize("count", [long(1), 2, long(5)])
def test_merged_parts_are_the_file_of_a_run_of_all_prompts(
    count: int, args: Args, finished: Path, tmp_path: Path
) -> None:
    parts = run_shards(args, tmp_path / "replies.jsonl", count)
    merge.main(merge.Args(parts=tuple(parts), out=str(tmp_path / "replies.jsonl")))
    assert (tmp_path / "replies.jsonl").read_bytes() == finished.read_bytes()


def test_the_order_of_the_rows_changes_no_reply_and_every_row_draws_by_itself(
    args: Args, finished: Path, tmp_path: Path
) -> None:
    turned = replace(args, prompts=write(tmp_path / "prompts.jsonl", ROWS[::-1]), batch=2)
    generate.main(replace(turned, output=str(tmp_path / "replies.jsonl")))
    assert by_name(tmp_path / "replies.jsonl") == by_name(finished)
    records = [record for _, record in read_rows(finished)]
    assert [(r["index"], r["branch"]) for r in records] == [(i, j) for i in range(7) for j in range(2)]
    assert len({(r["prompt_id"], r["branch"]) for r in records}) == 14
    assert len({tuple(r["tokens"]) for r in records}) == 14


def test_parquet_holds_the_same_records_and_parts_of_it_merge(
    args: Args, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole.parquet"
    with pytest.MonkeyPatch.context() as patch:
        after(patch, 3)
        with pytest.raises(SystemExit):
            generate.main(replace(args, output=str(whole)))
    assert not whole.exists()
    generate.main(replace(args, output=str(whole)))
    assert "going on after 6 of 14" in capsys.readouterr().err
    assert b"".join(json_line(row) for _, row in read_rows(whole)) == finished.read_bytes()
    before = whole.read_bytes()
    generate.main(replace(args, output=str(whole)))
    assert "all 14 replies are there already" in " ".join(capsys.readouterr().err.split())
    assert (whole.read_bytes(), [path.name for path in tmp_path.iterdir()]) == (before, [whole.name])
    longer = write(tmp_path / "prompts.jsonl", [*ROWS, {"prompt": PROMPTS[4]}])
    with pytest.raises(SystemExit, match="a finished file of 14 replies, and Parquet does not grow"):
        generate.main(replace(args, output=str(whole), prompts=longer))
    parts = run_shards(args, tmp_path / "replies.parquet", 2)
    merge.main(merge.Args(parts=tuple(parts), out=str(tmp_path / "replies.parquet")))
    assert (tmp_path / "replies.parquet").read_bytes() == before
    merge.main(merge.Args(parts=tuple(parts), out=str(tmp_path / "replies.jsonl")))
    assert (tmp_path / "replies.jsonl").read_bytes() == finished.read_bytes()


def test_a_shard_that_is_stopped_is_no_part_until_it_has_gone_on(args: Args, tmp_path: Path) -> None:
    shard = replace(args, output=str(tmp_path / "replies.jsonl"), shard="0/1")
    part = str(tmp_path / "replies.0-of-1.jsonl")
    merging = merge.Args(parts=(part,), out=str(tmp_path / "merged.jsonl"))
    with pytest.MonkeyPatch.context() as patch:
        after(patch, 2)
        with pytest.raises(SystemExit):
            generate.main(shard)
    with pytest.raises(SystemExit, match="shard 0/1 has not come to its end; start its command again"):
        merge.main(merging)
    with pytest.raises(SystemExit, match=r"begun in another way: made_by: rows 4 \(here 2\)"):
        generate.main(replace(shard, batch=2))
    generate.main(shard)
    assert json.loads(statement_of(Path(part)).read_text())["whole"] is True
    merge.main(merging)


def test_a_shard_without_rows_is_a_part_too(args: Args, tmp_path: Path, no_loading: None) -> None:
    generate.main(replace(args, output=str(tmp_path / "replies.jsonl"), shard="8/9"))
    assert (tmp_path / "replies.8-of-9.jsonl").read_bytes() == b""
    assert json.loads(statement_of(tmp_path / "replies.8-of-9.jsonl").read_text())["units"] == []


def test_a_shard_needs_a_file_and_a_name_that_is_one(args: Args, tmp_path: Path, no_loading: None) -> None:
    with pytest.raises(SystemExit, match="--shard needs a file"):
        generate.main(replace(args, shard="0/2"))
    with pytest.raises(SystemExit, match=r"i counts from 0, so it must lie in 0 .. 1, got 2"):
        generate.main(replace(args, output=str(tmp_path / "replies.jsonl"), shard="2/2"))
    assert list(tmp_path.iterdir()) == []
