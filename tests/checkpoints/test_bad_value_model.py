"""Value models whose parts do not belong together are refused."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import sia_jax
from sia_jax.checkpoints.torch_pickle import read_torch_file, write_torch_file
from tests.support.checkpoints import (
    edit_json,
    edit_tensors,
    save_tiny_policy,
    save_tiny_value_model,
    tiny_policy,
    tiny_value_model,
)
from tests.support.refusals import refused
from tests.support.tokenizers import save_qwen3_tokenizer


def test_base_of_another_size_is_refused_as_another_base(value, tmp_path):
    """Not as a hundred tensors of the wrong shape."""
    wide = tiny_policy(hidden_size=48)
    with refused(ValueError, value, "other weights (tiny)", "pass the backbone it was trained on"):
        sia_jax.load_value_model(value, backbone=wide)


def test_folder_of_several_value_models_is_refused_with_their_names(value, tmp_path):
    shutil.copytree(value, tmp_path / "several" / "VM-one")
    shutil.copytree(value, tmp_path / "several" / "VM-two")
    with refused(FileNotFoundError, "it holds ['VM-one', 'VM-two']: name one of them", "several/VM-one"):
        sia_jax.load_value_model(tmp_path / "several", backbone=tmp_path / "tiny")


def test_base_with_other_weights_is_refused_and_can_be_insisted_on(value, tmp_path):
    other = save_tiny_policy(tmp_path / "other", seed=1)
    for backbone in (other, tmp_path / "other"):
        with refused(ValueError, value, "other weights (tiny) than other", "trained on", "check_base=False"):
            sia_jax.load_value_model(value, backbone=backbone)
        sia_jax.load_value_model(value, backbone=backbone, check_base=False)


@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj.weight", "model.norm.weight"])
def test_base_of_which_one_number_differs_is_refused(value, tmp_path, name):
    save_tiny_policy(tmp_path / "tuned")
    weights = load_file(tmp_path / "tuned/model.safetensors")[name].copy()
    weights[..., 5] *= 1.02
    edit_tensors(tmp_path / "tuned/model.safetensors", **{name: weights})
    with refused(ValueError, "other weights"):
        sia_jax.load_value_model(value, backbone=tmp_path / "tuned")


def test_base_of_another_name_is_refused_in_the_official_layout(official, tmp_path, policy):
    save_tiny_policy(tmp_path / "other")
    with refused(ValueError, official, "trained on 'tiny'", "the backbone is 'other'", "check_base=False"):
        sia_jax.load_value_model(official, backbone=tmp_path / "other")
    sia_jax.load_value_model(official, backbone=tmp_path / "other", check_base=False)
    sia_jax.load_value_model(official, backbone=policy)


@pytest.mark.parametrize("recorded", ["~nobody.of.this.name/b", "a\0b", "b" * 5000, "/dev/null", "circle"])
def test_base_recorded_under_a_name_that_leads_nowhere_is_another_base(
    official, policy, tmp_path, monkeypatch, recorded
):
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path)
    edit_json(official / "model_config.json", base_model_path=recorded)
    with refused(ValueError, official, "the adapter was trained on", "the backbone is 'tiny'"):
        sia_jax.load_value_model(official, backbone=policy)


def test_base_recorded_as_a_folder_at_hand_is_compared_by_weights(official, tmp_path):
    save_tiny_policy(tmp_path / "a" / "tiny", seed=0)
    save_tiny_policy(tmp_path / "b" / "tiny", seed=1)
    edit_json(official / "model_config.json", base_model_path=str(tmp_path / "a/tiny"))
    sia_jax.load_value_model(official, backbone=tmp_path / "a/tiny")
    with refused(ValueError, "other weights", str(tmp_path / "a/tiny"), "check_base=False"):
        sia_jax.load_value_model(official, backbone=tmp_path / "b/tiny")


def test_head_of_another_width_is_refused(value, official, policy):
    head = {"weight": np.zeros((1, 48), np.float32), "bias": np.zeros(1, np.float32)}
    write_torch_file(official / "token_reward_head.pt", {"token_reward_head": head, "hidden_size": 48})
    with refused(ValueError, official / "token_reward_head.pt", "(1, 48)", "expected weight (1, 24)"):
        sia_jax.load_value_model(official, backbone=policy)
    edit_json(official / "model_config.json", hidden_size=48)
    with refused(ValueError, official, "hidden_size is 48", "the backbone's is 24"):
        sia_jax.load_value_model(official, backbone=policy)
    save_file(head, value / "value_head.safetensors")
    with refused(ValueError, value / "value_head.safetensors", "weight is (1, 48), expected (1, 24)"):
        sia_jax.load_value_model(value, backbone=policy)


@pytest.mark.parametrize("change", [{"head_type": "mlp"}, {"token_reward_head": None}])
def test_head_with_other_keys_is_refused(official, policy, change):
    path = official / "token_reward_head.pt"
    write_torch_file(path, read_torch_file(path) | change)
    with refused(
        ValueError, path, *(change if "head_type" in change else ()), "expected", "token_reward_head"
    ):
        sia_jax.load_value_model(official, backbone=policy)


def test_head_with_further_tensors_is_refused(official, policy):
    path = official / "token_reward_head.pt"
    tree = read_torch_file(path)
    tree["token_reward_head"] = dict(tree["token_reward_head"], scale=np.ones(1, np.float32))
    write_torch_file(path, tree)
    with refused(ValueError, path, "expected", "scale"):
        sia_jax.load_value_model(official, backbone=policy)


@pytest.mark.parametrize("name", ["token_reward_head.pt", "value_head.safetensors"])
def test_missing_head_is_named(value, official, policy, name):
    folder = official if name.endswith(".pt") else value
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        sia_jax.load_value_model(folder, backbone=policy)


@pytest.mark.parametrize("change", [{"head": "ensemble"}, {"head": "vocab"}, {"head": None}])
def test_unknown_kind_of_head_is_refused(value, policy, change):
    edit_json(value / "value_model.json", **change)
    with refused(ValueError, value / "value_model.json", f"head {change['head']!r} of rank None"):
        sia_jax.load_value_model(value, backbone=policy)


@pytest.mark.parametrize("version", [2, None])
def test_format_version_that_is_not_ours_is_refused(value, policy, version):
    edit_json(value / "value_model.json", format_version=version)
    with refused(ValueError, value / "value_model.json", f"format_version is {version}", "reads 1"):
        sia_jax.load_value_model(value, backbone=policy)


def test_folder_that_is_no_value_model_is_refused(base, value, policy):
    with refused(
        FileNotFoundError, base, "is no value model", "value_model.json", "model_config.json", "neither"
    ):
        sia_jax.load_value_model(base, backbone=policy)
    (value / "model_config.json").write_text("{}")
    with refused(
        FileNotFoundError, value, "expected one of", "found ['value_model.json', 'model_config.json']"
    ):
        sia_jax.load_value_model(value, backbone=policy)


@pytest.mark.parametrize(("text", "telling"), [("{", "not JSON"), ("[]", "expected an object")])
def test_description_that_is_no_json_object_is_refused(value, policy, text, telling):
    (value / "value_model.json").write_text(text)
    with refused(ValueError, value / "value_model.json", telling):
        sia_jax.load_value_model(value, backbone=policy)


def test_value_model_that_reads_other_tokens_is_refused(tmp_path):
    tokenizer = save_qwen3_tokenizer(tmp_path / "base")
    policy = save_tiny_policy(tmp_path / "base", vocab_size=len(tokenizer), tokenizer=tokenizer)
    save_tiny_value_model(tmp_path / "value", policy)
    save_qwen3_tokenizer(tmp_path / "value")
    sia_jax.load_value_model(tmp_path / "value", backbone=policy)  # as it should be

    path = tmp_path / "value/tokenizer.json"
    raw = json.loads(path.read_text())
    vocab = raw["model"]["vocab"]
    first, second = (token for token, index in vocab.items() if index in (70, 71))
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(raw))
    telling = (
        "policy base",
        "value model value",
        "2 of the policy's",
        f"70: {first!r} != {second!r}",
        "71: ",
    )
    with refused(ValueError, *telling):
        sia_jax.load_value_model(tmp_path / "value", backbone=policy)
    with refused(ValueError, *telling):
        sia_jax.load_value_model(tmp_path / "value", backbone=tmp_path / "base", policy=policy)


@pytest.fixture
def on_states(tmp_path, policy):
    """A folder with a head on the hidden states of `policy`."""
    save_tiny_value_model(tmp_path / "states", policy, head="states")
    return tmp_path / "states"


def test_a_head_on_the_policys_states_needs_that_policy_loaded(on_states, base, policy, tmp_path):
    telling = (on_states, "head on the hidden states of the policy that it steers", "pass the loaded policy")
    for given, got in (({}, "got nothing"), ({"backbone": base}, f"got {base};")):
        with refused(ValueError, *telling, "'tiny', and no other", got):
            sia_jax.load_value_model(on_states, **given)
    with refused(ValueError, *telling, "got Policy('tiny'"):
        sia_jax.load_value_model(on_states, policy, policy=tiny_policy())
    with refused(ValueError, *telling, f"got {base} and Policy('tiny'"):
        sia_jax.load_value_model(on_states, base, policy=policy)
    other = tiny_policy(seed=1)
    with refused(
        ValueError, on_states, "the head was trained on other weights (tiny) than tiny", "check_base=False"
    ):
        sia_jax.load_value_model(on_states, other)
    sia_jax.load_value_model(on_states, other, check_base=False)


def test_a_head_on_the_policys_states_fits_hidden_size_and_vocabulary(on_states):
    with refused(ValueError, "hidden_size is 24", "the backbone's is 48"):
        sia_jax.load_value_model(on_states, tiny_policy(hidden_size=48), check_base=False)
    with refused(ValueError, on_states / "value_head.safetensors", "up.weight is (64, 3), expected (80, 3)"):
        sia_jax.load_value_model(on_states, tiny_policy(vocab_size=80), check_base=False)


@pytest.mark.parametrize("states", ["hidden", None, ["policy"]])
def test_states_that_are_nobodys_are_refused(on_states, policy, states):
    edit_json(on_states / "value_model.json", states=states)
    with refused(ValueError, on_states / "value_model.json", "states must be one of ('own', 'policy'), got"):
        sia_jax.load_value_model(on_states, policy)


@pytest.mark.parametrize("name", ["lora_weights", "backbone"])
def test_weights_beside_a_head_on_the_policys_states_are_refused(on_states, policy, name):
    (on_states / name).mkdir()
    with refused(ValueError, on_states, f"a head on the policy's hidden states, which has no {name}/"):
        sia_jax.load_value_model(on_states, policy)


def test_an_adapter_is_no_head_on_the_policys_states(value, policy):
    edit_json(value / "value_model.json", states="policy")
    with refused(ValueError, value, "which has no lora_weights/; move that away"):
        sia_jax.load_value_model(value, policy)


def test_a_scalar_head_reads_no_states_of_the_policy(on_states, policy):
    edit_json(on_states / "value_model.json", head="scalar", head_rank=None)
    head = {"weight": np.zeros((1, 24), np.float32), "bias": np.zeros(1, np.float32)}
    save_file(head, on_states / "value_head.safetensors")
    with refused(ValueError, "is a vocab head without an adapter, got states='policy' with head='scalar'"):
        sia_jax.load_value_model(on_states, policy)


def test_merged_value_model_is_not_saved(tmp_path):
    policy = save_tiny_policy(tmp_path / "base")
    save_tiny_value_model(tmp_path / "value", policy)
    merged = sia_jax.load_value_model(tmp_path / "value", backbone=tmp_path / "base")
    with refused(ValueError, "merged value model", "load it with backbone="):
        sia_jax.save_value_model(merged, tmp_path / "again", base_model="base")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("head", ["vocab", "states"])
def test_vocab_head_is_not_saved_in_the_official_layout(tmp_path, policy, head):
    value = tiny_value_model(policy, head=head)
    with refused(ValueError, "scalar head", "'vocab'", 'layout="sia_jax"'):
        sia_jax.save_value_model(value, tmp_path / "saved", base_model="tiny", layout="official")
    assert not (tmp_path / "saved/token_reward_head.pt").exists()
