"""decode.calibrate on a tiny policy: the quantiles it writes, what it survives, and what it refuses."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decode import calibrate, generate, runner
from decode.calibrate import Args
from sia_jax.evaluation.calibration import FORMAT, read_calibration, threshold_for
from tests.support.evaluating import LENGTH, calibration_args, save_models_and_prompts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_models_and_prompts(folder)
    calibrate.main(calibration_args(folder))
    return folder


@pytest.fixture
def args(folder: Path, tmp_path: Path) -> Args:
    return replace(calibration_args(folder), out=str(tmp_path / "thresholds.json"))


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(args: Args) -> None:
        raise AssertionError("the policy was loaded")

    monkeypatch.setattr(runner, "load_models", load)


def once() -> Callable[..., Any]:
    """Of `Runner.run`: the first batch is run, and Ctrl-C comes in the second."""
    original, calls = runner.Runner.run, []

    def run(self: runner.Runner, *rest: Any) -> Any:
        calls.append(rest)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return original(self, *rest)

    return run


def test_thresholds_are_quantiles_of_the_entropies_that_decode_generate_records(
    folder: Path, tmp_path: Path
) -> None:
    """The same replies, by way of another program, which shows the gate's entropy at every token."""
    args = calibration_args(folder)
    output = tmp_path / "replies.jsonl"
    generate.main(
        generate.Args(
            policy=args.policy,
            prompts=args.prompts,
            samples=args.samples,
            batch=args.batch,
            max_new_tokens=LENGTH,
            output=str(output),
        )
    )
    replies = [json.loads(line) for line in output.read_text().splitlines()]
    entropies = sorted(h for reply in replies for h in reply["entropy"])
    assert len({reply["length"] for reply in replies}) > 1
    found = json.loads((folder / "thresholds.json").read_text())
    assert (found["replies"], found["tokens"]) == (10, len(entropies))
    assert found["num_prompts"] == 5
    assert found["prompts_sha256"] == hashlib.sha256(Path(args.prompts).read_bytes()).hexdigest()
    assert found["settings"]["num_candidates"] == 10
    assert len(found["settings"]["policy_fingerprint"]) == 16
    for row, ratio in zip(found["thresholds"], (0.6, 0.8), strict=True):
        assert row["ratio"] == ratio
        above = sum(h >= row["threshold"] for h in entropies) / len(entropies)
        assert abs(above - ratio) <= 1 / len(entropies)
        assert abs(row["share"] - ratio) <= 1 / len(entropies)


def test_a_run_goes_on_after_a_torn_line(
    args: Args, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(runner.Runner, "run", once())
        with pytest.raises(SystemExit) as stopped:
            calibrate.main(args)
    assert stopped.value.code == 130
    partial = Path(args.out + ".partial.jsonl")
    lines = partial.read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    partial.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    advance, counted = calibrate.RunProgress.advance, []

    def count(self: calibrate.RunProgress, replies: int, tokens: int) -> None:
        counted.append(replies)
        advance(self, replies, tokens)

    monkeypatch.setattr(calibrate.RunProgress, "advance", count)
    calibrate.main(args)
    assert "going on after 5 of 10" in " ".join(capsys.readouterr().err.split())
    assert sum(counted) == 5
    assert not partial.exists()
    ours, theirs = (json.loads(path.read_text()) for path in (Path(args.out), folder / "thresholds.json"))
    assert ours | {"command": ""} == theirs | {"command": ""}


def test_thresholds_that_are_to_be_made_anew_are_so_after_an_interruption_too(
    args: Args, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped while it loads, beside what an earlier run has written."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    Path(args.out).write_bytes((folder / "thresholds.json").read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(runner, "load_models", interrupted)
        with pytest.raises(SystemExit):
            calibrate.main(replace(args, overwrite=True))
    assert "and the same command goes on" in " ".join(capsys.readouterr().err.split())
    assert Path(args.out).exists()  # nothing is lost before there is something to write
    with monkeypatch.context() as patch:
        patch.setattr(runner.Runner, "run", once())
        with pytest.raises(SystemExit):
            calibrate.main(replace(args, overwrite=True))
    assert "and the same command without --overwrite goes on" in " ".join(capsys.readouterr().err.split())
    calibrate.main(args)
    told = " ".join(capsys.readouterr().err.split())
    assert "going on after 6 of 10" in told
    assert "of 10 replies; written to" in told


def test_what_is_there_is_neither_made_again_nor_mistaken(
    folder: Path, no_loading: None, capsys: pytest.CaptureFixture[str]
) -> None:
    args = calibration_args(folder)
    before = Path(args.out).read_bytes()
    calibrate.main(args)
    assert "it is there already" in " ".join(capsys.readouterr().err.split())
    for changes, what in (
        ({"seed": 1}, "settings"),
        ({"ratios": (0.1,)}, "ratios"),
        ({"samples": 1}, "samples"),
    ):
        with pytest.raises(SystemExit, match=f"with other {what}; .*--overwrite"):
            calibrate.main(replace(args, **changes))
    assert Path(args.out).read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratios": (0.2, 1.0)}, "a ratio must lie between 0 and 1"),
        ({"ratios": (0.2, 0.2)}, "--ratios must be different"),
        ({"ratios": ()}, "at least one"),
        ({"samples": 0}, "--samples must be 1 or more"),
        ({"prompts": "nowhere.jsonl"}, "no such file of prompts"),
    ],
)
def test_options_that_make_no_sense(
    args: Args, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        calibrate.main(replace(args, **changes))
    assert not Path(args.out).exists()


def test_a_file_is_bound_to_policy_and_sampling(folder: Path) -> None:
    found = read_calibration(folder / "thresholds.json")
    settings = dict(found.settings)
    found.check(settings | {"seed": 7, "max_new_tokens": 99, "beta": 3.0})
    for name, other in (("policy_fingerprint", "0"), ("num_candidates", 5), ("temperature", 0.5)):
        with pytest.raises(ValueError, match=f"{name} .* \\(now {other!r}\\)"):
            found.check(settings | {name: other})


def test_other_files_are_no_thresholds(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    whole = {"format": FORMAT, "settings": {}, "thresholds": [{"ratio": 0.5, "threshold": 1.25}]}
    path.write_text(json.dumps(whole))
    assert read_calibration(path).thresholds == {0.5: 1.25}
    row = whole["thresholds"][0]  # type: ignore[index]
    cases: dict[str, str] = {
        "": "it is empty",
        "[1]": "expected an object like .*, got a list of 1",
        "{}": "this is no file of decode.calibrate: it does not say",
        json.dumps({"format": FORMAT}): "no 'thresholds' in it",
        json.dumps(whole | {"settings": []}): "'settings' must be an object, got a list of 0",
        json.dumps(whole | {"thresholds": []}): "'thresholds' must be a list of objects, at least one",
        json.dumps(whole | {"thresholds": [5]}): "'thresholds' must be a list of objects",
        json.dumps(
            whole | {"thresholds": [row | {"threshold": "1.25"}]}
        ): "threshold must be a number, got a text",
        json.dumps(
            whole | {"thresholds": [row | {"threshold": True}]}
        ): "threshold must be a number, got true",
        json.dumps(whole | {"thresholds": [row | {"threshold": math.nan}]}): "NaN is not a finite number",
        json.dumps(whole | {"thresholds": [row | {"ratio": 1}]}): "ratio must lie between 0 and 1",
        json.dumps(whole | {"thresholds": [row, row | {"threshold": 2}]}): "the ratio 0.5 has two thresholds",
        json.dumps(whole)[:-1] + ', "format": 1}': "the fields 'format' stand there twice",
    }
    for content, message in cases.items():
        path.write_text(content)
        with pytest.raises(ValueError, match=f"{path}.*{message}"):
            read_calibration(path)


def test_thresholds_of_no_entropies_are_refused() -> None:
    for entropies in ([], [math.nan], [1.0, math.inf]):
        with pytest.raises(ValueError, match="expected finite entropies"):
            threshold_for(np.array(entropies), 0.5)
