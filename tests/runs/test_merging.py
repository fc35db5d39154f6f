"""Parts of shards into one file, or behind one: the same bytes, or a refusal that names each record."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decode import merge as program
from sia_jax.data.row_files import json_line, read_rows, write_rows
from sia_jax.runs.journal import Journal
from sia_jax.runs.merging import Merged, merge
from sia_jax.runs.parts import Part, Work, statement_of
from sia_jax.runs.shards import Shard

SETTINGS = {"seed": 0, "stop": [], "threshold": "inf"}
WORK = Work(
    "decode.generate",
    SETTINGS,
    {"rows": 4},
    ("prompt_id",),
    ("branch", "method"),
    [(f"p{place}",) for place in range(7)],
    [(branch, "base") for branch in range(2)],
)
Rows = list[dict[str, Any]]


def record(place: int, branch: int) -> dict[str, Any]:
    fields = {"prompt_id": f"p{place}", "index": place, "branch": branch, "method": "base"}
    return fields | {"text": f"卵 {place}.{branch}", "entropy": [place / 3, None], "settings": SETTINGS}


def whole() -> Rows:
    return [record(place, branch) for place in range(7) for branch in range(2)]


def make_part(
    folder: Path,
    shard: Shard,
    *,
    suffix: str = ".jsonl",
    change: Callable[[Rows], None] = lambda rows: None,
    work: Work = WORK,
) -> Path:
    """A part as a run leaves it, or with other records in it."""
    path = shard.part_of(folder / f"replies{suffix}")
    part = Part(path, work, shard)
    part.begin(has_records=False, overwrite=True)
    rows = [one | {"settings": work.settings} for one in whole() if shard.owns(one["index"])]
    change(rows)
    write_rows(path, lambda: rows)
    part.end()
    return path


def parts(folder: Path, count: int, **options: Any) -> list[Path]:
    return [make_part(folder, Shard(index, count), **options) for index in range(count)]


def refused(paths: list[Path], out: Path) -> str:
    """The message of a merge that writes nothing."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(ValueError) as error:  # noqa: PT011
        merge(paths, out)
    assert sorted(out.parent.iterdir()) == before
    return str(error.value)


@pytest.mark.parametrize("count", [1, 2, 5, 7, 9])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_any_number_of_parts_of_either_form_make_the_same_bytes(
    count: int, suffix: str, tmp_path: Path
) -> None:
    paths = parts(tmp_path, count, suffix=suffix)
    expected = b"".join(map(json_line, whole()))
    assert merge(paths[::-1], tmp_path / "out.jsonl") == Merged(count, 7, 14)
    assert (tmp_path / "out.jsonl").read_bytes() == expected
    merge(paths, tmp_path / "out.parquet")
    write_rows(tmp_path / "other.parquet", whole)
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()
    assert [row for _, row in read_rows(tmp_path / "out.parquet")] == whole()


def test_what_is_missing_is_named_with_the_shard_that_should_hold_it(tmp_path: Path) -> None:
    first, second, _ = parts(tmp_path, 3)
    lacking = make_part(tmp_path, Shard(0, 3), change=lambda rows: rows.pop(3))
    assert lacking == first
    assert refused([first, second], tmp_path / "out.jsonl") == (
        "nothing was written: 5 records are missing: prompt_id p3, branch 1, method base (shard 0/3, "
        f"{first}); all of shard 2/3, rows 2, 5 of the input, from 0"
    )


def test_of_many_that_are_missing_the_first_are_named_and_all_counted(tmp_path: Path) -> None:
    paths = parts(tmp_path, 1, change=lambda rows: rows.clear())
    message = refused(paths, tmp_path / "out.jsonl")
    assert "14 records are missing: prompt_id p0, branch 0, method base" in message
    assert message.count("prompt_id") == 5
    assert message.endswith("; ...")


def test_what_is_there_twice_is_named_in_one_part_or_two(tmp_path: Path) -> None:
    paths = parts(tmp_path, 2)
    make_part(tmp_path, Shard(1, 2), change=lambda rows: rows.append(rows[2]))
    assert refused(paths, tmp_path / "out.jsonl") == (
        "nothing was written: 1 record is there twice: prompt_id p3, branch 0, method base "
        f"({paths[1]}, line 3 and {paths[1]}, line 7)"
    )
    make_part(tmp_path, Shard(1, 2))
    again = make_part(tmp_path, Shard(0, 2), suffix=".parquet")
    message = refused([*paths, again], tmp_path / "out.jsonl")
    assert "8 records are there twice: prompt_id p0, branch 0, method base" in message
    assert f"({paths[0]}, line 1 and {again}, row 1)" in message


def test_what_differs_is_named(tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        rows.append(rows[1] | {"entropy": [0.1, None]})

    paths = parts(tmp_path, 2)
    make_part(tmp_path, Shard(0, 2), change=change)
    assert refused(paths, tmp_path / "out.jsonl") == (
        "nothing was written: 1 record is there twice and differ: prompt_id p0, branch 1, method base "
        f"({paths[0]}, line 2 and {paths[0]}, line 9)"
    )


def test_a_record_of_another_shard_or_of_none_is_named(tmp_path: Path) -> None:
    paths = parts(tmp_path, 2)
    make_part(tmp_path, Shard(0, 2), change=lambda rows: rows.append(record(0, 0) | {"prompt_id": "p9"}))
    message = refused(paths, tmp_path / "out.jsonl")
    assert "1 record is none of their shard's: prompt_id p9, branch 0, method base" in message


def test_an_empty_shard_is_missed_and_not_taken_twice(tmp_path: Path) -> None:
    paths = parts(tmp_path, 8)
    assert "all of shard 7/8, which has none" in refused(paths[:-1], tmp_path / "out.jsonl")
    again = make_part(tmp_path, Shard(7, 8), suffix=".parquet")
    assert f"{again}: shard 7/8 is given twice" in refused([*paths, again], tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(WORK, settings=SETTINGS | {"seed": 1}), "settings: seed 1 (here 0)"),
        (replace(WORK, made_by={"rows": 8}), "made_by: rows 8 (here 4)"),
        (replace(WORK, program="train.label"), "program 'train.label' (here 'decode.generate')"),
        (replace(WORK, units=[(f"q{place}",) for place in range(7)]), "input: sha256"),
        (replace(WORK, branches=[(0, "base")]), "branches [[0, 'base']] (here"),
        (replace(WORK, made_with={"0, base": {"rate": 0.5}}), "made_with: 0, base {'rate': 0.5} (here None)"),
        (replace(WORK, varying=("seed",)), "varying ['seed'] (here [])"),
    ],
)
def test_parts_of_other_work_are_refused_by_what_differs(other: Work, message: str, tmp_path: Path) -> None:
    paths = [make_part(tmp_path, Shard(0, 2)), make_part(tmp_path, Shard(1, 2), work=other)]
    told = refused(paths, tmp_path / "out.jsonl")
    assert f"{paths[1]} is no part of the same work as {paths[0]}: " in told
    assert message in told


def test_parts_of_other_divisions_are_refused(tmp_path: Path) -> None:
    paths = [make_part(tmp_path, Shard(0, 2)), make_part(tmp_path, Shard(1, 3))]
    assert "is shard 0/2 and" in refused(paths, tmp_path / "out.jsonl")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_part_that_was_cut_is_none(suffix: str, tmp_path: Path) -> None:
    paths = parts(tmp_path, 2, suffix=suffix)
    whole = paths[1].read_bytes()
    for size in range(0, len(whole), 97):
        paths[1].write_bytes(whole[:size])
        assert refused(paths, tmp_path / "out.jsonl")


def test_a_part_whose_run_has_not_ended_is_none(tmp_path: Path) -> None:
    paths = parts(tmp_path, 2)
    said = statement_of(paths[1]).read_text()
    statement_of(paths[1]).write_text(json.dumps(json.loads(said) | {"whole": False}))
    assert "shard 1/2 has not come to its end; start its command again" in refused(paths, tmp_path / "o")
    statement_of(paths[1]).unlink()
    assert "is not beside it, so it is no whole part" in refused(paths, tmp_path / "o")
    others = (said.replace('"p1"', "[]"), said.replace('"count"', '"n"'))
    others = (*others, said.replace('"varying": []', '"varying": [0]'))
    for bad in (said[:50], "[]", '{"whole": true}', *others):
        statement_of(paths[1]).write_text(bad)
        assert str(statement_of(paths[1])) in refused(paths, tmp_path / "o")


def test_a_part_in_another_order_is_refused(tmp_path: Path) -> None:
    paths = parts(tmp_path, 2, change=lambda rows: rows.reverse())
    assert "not in the order of the input" in refused(paths, tmp_path / "out.jsonl")


def test_a_record_of_other_settings_than_its_part_says_is_refused(tmp_path: Path) -> None:
    def change(rows: Rows) -> None:
        rows[0] = rows[0] | {"settings": {}}

    paths = parts(tmp_path, 1, change=change)
    assert "line 1: it was written with other settings" in refused(paths, tmp_path / "out.jsonl")


def test_a_part_that_goes_on_in_another_way_is_refused(tmp_path: Path) -> None:
    path, shard = tmp_path / "part.jsonl", Shard(0, 2)
    Part(path, WORK, shard).begin(has_records=False, overwrite=False)
    Part(path, WORK, shard).begin(has_records=True, overwrite=False)
    other = Part(path, replace(WORK, made_by={"rows": 8}), shard)
    with pytest.raises(ValueError, match=r"begun in another way: made_by: rows 4 \(here 8\); .*--overwrite"):
        other.begin(has_records=True, overwrite=False)
    other.begin(has_records=True, overwrite=True)
    statement_of(path).unlink()
    with pytest.raises(ValueError, match=r"part.jsonl has records, and part.jsonl.shard.json, .* not beside"):
        other.begin(has_records=True, overwrite=False)


def test_the_program_writes_over_nothing_and_says_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = tuple(map(str, parts(tmp_path, 2)))
    out = tmp_path / "new" / "out.jsonl"
    program.main(program.Args(parts=paths, out=str(out)))
    said = " ".join(capsys.readouterr().err.split())
    assert "14 records of 7 rows of the input, from 2 shards" in said
    with pytest.raises(SystemExit, match=r"is there already; name another file, .* --add .* --overwrite"):
        program.main(program.Args(parts=paths, out=str(out)))
    program.main(program.Args(parts=paths, out=str(out), overwrite=True))
    with pytest.raises(SystemExit, match="are both"):
        program.main(program.Args(parts=paths, out=paths[0], overwrite=True))
    with pytest.raises(SystemExit, match="name the parts of all shards"):
        program.main(program.Args(parts=(), out=str(out)))


def write_out(folder: Path, rows: Rows, end: bytes = b"") -> Path:
    """A file that parts are added to."""
    out = folder / "out.jsonl"
    out.write_bytes(b"".join(map(json_line, rows)) + end)
    return out


def refused_to_add(paths: list[Path], out: Path) -> str:
    """The message of a merge that adds nothing."""
    before = out.read_bytes()
    with pytest.raises(ValueError) as error:  # noqa: PT011
        merge(paths, out, add=True)
    assert out.read_bytes() == before
    return str(error.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_a_file_lacks_of_the_parts_comes_behind_what_it_has(suffix: str, tmp_path: Path) -> None:
    """Some of it by another branch, of a row that has nothing else, and of one that is whole; once."""
    before = [
        record(5, 1),
        record(0, 1) | {"method": "other"},
        record(0, 0),
        *(record(3, branch) for branch in range(2)),
    ]
    out, held = write_out(tmp_path, before), {(5, 1), (0, 0), (3, 0), (3, 1)}
    behind = [one for one in whole() if (one["index"], one["branch"]) not in held]
    paths = parts(tmp_path, 3, suffix=suffix)
    assert merge(paths, out, add=True) == Merged(3, 7, 10, 4)
    assert out.read_bytes() == b"".join(map(json_line, [*before, *behind]))
    assert merge(paths, out, add=True) == Merged(3, 7, 0, 14)
    assert out.read_bytes() == b"".join(map(json_line, [*before, *behind]))


def test_parts_have_no_more_than_what_the_file_lacks_or_all(tmp_path: Path) -> None:
    before = [record(place, 0) for place in range(7)]
    out = write_out(tmp_path, before, b'{"prompt_id": "p0", "bra')
    paths = parts(tmp_path, 2, change=lambda rows: rows.__delitem__(slice(0, None, 2)))
    assert "7 records are missing: prompt_id p0, branch 0" in refused(paths, tmp_path / "new.jsonl")
    assert merge(paths, out, add=True) == Merged(2, 7, 7, 7)
    behind = [record(place, 1) for place in range(7)]
    assert out.read_bytes() == b"".join(map(json_line, [*before, *behind]))


def test_adding_to_no_file_writes_what_a_merge_writes(tmp_path: Path) -> None:
    assert merge(parts(tmp_path, 2), tmp_path / "out.jsonl", add=True) == Merged(2, 7, 14)
    assert (tmp_path / "out.jsonl").read_bytes() == b"".join(map(json_line, whole()))


def test_nothing_is_added_where_a_record_differs_or_is_nowhere(tmp_path: Path) -> None:
    paths = parts(tmp_path, 2)
    out = write_out(tmp_path, [record(2, 1) | {"text": "other"}])
    assert refused_to_add(paths, out) == (
        "nothing was written: 1 record is there twice and differ: prompt_id p2, branch 1, method base "
        f"({out} and {paths[0]}, line 4)"
    )
    out = write_out(tmp_path, [record(1, 0), record(2, 0)])
    assert refused_to_add(paths[:1], out) == (
        "nothing was written: 5 records are missing: all of shard 1/2, rows 1, 3, 5 of the input, from 0"
    )
    make_part(tmp_path, Shard(0, 2), change=lambda rows: rows.reverse())
    assert "not in the order of the input" in refused_to_add(paths, out)


def test_a_file_that_parts_are_added_to_differs_in_no_setting_but_those_that_may(tmp_path: Path) -> None:
    out = write_out(tmp_path, [record(0, 0) | {"settings": SETTINGS | {"seed": 1}}])
    assert "line 1: it was written with other settings: seed 1 (now 0)" in refused_to_add(
        parts(tmp_path, 2), out
    )
    paths = parts(
        tmp_path,
        2,
        work=replace(WORK, varying=("seed",)),
        change=lambda rows: rows.__delitem__(0) if rows[0]["index"] == 0 else None,
    )
    assert merge(paths, out, add=True) == Merged(2, 7, 13, 1)


def test_a_parquet_file_is_not_added_to(tmp_path: Path) -> None:
    paths, out = parts(tmp_path, 2), tmp_path / "out.parquet"
    merge(paths, out)
    assert "Parquet does not grow" in refused_to_add(paths, out)


def test_a_file_that_another_run_writes_is_not_added_to(tmp_path: Path) -> None:
    out = write_out(tmp_path, [record(0, 0)])

    def key(one: dict[str, Any]) -> tuple[Any, ...]:
        return one["prompt_id"], one["branch"]

    with Journal(out, SETTINGS, key):
        assert "another run is writing it" in refused_to_add(parts(tmp_path, 2), out)


def test_the_program_adds_or_replaces_and_says_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = program.Args(
        parts=tuple(map(str, parts(tmp_path, 2))), out=str(write_out(tmp_path, [record(1, 1)]))
    )
    program.main(replace(args, add=True))
    said = " ".join(capsys.readouterr().err.split())
    assert "13 records of 7 rows of the input, from 2 shards; 1 were there already" in said
    with pytest.raises(SystemExit, match="--add keeps what is there, and --overwrite replaces it"):
        program.main(replace(args, add=True, overwrite=True))
