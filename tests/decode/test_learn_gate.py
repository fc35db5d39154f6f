"""decode.learn_gate, from replies of the embedded models to the gate in the sampler."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decode import generate, learn_gate
from decode.learn_gate import Args
from sia_jax.evaluation.gate_examples import read_examples
from sia_jax.evaluation.learned_gate import LearnedGate, read_learned_gate, scores
from sia_jax.steering.expressions import text_of
from sia_jax.world.files import world_models
from tests.support.dense_records import dense_record, save_records


def records(count: int, seed: int) -> list[dict[str, Any]]:
    return [dense_record(index, 6, seed)[0] for index in range(count)]


def ended(args: Args) -> str:
    with pytest.raises(SystemExit) as error:
        learn_gate.main(args)
    return str(error.value.code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, and replies of the embedded models to them, steered densely."""
    folder, models = tmp_path_factory.mktemp("dense"), world_models()
    prompts = (models / "prompts" / "validation.jsonl").read_text().splitlines()[:16]
    (folder / "prompts.jsonl").write_text("\n".join(prompts))
    generate.main(generation(folder))
    return folder


def generation(folder: Path) -> generate.Args:
    models = world_models()
    return generate.Args(
        policy=str(models / "policy"),
        value=str(models / "value-token"),
        prompts=str(folder / "prompts.jsonl"),
        threshold=-math.inf,
        max_new_tokens=24,
        batch=16,
        record=True,
        output=str(folder / "dense.jsonl"),
    )


def test_a_gate_is_learned_from_replies_of_real_models(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gate.json"
    learn_gate.main(Args(replies=str(folder / "dense.jsonl"), ratios=(0.3,), out=str(out)))
    learned = read_learned_gate(out)
    assert learned.settings["policy_fingerprint"]
    assert f'--gate "{text_of(learned.gate(0.3))}"' in capsys.readouterr().out
    written = json.loads(out.read_text())
    assert written["prompts"] == {"learned_from": 11, "held_out": 5}
    assert written["area"]["learned"]["mean"] > 0.6  # the models are no coin


@pytest.mark.long
def test_what_is_recorded_of_a_token_is_what_the_gate_has_seen_of_it(folder: Path, tmp_path: Path) -> None:
    learned = LearnedGate((0.8, 0.1, -1.5, -0.3, -0.01), 0.0, {0.3: 0.9}, {})
    gate, path = text_of(learned.gate(0.3)), tmp_path / "sparse.jsonl"
    generate.main(replace(generation(folder), threshold=None, gate=gate, output=str(path)))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    seen = 0
    for line in lines:
        junction = np.array(line["junction"])
        dense = save_records(tmp_path / "one.jsonl", [line | {"junction": [True] * len(junction)}])
        ((one,), _) = read_examples(dense, "shifted")
        found = scores(learned, *one.features.T) + learned.biases[0.3]
        clear = np.abs(found) > 1e-4
        assert (junction == (found >= 0))[clear].all()
        seen += clear.sum()
    tokens = sum(line["length"] for line in lines)
    assert seen > 0.98 * tokens
    assert 0.1 < sum(sum(line["junction"]) for line in lines) / tokens < 0.9


def test_the_program_measures_on_the_prompts_of_another_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = save_records(tmp_path / "own.jsonl", records(30, 0))
    others = [record | {"settings": record["settings"] | {"seed": 5}} for record in records(100, 1)]
    check = save_records(tmp_path / "others.jsonl", others)
    args = Args(replies=str(own), check=str(check), ratios=(0.5, 0.2), out=str(tmp_path / "gate.json"))
    learn_gate.main(args)
    written = json.loads((tmp_path / "gate.json").read_text())
    assert written["prompts"] == {"learned_from": 30, "held_out": 100}
    assert (written["replies"], written["check"]) == ("own.jsonl", "others.jsonl")
    assert "seed" not in written
    shifted = np.concatenate([prompt.shifted for prompt in read_examples(check, "shifted")[0]])
    assert written["labelled"]["held_out"] == pytest.approx(shifted.mean())
    said = capsys.readouterr().out
    area = written["area"]["learned"]
    assert f"{area['mean']:.3f} [{area['low']:.3f}, {area['high']:.3f}]" in said
    assert "caught by the best 0.2 " in said
    assert "180 tokens of 30 prompts, measured on 600 of 100 others" in said


def test_half_of_the_prompts_of_one_file_may_be_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = save_records(tmp_path / "own.jsonl", records(20, 2))
    args = Args(replies=str(own), held_out=0.5, label="gain", out=str(tmp_path / "gate.json"), seed=3)
    learn_gate.main(args)
    written = json.loads((tmp_path / "gate.json").read_text())
    assert written["prompts"] == {"learned_from": 10, "held_out": 10}
    assert (written["seed"], written["share_held_out"], written["check"]) == (3, 0.5, None)
    assert "There are no intervals: 10 prompts, of 100 needed." in capsys.readouterr().out
    first = (tmp_path / "gate.json").read_bytes()
    learn_gate.main(args)
    assert (tmp_path / "gate.json").read_bytes() == first


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ratios": ()}, "--ratios must be different shares"),
        ({"ratios": (0.1, 1.0)}, "--ratios must be different shares"),
        ({"held_out": 1.0}, "--held-out must lie between 0 and 1"),
        ({"gain_quantile": 0.8}, "--gain-quantile is for --label gain"),
        ({"label": "gain", "gain_quantile": -1.0}, "--gain-quantile must lie in 0 .. 1"),
        ({"penalty": -1.0}, "--penalty must be a finite number over 0"),
        ({"check": "others.jsonl", "seed": 1}, "--seed is for a run without --check"),
        ({"check": "others.jsonl", "held_out": 0.5}, "--held-out is for a run without --check"),
        ({"out": "gate.txt"}, "--out must be a .json file"),
        ({"replies": "nowhere.jsonl"}, "nowhere.jsonl: no such file of replies"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    args = Args(replies=str(save_records(tmp_path / "own.jsonl", records(6, 0))))
    assert why in ended(replace(args, **changes))


def test_replies_of_another_run_measure_nothing(tmp_path: Path) -> None:
    own = save_records(tmp_path / "own.jsonl", records(6, 0))
    others = [record | {"settings": record["settings"] | {"tilt": "centred"}} for record in records(6, 1)]
    check = save_records(tmp_path / "others.jsonl", others)
    said = ended(Args(replies=str(own), check=str(check)))
    assert f"{check}: its replies were made with other tilt than those of --replies" in said
