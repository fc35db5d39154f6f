"""decode.evaluate in shards and rounds: the records and the results of a run without."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decode import evaluate, merge
from decode.evaluate import Args
from sia_jax.runs import runner
from sia_jax.runs.parts import statement_of
from tests.support.evaluated import results_of, timeless
from tests.support.evaluating import evaluation_args, save_models_and_prompts, save_thresholds
from tests.support.marks import long

FIRST = ("base", "base-best-of-2-by-reward", "entropy-0.6")
"""Methods whose gates are known before anything is merged."""
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def args(tmp_path_factory: pytest.TempPathFactory) -> Args:
    """Four methods, one of them a random gate, under one seed: 20 replies."""
    folder = tmp_path_factory.mktemp("models")
    save_models_and_prompts(folder)
    save_thresholds(folder)
    args = evaluation_args(folder)
    methods: Any = ("base", "best-of", "entropy", "random")
    return replace(args, methods=methods, ratios=(0.6,), seeds=1, combined=0, resamples=10_000)


@pytest.fixture(scope="module")
def whole(args: Args) -> Path:
    """What a run without shards has written."""
    evaluate.main(args)
    return Path(args.out)


@pytest.fixture(scope="module")
def halves(args: Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two shards after their first round, merged."""
    out = tmp_path_factory.mktemp("halves")
    merged(out, run_shards(args, out, 2))
    return out


def run_shards(args: Args, out: Path, count: int) -> list[str]:
    for index in range(count):
        evaluate.main(replace(args, out=str(out), shard=f"{index}/{count}"))
    return [str(out / f"replies.{index}-of-{count}.jsonl") for index in range(count)]


def merged(out: Path, parts: list[str]) -> None:
    merge.main(merge.Args(parts=tuple(parts), out=str(out / "replies.jsonl"), add=True))


def read(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("count", [long(1), 2, long(5)])
def test_two_rounds_of_shards_make_the_records_and_results_of_a_run_without(
    count: int, args: Args, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = run_shards(args, tmp_path, count)
    told = " ".join(capsys.readouterr().err.split())
    pattern = tmp_path / f"replies.*-of-{count}.jsonl"
    assert f"when all shards are done: sia merge {pattern} --out {tmp_path / 'replies.jsonl'} --add" in told
    assert "then start the shards again, for random 60% under seed 0: a random gate takes the share" in told
    merged(tmp_path, parts)
    expected = timeless(whole / "replies.jsonl")
    first = timeless(tmp_path / "replies.jsonl")
    assert first == {key: line for key, line in expected.items() if key[0] in FIRST}
    before = (tmp_path / "replies.jsonl").read_bytes()
    for path in map(Path, parts[: count // 2]):  # some parts grow, and some are made anew
        path.unlink()
        statement_of(path).unlink()
    capsys.readouterr()
    run_shards(args, tmp_path, count)
    told = " ".join(capsys.readouterr().err.split())
    assert "then the same command without --shard finds all replies, and writes the results" in told
    assert (tmp_path / "replies.jsonl").read_bytes() == before
    merged(tmp_path, parts)
    assert (tmp_path / "replies.jsonl").read_bytes().startswith(before)
    assert timeless(tmp_path / "replies.jsonl") == expected
    assert not (tmp_path / "results.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "load_models", _fail)
        evaluate.main(replace(args, out=str(tmp_path)))
    assert results_of(tmp_path) == results_of(whole)


def _fail(args: object) -> None:
    raise AssertionError("the models were loaded")


def test_a_run_without_shards_does_the_rest_by_itself(
    args: Args, whole: Path, halves: Path, tmp_path: Path
) -> None:
    shutil.copy(halves / "replies.jsonl", tmp_path)
    evaluate.main(replace(args, out=str(tmp_path)))
    assert timeless(tmp_path / "replies.jsonl") == timeless(whole / "replies.jsonl")


def test_a_part_that_lost_its_last_reply_is_told_and_made_whole_again(
    args: Args, halves: Path, tmp_path: Path
) -> None:
    """By the shard's own command, which makes the one reply."""
    parts = [tmp_path / f"replies.{index}-of-2.jsonl" for index in range(2)]
    for part in parts:
        shutil.copy(halves / part.name, tmp_path)
        shutil.copy(statement_of(halves / part.name), tmp_path)
    lines = read(parts[1])
    parts[1].write_bytes(b"".join(parts[1].read_bytes().splitlines(keepends=True)[:-1]))
    last = lines[-1]
    missing = f"index {last['index']}, id {last['id']}, method {last['method']}, seed 0 (shard 1/2"
    with pytest.raises(SystemExit, match="nothing was written: 1 record is missing: ") as refused:
        merged(tmp_path, [str(part) for part in parts])
    assert missing in str(refused.value)
    evaluate.main(replace(args, out=str(tmp_path), shard="1/2"))
    merged(tmp_path, [str(part) for part in parts])
    assert timeless(tmp_path / "replies.jsonl") == timeless(halves / "replies.jsonl")


def copied(halves: Path, folder: Path) -> Path:
    """The folder after the first round, without the merged file."""
    shutil.copytree(halves, folder)
    (folder / "replies.jsonl").unlink()
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 2}, r"begun in another way: made_by: rows 4 \(here 2\); .*remove it if it is merged"),
        ({"beta": 2.0}, r"line 1: it was written with other settings: beta 1.0 \(now 2.0\).*--overwrite"),
        ({"official": "official"}, "9 replies have no ids, for they were made without --official"),
        ({"page": "page.md"}, "--page is for the results, which no shard writes"),
        ({"resamples": 100}, "--resamples is for the results, which no shard writes"),
        ({"shard": "2/2"}, "i counts from 0, so it must lie in 0 .. 1, got 2"),
        ({"shard": "half"}, "--shard must be i/n"),
    ],
)
def test_a_shard_refuses_before_anything_is_loaded(
    args: Args, halves: Path, tmp_path: Path, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    out = copied(halves, tmp_path / "out")
    if "official" in changes:
        changes = {"official": str(tmp_path / "official")}
    own = {"out": str(out), "shard": "0/2"}
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(SystemExit, match=message):
        evaluate.main(replace(args, **own | changes))
    assert {path: path.read_bytes() for path in out.iterdir()} == before
