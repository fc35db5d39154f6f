"""train.label and train.prepare --generate in shards: merged, their journals end in the same bytes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import sia_jax
from decode import merge
from sia_jax.data.row_files import json_line, read_rows
from sia_jax.runs.shards import Shard
from tests.support.generating import N, files, save_policies_and_prompts, vary
from tests.support.generating import usual_args as sampling_args
from tests.support.labelling import partial_of, report_of
from train import label, prepare
from train.generation import PARTIAL
from train.label import Args


def merged(journal: Path, count: int) -> None:
    parts = [str(Shard(index, count).part_of(journal)) for index in range(count)]
    merge.main(merge.Args(parts=tuple(parts), out=str(journal)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_merged_labels_end_in_the_file_of_a_run_of_all(
    count: int, args: Args, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labelled.jsonl"
    for index in range(count):
        label.main(replace(args, out=str(out), shard=f"{index}/{count}"))
    assert not out.exists()
    merged(partial_of(out), count)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sia_jax, "load_reward_model", None)  # which nobody calls
        label.main(replace(args, out=str(out)))
    assert "going on after 14 of 14 conversations" in capsys.readouterr().err
    assert out.read_bytes() == finished.read_bytes()
    assert report_of(out) == report_of(finished)


def test_parquet_is_labelled_as_jsonl_is(args: Args, finished: Path, tmp_path: Path) -> None:
    rows = [row for _, row in read_rows(finished)]
    bare = [{name: value for name, value in row.items() if name != "reward"} for row in rows]
    source, out = tmp_path / "input.jsonl", tmp_path / "labelled.parquet"
    source.write_bytes(b"".join(map(json_line, bare)))
    label.main(replace(args, input=str(source), out=str(out)))
    assert [row for _, row in read_rows(out)] == rows
    assert pq.read_schema(out).field("reward").type == "double"
    again = tmp_path / "again.jsonl"
    label.main(replace(args, input=str(out), out=str(again), relabel=True))
    assert [row for _, row in read_rows(again)] == rows
    with pytest.raises(SystemExit, match=r"labelled.parquet, row 1: it has a reward"):
        label.main(replace(args, input=str(out), out=str(tmp_path / "third.jsonl")))


@pytest.fixture(scope="module")
def sampling(tmp_path_factory: pytest.TempPathFactory) -> prepare.Args:
    folder = tmp_path_factory.mktemp("policies")
    save_policies_and_prompts(folder)
    return sampling_args(folder)


@pytest.fixture(scope="module")
def sampled(sampling: prepare.Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sampled") / "set"
    prepare.main(vary(sampling, out))
    return out


@pytest.mark.parametrize("count", [1, 2, 5])
def test_merged_samples_end_in_the_set_of_a_run_of_all(
    count: int, sampling: prepare.Args, sampled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    for index in range(count):
        prepare.main(vary(sampling, out, shard=f"{index}/{count}"))
    merged(out / PARTIAL, count)
    capsys.readouterr()
    prepare.main(vary(sampling, out))
    assert f"going on after {5 * N} of {5 * N} replies" in " ".join(capsys.readouterr().err.split())
    left = {name: content for name, content in files(out).items() if not name.startswith("replies.partial")}
    assert left == files(sampled)


def test_a_shard_writes_no_set_and_no_export(sampling: prepare.Args, tmp_path: Path) -> None:
    changes: dict[str, Any]
    for changes, message in (
        ({"export_official": str(tmp_path / "o.json")}, "--export-official is for a whole set"),
        ({"generate": None, "policy": None, "shard": "0/2"}, "is for --generate N"),
    ):
        with pytest.raises(SystemExit, match=message):
            prepare.main(vary(sampling, tmp_path / "set", **{"shard": "0/2"} | changes))
    assert not (tmp_path / "set").exists()
