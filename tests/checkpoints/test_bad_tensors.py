"""Files of tensors that do not fit are refused, in a message that says what to do."""

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

import sia_jax
from tests.support.checkpoints import (
    assert_same_trees,
    edit_json,
    edit_tensors,
    save_tiny_policy,
)
from tests.support.refusals import refused

UP = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize("where", ["empty", 5, 8, 100, "header", "data", "last byte"])
def test_truncated_weights_are_refused(base, where):
    path = base / "model.safetensors"
    size, header = path.stat().st_size, 8 + int.from_bytes(path.read_bytes()[:8], "little")
    cut = {"empty": 0, "header": header - 1, "data": (header + size) // 2, "last byte": size - 1}.get(
        where, where
    )
    with open(path, "r+b") as file:
        file.truncate(cut)
    with refused(ValueError, path, "truncated"):
        sia_jax.load_policy(base)


def test_other_files_are_no_safetensors(base):
    (base / "model.safetensors").write_bytes(b"PK\x03\x04" + bytes(99))
    with refused(ValueError, base / "model.safetensors", "is not a safetensors file"):
        sia_jax.load_policy(base)


def test_every_missing_shard_is_named(shards):
    names = sorted(path.name for path in shards.glob("*.safetensors"))
    assert len(names) > 3
    for name in (names[0], names[2]):
        (shards / name).unlink()
    with refused(FileNotFoundError, "index.json", f"missing: {[names[0], names[2]]}"):
        sia_jax.load_policy(shards)


def test_truncated_shard_is_named(shards):
    path = sorted(shards.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-1])
    with refused(ValueError, path, "truncated"):
        sia_jax.load_policy(shards)


def test_index_and_shards_that_disagree_are_refused(shards):
    path = shards / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    weight_map = index["weight_map"]
    names = sorted(set(weight_map.values()))
    moved, dropped = sorted(weight_map)[:2]
    weight_map[moved] = next(name for name in names if name != weight_map[moved])
    del weight_map[dropped]
    weight_map["model.extra.weight"] = names[0]
    path.write_text(json.dumps(index))
    absent, unlisted = sorted([moved, "model.extra.weight"]), sorted([moved, dropped])
    with refused(ValueError, path, "disagree", f"listed for: {absent}", f"not listed for it: {unlisted}"):
        sia_jax.load_policy(shards)


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("{", "not JSON"),
        ("\xff", "not UTF-8"),
        ("", "is empty"),
        ("[]", "expected an object"),
        ("{}", "not an index of safetensors shards: weight_map is None"),
        ('{"weight_map": []}', "not an index of safetensors shards: weight_map is []"),
        ('{"weight_map": {"a": 1}}', "not an index of safetensors shards: weight_map is {'a': 1}"),
        ('{"weight_map": {"a": ["b"]}}', "not an index of safetensors shards"),
    ],
)
def test_index_that_is_none_is_refused(shards, text, telling):
    path = shards / "model.safetensors.index.json"
    path.write_bytes(text.encode("latin-1"))
    with refused(ValueError, path, telling):
        sia_jax.load_policy(shards)


@pytest.mark.parametrize(
    "shard",
    [
        "../other/model.safetensors",
        "/etc/model.safetensors",
        "..",
        "a/b.safetensors",
        "a\\b.safetensors",
        "model.bin",
    ],
)
def test_index_that_leaves_its_folder_or_names_another_kind_of_file_is_refused(shards, shard):
    path = shards / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = shard
    path.write_text(json.dumps(index))
    with refused(ValueError, path, repr(shard), "files of its own folder"):
        sia_jax.load_policy(shards)


def test_surplus_missing_and_misshapen_tensors_come_in_one_report(base):
    edit_tensors(
        base / "model.safetensors",
        remove=("model.norm.weight", "model.layers.1.self_attn.q_norm.weight"),
        **{
            UP: np.zeros((7, 24), np.float32),
            "model.layers.2.mlp.up_proj.weight": np.zeros((40, 24), np.float32),
        },
    )
    with refused(
        ValueError,
        base,
        "config.json (4 differ)",
        "missing: model.norm.weight (24,)",
        "missing: model.layers.1.self_attn.q_norm.weight (8,)",
        "surplus: model.layers.2.mlp.up_proj.weight (40, 24)",
        f"shape: {UP} is (7, 24), expected (40, 24)",
    ):
        sia_jax.load_policy(base)


def test_transposed_weight_is_refused(base):
    weight = load_file(base / "model.safetensors")[UP]
    edit_tensors(base / "model.safetensors", **{UP: np.ascontiguousarray(weight.T)})
    with refused(ValueError, f"shape: {UP} is (24, 40), expected (40, 24)"):
        sia_jax.load_policy(base)


def test_untied_policy_without_a_head_is_refused(base):
    edit_tensors(base / "model.safetensors", remove=("lm_head.weight",))
    with refused(ValueError, "missing: lm_head.weight (64, 24)"):
        sia_jax.load_policy(base)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, ml_dtypes.float8_e4m3fn])
@pytest.mark.parametrize("asked", [None, jnp.float32])
def test_quantised_tensors_are_refused(base, dtype, asked):
    edit_tensors(base / "model.safetensors", **{UP: np.ones((40, 24), dtype)})
    stored = {"int8": "I8", "int64": "I64", "float8_e4m3fn": "F8_E4M3"}[np.dtype(dtype).name]
    with refused(ValueError, base, f"{UP} has dtype {stored}", "expected one of", "BF16"):
        sia_jax.load_policy(base, dtype=asked)


def test_head_of_a_tied_model_must_be_the_embedding(tmp_path):
    policy = save_tiny_policy(tmp_path / "tied", "llama")
    path = tmp_path / "tied/model.safetensors"
    head = np.array(policy.params["model"]["embed_tokens"]["weight"])
    edit_tensors(path, **{"lm_head.weight": head})
    loaded = sia_jax.load_policy(tmp_path / "tied")
    assert "lm_head" not in loaded.params
    assert_same_trees(loaded.params, policy.params)

    head[-1, -1] += 1e-3
    edit_tensors(path, **{"lm_head.weight": head})
    with refused(
        ValueError, tmp_path / "tied", "another lm_head.weight", '"tie_word_embeddings": false', "remove"
    ):
        sia_jax.load_policy(tmp_path / "tied")
    edit_json(tmp_path / "tied/config.json", tie_word_embeddings=False)  # the remedy
    np.testing.assert_array_equal(
        np.asarray(sia_jax.load_policy(tmp_path / "tied").params["lm_head"]["weight"]), head
    )


def test_pickled_weights_are_refused_with_the_way_out(base):
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with refused(
        FileNotFoundError, base, "pytorch_model.bin", "save the model as safetensors with transformers"
    ):
        sia_jax.load_policy(base)


def test_folder_without_weights_is_refused(base):
    (base / "model.safetensors").unlink()
    with refused(FileNotFoundError, base, "no model.safetensors", "model.safetensors.index.json"):
        sia_jax.load_policy(base)
