"""What all programs promise: foreign text is text on the terminal, inputs stay, one run writes at a time."""

import importlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import decode.benchmark
import train.benchmark
from decode import (
    benchmark_serving,
    calibrate,
    chat,
    compare,
    coverage,
    demo,
    entropy_study,
    evaluate,
    generate,
    learn_gate,
    merge,
    own_prefixes,
    power,
    promise,
    serve,
    trace,
)
from sia_jax.data.records import unfinished_folder, write_records
from sia_jax.files.lock import locked
from tests.reports.test_trace import make_record
from tests.test_help import programs
from train import iterate, label, measure, prepare, value_model, world

HOSTILE = "a\x1b]0;owned\x07\x9b2J\u202e[/b][red]:smile:"
SHOWN = "a␛]0;owned␇\\x9b2J\\u202e[/b][red]:smile:"
RAW = "\x1b\x07\x9b\u202e"


def ended(main: Callable[[Any], None], args: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """All that a program has printed, its last message too."""
    last = ""
    try:
        main(args)
    except SystemExit as end:
        last = end.code if isinstance(end.code, str) else ""
    captured = capsys.readouterr()
    return captured.out + captured.err + last


def every_program(bad: str, out: Path) -> list[tuple[Callable[[Any], None], Any]]:
    """Each program that reads files, given a name of which there is none."""
    models = {"policy": bad, "value": bad}
    return [
        (generate.main, generate.Args(policy=bad, prompt=("hi",))),
        (generate.main, generate.Args(policy=bad, prompts=bad, output=str(out / "r.jsonl"))),
        (trace.main, trace.Args(replies=Path(bad), output=out / "t.html")),
        (merge.main, merge.Args(parts=(bad,), out=str(out / "m.jsonl"))),
        (chat.main, chat.Args(policy=bad)),
        (demo.main, demo.Args(models=bad, out=out / "demo")),
        (calibrate.main, calibrate.Args(policy=bad, prompts=bad, out=str(out / "t.json"))),
        (
            evaluate.main,
            evaluate.Args(**models, reward=(bad,), prompts=bad, thresholds=bad, out=str(out / "e")),
        ),
        (entropy_study.main, entropy_study.Args(**models, prompts=bad, out=str(out / "s"), continuations=0)),
        (power.main, power.Args(difference=(0.1,), replies=bad)),
        (promise.main, promise.Args(replies=bad)),
        (learn_gate.main, learn_gate.Args(replies=bad)),
        (
            own_prefixes.main,
            own_prefixes.Args(**models, prompts=bad, replies=bad, output=str(out / "o.jsonl")),
        ),
        (measure.main, measure.Args(value=bad, data=Path(bad))),
        (serve.main, serve.Args(policy=bad, port=0)),
        (benchmark_serving.main, benchmark_serving.Args(guidellm=Path(bad), out=out / "b")),
        (prepare.main, prepare.Args(format="jsonl", input=bad, tokenizer=bad, out=str(out / "p"))),
        (label.main, label.Args(input=bad, reward_model=(bad,), out=str(out / "l"))),
        (value_model.main, value_model.Args(data=Path(bad), base=bad, out=out / "v")),
        (iterate.main, iterated(bad, out / "i")),
    ]


def iterated(name: str, out: Path, **options: Any) -> iterate.Args:
    return iterate.Args(policy=name, reward_model=(name,), prompts=name, validation=name, out=out, **options)


@pytest.mark.parametrize("number", range(20))
def test_a_hostile_name_in_an_error_is_text(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    main, args = every_program(str(tmp_path / HOSTILE), tmp_path)[number]
    text = ended(main, args, capsys)
    assert not set(RAW) & set(text)
    assert SHOWN in text


def test_a_hostile_name_in_a_message_of_success_is_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = tmp_path / "replies.jsonl"
    replies.write_text(json.dumps(make_record()) + "\n")
    text = ended(trace.main, trace.Args(replies=replies, output=tmp_path / f"{HOSTILE}.html"), capsys)
    assert (tmp_path / f"{HOSTILE}.html").is_file()
    assert f"{SHOWN}.html: 1 prompts" in text
    assert not set(RAW) & set(text)


def test_a_hostile_name_of_a_folder_that_is_no_world_is_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / HOSTILE).mkdir(parents=True)
    (tmp_path / HOSTILE / "mine").write_text("mine")
    text = ended(world.main, world.Args(out=tmp_path / HOSTILE), capsys)
    assert f"{SHOWN} holds something else than a world" in text
    assert not set(RAW) & set(text)


Case = tuple[Callable[[Any], None], Any]


def over_its_input(folder: Path, alias: Callable[[Path], Path]) -> dict[str, Case]:
    """Programs whose output, under some name, is what they read."""
    file, again = folder / "in.jsonl", alias(folder / "in.jsonl")
    models: dict[str, Any] = {"policy": "none", "prompts": str(file)}
    evaluated = {**models, "value": "none", "reward": ("none",)}
    prepared: dict[str, Any] = {"format": "jsonl", "input": str(file), "tokenizer": "none"}
    prepared |= {"out": str(folder / "set"), "overwrite": True}
    return {
        "generate": (generate.main, generate.Args(**models, output=str(again), overwrite=True)),
        "trace": (trace.main, trace.Args(replies=file, output=again)),
        "merge": (merge.main, merge.Args(parts=(str(file),), out=str(again), overwrite=True)),
        "calibrate": (calibrate.main, calibrate.Args(**models, out=str(again), overwrite=True)),
        "evaluate": (
            evaluate.main,
            evaluate.Args(
                **{**evaluated, "prompts": str(again.with_name("replies.jsonl"))},
                thresholds=str(file),
                out=str(again.parent),
                overwrite=True,
            ),
        ),
        "entropy study": (
            entropy_study.main,
            entropy_study.Args(
                policy="none",
                value="none",
                prompts=str(again.with_name("study.jsonl")),
                out=str(again.parent),
                overwrite=True,
            ),
        ),
        "own prefixes": (
            own_prefixes.main,
            own_prefixes.Args(
                policy="none", value="none", prompts="none", replies=str(file), output=str(again)
            ),
        ),
        "prepare, official": (prepare.main, prepare.Args(**prepared, export_official=str(again))),
        "prepare, text": (prepare.main, prepare.Args(**prepared, export_conversations=str(again))),
        "label": (
            label.main,
            label.Args(input=str(file), reward_model=("none",), out=str(again)),
        ),
        "value model": (
            value_model.main,
            value_model.Args(data=folder, base="none", teacher=str(folder / "best"), out=again.parent),
        ),
        "iterate": (
            iterate.main,
            iterate.Args(
                policy=str(folder),
                reward_model=("none",),
                prompts="none",
                validation="none",
                out=again.parent,
            ),
        ),
    }


def seeded(seed: int, out: Path) -> dict[str, Case]:
    """Every program that draws random numbers of a seed, with one, and without anything to read."""
    models = {"policy": "none", "value": "none", "seed": seed}
    sampling = prepare.GenerationArgs(generate=1, policy="none", seed=seed)
    return {
        "decode.calibrate": (
            calibrate.main,
            calibrate.Args(policy="none", prompts="none", out=str(out / "t.json"), seed=seed),
        ),
        "decode.chat": (chat.main, chat.Args(policy="none", seed=seed)),
        "decode.coverage": (coverage.main, coverage.Args(out=out / "i.md", trials=1, seed=seed)),
        "decode.demo": (demo.main, demo.Args(models="none", out=out, seed=seed)),
        "decode.entropy_study": (
            entropy_study.main,
            entropy_study.Args(**models, prompts="none", out=str(out)),
        ),
        "decode.evaluate": (
            evaluate.main,
            evaluate.Args(**models, reward=("none",), prompts="none", out=str(out)),
        ),
        "decode.generate": (generate.main, generate.Args(policy="none", prompt=("hi",), seed=seed)),
        "decode.learn_gate": (learn_gate.main, learn_gate.Args(replies="none", seed=seed)),
        "decode.own_prefixes": (
            own_prefixes.main,
            own_prefixes.Args(**models, prompts="none", replies="none", output=str(out / "o.jsonl")),
        ),
        "train.prepare": (
            prepare.main,
            prepare.Args(format="jsonl", input="none", out=str(out), sampling=sampling),
        ),
        "train.value_model": (
            value_model.main,
            value_model.Args(data=Path("none"), base="none", out=out, seed=seed),
        ),
        "train.iterate": (iterate.main, iterated("none", out, seed=seed)),
        "train.world": (world.main, world.Args(out=out, seed=seed)),
    }


def test_these_are_all_programs_that_have_a_seed(tmp_path: Path) -> None:
    kinds = {name: importlib.import_module(name).Args for name in programs()}
    kinds["train.prepare"] = prepare.GenerationArgs
    found = {name for name, kind in kinds.items() if "seed" in {field.name for field in fields(kind)}}
    assert found == seeded(0, tmp_path).keys()


@pytest.mark.parametrize("seed", [-1, 2**32, 99999999999999999999])
def test_a_seed_that_makes_no_key_of_its_own_is_refused_by_every_program(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (main, args) in seeded(seed, tmp_path / "out").items():
        text = ended(main, args, capsys)
        assert text.endswith(f"{name}: --seed must be an integer in 0 .. 4294967295, got {seed}"), text
        assert not (tmp_path / "out").exists(), name


def itself(path: Path) -> Path:
    return path


def linked(path: Path) -> Path:
    link = path.parent / "link.jsonl"
    link.symlink_to(path)
    return link


def hard_linked(path: Path) -> Path:
    os.link(path, path.parent / "hard.jsonl")
    return path.parent / "hard.jsonl"


def in_a_linked_folder(path: Path) -> Path:
    path.parent.with_name("elsewhere").symlink_to(path.parent)
    return path.parent.with_name("elsewhere") / path.name


@pytest.mark.parametrize("alias", [itself, linked, hard_linked, in_a_linked_folder])
def test_no_program_writes_over_what_it_reads_under_whatever_name(
    alias: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    (folder / "best").mkdir(parents=True)
    for name in ("in.jsonl", "replies.jsonl", "study.jsonl", "best/head"):
        (folder / name).write_text('{"prompt": "a", "response": "b"}\n')
    for name, (main, args) in over_its_input(folder, alias).items():
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        text = ended(main, args, capsys)
        assert "are both" in text, (name, text)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before, name


@pytest.mark.parametrize(
    ("main", "args", "option"),
    [
        (
            trace.main,
            lambda path: trace.Args(replies=Path("none"), output=path),
            "--out must be a .html file",
        ),
        (coverage.main, lambda path: coverage.Args(out=path), "--out must be a .md file"),
        (
            learn_gate.main,
            lambda path: learn_gate.Args(replies="none", out=str(path)),
            "--out must be a .json file",
        ),
        (
            measure.main,
            lambda path: measure.Args(value="none", data=Path("none"), out=str(path)),
            "--out must be a .json file",
        ),
        (
            compare.main,
            lambda path: compare.Args(folders=("none",), page=str(path)),
            "--page must be a .md file",
        ),
        (
            label.main,
            lambda path: label.Args(input="none", reward_model=("none",), out="other", plot=str(path)),
            "--plot must be a .png file",
        ),
        (
            power.main,
            lambda path: power.Args(replies="none", plot=str(path)),
            "--plot must be a .png file",
        ),
        (
            evaluate.main,
            lambda path: evaluate.Args(
                policy="none", value="none", reward=("none",), prompts="none", out="none", page=str(path)
            ),
            "--page must be a .md file",
        ),
    ],
)
def test_a_page_or_a_picture_replaces_no_file_of_another_kind(
    main: Callable[[Any], None],
    args: Callable[[Path], Any],
    option: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text("mine\n")
    assert f"{option}, got {path}" in ended(main, args(path), capsys)
    assert path.read_text() == "mine\n"
    assert os.listdir(tmp_path) == [path.name]


def writers(folder: Path) -> dict[str, tuple[Case, AbstractContextManager[None]]]:
    """Programs, each with a lock on what it writes."""
    out, page = folder / "out", folder / "out" / "page.html"
    models: dict[str, Any] = {"policy": "none", "prompts": "none"}
    whole = {"policy": "none", "value": "none", "prompts": "none", "out": str(out)}
    return {
        "generate": ((generate.main, generate.Args(**models, output=str(out))), locked(files=(out,))),
        "trace": ((trace.main, trace.Args(replies=Path("none"), output=page)), locked(files=(page,))),
        "merge": ((merge.main, merge.Args(parts=("none",), out=str(out))), locked(files=(out,))),
        "calibrate": ((calibrate.main, calibrate.Args(**models, out=str(out))), locked(files=(out,))),
        "own prefixes": (
            (
                own_prefixes.main,
                own_prefixes.Args(value="none", replies="none", output=str(folder / "o.jsonl"), **models),
            ),
            locked(files=(folder / "o.jsonl",)),
        ),
        "measure": (
            (measure.main, measure.Args(value="none", data=Path("none"), out=str(folder / "m.json"))),
            locked(files=(folder / "m.json",)),
        ),
        "learn gate": (
            (learn_gate.main, learn_gate.Args(replies="none", out=str(folder / "gate.json"))),
            locked(files=(folder / "gate.json",)),
        ),
        "evaluate": (
            (evaluate.main, evaluate.Args(**whole, reward=("none",), thresholds="none")),
            locked(folders=(out,)),
        ),
        "evaluate's page": (
            (
                evaluate.main,
                evaluate.Args(**whole, reward=("none",), thresholds="none", page=str(folder / "page.md")),
            ),
            locked(files=(folder / "page.md",)),
        ),
        "entropy study": (
            (entropy_study.main, entropy_study.Args(**whole, continuations=0)),
            locked(folders=(out,)),
        ),
        "demo": ((demo.main, demo.Args(out=out)), locked(folders=(out,))),
        "benchmark": ((decode.benchmark.main, decode.benchmark.Args(out=out)), locked(folders=(out,))),
        "the server's": (
            (benchmark_serving.main, benchmark_serving.Args(guidellm=Path(__file__), out=out)),
            locked(folders=(out,)),
        ),
        "training's": ((train.benchmark.main, train.benchmark.Args(out=out)), locked(folders=(out,))),
        "prepare": (
            (prepare.main, prepare.Args(format="jsonl", input="none", tokenizer="none", out=str(out))),
            locked(folders=(out,)),
        ),
        "label": (
            (label.main, label.Args(input="none", reward_model=("none",), out=str(out))),
            locked(files=(out,)),
        ),
        "label's set": (
            (label.main, label.Args(input=str(folder), reward_model=("none",), out=str(out))),
            locked(folders=(out,)),
        ),
        "value model": (
            (value_model.main, value_model.Args(data=Path("none"), base="none", out=out)),
            locked(folders=(out,)),
        ),
        "iterate": ((iterate.main, iterated("none", out)), locked(folders=(out,))),
        "world": ((world.main, world.Args(out=out)), locked(folders=(out,))),
    }


def test_every_program_refuses_at_its_start_to_write_where_another_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, ((main, args), held) in writers(tmp_path).items():
        with held:
            text = ended(main, args, capsys)
        assert f"another run is writing it (process {os.getpid()} on " in text, (name, text)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert os.listdir(tmp_path) == []


def test_two_writers_of_one_set_are_told_apart_below_the_programs_too(tmp_path: Path) -> None:
    told = pytest.raises(ValueError, match="another run is writing it")
    with locked(files=(unfinished_folder(tmp_path),)), told:
        write_records(tmp_path, iter(()), {})
