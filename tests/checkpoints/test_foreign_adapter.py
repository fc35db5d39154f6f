"""Adapters as PEFT, trl and unsloth write them: read by PEFT's own rule of targets, or refused by name."""

import functools
import shutil
import struct
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sia_jax
from sia_jax.checkpoints.torch_pickle import read_torch_file
from sia_jax.models.lora import LoraConfig
from sia_jax.types import flatten_names
from tests.support.checkpoints import (
    assert_same_trees,
    edit_json,
    edit_tensors,
    save_tiny_policy,
    save_tiny_value_model,
    tiny_policy,
    tiny_reward_model,
)
from tests.support.refusals import refused

CONFIG, WEIGHTS = "lora_weights/adapter_config.json", "lora_weights/adapter_model.safetensors"
PREFIX = "base_model.model.model."
EMBEDDING = "base_model.model.model.embed_tokens.weight"


def keep(value, *parts):
    """Leave the tensors of an adapter whose names have one of `parts`."""
    kept = {name: array.copy() for name, array in load_file(value / WEIGHTS).items()}
    save_file({n: a for n, a in kept.items() if any(part in n for part in parts)}, value / WEIGHTS)


def modules(value):
    loaded = sia_jax.load_value_model(value, tiny_policy())
    return {name.rpartition(".lora_")[0] for name in flatten_names(loaded.params["lora"])}, loaded


@pytest.mark.parametrize(
    "targets",
    [
        r".*\.self_attn\.(q|k|v|o)_proj",
        r"^model\.layers\.\d+\.self_attn\.[qkvo]_proj$",
        r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|k_proj|v_proj|o_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.none)",
        r"^(?!.*lm_head).*_proj",
        ["self_attn.q_proj", "k_proj", "self_attn.v_proj", "o_proj"],
        [f"model.layers.{i}.self_attn.{name}_proj" for i in range(2) for name in "qkvo"],
        ["q_proj", "k_proj", "v_proj", "o_proj", "lm_head"],
    ],
)
def test_targets_of_any_form_are_read(value, targets):
    expected, _ = modules(value)
    edit_json(value / CONFIG, target_modules=targets)
    found, loaded = modules(value)
    assert found == expected
    assert loaded.config.lora.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.mark.parametrize(
    ("targets", "parts", "more"),
    [
        (r"model\.layers\.1\.self_attn\.q_proj", ["1.self_attn.q_proj"], {}),
        (["layers.1.self_attn.q_proj"], ["1.self_attn.q_proj"], {}),
        (["layers.0.self_attn.q_proj", "layers.1.self_attn.k_proj"], ["0.self_attn.q", "1.self_attn.k"], {}),
        (["q_proj"], ["1.self_attn.q_proj"], {"layers_to_transform": 1, "layers_pattern": ["h", "layers"]}),
        ("q_proj", [".q_proj"], {"layers_to_transform": []}),
    ],
)
def test_targets_in_some_layers_are_read_and_saved_again(tmp_path, value, targets, parts, more):
    keep(value, *parts)
    edit_json(value / CONFIG, target_modules=targets, **more)
    found, loaded = modules(value)
    assert 1 <= len(found) <= 2
    sia_jax.save_value_model(loaded, tmp_path / "again", base_model="tiny")
    again = sia_jax.load_value_model(tmp_path / "again", tiny_policy())
    assert_same_trees(again.params, loaded.params)


@pytest.mark.parametrize(
    ("change", "telling"),
    [
        (
            lambda name: name.replace(".weight", ".default.weight"),
            ("of an adapter, 'default'", "save_pretrained"),
        ),
        (lambda name: name.replace(".weight", ".mine.weight"), ("of an adapter, 'mine'", "save_pretrained")),
        (
            lambda name: name.replace(PREFIX, "base_model.model._orig_mod.model."),
            ("'_orig_mod.'", "torch.compile"),
        ),
        (lambda name: "_orig_mod." + name, ("'_orig_mod.'", "torch.compile")),
        (lambda name: name.replace("self_attn", "_fsdp_wrapped_module.self_attn"), ("FSDP",)),
        (lambda name: name.replace(".self_attn", "._checkpoint_wrapped_module.self_attn"), ("activations",)),
        (lambda name: "base_model.model." + name, ("names begin with 'base_model.model.model.'",)),
        (lambda name: "policy." + name, ("names begin with 'policy.base_model.model.model.'",)),
        (lambda name: name.removeprefix("base_model.model."), ("names begin with 'model.'",)),
    ],
)
@pytest.mark.parametrize("patterns", [{}, {"alpha_pattern": {"q_proj": 8}}])
def test_names_that_are_not_pefts_are_told_by_their_cause_in_the_first_line(value, change, telling, patterns):
    tensors = {name: array.copy() for name, array in load_file(value / WEIGHTS).items()}
    edit_json(value / CONFIG, **patterns)
    sia_jax.load_value_model(value, tiny_policy())  # as it should be
    save_file({change(name): array for name, array in tensors.items()}, value / WEIGHTS)
    with pytest.raises(ValueError, match="the tensors are not those") as caught:
        sia_jax.load_value_model(value, tiny_policy())
    first = str(caught.value).splitlines()[0]
    for part in (str(value / WEIGHTS), *telling):
        assert part in first


@pytest.mark.parametrize("targets", [r".*_proj", "all-linear", ["q_proj", "k_proj", "v_proj", "o_proj"]])
def test_matrices_that_a_target_lacks_are_missed(value, targets):
    keep(value, "q_proj", "k_proj", "v_proj")
    edit_json(value / CONFIG, target_modules=targets)
    with refused(ValueError, value, "missing: layers.0.self_attn.o_proj.lora_A.weight"):
        sia_jax.load_value_model(value, tiny_policy())


def test_all_linear_is_every_projection(tmp_path):
    kinds = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    save_tiny_value_model(tmp_path / "value", tiny_policy(), lora=LoraConfig(2, 4.0, target_modules=kinds))
    edit_json(tmp_path / "value" / CONFIG, target_modules="all-linear")
    assert len(modules(tmp_path / "value")[0]) == 14


@pytest.mark.parametrize("as_folder", [False, True])
def test_embedding_that_was_saved_unchanged_does_no_harm_and_another_is_refused(tmp_path, value, as_folder):
    backbone = save_tiny_policy(tmp_path / "tiny")
    given = tmp_path / "tiny" if as_folder else backbone
    embedding = np.array(backbone.params["model"]["embed_tokens"]["weight"])
    expected = sia_jax.load_value_model(value, given).params
    edit_tensors(
        value / WEIGHTS, **{EMBEDDING: embedding, "base_model.model.lm_head.weight": embedding.copy()}
    )
    edit_json(value / CONFIG, modules_to_save=["embed_tokens", "lm_head"])
    assert_same_trees(sia_jax.load_value_model(value, given).params, expected)
    embedding[7, 3] += 1
    edit_tensors(value / WEIGHTS, **{EMBEDDING: embedding})
    with refused(ValueError, value / WEIGHTS, "an embedding of its own, which differs", "merge_and_unload"):
        sia_jax.load_value_model(value, given)
    edit_tensors(value / WEIGHTS, **{EMBEDDING: embedding[:60]})
    with refused(ValueError, "(60, 24)", "(64, 24)", "merge_and_unload"):
        sia_jax.load_value_model(value, given)


@pytest.mark.parametrize("rank", [10**5, 10**12])
def test_rank_that_the_matrices_do_not_have_is_refused_before_anything_is_made(value, rank):
    edit_json(value / CONFIG, r=rank)
    with refused(ValueError, value, f"is (4, 24), expected ({rank}, 24)"):
        sia_jax.load_value_model(value, tiny_policy())


@pytest.mark.parametrize("layout", ["official", "sia_jax"])
def test_value_model_without_an_adapter_is_its_own_merged_backbone(tmp_path, layout):
    policy = save_tiny_policy(tmp_path / "tiny")
    save_tiny_value_model(tmp_path / "value", policy, layout=layout)
    merged = sia_jax.load_value_model(tmp_path / "value", tmp_path / "tiny")
    sia_jax.save_policy(
        sia_jax.Policy(policy.config, policy.params | {"model": merged.params["model"]}), tmp_path / "merged"
    )
    for path in (tmp_path / "value/lora_weights").iterdir():
        path.unlink()
    (tmp_path / "value/lora_weights").rmdir()

    with refused(FileNotFoundError, "no lora_weights/", "backbone/", "check_base=False"):
        sia_jax.load_value_model(tmp_path / "value", tmp_path / "tiny")  # it may have been left behind
    with refused(ValueError, "no lora_weights/", "own, merged weights"):
        sia_jax.load_value_model(tmp_path / "value", policy)
    told = sia_jax.load_value_model(tmp_path / "value", tmp_path / "merged", check_base=False)
    (tmp_path / "merged").rename(tmp_path / "value/backbone")
    own = sia_jax.load_value_model(tmp_path / "value")
    assert own.config.lora is None
    assert_same_trees(told.params, merged.params)
    assert_same_trees(own.params, merged.params)


@pytest.mark.parametrize("names", [("adapter_config.json",), ("adapter_model.safetensors",), None])
@pytest.mark.parametrize("kind", ["policy", "reward model", "own backbone", "value model"])
def test_adapter_beside_a_model_that_is_loaded_without_it_is_refused(tmp_path, value, kind, names):
    folder = {"own backbone": value / "backbone", "value model": value}.get(kind, tmp_path / "model")
    save_tiny_policy(value / "backbone")
    if kind == "reward model":
        sia_jax.save_reward_model(tiny_reward_model(), folder)
    elif kind == "policy":
        save_tiny_policy(folder)
    load = {"policy": sia_jax.load_policy, "reward model": sia_jax.load_reward_model}.get(kind)
    load = functools.partial(load, folder) if load else functools.partial(sia_jax.load_value_model, value)
    load()  # as it should be: an adapter in lora_weights/ is the value model's own
    for path in (value / "lora_weights").iterdir():
        if names is None or path.name in names:
            shutil.copy(path, folder)
    telling = names or ("adapter_config.json and adapter_model.safetensors stand",)
    with refused(ValueError, folder, *telling, "beside the model", "remove"):
        load()


def test_adapter_without_a_head_is_told_what_is_missing(value):
    for name in ("value_model.json", "value_head.safetensors"):
        (value / name).unlink()
    telling = ("but no value head", "token_reward_head.pt", "value_head.safetensors", "train.value_model")
    for folder in (value, value / "lora_weights"):
        with refused(FileNotFoundError, folder, *telling):
            sia_jax.load_value_model(folder, tiny_policy())


def test_entries_of_a_head_may_not_claim_more_than_the_file_has(tmp_path, official):
    """One body that many entries share, and one that says it unpacks to more."""
    path = official / "token_reward_head.pt"
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        storage = next(i for i in archive.infolist() if i.filename.endswith("data/0"))
    place = whole.rindex(storage.filename.encode()) - 46  # of its entry in the directory
    entry = whole[place : place + 46 + len(storage.filename)]
    claim = entry[:20] + struct.pack("<II", 1 << 30, 1 << 30) + entry[28:]
    path.write_bytes(whole.replace(entry, claim))
    with refused(ValueError, path, "claim", "of a file of"):
        read_torch_file(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("head/data.pkl", b"\x80\x02}.")
        archive.writestr("head/data/0", bytes(10 << 20))
    with refused(ValueError, path, "claim", "of a file of"):
        read_torch_file(path)
