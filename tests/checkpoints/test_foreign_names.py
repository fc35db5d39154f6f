"""Weights under the names that transformers takes are read; files that only seem to be there are told."""

import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sia_jax
from sia_jax.checkpoints.fingerprint import fingerprint_of_folder
from tests.support.checkpoints import (
    assert_same_trees,
    edit_tensors,
    save_tiny_policy,
    tiny_policy,
    tiny_reward_model,
)
from tests.support.refusals import refused


def rename(path, change):
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    save_file({change(name): array for name, array in tensors.items()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model.", "module._orig_mod."])
def test_prefix_of_a_wrapper_is_read_past(base, prefix):
    digest = fingerprint_of_folder(base)
    rename(base / "model.safetensors", lambda name: prefix + name)
    assert_same_trees(sia_jax.load_policy(base).params, tiny_policy().params)
    assert fingerprint_of_folder(base) == digest


@pytest.mark.parametrize("wrapper", ["", "_orig_mod."])
def test_names_of_a_bare_backbone_are_read(base, wrapper):
    rename(base / "model.safetensors", lambda name: wrapper + name.removeprefix("model."))
    assert_same_trees(sia_jax.load_policy(base).params, tiny_policy().params)


def test_names_under_a_prefix_that_is_not_known_are_told_in_the_first_line(base):
    rename(base / "model.safetensors", lambda name: f"language.{name}")
    with pytest.raises(ValueError, match=r"names begin with 'language\.'") as caught:
        sia_jax.load_policy(base)
    assert len(str(caught.value)) < 4000


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
def test_wrapper_inside_of_names_is_told_in_the_first_line(base, wrapper):
    rename(base / "model.safetensors", lambda name: name.replace("model.", f"model.{wrapper}", 1))
    with pytest.raises(
        ValueError, match=rf"names hold '{wrapper}', which .* puts there; save the model inside"
    ):
        sia_jax.load_policy(base)


def test_unmerged_peft_model_is_called_so(base):
    rename(base / "model.safetensors", lambda name: name.replace("q_proj.", "q_proj.base_layer."))
    with refused(ValueError, "a PEFT model that was saved unmerged", "merge_and_unload"):
        sia_jax.load_policy(base)


def test_two_tensors_of_one_name_are_refused(base):
    norm = load_file(base / "model.safetensors")["model.norm.weight"]
    edit_tensors(base / "model.safetensors", **{"module.model.norm.weight": norm})
    with refused(ValueError, base, "two tensors are called 'model.norm.weight'"):
        sia_jax.load_policy(base)


def test_buffers_of_the_rotary_embedding_are_left_out(base):
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32) for i in range(2)}
    edit_tensors(
        base / "model.safetensors", **buffers, **{"model.rotary_emb.inv_freq": np.ones(4, np.float32)}
    )
    assert_same_trees(sia_jax.load_policy(base).params, tiny_policy().params)


def test_tied_model_may_hold_its_matrix_as_lm_head_alone(tmp_path):
    policy = save_tiny_policy(tmp_path / "tied", "llama")
    digest = fingerprint_of_folder(tmp_path / "tied")
    path = tmp_path / "tied/model.safetensors"
    rename(path, lambda name: "lm_head.weight" if name == "model.embed_tokens.weight" else name)
    assert_same_trees(sia_jax.load_policy(tmp_path / "tied").params, policy.params)
    assert fingerprint_of_folder(tmp_path / "tied") == digest


def test_untied_model_is_not_given_its_head_for_an_embedding(base):
    edit_tensors(base / "model.safetensors", remove=("model.embed_tokens.weight",))
    with refused(ValueError, "missing: model.embed_tokens.weight"):
        sia_jax.load_policy(base)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_tied_head_with_rows_of_nan_is_the_embedding_where_that_has_them(tmp_path, dtype):
    save_tiny_policy(tmp_path / "tied", "llama")
    path = tmp_path / "tied/model.safetensors"
    embedding = load_file(path)["model.embed_tokens.weight"].astype(dtype)
    embedding[50:] = np.nan
    edit_tensors(path, **{"model.embed_tokens.weight": embedding, "lm_head.weight": embedding.copy()})
    sia_jax.load_policy(tmp_path / "tied")
    other = embedding.copy()
    other[60] = 0
    edit_tensors(path, **{"lm_head.weight": other})
    with refused(ValueError, "another lm_head.weight"):
        sia_jax.load_policy(tmp_path / "tied")


def test_head_for_tokens_beside_that_of_the_rewards_is_left_out(tmp_path):
    reward = tiny_reward_model()
    sia_jax.save_reward_model(reward, tmp_path)
    edit_tensors(tmp_path / "model.safetensors", **{"lm_head.weight": np.ones((64, 24), np.float32)})
    assert_same_trees(sia_jax.load_reward_model(tmp_path).params, reward.params)


FILES = ("config.json", "generation_config.json", "model.safetensors")
VALUE_FILES = ("lora_weights/adapter_config.json", "lora_weights/adapter_model.safetensors")
HEADS = {
    "value": ("value_model.json", "value_head.safetensors"),
    "official": ("model_config.json", "token_reward_head.pt"),
}


def parts(base, value, official):
    """(file, what loads it) of all kinds of files."""
    for name in FILES:
        yield base / name, lambda: sia_jax.load_policy(base)
    for folder in (value, official):
        for name in VALUE_FILES + HEADS[folder.name]:
            yield folder / name, lambda folder=folder: sia_jax.load_value_model(folder, tiny_policy())


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    ],
)
def test_file_that_is_none_is_called_what_it_is(base, value, official, content, telling):
    for path, load in parts(base, value, official):
        whole = path.read_bytes()
        path.write_bytes(content)
        with refused(ValueError, path, telling):
            load()
        path.write_bytes(whole)


def test_link_into_a_cache_that_lost_the_file_is_named(base, value, official):
    for path, load in parts(base, value, official):
        whole = path.read_bytes()
        path.unlink()
        os.symlink("../../blobs/lost", path)
        with refused(FileNotFoundError, path, "blobs/lost", "which is gone", "download"):
            load()
        path.unlink()
        path.write_bytes(whole)


@pytest.mark.parametrize("length", [2**63 - 1, 2**40, 10**8, 0, 7])
def test_header_of_an_impossible_length_is_refused(base, length):
    path = base / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with refused(ValueError, path, "not a safetensors file"):
        sia_jax.load_policy(base)
