"""The embedded models belong together, and the page about them is about them."""

import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import sia_jax
from sia_jax.checkpoints.fingerprint import fingerprint, fingerprint_of_reward_model
from sia_jax.evaluation.calibration import read_calibration
from sia_jax.runs import runner
from sia_jax.runs.options import SamplingArgs
from sia_jax.world import files
from sia_jax.world.files import world_models
from sia_jax.world.prompts import SPLITS, prompts

MODELS = world_models()
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def policy() -> sia_jax.Policy:
    return sia_jax.load_policy(MODELS / "policy")


def test_they_are_a_few_megabytes() -> None:
    sizes = [path.stat().st_size for path in MODELS.rglob("*") if path.is_file()]
    assert sum(sizes) < 16e6


@pytest.mark.parametrize(
    ("name", "head"),
    [("value", "scalar"), ("value-token", "scalar"), ("value-vocab", "vocab"), ("value-small", "scalar")],
)
def test_every_value_model_steers_the_policy(name: str, head: str, policy: sia_jax.Policy) -> None:
    backbone = None if name == "value-small" else policy  # it has its own
    value = sia_jax.load_value_model(MODELS / name, backbone, policy=policy)
    assert value.config.head == head
    ids = value.prompt_ids(prompts("test")[0].messages)
    assert ids == policy.prompt_ids(prompts("test")[0].messages)


@pytest.mark.parametrize("name", ["value-states", "value-states-token", "value-states-distil"])
def test_every_head_on_the_policys_states_steers_it_without_a_pass(name: str, policy: sia_jax.Policy) -> None:
    value = sia_jax.load_value_model(MODELS / name, policy)
    assert list(value.params) == ["value_head"]
    config = sia_jax.SamplerConfig(policy.config, value.config, max_new_tokens=24)
    params = sia_jax.SteeringParams(policy.params, value.params)
    prompt = sia_jax.Prompt.pack([policy.prompt_ids(one.messages) for one in prompts("test")[:16]])
    samples = sia_jax.sample(params, prompt, -np.inf, rng_key=jax.random.key(0), config=config)
    assert samples.shifted.any()
    assert (samples.value_calls, samples.policy_steps) == (0, samples.lengths.max())


def test_the_thresholds_are_of_this_policy_and_of_training_prompts(policy: sia_jax.Policy) -> None:
    calibration = read_calibration(MODELS / "thresholds.json")
    assert sorted(calibration.thresholds) == [0.1, 0.2, 0.4, 0.6, 0.8]
    descending = [calibration.thresholds[ratio] for ratio in sorted(calibration.thresholds)]
    assert descending == sorted(descending, reverse=True)
    own = fingerprint(policy.params["model"])
    assert own.startswith(calibration.settings["policy_fingerprint"])
    asked = (MODELS / "prompts" / "train.jsonl").read_bytes()
    assert calibration.facts["prompts_sha256"] == hashlib.sha256(asked).hexdigest()


def test_the_prompts_are_those_of_the_world() -> None:
    for split in SPLITS:
        lines = (MODELS / "prompts" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        assert found == [{"id": prompt.id, "prompt": prompt.text} for prompt in prompts(split)]


@pytest.mark.parametrize(("value", "name"), [("value", "world"), ("value-token", "world-token")])
def test_each_page_is_about_these_files(value: str, name: str) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert f"--value sia_jax/world/models/{value} " in page
    for file in ("thresholds.json", "prompts/test.jsonl"):
        assert hashlib.sha256((MODELS / file).read_bytes()).hexdigest()[:16] in page
    settings = {"policy": MODELS / "policy", "value": MODELS / value}
    args = SamplingArgs(**{role: str(folder) for role, folder in settings.items()})
    for role in settings:
        assert runner.run_identity(args)[f"{role}_fingerprint"] in page
    assert fingerprint_of_reward_model(MODELS / "reward")[:16] in page
    for picture in (f"{name}-pareto.png", f"{name}-entropy_study.png"):
        assert f"({picture})" in page
        assert (DOCS / picture).read_bytes().startswith(b"\x89PNG")


def test_an_installation_without_them_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "__file__", "/nowhere/files.py")
    with pytest.raises(FileNotFoundError, match="sia train world --out"):
        world_models()
