"""decode.evaluate with other gates at equal ratio, and with contenders beside those that read all values."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decode import evaluate
from decode.evaluate import Args
from sia_jax.engine.reply import Reply
from sia_jax.evaluation.calibration import EARLIER
from sia_jax.evaluation.learned_gate import LearnedGate
from sia_jax.evaluation.method_runner import Chosen, MethodRunner
from sia_jax.evaluation.side_by_side import SideBySide
from tests.support.evaluating import evaluation_args, save_models_and_prompts, save_thresholds

KINDS = ("entropy", "entropy-ratio", "position", "budget", "learned")
BOUND = 0.05
LEARNED = LearnedGate((3.0, -1.0, 0.0, 0.0, 0.02), 0.0, {}, {})
"""Of features that a reply without candidates has too."""
Lines = list[dict[str, Any]]
Replies = dict[tuple[str, int], Reply]


def gate_args(folder: Path) -> Args:
    args = evaluation_args(folder)
    return replace(args, methods=("base", "dense", *KINDS), bounds=(BOUND,), seeds=1, combined=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gates")
    save_models_and_prompts(folder)
    save_thresholds(folder, LEARNED)
    return folder


@pytest.fixture(scope="module")
def replies(folder: Path) -> Replies:
    """Of an evaluation, by method and prompt."""
    found, original = {}, MethodRunner.run

    def run(self: MethodRunner, method: Any, gate: Any, jobs: Any) -> Iterator[list[tuple[int, Chosen]]]:
        for chosen in original(self, method, gate, jobs):
            found.update({(method.key, place): one.reply for place, one in chosen})
            yield chosen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MethodRunner, "run", run)
        evaluate.main(gate_args(folder))
    return found


@pytest.fixture(scope="module")
def lines(folder: Path, replies: Replies) -> Lines:
    return read(folder / "evaluation")


def read(out: Path) -> Lines:
    return [json.loads(line) for line in (out / "replies.jsonl").read_text(encoding="utf-8").splitlines()]


def own(lines: Lines, method: str) -> Lines:
    """In the order of the prompts, without what differs between runs."""
    kept = [line for line in lines if line["method"] == method]
    told = [{name: x for name, x in line.items() if name not in ("seconds", "commit")} for line in kept]
    return sorted(told, key=lambda line: line["index"])


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / "thresholds.json").read_text())["thresholds"]
    return rows


def margins(kind: str, row: dict[str, Any], entropy: np.ndarray) -> np.ndarray:
    """[T] by how much a token of a reply is above what its gate asks for."""
    h, t = entropy.astype(np.float64), np.arange(len(entropy))
    before = np.concatenate([[0.0], h[:-1]])
    if kind == "entropy":
        return h - row["threshold"]
    if kind == "budget":
        q, found = row["threshold"], []
        for x in h:
            found.append(x - q)
            q += 0.25 * ((x >= q) - row["ratio"])
        return np.array(found)
    number = row["gates"][kind]["number"]
    if kind == "entropy-ratio":
        return np.where(t > 0, np.log(h / np.where(t > 0, before, 1)) - number, -1.0)
    return number - 0.5 - t if kind == "position" else number + 3.0 * h - before + 0.02 * t


@pytest.mark.parametrize("kind", KINDS)
def test_the_steered_tokens_are_those_that_the_definition_says_of_the_recorded_entropies(
    folder: Path, replies: Replies, lines: Lines, kind: str
) -> None:
    for row in rows_of(folder):
        keys = [f"{kind}-{row['ratio']:g}"] + [f"{kind}-{row['ratio']:g}-bound-{BOUND:g}"] * (
            kind == "entropy"
        )
        for key in keys:
            own_replies = [reply for (method, _), reply in replies.items() if method == key]
            assert len(own_replies) == 5
            found = np.concatenate([margins(kind, row, reply.entropy) for reply in own_replies])
            steered = np.concatenate([reply.junction for reply in own_replies])
            sure = np.abs(found) > 1e-5
            assert sure.mean() > 0.9
            assert ((found >= 0) == steered)[sure].all()
            assert 0 < steered.mean() < 1
            assert sum(line["sampled_junctions"] for line in own(lines, key)) == steered.sum()


def test_records_have_the_numbers_of_their_own_gate_alone(folder: Path, lines: Lines) -> None:
    weights = {"entropy": 3.0, "previous_entropy": -1.0, "top_probability": 0.0, "logit_gap": 0.0}
    for row in rows_of(folder):
        numbers = {kind: own["number"] for kind, own in row["gates"].items()}
        for kind, expected in {
            "entropy": {"threshold": row["threshold"]},
            "budget": {"threshold": row["threshold"], "budget": row["ratio"]},
            "entropy-ratio": {"threshold": "inf", "entropy_ratio": numbers["entropy-ratio"]},
            "position": {"threshold": "inf", "position": numbers["position"]},
            "learned": {
                "threshold": "inf",
                "learned": {"bias": numbers["learned"], **weights, "position": 0.02},
            },
        }.items():
            for line in own(lines, f"{kind}-{row['ratio']:g}"):
                names = ("threshold", "rate", "budget", "entropy_ratio", "position", "learned")
                assert {name: line[name] for name in names if name in line} == {"rate": 0.0, **expected}


def test_methods_alone_have_the_replies_that_they_have_beside_others(
    folder: Path, lines: Lines, tmp_path: Path
) -> None:
    """One that remembers, and one that weighs."""
    alone: Any = ("budget", "learned")
    evaluate.main(replace(gate_args(folder), methods=alone, bounds=(), ratios=(0.6,), out=str(tmp_path)))
    found = read(tmp_path)
    assert {line["method"] for line in found} == {f"{kind}-0.6" for kind in alone}
    for kind in alone:
        assert own(found, f"{kind}-0.6") == own(lines, f"{kind}-0.6")


def test_contenders_beside_others_are_those_of_a_run_of_that_bound(
    folder: Path, lines: Lines, tmp_path: Path
) -> None:
    evaluate.main(
        replace(gate_args(folder), methods=("dense",), bounds=(), tilt_bound=BOUND, out=str(tmp_path))
    )
    theirs, ours = own(read(tmp_path), "dense"), own(lines, f"dense-bound-{BOUND:g}")
    for a, b in zip(ours, theirs, strict=True):
        differing = {name for name in a if a[name] != b[name]}
        assert differing == {"method", "settings"}
    read_by_all = sum(line["values_read"] for line in own(lines, "dense"))
    assert 0 < sum(line["values_read"] for line in ours) < read_by_all / 2
    assert sum(line["sampled_decided"] for line in ours) > 0


def test_a_run_goes_on_where_it_was_stopped_among_the_further_gates(
    folder: Path, lines: Lines, tmp_path: Path
) -> None:
    text = (folder / "evaluation" / "replies.jsonl").read_bytes().splitlines(keepends=True)
    places = [
        place for place, line in enumerate(lines) if line["method"] in ("position-0.8", "dense-bound-0.05")
    ]
    kept = [line for place, line in enumerate(text) if place not in (*places[:2], *places[-2:])]
    (tmp_path / "replies.jsonl").write_bytes(b"".join(kept))
    evaluate.main(replace(gate_args(folder), out=str(tmp_path)))
    again = read(tmp_path)
    assert len(again) == len(lines)
    for method in {line["method"] for line in lines}:
        assert own(again, method) == own(lines, method)


@pytest.mark.parametrize("kind", ["entropy-ratio", "position", "learned"])
def test_replies_of_other_numbers_are_refused(folder: Path, lines: Lines, tmp_path: Path, kind: str) -> None:
    assert lines
    content = json.loads((folder / "thresholds.json").read_text())
    content["thresholds"][0]["gates"][kind]["number"] += 1
    (tmp_path / "t.json").write_text(json.dumps(content))
    name = kind.replace("-", " ")
    with pytest.raises(SystemExit, match=f"{name} 60% under seed 0 was made with .*--overwrite"):
        evaluate.main(replace(gate_args(folder), thresholds=str(tmp_path / "t.json")))


def test_thresholds_of_an_earlier_release_serve_the_gates_that_need_no_more(
    folder: Path, lines: Lines, tmp_path: Path, no_loading: None
) -> None:
    """Replies of the entropy gate and the budget that are there are gone on with."""
    assert lines
    content = json.loads((folder / "thresholds.json").read_text()) | {"format": EARLIER}
    rows = [{name: x for name, x in row.items() if name != "gates"} for row in content["thresholds"]]
    content = {name: x for name, x in content.items() if name != "learned"} | {"thresholds": rows}
    old = tmp_path / "t.json"
    old.write_text(json.dumps(content))
    before = (folder / "evaluation" / "results.json").read_bytes()
    args = replace(gate_args(folder), thresholds=str(old))
    evaluate.main(replace(args, methods=("base", "dense", "entropy", "budget")))
    (folder / "evaluation" / "results.json").write_bytes(before)
    for kind, option in (("position", ""), ("entropy-ratio", ""), ("learned", " --learned-gate FILE")):
        message = (
            rf"t.json has no numbers of {kind} gates for ratios \[0.6, 0.8\]; .*calibrate{option} --overwrite"
        )
        with pytest.raises(SystemExit, match=message):
            evaluate.main(replace(args, methods=("base", kind)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tilt": "standardised"},
            "--bounds adds methods to those of the additive tilt, and --tilt is of all",
        ),
        ({"tilt_bound": 1.0}, "and --tilt-bound is of all"),
        ({"bounds": (0.0,)}, "bounds must be different, over 0 and finite"),
        ({"bounds": (math.inf,)}, "bounds must be different, over 0 and finite"),
        ({"bounds": (1.0, 1.0)}, "bounds must be different"),
        (
            {"methods": ("base", "position")},
            "bounds are for the methods dense and entropy, got base, position",
        ),
        ({"thresholds": None, "methods": ("dense", "learned")}, "the methods learned need --thresholds FILE"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    folder: Path, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        evaluate.main(replace(gate_args(folder), **changes))


def test_each_gate_stands_beside_the_entropy_gate_of_its_ratio(folder: Path, lines: Lines) -> None:
    results = json.loads((folder / "evaluation" / "results.json").read_text())
    expected = [f"entropy-{ratio}-bound-{BOUND:g}" for ratio in (0.6, 0.8)]
    expected += [f"{kind}-{ratio}" for kind in KINDS[1:] for ratio in (0.6, 0.8)]
    assert [row["key"] for row in results["equal_ratio"]] == expected
    for row in results["equal_ratio"]:
        ours, theirs = own(lines, row["key"]), own(lines, f"entropy-{row['asked_ratio']:g}")
        mean = np.mean([a["gold"] - b["gold"] for a, b in zip(ours, theirs, strict=True)])
        assert row["differences"]["gold"]["mean"] == pytest.approx(mean)
        for share, these in ((row["steered"], ours), (row["steered_by_entropy"], theirs)):
            assert share == pytest.approx(total(these, "sampled_junctions") / total(these, "sampled_tokens"))
    text = (folder / "evaluation" / "results.md").read_text()
    assert "## Gates at equal ratio" in text
    assert "dense, contenders at 0.05" in text


def test_an_evaluation_with_them_can_be_compared_with_others(folder: Path, lines: Lines) -> None:
    found = SideBySide([folder / "evaluation"], resamples=100)
    assert {entry.measured.method.key for entry in found.entries} == {line["method"] for line in lines}


def total(lines: Sequence[dict[str, Any]], name: str) -> int:
    return sum(line[name] for line in lines)
