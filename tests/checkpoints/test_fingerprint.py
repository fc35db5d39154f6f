"""Digests tell whatever an answer depends on, each its own part, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sia_jax
from sia_jax.checkpoints.fingerprint import (
    fingerprint_of_folder,
    fingerprint_of_rest,
    fingerprint_of_reward_model,
    fingerprint_of_tokenizer,
)
from tests.support.checkpoints import edit_json, edit_tensors, tiny_policy, tiny_reward_model
from tests.support.tokenizers import save_qwen3_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return save_qwen3_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def policy(tokenizer: Any, tmp_path: Path) -> Path:
    """A policy's folder, with an untied head."""
    sia_jax.save_policy(tiny_policy(vocab_size=400, tokenizer=tokenizer), tmp_path / "policy")
    return tmp_path / "policy"


@pytest.fixture
def reward(tokenizer: Any, tmp_path: Path) -> Path:
    """A reward model's folder."""
    model = replace(tiny_reward_model(vocab_size=400), tokenizer=tokenizer)
    sia_jax.save_reward_model(model, tmp_path / "reward")
    return tmp_path / "reward"


def write(name: str, content: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return change


def head(name: str, shape: tuple[int, ...]) -> Callable[[Path], None]:
    array = np.ones(shape, np.float32)
    return lambda folder: edit_tensors(folder / "model.safetensors", **{f"{name}.weight": array})


CHANGES: dict[str, Callable[[Path], None]] = {
    "rope": lambda folder: edit_json(folder / "config.json", rope_theta=5e5),
    "stop ids": lambda folder: edit_json(folder / "generation_config.json", eos_token_id=[5]),
    "vocabulary": lambda folder: edit_json(folder / "tokenizer.json", version="2.0"),
    "special tokens": lambda folder: edit_json(folder / "tokenizer_config.json", eos_token="<think>"),
    "template": write("chat_template.jinja", "{{ messages }}"),
    "old template": write("chat_template.json", "{}"),
    "further template": write("additional_chat_templates/rag.jinja", "{{ messages }}"),
}


@pytest.mark.parametrize("change", [*CHANGES.values(), head("lm_head", (400, 24))], ids=[*CHANGES, "head"])
def test_whatever_changes_a_policys_answers_beside_its_backbone_is_told(
    policy: Path, change: Callable[[Path], None]
) -> None:
    backbone, rest = fingerprint_of_folder(policy), fingerprint_of_rest(policy)
    change(policy)
    assert fingerprint_of_folder(policy) == backbone
    assert fingerprint_of_rest(policy) != rest


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "stop ids"])
def test_a_reward_models_digest_tells_the_same(reward: Path, name: str) -> None:
    before = (
        fingerprint_of_reward_model(reward),
        fingerprint_of_rest(reward),
        fingerprint_of_tokenizer(reward),
    )
    CHANGES[name](reward)
    assert fingerprint_of_reward_model(reward) != before[0]
    assert fingerprint_of_rest(reward) != before[1]
    assert fingerprint_of_tokenizer(reward) != before[2]


def test_a_reward_models_digest_tells_its_head_and_its_backbone(reward: Path) -> None:
    found = [fingerprint_of_reward_model(reward)]
    head("score", (1, 24))(reward)
    found.append(fingerprint_of_reward_model(reward))
    head("model.norm", (24,))(reward)
    found.append(fingerprint_of_reward_model(reward))
    assert len(set(found)) == 3


def test_other_files_tell_nothing(policy: Path) -> None:
    before = fingerprint_of_rest(policy)
    for name in ("README.md", "trainer_state.json", "LICENSE.txt", "model.safetensors.index.json"):
        (policy / name).write_text("{}")
    assert fingerprint_of_rest(policy) == before


def test_a_head_that_is_the_embedding_is_no_head(tmp_path: Path) -> None:
    """One that is tied may lie in the file under either name."""
    sia_jax.save_policy(tiny_policy("llama", tie_word_embeddings=True), tmp_path)
    before = fingerprint_of_rest(tmp_path)
    weights = tmp_path / "model.safetensors"
    embedding = sia_jax.load_policy(tmp_path).params["model"]["embed_tokens"]["weight"]
    edit_tensors(weights, ("model.embed_tokens.weight",), **{"lm_head.weight": np.asarray(embedding)})
    assert fingerprint_of_rest(tmp_path) == before


def test_folders_without_a_tokenizer_have_one_digest(policy: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "value_model.json").write_text(name)
        found.append(fingerprint_of_tokenizer(tmp_path / name))
    assert len({*found, fingerprint_of_tokenizer(policy)}) == 2
