"""train.prepare --generate interrupted, killed, spoilt and started again: the same bytes, or a refusal."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sia_jax
from sia_jax.files.lock import LOCK
from tests.support.generating import (
    ROWS,
    STOPS,
    N,
    files,
    plain,
    replies,
    report_of,
    save_policies_and_prompts,
    usual_args,
    vary,
    write_lines,
)
from tests.support.replying import after
from train import prepare
from train.generation import PARTIAL, GenerationArgs
from train.prepare import Args

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_policies_and_prompts(folder)
    return folder


@pytest.fixture(scope="module")
def args(folder: Path) -> Args:
    return usual_args(folder)


@pytest.fixture(scope="module")
def finished(args: Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted run has written."""
    out = tmp_path_factory.mktemp("finished") / "set"
    prepare.main(vary(args, out))
    return out


@pytest.fixture
def begun(args: Args, tmp_path: Path) -> Path:
    """What a run has left that sampled everything and did not get further."""
    out = tmp_path / "begun"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "_write", fail)
        with pytest.raises(SystemExit, match="the disk is full"):
            prepare.main(vary(args, out))
    assert [path.name for path in out.iterdir()] == [PARTIAL]
    return out


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads weights fails."""

    def load(*args: Any, **options: Any) -> None:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(sia_jax, "load_policy", load)


def fail(*args: Any, **options: Any) -> None:
    raise OSError("the disk is full")


def stopped(args: Args) -> str:
    """The message that the program ends with."""
    with pytest.raises(SystemExit) as exit_:
        prepare.main(args)
    assert isinstance(exit_.value.code, str)
    return exit_.value.code


KILLED = """
import os, signal, sys
import tyro
import sia_jax
from train import prepare

original = sia_jax.Engine.as_completed

def as_completed(self, *rest):
    for number, found in enumerate(original(self, *rest)):
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        yield found

sia_jax.Engine.as_completed = as_completed
prepare.main(tyro.cli(prepare.Args))
"""


@pytest.mark.long
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(
    args: Args, folder: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sampling = tmp_path / "set", args.sampling
    options = {
        "--format": args.format,
        "--input": args.input,
        "--out": out,
        "--max-length": args.max_length,
        "--generate": sampling.generate,
        "--policy": sampling.policy,
        "--batch": sampling.batch,
        "--max-new-tokens": sampling.max_new_tokens,
        "--seed": sampling.seed,
    }
    command = [sys.executable, "-c", KILLED, *(str(part) for pair in options.items() for part in pair)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {path.name for path in out.iterdir()} == {PARTIAL, LOCK}  # which the next run takes over
    assert (out / PARTIAL).read_bytes().count(b"\n") == 4 * N
    prepare.main(vary(args, out))
    assert f"going on after {4 * N} of {5 * N} replies" in plain(capsys.readouterr().err)
    assert files(out) == files(finished)


def test_a_run_goes_on_after_a_torn_line(args: Args, begun: Path, finished: Path) -> None:
    lines = (begun / PARTIAL).read_bytes().splitlines(keepends=True)
    assert len(lines) == 5 * N
    for kept, torn in ((4, 50), (14, 0), (0, 5)):
        for path in begun.rglob("*"):
            if path.is_file():
                path.unlink()
        (begun / PARTIAL).write_bytes(b"".join(lines[:kept]) + lines[kept][:torn])
        prepare.main(vary(args, begun))
        assert files(begun) == files(finished)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_replies_that_are_whole(
    args: Args,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    status: int,
) -> None:
    out = tmp_path / "set"
    with monkeypatch.context() as patch:
        after(patch, 2, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as exit_:
            prepare.main(vary(args, out))
    assert exit_.value.code == status
    shown = plain(capsys.readouterr().err)
    assert f"interrupted; 6 of 15 replies are in {out / PARTIAL}, and the same command goes on" in shown
    prepare.main(vary(args, out))
    assert files(out) == files(finished)


def test_what_was_sampled_survives_a_failure_at_the_end(
    args: Args, begun: Path, finished: Path, tmp_path: Path, no_loading: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = str(tmp_path / "replies.jsonl")
    run = vary(args, begun, export_conversations=exported)
    for name in ("write_records", "write_conversations"):
        with monkeypatch.context() as patch:
            patch.setattr(prepare, name, fail)
            assert "the disk is full" in stopped(run)
    assert not Path(exported).exists()
    prepare.main(run)
    assert files(begun) == files(finished)
    assert Path(exported).read_text().count("\n") == 5 * N


def test_ctrl_c_while_the_set_is_written_says_how_to_go_on(
    args: Args,
    begun: Path,
    no_loading: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*rest: Any, **options: Any) -> Iterator[Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "write_records", interrupt)
    with pytest.raises(SystemExit) as exit_:
        prepare.main(vary(args, begun))
    assert exit_.value.code == 130
    shown = plain(capsys.readouterr().err)
    assert f"{begun / PARTIAL} has what was sampled, and the same command goes on" in shown


def test_a_set_is_replaced_only_on_request_and_then_sampled_anew(
    args: Args, begun: Path, tmp_path: Path, no_loading: None
) -> None:
    prepare.main(vary(args, begun))
    before = files(begun)
    assert "holds a set already; name another folder, or pass --overwrite" in stopped(vary(args, begun))
    with pytest.raises(AssertionError, match="loaded"):
        prepare.main(vary(args, begun, overwrite=True))
    assert files(begun) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 6}, "it was written with other settings: seed 5 (now 6); name another file, or pass"),
        ({"temperature": 0.5}, "temperature 1.0 (now 0.5)"),
        ({"generate": 2}, "replies 3 (now 2)"),
        ({"policy": "other"}, "policy 'policy' (now 'other'), policy_fingerprint"),
        ({"policy": "another template"}, "other settings: policy_files '"),
        ({"input": "another"}, "is none of the input's, as the policy reads them now"),
        ({"generate": None, "tokenizer": "policy"}, "holds an unfinished run of --generate; name another"),
    ],
)
def test_the_journal_of_another_run_is_refused(
    args: Args,
    folder: Path,
    begun: Path,
    tmp_path: Path,
    no_loading: None,
    changes: dict[str, Any],
    message: str,
) -> None:
    before = files(begun)
    if changes.get("policy") == "another template":
        shutil.copytree(folder / "policy", tmp_path / "policy")
        (tmp_path / "policy" / "chat_template.jinja").write_text("{{ messages }}")
        changes = {"policy": tmp_path / "policy"}
    for name in ("policy", "tokenizer"):
        if name in changes:
            changes = {**changes, name: str(folder / changes[name])}
    if "input" in changes:
        changes = {"input": write_lines(tmp_path / "another.jsonl", ROWS[1:3])}
    run = vary(args, begun, **changes)
    if run.sampling.generate is None:
        run = replace(run, sampling=GenerationArgs())
    assert message in stopped(run)
    assert files(begun) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"branch": 3}, "expected a branch in 0 .. 2, got 3"),
        ({"finish_reason": "cancelled"}, "expected a text and how it ended, got"),
        ({"text": None}, "expected a text and how it ended, got None"),
        ({"tokens": []}, "expected the reply's ids, got []"),
        ({"tokens": [1.5]}, "expected the reply's ids, got [1.5]"),
    ],
)
def test_a_journal_that_is_none_is_refused(
    args: Args, begun: Path, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    line = json.loads((begun / PARTIAL).read_text().splitlines()[0])
    write_lines(begun / PARTIAL, [line | changes])
    found = stopped(vary(args, begun))
    assert f"{PARTIAL}, line 1: " in found
    assert message in found


def test_replies_that_are_none_are_left_out_with_a_reason(args: Args, begun: Path, finished: Path) -> None:
    lines = [json.loads(line) for line in (begun / PARTIAL).read_text().splitlines()]
    empty = {"tokens": [STOPS[0]], "text": " ", "finish_reason": "stop"}
    write_lines(begun / PARTIAL, [line | empty if line["branch"] == 1 else line for line in lines])
    prepare.main(vary(args, begun))
    assert report_of(begun)["rejected"]["no reply"] == {
        "count": 5,
        "first": [f"prompts.jsonl, line {n}, reply 2" for n in (1, 2, 3, 7, 10)],
    }
    whole = replies(finished)
    assert replies(begun) == {question: [draws[0], draws[2]] for question, draws in whole.items()}
