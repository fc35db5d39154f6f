"""Sets of records on disk: exact round trips, and nothing half written ever opens."""

import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from hypothesis import given, settings
from hypothesis import strategies as st

from sia_jax.data.records import Record, read_records, trajectories, write_records
from sia_jax.data.set_folder import set_folder

META = {"tokenizer": "Qwen3-tiny", "family": "qwen3", "counts": {"kept": 4}}


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def record(name: str = "a", reward: float | None = 0.5, prompt: int = 2, reply: int = 3) -> Record:
    messages = ({"role": "user", "content": "One?"}, {"role": "assistant", "content": "One."})
    return Record(
        name, "g", messages, np.arange(prompt, dtype=np.int32), 10 + np.arange(reply, dtype=np.int32), reward
    )


RECORDS = (
    Record("a/0", "a", (), ids(0), ids(2**31 - 1), None),
    Record(
        "ö\n\0 1",
        "a",
        (
            {"role": "system", "content": ""},
            {"role": "user", "content": 'line\r\n"quoted" \\ 🧑‍🍳'},
            {"role": "assistant", "content": " \u2028卵\0"},
        ),
        ids(5, 6, 7),
        ids(8, 0),
        0.1 + 0.2,  # no float32 holds it
    ),
    record("zero", 0.0),
    record("tiny", -5e-324),
)


def fields(found: Record) -> tuple:
    return (
        *(found.id, found.group, found.messages, found.reward, found.prompt_ids.dtype, found.reply_ids.dtype),
        *(found.prompt_ids.tolist(), found.reply_ids.tolist()),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "new" / "set"
    assert write_records(folder, iter(RECORDS), META) == len(RECORDS)
    return folder


def test_records_come_back_exactly_and_in_order(folder: Path) -> None:
    source = read_records(folder)
    assert [fields(found) for found in source] == [fields(r) for r in RECORDS]
    assert len(source) == len(RECORDS)
    assert [fields(source[i]) for i in (1, -1, np.int64(0))] == [fields(RECORDS[i]) for i in (1, -1, 0)]
    for outside in (4, -5):
        with pytest.raises(IndexError, match=rf"has 4 records, there is none at {outside}"):
            source[outside]


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
IDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9).map(lambda numbers: ids(*numbers))
CONVERSATIONS = st.one_of(
    st.just(()),
    st.tuples(
        st.fixed_dictionaries({"role": st.just("user"), "content": TEXT}),
        st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXT}),
    ),
)
REWARDS = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))


@settings(derandomize=True, max_examples=25)
@given(st.lists(st.builds(Record, TEXT, TEXT, CONVERSATIONS, IDS, IDS, REWARDS), min_size=1, max_size=20))
def test_any_records_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record]
) -> None:
    folder = tmp_path_factory.mktemp("set")
    write_records(folder, records, {})
    assert [fields(found) for found in read_records(folder)] == [fields(r) for r in records]


def test_more_records_than_are_written_at_a_time_come_back(tmp_path: Path) -> None:
    records = [Record(str(i), str(i // 2), (), ids(i), ids(i, i + 1), i / 7) for i in range(1300)]
    write_records(tmp_path, records, {})
    assert [fields(found) for found in read_records(tmp_path)] == [fields(r) for r in records]


def test_a_set_of_several_files_is_one_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sia_jax.data.records.RECORDS_PER_FILE", 3)
    records = [record(str(i), float(i)) for i in range(8)]
    write_records(tmp_path, records, {})
    assert len(list(set_folder(tmp_path).glob("*array_record*"))) == 3
    assert [found.id for found in read_records(tmp_path)] == [r.id for r in records]


def test_meta_says_how_the_set_was_made(folder: Path) -> None:
    meta = read_records(folder).meta
    assert {name: meta[name] for name in META} == META
    assert (meta["format_version"], meta["records"]) == (1, 4)
    assert {name: (set_folder(folder) / name).stat().st_size for name in meta["files"]} == meta["files"]


def test_meta_may_be_known_only_after_the_last_record(tmp_path: Path) -> None:
    seen = []

    def records() -> Iterator[Record]:
        for one in RECORDS:
            seen.append(one.id)
            yield one

    write_records(tmp_path, records(), lambda: {"seen": len(seen)})
    assert read_records(tmp_path).meta["seen"] == 4


def test_tensorflow_datasets_reads_the_same_folder(folder: Path) -> None:
    import sia_jax.data.tfds_builder  # noqa: F401, registers the name

    by_name = tfds.data_source("sia_trajectories", split="train", data_dir=folder)
    by_folder = tfds.builder_from_directory(set_folder(folder)).as_data_source("train")
    for source in (by_name, by_folder):
        assert len(source) == 4
        assert source[1]["reward"] == 0.1 + 0.2
        assert source[1]["id"].decode() == RECORDS[1].id
        assert [row["has_reward"] for row in source] == [False, True, True, True]
        assert source[0]["reward"] == 0.0
        assert source[0]["prompt_ids"].dtype == np.int32
        assert json.loads(source[1]["messages"]) == list(RECORDS[1].messages)
        assert source[0]["messages"] == b"[]"


def test_the_builder_makes_no_set_by_itself(tmp_path: Path) -> None:
    import sia_jax.data.tfds_builder  # noqa: F401, registers the name

    builder = tfds.builder("sia_trajectories", data_dir=tmp_path, file_format="array_record")
    with pytest.raises(ValueError, match=r"this builder only reads; sia train prepare makes one"):
        builder.download_and_prepare()


def test_grain_shuffles_a_set_and_goes_on_where_it_stopped(folder: Path) -> None:
    def batches() -> grain.DatasetIterator:
        dataset = grain.MapDataset.source(read_records(folder)).seed(3).shuffle().repeat(2)
        return iter(dataset.map(lambda found: found.id).to_iter_dataset())

    whole = list(batches())
    assert sorted(whole[:4]) == sorted(r.id for r in RECORDS)
    first, second = batches(), batches()
    start = [next(first) for _ in range(3)]
    second.set_state(first.get_state())
    assert start + list(second) == whole


def test_a_source_pickles(folder: Path) -> None:
    source = pickle.loads(pickle.dumps(read_records(folder)))
    assert fields(source[1]) == fields(RECORDS[1])
    assert source.meta["family"] == "qwen3"


def test_writing_needs_no_tensorflow(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.data.test_records import *;"
        "write_records(Path(sys.argv[1]), RECORDS, META); list(read_records(Path(sys.argv[1])));"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "set")], check=True)


def test_the_same_records_make_the_same_files_in_another_process(folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.data.test_records import *;"
        "write_records(Path(sys.argv[1]), RECORDS, META)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "other")], check=True)
    one, other = (
        {path.name: path.read_bytes() for path in set_folder(made).iterdir()}
        for made in (folder, tmp_path / "other")
    )
    assert one == other


def test_the_features_of_a_record_are_stored_by_name(folder: Path) -> None:
    (path,) = set_folder(folder).glob("*array_record*")
    names = (b"group", b"has_reward", b"id", b"messages", b"prompt_ids", b"reply_ids", b"reward")
    for row in ArrayRecordReader(str(path)).read_all():
        # A feature's name is a string of its own, field 1 of its entry: tag, length, bytes.
        places = [row.index(b"\n" + bytes([len(name)]) + name) for name in names]
        assert places == sorted(places)


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_ids": ids()}, r"record 'a': prompt_ids must be int32 \[n\], n at least 1, got int32\[0\]"),
        ({"reply_ids": np.arange(3)}, r"reply_ids must be int32 \[n\], n at least 1, got int64\[3\]"),
        ({"reply_ids": [1, 2]}, r"reply_ids must be int32 \[n\], n at least 1, got list"),
        ({"reply_ids": np.zeros((1, 2), np.int32)}, r"got int32\[1, 2\]"),
        ({"prompt_ids": ids(3, -1)}, r"prompt_ids must be ids from 0 on, got -1"),
        ({"reward": float("nan")}, r"reward must be finite, got nan; None stands for no reward"),
        ({"reward": float("inf")}, r"reward must be finite, got inf"),
        ({"messages": ({"role": "user", "content": "?"},)}, r"messages end with the user"),
    ],
)
def test_a_record_that_could_not_be_stored_cannot_be_made(changes: dict, message: str) -> None:
    whole = {"id": "a", "group": "g", "messages": (), "prompt_ids": ids(1), "reply_ids": ids(2)}
    with pytest.raises(ValueError, match=message):
        Record(**(whole | changes))


def test_a_set_is_replaced_only_on_request(folder: Path) -> None:
    with pytest.raises(FileExistsError, match=r"holds a set already; name another folder, or overwrite it"):
        write_records(folder, [record("b")], {})
    assert len(read_records(folder)) == 4
    assert write_records(folder, [record("b")], {"new": 1}, overwrite=True) == 1
    source = read_records(folder)
    assert [found.id for found in source] == ["b"]
    assert "family" not in source.meta
    assert sorted(path.name for path in folder.iterdir()) == ["sia_trajectories"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_run_that_is_stopped_leaves_what_was_there(folder: Path, error: type[BaseException]) -> None:
    def torn() -> Iterator[Record]:
        for index in range(700):
            yield record(str(index))
        raise error

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(error):
        write_records(folder, torn(), {}, overwrite=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    with pytest.raises(error):
        write_records(folder / "other", torn(), {})
    assert not (folder / "other").exists()


def test_a_run_that_is_stopped_while_it_swaps_the_sets_puts_the_old_one_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def rename_once(path: Path, target: Path) -> Path:
        if target == set_folder(folder) and path.parent.name == "sia_trajectories":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_once)
        with pytest.raises(KeyboardInterrupt):
            write_records(folder, [record("b")], {}, overwrite=True)
    assert [found.id for found in read_records(folder)] == [r.id for r in RECORDS]
    # A kill at that moment cleans up nothing: the next run does.
    (folder / "unfinished").mkdir()
    set_folder(folder).rename(folder / "unfinished" / "replaced")
    with pytest.raises(FileNotFoundError, match="never finished"):
        read_records(folder)
    with pytest.raises(FileExistsError, match="holds a set already"):
        write_records(folder, [record("b")], {})
    assert len(read_records(folder)) == 4


def test_a_set_of_nothing_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no records to write"):
        write_records(tmp_path / "set", [], {})
    assert not (tmp_path / "set").exists()


def test_meta_cannot_take_the_names_of_the_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"meta must not have \['records'\]"):
        write_records(tmp_path / "set", RECORDS, {"records": 7})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_records(tmp_path / "set", RECORDS, {"share": float("nan")})
    assert not (tmp_path / "set").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.data.test_records import record, write_records

def records():
    for index in range(2000):
        if index == 1500:
            os.kill(os.getpid(), signal.SIGKILL)
        yield record(str(index))

write_records(Path(sys.argv[1]), records(), {}, overwrite=True)
"""


def test_a_run_that_is_killed_leaves_nothing_that_opens_and_a_new_run_replaces_it(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(folder.rglob("*array_record*"))
    with pytest.raises(FileNotFoundError, match=r"never finished: its run was stopped; run it again"):
        read_records(folder)
    assert write_records(folder, RECORDS, {}) == 4
    assert len(read_records(folder)) == 4
    assert sorted(path.name for path in folder.iterdir()) == ["sia_trajectories"]


def test_a_run_that_is_killed_while_it_replaces_a_set_leaves_the_old_one(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert [found.id for found in read_records(folder)] == [r.id for r in RECORDS]


def test_a_folder_without_a_set_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match=r"no set of records in it; sia train prepare"):
            read_records(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: next(f.glob("*array_record*")).write_bytes(b"short"),
            r"has 5 bytes, expected 131,072 bytes",
        ),
        (
            lambda f: next(f.glob("*array_record*")).unlink(),
            r"is missing, expected 131,072 bytes; copy the set",
        ),
        (lambda f: (f / "features.json").unlink(), r"features.json is missing"),
        (lambda f: (f / "sia_jax.json").unlink(), r"has no sia_jax.json: it was not written by this program"),
        (lambda f: (f / "sia_jax.json").write_text("{"), r"sia_jax.json, line 1, column 2: not JSON"),
        (
            lambda f: (f / "sia_jax.json").write_text("[]"),
            r"sia_jax.json: expected an object .*; copy the set",
        ),
        (
            lambda f: (f / "sia_jax.json").write_text('{"format_version": 2}'),
            r"format_version is 2, this program reads 1; make the set anew",
        ),
    ],
)
def test_a_damaged_set_is_refused(folder: Path, damage, message: str) -> None:
    damage(set_folder(folder))
    with pytest.raises(ValueError, match=message):
        read_records(folder)


def test_a_set_with_another_number_of_records_is_refused(folder: Path) -> None:
    path = set_folder(folder) / "sia_jax.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps(meta | {"records": 5}))
    with pytest.raises(ValueError, match=r"has 4 records, sia_jax.json says 5"):
        read_records(folder)


# What can be trained on


def test_trajectories_are_the_records_that_can_be_trained_on_and_the_others_are_listed(
    tmp_path: Path,
) -> None:
    records = [
        record("a", 1.5),
        record("no reward", None),
        Record("p", "g", (), ids(50), ids(1), 0.0),
        Record("r", "g", (), ids(1), ids(49, 50), 0.0),
        record("longest", -2.0, prompt=4, reply=6),
        record("too long", 0.0, prompt=4, reply=7),
        *[record("no reward", None) for _ in range(6)],
    ]
    write_records(tmp_path, records, {})
    kept, rejections = trajectories(read_records(tmp_path), vocab_size=50, max_length=10)
    assert [(t.number, t.reward, t.group) for t in kept] == [(0, 1.5, "g"), (4, -2.0, "g")]
    for trajectory in kept:
        np.testing.assert_array_equal(trajectory.prompt_ids, records[trajectory.number].prompt_ids)
        np.testing.assert_array_equal(trajectory.reply_ids, records[trajectory.number].reply_ids)
    assert rejections.to_json() == {
        "no reward": {"count": 7, "first": [1, 6, 7, 8, 9]},
        "longer than a row": {"count": 1, "first": [5]},
        "prompt has ids outside the vocabulary": {"count": 1, "first": [2]},
        "reply has ids outside the vocabulary": {"count": 1, "first": [3]},
    }
    assert rejections.total == 10
    assert rejections.describe().startswith("no reward: 7 (1; 6; 7; 8; 9; ...); longer than a row: 1 (5)")
