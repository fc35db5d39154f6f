"""Replies with their prompts and rewards, and sets of them on disk.

A set is a TensorFlow Datasets folder in ArrayRecord files, FOLDER/sia_trajectories/1.0.0, with a sia_jax.json
beside the files that says how they were made. TensorFlow is not needed. Other programs read it with
`tfds.builder_from_directory`, or, once `sia_jax.data.tfds_builder` is imported, with
`tfds.data_source("sia_trajectories", split="train", data_dir=FOLDER)`.
"""

import json
import math
import operator
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, SupportsIndex

import numpy as np

from sia_jax.data.rejections import Rejections
from sia_jax.data.set_folder import set_folder
from sia_jax.data.trajectories import Trajectory, check_trajectory
from sia_jax.extras import installed_with
from sia_jax.files.lock import locked
from sia_jax.files.reading import read_bytes
from sia_jax.files.shown import shown_value
from sia_jax.files.strict_json import kind_of, parse_object
from sia_jax.files.writing import WriteError, write_text, writing
from sia_jax.text.chat import Message, check_messages

FORMAT_VERSION = 1
"""Of sia_jax.json and the features; a reader refuses any other."""

RECORDS_PER_FILE = 32_768
_META = "sia_jax.json"
_UNFINISHED = "unfinished"
_REPLACED = "replaced"
RESERVED = ("format_version", "records", "files")
"""Names of sia_jax.json that are the set's own."""
_BATCH = 512  # records that are written and read at a time: tfds rewrites its own notes at every call


@dataclass(frozen=True, eq=False)
class Record:
    """One reply to one prompt, as text and in the value model's ids."""

    id: str
    group: str  # replies to one prompt share it
    messages: tuple[Message, ...]  # ends with the assistant; () when only the ids are known
    prompt_ids: np.ndarray  # [P] int32, at least one
    reply_ids: np.ndarray  # [T] int32, at least one; ends in the stop token unless it was cut by length
    reward: float | None = None  # R(x, y), of any unit; None: not scored yet

    def __post_init__(self) -> None:
        for name in ("prompt_ids", "reply_ids"):
            ids = getattr(self, name)
            if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype != np.int32 or ids.size == 0:
                got = f"{ids.dtype}{list(ids.shape)}" if isinstance(ids, np.ndarray) else type(ids).__name__
                raise ValueError(f"record {self.id!r}: {name} must be int32 [n], n at least 1, got {got}")
            if ids.min() < 0:
                raise ValueError(f"record {self.id!r}: {name} must be ids from 0 on, got {ids.min()}")
        if self.reward is not None and not math.isfinite(self.reward):
            raise ValueError(
                f"record {self.id!r}: reward must be finite, got {self.reward}; None stands for no reward"
            )
        if self.messages:
            check_messages(self.messages, last="assistant")


class RecordSource:
    """A set on disk, read record by record; picklable, and a source for Grain.

    Attributes:
      folder: where the set is.
      meta: what its writer said of it, and "format_version", "records" (how many), "files" ({name: bytes}).
    """

    def __init__(self, folder: Path, meta: dict[str, Any], rows: Any):
        self.folder, self.meta, self._rows = folder, meta, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: SupportsIndex) -> Record:
        place = operator.index(index)
        if not -len(self) <= place < len(self):
            raise IndexError(f"{self.folder} has {len(self)} records, there is none at {place}")
        with _readable(self.folder):
            return _decode(self._rows[place % len(self)])

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), _BATCH):
            places = list(range(start, min(start + _BATCH, len(self))))
            with _readable(self.folder):
                found = list(map(_decode, self._rows.__getitems__(places)))
            yield from found

    def __repr__(self) -> str:
        return f"RecordSource({str(self.folder)!r}, records={len(self)})"


def write_records(
    folder: Path,
    records: Iterable[Record],
    meta: dict[str, Any] | Callable[[], dict[str, Any]],
    *,
    overwrite: bool = False,
) -> int:
    """Write a set. It is made under FOLDER/unfinished and moved when it is whole, so no half set ever opens.

    Args:
      folder: made if need be; what an earlier run left unfinished in it is removed.
      records: read once, in order.
      meta: how the set was made, JSON; a function is called when all records are written.
      overwrite: replace a set that is there. It stays until the new one is whole.

    Returns:
      How many records were written.

    Raises:
      FileExistsError: there is a set already.
      OSError: it cannot be written; what was there is as it was.
      ValueError: another run writes there, there are no records, or meta is not JSON or has names that the
        set itself uses.
    """
    with locked(files=(unfinished_folder(folder),)):
        return _write_records(folder, records, meta, overwrite=overwrite)


def _write_records(
    folder: Path,
    records: Iterable[Record],
    meta: dict[str, Any] | Callable[[], dict[str, Any]],
    *,
    overwrite: bool,
) -> int:
    finished, unfinished = set_folder(folder), unfinished_folder(folder)
    _clear(folder)
    if finished.exists() and not overwrite:
        raise FileExistsError(f"{folder} holds a set already; name another folder, or overwrite it")
    try:
        new = set_folder(unfinished)
        count = _write_files(unfinished, records)
        if not count:
            raise ValueError(f"{folder}: there are no records to write")
        _write_meta(new, count, meta() if callable(meta) else meta)
        finished.parent.mkdir(parents=True, exist_ok=True)
        if finished.exists():
            finished.rename(unfinished / _REPLACED)
        new.rename(finished)
        _clear(folder)
    except BaseException:  # KeyboardInterrupt too
        _clear(folder)
        raise
    return count


def read_records(folder: Path) -> RecordSource:
    """Open a set; records are read when they are asked for.

    Raises:
      FileNotFoundError: there is no set, or only an unfinished one.
      ValueError: files that are missing or cut short, or a set of another format.
    """
    finished = set_folder(folder)
    if not finished.is_dir():
        if (folder / _UNFINISHED).exists():
            raise FileNotFoundError(
                f"{folder} holds a set that was never finished: its run was stopped; run it again"
            )
        raise FileNotFoundError(f"{folder}: there is no set of records in it; sia train prepare makes one")
    meta = _read_meta(finished)
    for name, size in meta["files"].items():
        path = finished / name
        got = path.stat().st_size if path.is_file() else None
        if got != size:
            found = "is missing" if got is None else f"has {got:,} bytes"
            raise ValueError(f"{path} {found}, expected {size:,} bytes; copy the set again, or make it anew")
    with installed_with("train"):
        import tensorflow_datasets as tfds

    with _readable(finished):
        rows = tfds.builder_from_directory(finished).as_data_source("train")
    if len(rows) != meta.get("records"):
        raise ValueError(
            f"{finished} has {len(rows)} records, {_META} says "
            f"{shown_value(meta.get('records'), 40)}; copy the set again, or make it anew"
        )
    return RecordSource(folder, meta, rows)


def unfinished_folder(folder: Path) -> Path:
    """Where a set is made, in a data folder."""
    return folder / _UNFINISHED


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Whatever tfds and its file formats raise for files that were damaged is an error that names the set.

    Raises:
      ValueError: the set cannot be read.
    """
    try:
        yield
    except Exception as error:  # tfds promises no classes
        why = (str(error).splitlines() or [""])[0][:300]
        raise ValueError(
            f"{folder}: cannot be read as a set ({type(error).__name__}: {why}); copy it again, or make it "
            "anew"
        ) from error


def trajectories(
    records: Iterable[Record], vocab_size: int, max_length: int
) -> tuple[list[Trajectory], Rejections]:
    """What can be trained on, and what cannot, by reason.

    Args:
      records: a set, or any records.
      vocab_size: V of the value model.
      max_length: tokens that a row holds.

    Returns:
      (trajectories, each with its record's number; the others' reasons with their first numbers).
    """
    kept, rejections = [], Rejections()
    for number, record in enumerate(records):
        why = check_trajectory(
            record.prompt_ids, record.reply_ids, record.reward, vocab_size=vocab_size, max_length=max_length
        )
        if why is not None:
            rejections.add(why, number)
            continue
        assert record.reward is not None
        kept.append(Trajectory(record.prompt_ids, record.reply_ids, record.reward, number, record.group))
    return kept, rejections


def _clear(folder: Path) -> None:
    """Remove what a run left unfinished; put a set back that it was about to replace."""
    finished, unfinished = set_folder(folder), folder / _UNFINISHED
    if (unfinished / _REPLACED).exists() and not finished.exists():
        (unfinished / _REPLACED).rename(finished)
    if unfinished.exists():
        shutil.rmtree(unfinished)


def _write_files(folder: Path, records: Iterable[Record]) -> int:
    from sia_jax.data.tfds_builder import SiaTrajectories, set_writer

    set_folder(folder).mkdir(parents=True)
    builder = SiaTrajectories(data_dir=str(folder), file_format="array_record")
    writer = set_writer(builder.info, RECORDS_PER_FILE)
    writer.initialize_splits(["train"])
    count, rest = 0, iter(records)
    while batch := list(islice(rest, _BATCH)):
        encoded = [_encode(record) for record in batch]
        with _written(folder):
            writer.add_examples({"train": encoded})
        count += len(batch)
    with _written(folder):
        writer.close_all()
    return count


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Around what writes shards, whose errors are of many kinds: each comes out as one of writing the set.

    Raises:
      WriteError: in place of any of them.
    """
    try:
        with writing(set_folder(folder)):
            yield
    except WriteError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:300]
        raise WriteError(
            f"{set_folder(folder)} cannot be written ({type(error).__name__}: {why}); make room on the disk"
        ) from error


def _encode(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "group": record.group,
        "messages": json.dumps([dict(message) for message in record.messages], ensure_ascii=False),
        "prompt_ids": record.prompt_ids,
        "reply_ids": record.reply_ids,
        "reward": np.float64(0.0 if record.reward is None else record.reward),
        "has_reward": record.reward is not None,
    }


def _decode(row: dict[str, Any]) -> Record:
    return Record(
        id=row["id"].decode(),
        group=row["group"].decode(),
        messages=tuple(json.loads(row["messages"])),
        prompt_ids=row["prompt_ids"],
        reply_ids=row["reply_ids"],
        reward=float(row["reward"]) if row["has_reward"] else None,
    )


def _write_meta(folder: Path, count: int, meta: dict[str, Any]) -> None:
    taken = [name for name in RESERVED if name in meta]
    if taken:
        raise ValueError(f"meta must not have {taken}, which the set itself writes; call them something else")
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    whole = {"format_version": FORMAT_VERSION, "records": count, "files": files} | meta
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / _META, text + "\n")


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / _META
    if not path.is_file():
        raise ValueError(f"{folder} has no {_META}: it was not written by this program; make the set anew")
    remedy = "copy the set again, or make it anew"
    try:
        meta = parse_object(read_bytes(path, "description of a set"), str(path))
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from None
    version, files = meta.get("format_version"), meta.get("files")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version is {shown_value(version, 40)}, this program reads "
            f"{FORMAT_VERSION}; make the set anew"
        )
    if not isinstance(files, dict) or any(type(size) is not int for size in files.values()):
        raise ValueError(f"{path}: 'files' must be an object of sizes, got {kind_of(files)}; {remedy}")
    if any(PurePath(name).name != name or "\0" in name or len(name) > 200 for name in files):
        raise ValueError(f"{path}: 'files' must be names of files beside it; {remedy}")
    return meta
