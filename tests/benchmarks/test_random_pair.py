"""A random pair in folders: every id is a text, and both models have weights of their own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sia_jax
from sia_jax.benchmarks.random_pair import invented_prompts, save_random_pair
from sia_jax.benchmarks.transformers_serve import save_endless, serve_command
from sia_jax.checkpoints.value_model import own_backbone
from sia_jax.costs.shapes import SHAPES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pair")
    save_random_pair(replace(SHAPES["tiny"], vocab_size=1200), found)
    return found


def test_every_id_but_the_marks_is_a_text_of_its_own_and_prompts_are_short(folder: Path) -> None:
    policy = sia_jax.load_policy(folder / "policy")
    tokenizer = policy.tokenizer
    assert len(tokenizer) == policy.config.vocab_size == 1200
    texts = [tokenizer.decode([id_]) for id_ in range(256, 1197)]
    assert len(set(texts)) == len(texts)
    assert all(text.strip() for text in texts)
    assert tokenizer.decode(tokenizer.encode("Hello, wörld!")) == "Hello, wörld!"
    for prompt in invented_prompts(5):
        turn = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
        assert len(ids) < 64
    assert invented_prompts(5) == invented_prompts(9)[:5]


def test_the_value_model_reads_by_weights_of_its_own(folder: Path) -> None:
    backbone = own_backbone(folder / "value")
    assert backbone is not None
    policy = sia_jax.load_policy(folder / "policy")
    value = sia_jax.load_value_model(folder / "value", backbone, policy=policy)
    weights = [np.asarray(one["model"]["embed_tokens"]["weight"]) for one in (policy.params, value.params)]
    assert weights[0].shape == weights[1].shape
    assert not np.allclose(*weights)
    assert np.isfinite(value.values([[5, 6, 7]], [3])).all()


def test_a_vocabulary_of_fewer_ids_than_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocab_size must be 259 or more"):
        save_random_pair(replace(SHAPES["tiny"], vocab_size=200), tmp_path)


def test_the_copy_for_the_baseline_ends_at_nothing_and_has_the_same_weights(
    folder: Path, tmp_path: Path
) -> None:
    save_endless(folder / "policy", tmp_path / "copy")
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "copy" / name).read_text()).get("eos_token_id") is None
    assert json.loads((tmp_path / "copy" / "generation_config.json").read_text())["do_sample"] is True
    weights = [(one / "model.safetensors").read_bytes() for one in (folder / "policy", tmp_path / "copy")]
    assert weights[0] == weights[1]
    assert "--continuous-batching" in serve_command(tmp_path, 1, continuous=True)
    assert "--continuous-batching" not in serve_command(tmp_path, 1, continuous=False)
