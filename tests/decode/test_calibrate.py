"""decode.calibrate on a tiny policy: the quantiles it writes, what it survives, and what it refuses."""

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decode import calibrate, generate
from decode.calibrate import Args
from sia_jax.evaluation.calibration import FORMAT, read_calibration
from sia_jax.evaluation.calibration import calibrate as make_thresholds
from sia_jax.evaluation.shares import realised_share, share_caution, threshold_for
from sia_jax.evaluation.token_features import features_of
from sia_jax.runs import runner
from tests.support.evaluating import LENGTH, calibration_args, save_models_and_prompts
from tests.support.replying import after


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_models_and_prompts(folder)
    calibrate.main(calibration_args(folder))
    return folder


@pytest.fixture
def args(folder: Path, tmp_path: Path) -> Args:
    return replace(calibration_args(folder), out=str(tmp_path / "thresholds.json"))


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


def test_quantiles_are_written_of_thresholds_that_are_there_and_others_are_refused(
    args: Args, folder: Path, tmp_path: Path
) -> None:
    Path(args.out).write_bytes((folder / "thresholds.json").read_bytes())
    calibrate.main(replace(args, official=str(tmp_path / "quantiles.json")))
    rows = json.loads(Path(args.out).read_text())["thresholds"]
    found = json.loads((tmp_path / "quantiles.json").read_text())
    assert found == {"quantiles": {"0.2": rows[1]["threshold"], "0.4": rows[0]["threshold"]}}
    for official, message in (("q.txt", "--official must be a .json file"), ("thresholds.json", "are both")):
        with pytest.raises(SystemExit, match=message):
            calibrate.main(replace(args, official=str(tmp_path / official)))


def test_a_run_goes_on_after_a_torn_line(
    args: Args, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        after(patch, 3)
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
        after(patch, 3)
        with pytest.raises(SystemExit):
            calibrate.main(replace(args, overwrite=True))
    assert "and the same command without --overwrite goes on" in " ".join(capsys.readouterr().err.split())
    calibrate.main(args)
    told = " ".join(capsys.readouterr().err.split())
    assert "going on after 6 of 10" in told
    assert "of 10 replies; written to" in told


def test_what_is_there_is_neither_made_again_nor_mistaken(
    folder: Path, tmp_path: Path, no_loading: None, capsys: pytest.CaptureFixture[str]
) -> None:
    args = calibration_args(folder)
    before = Path(args.out).read_bytes()
    calibrate.main(args)
    assert "it is there already" in " ".join(capsys.readouterr().err.split())
    for changes, what in (
        ({"seed": 1}, "settings"),
        ({"ratios": (0.1,)}, "ratios"),
        ({"samples": 1}, "samples"),
        ({"policy": "another template"}, "settings"),
    ):
        if "policy" in changes:
            shutil.copytree(args.policy, tmp_path / "policy")
            (tmp_path / "policy" / "chat_template.jinja").write_text("{{ messages }}")
            changes = {"policy": str(tmp_path / "policy")}
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


@pytest.mark.parametrize("theirs", [{}, {"date_string": None}])
def test_thresholds_without_a_date_are_of_prompts_without_one(folder: Path, theirs: dict[str, Any]) -> None:
    found = read_calibration(folder / "thresholds.json")
    settings = {name: value for name, value in found.settings.items() if name != "date_string"}
    dated = {"date_string": "26 Jul 2024"}
    replace(found, settings=settings | theirs).check(settings | {"date_string": None})
    with pytest.raises(ValueError, match=r"date_string None \(now '26 Jul 2024'\)"):
        replace(found, settings=settings | theirs).check(settings | dated)
    replace(found, settings=settings | dated).check(settings | dated)
    with pytest.raises(ValueError, match=r"date_string '26 Jul 2024' \(now '1 Jan 2026'\)"):
        replace(found, settings=settings | dated).check(settings | {"date_string": "1 Jan 2026"})


def test_other_files_are_no_thresholds(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    whole = {"format": FORMAT, "settings": {}, "thresholds": [{"ratio": 0.5, "threshold": 1.25}]}
    path.write_text(json.dumps(whole))
    assert read_calibration(path).thresholds == {0.5: 1.25}
    row = whole["thresholds"][0]
    cases: dict[str, str] = {
        "": "it is empty",
        "[1]": "expected an object like .*, got a list of 1",
        "{}": "this is no file of decode.calibrate: it does not say",
        json.dumps({"format": FORMAT}): "thresholds must be a list, at least one, got null",
        json.dumps(whole | {"settings": []}): "settings must be an object, got a list of 0",
        json.dumps(whole | {"thresholds": []}): "thresholds must be a list, at least one",
        json.dumps(whole | {"thresholds": [5]}): "a threshold must be an object",
        json.dumps(
            whole | {"thresholds": [row | {"threshold": "1.25"}]}
        ): "expected thresholds that are numbers, got '1.25'",
        json.dumps(
            whole | {"thresholds": [row | {"threshold": True}]}
        ): "expected thresholds that are numbers, got True",
        json.dumps(whole | {"thresholds": [row | {"threshold": math.nan}]}): "NaN is not a finite number",
        json.dumps(whole | {"thresholds": [row | {"ratio": 1}]}): "ratio must be a number between 0 and 1",
        json.dumps(whole | {"thresholds": [row, row | {"threshold": 2}]}): "between 0 and 1, each once",
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


@given(
    st.lists(
        st.sampled_from([0.0, 1e-30, 0.25, 0.25 + 2**-25, 1.0, 2.3]) | st.floats(0, 3, width=32), min_size=1
    ),
    st.floats(0.001, 0.999),
)
def test_no_other_threshold_steers_a_share_nearer_to_the_ratio(entropies: list[float], ratio: float) -> None:
    """Of all that could be: at each entropy, and above them all; however many are equal."""
    h = np.array(entropies, np.float32)
    found = realised_share(h, threshold_for(h, ratio))
    others = [realised_share(h, float(x)) for x in [*h, np.nextafter(h.max(), np.float32(9))]]
    nearest = min(abs(share - ratio) for share in others)
    assert abs(found - ratio) <= nearest + 1e-9
    as_near = [share for share in others if abs(share - ratio) <= nearest + 1e-13]
    assert found == pytest.approx(min(as_near))


def test_tied_entropies_give_the_share_that_is_nearer_and_say_so() -> None:
    h = np.concatenate([np.zeros(50), np.linspace(0.01, 1, 50)]).astype(np.float32)
    rows = make_thresholds(features_of([{"entropy": h}]), [0.2, 0.5, 0.6, 0.8], {})["thresholds"]
    assert [row["share"] for row in rows] == [0.2, 0.5, 0.5, 1.0]
    said = [share_caution(row["ratio"], row["share"], len(h)) for row in rows]
    assert said[:2] == ["", ""]
    assert said[2].startswith("no threshold steers 0.6 of the tokens, since many have the same entropy")
    assert said[2].endswith("the nearest steers 0.5 of them")
    assert said[3].endswith("the nearest steers 1 of them")


def test_a_run_is_warned_of_thresholds_that_give_another_share(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "thresholds.json").read_text())
    content["thresholds"] = [
        {"ratio": 0.6, "threshold": 1.0, "share": 0.5},
        {"ratio": 0.8, "threshold": 0.5, "share": 0.8},
    ]
    content["tokens"] = 1000
    path = tmp_path / "t.json"
    path.write_text(json.dumps(content))
    cautions = read_calibration(path).cautions()
    assert list(cautions) == [0.6]
    assert "the nearest steers 0.5 of them" in cautions[0.6]


def test_calibration_warns_where_no_threshold_gives_the_share(
    args: Args, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if all entropies that were sampled were one number: of replies that are there."""

    def sample(args: Args, prompts: Any, ids: Any, features: Any, journal: Any, messages: Any) -> None:
        journal.__enter__()
        for prompt in prompts:
            for branch in range(args.samples):
                record = {"index": prompt.index, "id": prompt.id, "branch": branch}
                journal.write(record | {"entropy": [0.5] * 7})
        journal.__exit__(None, None, None)

    monkeypatch.setattr(calibrate, "_sample", sample)
    calibrate.main(args)
    told = " ".join(capsys.readouterr().err.split())
    assert "100.0% of the tokens: H >= 0.5000 nats" in told
    assert "warning: no threshold steers 0.6 of the tokens" in told
    rows = json.loads(Path(args.out).read_text())["thresholds"]
    assert [row["share"] for row in rows] == [1.0, 1.0]


ROW = {"ratio": 0.2, "threshold": 1.0, "share": 0.2}
GOOD = {"format": FORMAT, "thresholds": [ROW], "settings": {}}


@pytest.mark.parametrize(
    "content",
    [
        GOOD | {"thresholds": []},
        GOOD | {"thresholds": {}},
        GOOD | {"thresholds": [3]},
        GOOD | {"thresholds": [ROW, ROW]},
        GOOD | {"settings": "ab"},
        GOOD | {"settings": None},
        *(
            GOOD | {"thresholds": [ROW | {name: value}]}
            for name in ("ratio", "threshold", "share")
            for value in ("0.2", True, None, [], {}, 10**400, "inf")
        ),
        GOOD | {"thresholds": [ROW | {"ratio": 1}]},
        GOOD | {"thresholds": [ROW | {"share": 1.5}]},
    ],
)
def test_thresholds_of_any_other_json_are_refused_by_name(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"t\.json"):
        read_calibration(path)
    path.write_text(json.dumps(GOOD))
    assert read_calibration(path).thresholds == {0.2: 1.0}


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"[" * 100_000, b'{"a": 1, "a": 2}', b'{"format": NaN}'])
def test_thresholds_that_are_no_json_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.json"):
        read_calibration(path)
