"""The programs that sample, with a value model that is a head on the policy's own hidden states."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decode import chat, evaluate, generate
from sia_jax.data.prompts import PromptLine
from sia_jax.runs import preflight, prompting, runner
from sia_jax.runs.options import Models
from tests.support.checkpoints import save_tiny_value_model, tiny_policy
from tests.support.evaluating import evaluation_args, save_models_and_prompts, save_thresholds

RANK, CANDIDATES = 3, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and prompts, of which "states" and "other-states" are heads on two policies."""
    folder = tmp_path_factory.mktemp("models")
    save_models_and_prompts(folder)
    save_thresholds(folder)
    for seed, (policy, name) in enumerate((("policy", "states"), ("other", "other-states"))):
        known = tiny_policy(seed=seed, vocab_size=352, num_layers=1, bos_token_id=None, name=policy)
        save_tiny_value_model(folder / name, known, head="states")
    return folder


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def generation_args(folder: Path) -> generate.Args:
    return generate.Args(
        policy=str(folder / "policy"),
        value=str(folder / "states"),
        prompts=str(folder / "prompts.jsonl"),
        output=str(folder / "replies.jsonl"),
        threshold=2.1,
        batch=5,
        max_new_tokens=12,
    )


def test_before_its_weights_are_read_it_is_known_to_have_no_prompt_of_its_own(folder: Path) -> None:
    args = generation_args(folder)
    policy = runner.prepare(args)
    value = preflight.value_without_weights(args, policy)
    assert value is not None
    assert not value.config.runs_passes
    models = Models(policy, value)
    prompt = PromptLine(0, 0, ({"role": "user", "content": "Is it hot?"},))
    assert prompting.value_ids(models, prompt, [5, 6, 7], args) == [5, 6, 7]


def test_generate_and_chat_steer_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = generation_args(folder)
    generate.main(args)
    lines = read(folder / "replies.jsonl")
    assert len(lines) == 5
    assert any(any(line["junction"]) for line in lines)
    for line in lines:
        assert line["usage"]["value_tokens"] == 0
        assert [value is not None for value in line["value"]] == line["junction"]
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.StringIO("Is it hot?\n"))
    chat.main(chat.Args(policy=args.policy, value=args.value, threshold=2.1, max_new_tokens=12))
    assert "% steered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value_backbone": "policy"}, "a head on the hidden states of the policy that it steers"),
        ({"value": "other-states"}, r"the head was trained on other weights \(other\).*--no-check-base"),
    ],
)
def test_a_backbone_and_another_policy_are_refused(
    folder: Path, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    paths = {name: str(folder / given) for name, given in changes.items()}
    with pytest.raises(SystemExit, match=message):
        generate.main(replace(generation_args(folder), output=str(tmp_path / "out.jsonl"), **paths))


@pytest.mark.long
def test_evaluate_counts_two_products_a_junction(folder: Path, tmp_path: Path) -> None:
    args = replace(
        evaluation_args(folder),
        value=str(folder / "states"),
        out=str(tmp_path),
        methods=("base", "dense", "combined"),
        seeds=1,
        gold_function=None,
    )
    evaluate.main(args)
    hidden_size = tiny_policy().config.hidden_size
    lines = read(tmp_path / "replies.jsonl")
    assert any(line["method"].endswith("by-value") for line in lines)
    dense = [line for line in lines if line["method"] == "dense"]
    for line in dense:
        assert line["flops"]["value"] == line["junctions"] * 2 * RANK * (hidden_size + CANDIDATES)
