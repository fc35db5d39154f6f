"""decode.calibrate and the gates beside the entropy gate: their numbers, a learned gate, and older files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decode import calibrate, generate
from decode.calibrate import Args
from sia_jax.evaluation import learned_gate
from sia_jax.evaluation.calibration import EARLIER, read_calibration
from tests.support.evaluating import LENGTH, calibration_args, save_models_and_prompts

WEIGHTS = {
    **{"entropy": 2.0, "previous_entropy": -0.5, "top_probability": -3.0},
    **{"logit_gap": -0.25, "position": 0.03},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration with a learned gate, and one without."""
    folder = tmp_path_factory.mktemp("models")
    save_models_and_prompts(folder)
    settings = calibrate.describe_source(calibration_args(folder), 5)["settings"]
    content = {
        "format": learned_gate.FORMAT,
        "weights": WEIGHTS,
        "intercept": -1.0,
        "biases": [{"ratio": 0.5, "bias": 1.0}],
        "settings": settings,
    }
    (folder / "gate.json").write_text(json.dumps(content))
    calibrate.main(calibration_args(folder))
    calibrate.main(args_with_gate(folder))
    return folder


def args_with_gate(folder: Path) -> Args:
    args = calibration_args(folder)
    return replace(args, out=str(folder / "learned.json"), learned_gate=str(folder / "gate.json"))


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["thresholds"]
    return rows


def test_the_numbers_steer_their_shares_of_what_decode_generate_records(folder: Path, tmp_path: Path) -> None:
    """The same replies, by way of another program, which records the candidates at every token."""
    args = calibration_args(folder)
    output = tmp_path / "replies.jsonl"
    generate.main(
        generate.Args(
            policy=args.policy,
            prompts=args.prompts,
            samples=args.samples,
            batch=args.batch,
            max_new_tokens=LENGTH,
            record=True,
            output=str(output),
        )
    )
    sums, ratios, places = [], [], []
    for line in output.read_text().splitlines():
        reply = json.loads(line)
        h = np.array(reply["entropy"])
        before, t = np.concatenate([[0.0], h[:-1]]), np.arange(len(h))
        logits = np.array(reply["candidates"]["logits"])
        top = np.exp(np.array(reply["candidates"]["policy_logprobs"])[:, 0])
        gap = np.minimum(logits[:, 0] - logits[:, 1], 20)
        sums += (2.0 * h - 0.5 * before - 3.0 * top - 0.25 * gap + 0.03 * t).tolist()
        ratios += np.where(t > 0, np.log(h / np.where(t > 0, before, 1)), -np.inf).tolist()
        places += t.tolist()
    for row in rows_of(folder / "learned.json"):
        gates = row["gates"]
        shares = {
            "entropy-ratio": np.mean(np.array(ratios) >= gates["entropy-ratio"]["number"]),
            "position": np.mean(np.array(places) < gates["position"]["number"]),
            "learned": np.mean(np.array(sums) + gates["learned"]["number"] >= 0),
        }
        for kind, share in shares.items():
            assert share == pytest.approx(gates[kind]["share"], abs=1e-6)
            if kind != "position":
                assert abs(share - row["ratio"]) <= 1 / len(sums)


def test_a_learned_gate_changes_no_other_number(folder: Path) -> None:
    with_gate, without = rows_of(folder / "learned.json"), rows_of(folder / "thresholds.json")
    for one, other in zip(with_gate, without, strict=True):
        gates = {kind: own for kind, own in one["gates"].items() if kind != "learned"}
        assert one | {"gates": gates} == other
    found = read_calibration(folder / "learned.json")
    assert {kind: sorted(numbers) for kind, numbers in found.gates.items()} == {
        kind: [0.6, 0.8] for kind in ("entropy", "budget", "entropy-ratio", "position", "learned")
    }
    assert "learned" not in read_calibration(folder / "thresholds.json").gates


def test_numbers_and_shares_are_told_gate_by_gate(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate.main(replace(args_with_gate(folder), out=str(tmp_path / "t.json")))
    told = capsys.readouterr()
    text = " ".join((told.out + told.err).split())
    for row in rows_of(folder / "learned.json"):
        for kind, form in (
            ("entropy-ratio", "ln(H_t / H_t-1) >= {:.4f}"),
            ("position", "t < {:.0f}"),
            ("learned", "learned gate with a bias of {:.4f}"),
        ):
            own = row["gates"][kind]
            assert f"{own['share']:.1%} of the tokens: {form.format(own['number'])}" in text


def test_what_was_begun_without_the_gate_or_with_another_is_not_gone_on_with(
    folder: Path, tmp_path: Path, no_loading: None
) -> None:
    args = args_with_gate(folder)
    for changes, what in (
        ({"learned_gate": None}, "learned"),
        ({"out": str(folder / "thresholds.json")}, "learned"),
    ):
        with pytest.raises(SystemExit, match=f"is there already, with other {what}; .*--overwrite"):
            calibrate.main(replace(args, **changes))
    content = json.loads((folder / "gate.json").read_text())
    content["weights"]["entropy"] = 2.5
    (tmp_path / "gate.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="with other learned"):
        calibrate.main(replace(args, learned_gate=str(tmp_path / "gate.json")))


def test_an_older_file_that_is_there_is_kept_and_what_it_lacks_is_told(
    folder: Path, tmp_path: Path, no_loading: None, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((folder / "thresholds.json").read_text()) | {"format": EARLIER}
    for row in content["thresholds"]:
        del row["gates"]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(content))
    before = path.read_bytes()
    calibrate.main(replace(calibration_args(folder), out=str(path)))
    told = " ".join(capsys.readouterr().err.split())
    assert "it is there already, of thresholds alone: --overwrite adds the numbers of other gates" in told
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_candidates": 1}, "--learned-gate needs --num-candidates 2 or more"),
        ({"num_candidates": 4}, r"gate.json: it has learned with num_candidates 10 \(now 4\)"),
        ({"policy": "other"}, "gate.json: it has learned with policy_fingerprint"),
        ({"repetition_penalty": 1.5}, "under penalties .* is not recorded: leave --repetition-penalty out"),
        ({"min_new_tokens": 2}, "leave --min-new-tokens out"),
        ({"learned_gate": "nowhere.json"}, "no such file of a learned gate"),
    ],
)
def test_a_learned_gate_that_cannot_be_calibrated_is_refused(
    folder: Path, tmp_path: Path, no_loading: None, changes: dict[str, Any], message: str
) -> None:
    if "policy" in changes:
        changes = {"policy": str(folder / "other")}
    with pytest.raises(SystemExit, match=message):
        calibrate.main(replace(args_with_gate(folder), out=str(tmp_path / "t.json"), **changes))
