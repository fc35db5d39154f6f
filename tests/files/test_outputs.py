"""An output that is an input is refused, whatever the two are called."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sia_jax.files.outputs import check_outputs


def relative(path: Path) -> Path:
    return Path(os.path.relpath(path))


def roundabout(path: Path) -> Path:
    return path.parent / "somewhere" / ".." / path.name


def absolute(path: Path) -> Path:
    return path


def symbolic(path: Path) -> Path:
    link = path.with_name("symbolic")
    link.symlink_to(path.name)
    return link


def chained(path: Path) -> Path:
    link = path.with_name("chained")
    link.symlink_to(symbolic(path))
    return link


def hard(path: Path) -> Path:
    link = path.with_name("hard")
    os.link(path, link)
    return link


def through_a_linked_folder(path: Path) -> Path:
    link = path.parent.with_name("linked")
    link.symlink_to(path.parent)
    return link / path.name


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "folder"
    (folder / "somewhere").mkdir(parents=True)
    monkeypatch.chdir(folder)
    path = folder / "in.jsonl"
    path.write_text("{}\n")
    return path


NAMES = [absolute, relative, roundabout, symbolic, chained, hard, through_a_linked_folder]


@pytest.mark.parametrize("name", NAMES)
def test_an_output_under_any_name_of_an_input_is_refused(source: Path, name: Callable[[Path], Path]) -> None:
    again = name(source)
    for given, written in ((source, again), (again, source)):
        with pytest.raises(ValueError, match=r"--output and --prompts are both .*; name another place"):
            check_outputs(inputs={"--prompts": given}, files={"--output": written})


@pytest.mark.parametrize("name", [name for name in NAMES if name is not hard])
def test_a_folder_under_any_name_of_an_input_folder_is_refused(
    source: Path, name: Callable[[Path], Path]
) -> None:
    folder = source.parent / "data"
    (folder / "set").mkdir(parents=True)
    with pytest.raises(ValueError, match="--out and --input are both"):
        check_outputs(inputs={"--input": folder}, folders={"--out": name(folder)})
    with pytest.raises(ValueError, match=r"--out .* lies in --input .*, which is read"):
        check_outputs(inputs={"--input": folder}, folders={"--out": folder / "new"})
    with pytest.raises(ValueError, match=r"--output .* lies in --policy .*, which is read"):
        check_outputs(inputs={"--policy": folder}, files={"--output": folder / "config.json"})
    with pytest.raises(ValueError, match=r"--input .* lies in --out .*, which is written whole"):
        check_outputs(inputs={"--input": folder / "set"}, folders={"--out": folder})


def test_redirected_standard_input_is_an_input(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with source.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        with pytest.raises(ValueError, match="--output and standard input are both"):
            check_outputs(inputs={"--prompts": "-"}, files={"--output": symbolic(source)})
        check_outputs(inputs={"--prompts": "-"}, files={"--output": source.with_name("other")})
    monkeypatch.setattr("sys.stdin", io.StringIO("no file at all"))
    check_outputs(inputs={"--prompts": "-"}, files={"--output": source})


@pytest.mark.parametrize("name", [absolute, relative, roundabout, through_a_linked_folder])
def test_two_outputs_in_one_place_are_refused_though_neither_is_there_yet(
    source: Path, name: Callable[[Path], Path]
) -> None:
    new = source.with_name("new")
    with pytest.raises(ValueError, match="--plot and --out are both"):
        check_outputs(inputs={}, files={"--plot": new, "--out": name(new)})


@pytest.mark.parametrize("name", [name for name in NAMES if name is not hard])
def test_an_output_inside_a_folder_that_is_written_whole_is_refused(
    source: Path, name: Callable[[Path], Path]
) -> None:
    folder = source.parent / "data"
    folder.mkdir()
    again = name(folder)
    for outer, inner in ((folder, again), (again, folder)):
        with pytest.raises(ValueError, match=r"--export .* lies in --out .*, which is written whole; name"):
            check_outputs(inputs={}, files={"--export": inner / "a" / "c.jsonl"}, folders={"--out": outer})


def test_an_output_inside_a_folder_that_is_not_there_yet_is_refused(source: Path) -> None:
    folder = source.parent / "new"
    for files, folders in (
        ({"--export": folder / "c.jsonl"}, {}),
        ({}, {"--export": relative(folder) / "c"}),
    ):
        with pytest.raises(ValueError, match=r"--export .* lies in --out .*, which is written whole; name"):
            check_outputs(inputs={}, files=files, folders={"--out": folder, **folders})
    check_outputs(inputs={}, files={"--journal": source.parent / "new.jsonl"}, folders={"--out": folder})


def test_what_is_apart_is_let_pass(source: Path) -> None:
    (source.parent / "data").mkdir()
    check_outputs(
        inputs={
            "--input": source.parent / "data",
            "--prompts": source,
            "--value": None,
            "--policy": "me/hub",
        },
        files={
            "--page": source.parent / "data.md",
            "--plot": None,
            "--output": source.parent / "data2" / "x",
        },
        folders={"--out": source.parent / "out"},
    )


def test_files_folders_and_places_that_cannot_be_are_refused_at_once(source: Path) -> None:
    folder = source.parent
    os.mkfifo(folder / "pipe")
    cases: list[tuple[dict[str, dict[str, str | Path | None]], str]] = [
        ({"files": {"--output": folder}}, "--output must be a file, .* is a folder"),
        ({"files": {"--output": folder / "pipe"}}, "--output must be a file, .* is a device or a pipe"),
        ({"folders": {"--out": source}}, "--out must be a folder, .* is a file"),
        ({"files": {"--output": source / "deep" / "x"}}, "in.jsonl is a file, not a folder"),
        ({"folders": {"--out": source / "deep"}}, "in.jsonl is a file, not a folder"),
    ]
    for places, message in cases:
        with pytest.raises(ValueError, match=message):
            check_outputs(inputs={}, **places)


def test_a_folder_where_nobody_may_write_is_said_at_once(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != source.parent)  # root may everywhere
    with pytest.raises(ValueError, match=r"--output .*: you may not write in .*; name another place"):
        check_outputs(inputs={}, files={"--output": source.parent / "a" / "b"})
