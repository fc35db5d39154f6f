"""train.label interrupted, killed, spoilt and started again: the same bytes, or a refusal."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sia_jax.rewards.labelling import Labeller
from tests.support.labelling import (
    LINES,
    QUESTION,
    REPLIES,
    lines_of,
    partial_of,
    report_of,
    write_lines,
)
from tests.support.tiny_training import environment_with_cache
from train import label
from train.label import Args

pytestmark = pytest.mark.optimised

ROOT = Path(__file__).parents[2]


def test_a_run_goes_on_after_a_torn_line(args: Args, finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "labelled.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label, "_finish", lambda *rest: None)
        label.main(replace(args, out=str(path)))
    lines = partial_of(path).read_bytes().splitlines(keepends=True)
    assert len(lines) == 14
    for kept, torn in ((9, 50), (13, 0), (0, 5), (14, 0)):
        partial_of(path).write_bytes(b"".join([*lines, b""][:kept]) + [*lines, b""][kept][:torn])
        label.main(replace(args, out=str(path)))
        assert path.read_bytes() == finished.read_bytes()
        assert report_of(path) == report_of(finished)
        assert not partial_of(path).exists()
        path.unlink()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_loses_nothing_that_was_computed(
    args: Args,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    status: int,
) -> None:
    path = tmp_path / "new folder" / "labelled.jsonl"
    original, computed = Labeller._compute, []

    def compute(self: Labeller, length: int) -> None:
        computed.extend(index for index, _ in self._waiting[length])
        original(self, length)
        if len(computed) == 2:
            os.kill(os.getpid(), number)

    options = {"out": str(path), "batch_tokens": 1}
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Labeller, "_compute", compute)
        with pytest.raises(SystemExit) as stopped:
            label.main(replace(args, **options))
    assert stopped.value.code == status
    assert signal.getsignal(number) == before
    scored = [record["line"] for record in lines_of(partial_of(path)) if record["reason"] is None]
    assert sorted(scored) == sorted(computed) == [1, 3]
    assert not path.exists()
    assert "the same command goes on" in " ".join(capsys.readouterr().err.split())
    label.main(replace(args, **options))
    assert "going on after" in capsys.readouterr().err
    assert [line["reward"] for line in lines_of(path)] == pytest.approx(
        [line["reward"] for line in lines_of(finished)], rel=1e-4
    )


DRIVER = """
import os, random, signal, sys
from pathlib import Path
import tyro
from transformers import AutoTokenizer
from sia_jax.runs.journal import Journal
from tests.support.tiny_training import environment_with_cache
from train import label

def run(args, records=None, torn=0):
    child = os.fork()  # before JAX starts a thread, so that the imports are paid once
    if not child:
        if records is not None:
            die_after(records, torn)
        label.main(args)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def die_after(records, torn):
    write, left = Journal.write, iter(range(records - 1, -1, -1))

    def write_or_die(journal, record):
        write(journal, record)
        if not next(left):
            os.truncate(journal.path, journal.path.stat().st_size - torn)  # bytes that did not come to disk
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.write = write_or_die

whole, killed = (tyro.cli(label.Args, args=[*sys.argv[3:], f"--out={out}"]) for out in sys.argv[1:3])
assert run(whole) == 0
partial, moments = Path(killed.out + ".partial.jsonl"), random.Random(0)
for torn in (0, 1, 40, 0, 200):
    assert run(killed, records=moments.randint(2, 79), torn=torn) == -signal.SIGKILL
    print(partial.read_bytes().count(b"\\n"))
assert run(killed) == 0
"""


@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(
    args: Args, folder: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    replies = [" ".join(rng.choice(REPLIES, rng.integers(1, 3))) for _ in range(400)]
    conversations = [{"prompt": QUESTION, "response": f"{i}: {reply}"} for i, reply in enumerate(replies)]
    path = write_lines(tmp_path / "many.jsonl", *conversations)
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    options = [f"--input={path}", f"--reward-model={args.reward_model[0]}", "--batch-tokens=64"]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(whole), str(killed), *options],
        cwd=ROOT,
        env=environment_with_cache(tmp_path / "compiled"),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    counts = [int(line) for line in done.stdout.split()]
    assert sorted(counts) == counts
    assert len(set(counts)) == 5
    assert 0 < min(counts) <= max(counts) < 400  # it was killed in its midst
    assert killed.read_bytes() == whole.read_bytes()
    assert report_of(killed) == report_of(whole)
    assert len(lines_of(whole)) == 400


def test_a_finished_run_loads_nothing(
    args: Args, finished: Path, tmp_path: Path, no_loading: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before, picture = finished.read_bytes(), tmp_path / "new folder" / "rewards.png"
    label.main(replace(args, out=str(finished), plot=str(picture)))
    shown = " ".join(capsys.readouterr().err.split())
    assert "everything is labelled already" in shown
    assert "no reply 3" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert finished.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": 100}, r"says other settings; name another file, or pass --overwrite"),
        ({"limit": 2}, "says other limit;"),
        ({"reward_model": "other"}, "says other settings;"),
        ({"input": "another"}, "says other input_sha256;"),
    ],
)
def test_the_output_of_another_run_is_left_alone(
    args: Args,
    folder: Path,
    finished: Path,
    tmp_path: Path,
    no_loading: None,
    changes: dict[str, Any],
    message: str,
) -> None:
    before = finished.read_bytes()
    if "reward_model" in changes:
        changes = {"reward_model": (str(folder / "other"),)}
    if "input" in changes:
        changes = {"input": write_lines(tmp_path / "another.jsonl", *LINES)}
    with pytest.raises(SystemExit, match=f"is there already, and .*{message}"):
        label.main(replace(args, out=str(finished), **changes))
    assert finished.read_bytes() == before


def test_an_output_without_a_report_is_left_alone_but_for_overwrite(
    args: Args, finished: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labelled.jsonl"
    path.write_text("precious\n")
    with pytest.raises(SystemExit, match="does not say what it was made from; name another file"):
        label.main(replace(args, out=str(path)))
    assert path.read_text() == "precious\n"
    label.main(replace(args, out=str(path), overwrite=True))
    assert path.read_bytes() == finished.read_bytes()
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(SystemExit, match="says other output_sha256"):
        label.main(replace(args, out=str(path)))


@pytest.fixture
def begun(args: Args, tmp_path: Path) -> Path:
    """The output of a run that scored everything and did not get further."""
    path = tmp_path / "begun.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label, "_finish", lambda *rest: None)
        label.main(replace(args, out=str(path)))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"max_tokens": 100},
            r"line 1: it was written with other settings: max_tokens 200 \(now 100\).*--overwrite",
        ),
        ({"dtype": "bfloat16"}, r"dtype 'float32' \(now 'bfloat16'\)"),
        ({"reward_model": "other"}, r"reward_model 'reward' \(now 'other'\), reward_model_fingerprint"),
        ({"input": "another"}, r"line \d+ of .* is not the conversation that was scored"),
        ({"limit": 1}, r"line \d+ of .* is not the conversation that was scored"),
    ],
)
def test_a_journal_of_another_run_is_refused(
    args: Args, folder: Path, begun: Path, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    before = partial_of(begun).read_bytes()
    if "reward_model" in changes:
        changes = {"reward_model": (str(folder / "other"),)}
    if "input" in changes:
        changes = {"input": write_lines(begun.parent / "another.jsonl", *LINES[::-1])}
    with pytest.raises(SystemExit, match=message):
        label.main(replace(args, out=str(begun), **changes))
    assert partial_of(begun).read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": None}, "expected a reward or a reason, got None and None"),
        ({"reward": "high"}, "expected a reward or a reason, got 'high' and None"),
        ({"reason": "too long"}, "expected a reward or a reason"),
        ({"line": [1]}, "unhashable"),
        ({"tokens": ...}, "no 'tokens' in it"),
    ],
)
def test_a_journal_that_is_none_is_refused(
    args: Args, begun: Path, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    records = lines_of(partial_of(begun))
    good = next(record for record in records if record["reason"] is None)
    record = {name: value for name, value in {**good, **changes}.items() if value is not ...}
    write_lines(partial_of(begun), record)
    with pytest.raises(SystemExit, match=rf"partial.jsonl, line 1: .*{message}"):
        label.main(replace(args, out=str(begun)))


@pytest.mark.parametrize("name", ["write_text", "_show"])
def test_what_was_scored_survives_a_failure_at_the_end(
    args: Args, finished: Path, begun: Path, no_loading: None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(label, name, fail)
        with pytest.raises(SystemExit, match="the disk is full"):
            label.main(replace(args, out=str(begun)))
    label.main(replace(args, out=str(begun)))
    assert begun.read_bytes() == finished.read_bytes()
    assert report_of(begun) == report_of(finished)


def test_an_input_that_changes_while_it_is_read_is_refused(
    args: Args, begun: Path, folder: Path, tmp_path: Path, no_loading: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(args.input).read_bytes())
    original = label._finish

    def change_and_finish(*rest: Any) -> None:
        copy.write_bytes(copy.read_bytes().replace(b"Seven", b"Eight"))
        original(*rest)

    monkeypatch.setattr(label, "_finish", change_and_finish)
    with pytest.raises(SystemExit, match=r"copy.jsonl, line 1: changed while it was read; start again"):
        label.main(replace(args, input=str(copy), out=str(begun)))
    assert not begun.exists()
