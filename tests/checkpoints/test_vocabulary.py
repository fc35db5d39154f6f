"""Tokenizers of checkpoint folders: found or absent, never half read; and one vocabulary for two models."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from sia_jax.checkpoints.tokenizer_files import copy_tokenizer
from sia_jax.checkpoints.vocabulary import check_same_vocabulary, load_tokenizer, special_tokens_for_4
from tests.support.tokenizers import (
    LLAMA3_SPECIAL,
    QWEN3_PLAIN,
    QWEN3_SPECIAL,
    save_llama3_tokenizer,
    save_qwen3_tokenizer,
)

SAVE = {"qwen3": save_qwen3_tokenizer, "llama3": save_llama3_tokenizer}
TEXT = "It's 12345 o'clock 🕛\n\n  cafe\u0301 <|im_start|><|eot_id|><think>"


def rewrite_config(folder: Path, **entries: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


# The fixtures themselves


@pytest.mark.parametrize("family", SAVE)
def test_saved_tokenizers_are_the_same_bytes_every_time(tmp_path: Path, family: str):
    for name in ("one", "two"):
        SAVE[family](tmp_path / name)
    files = [{path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in ("one", "two")]
    assert files[0] == files[1]
    assert sorted(files[0]) == ["tokenizer.json", "tokenizer_config.json"]


def test_added_tokens_follow_the_learnt_ones_in_the_real_order(tmp_path: Path):
    qwen3 = save_qwen3_tokenizer(tmp_path / "qwen3")
    llama3 = save_llama3_tokenizer(tmp_path / "llama3", vocab_size=300)
    assert qwen3.convert_ids_to_tokens(range(320, len(qwen3))) == [*QWEN3_SPECIAL, *QWEN3_PLAIN]
    assert llama3.convert_ids_to_tokens(range(300, len(llama3))) == list(LLAMA3_SPECIAL)
    # As in the real ones: <|vision_pad|> 151643 + 11, </think> 151643 + 25; <|eot_id|> 128000 + 9.
    ids = qwen3.convert_tokens_to_ids(["<|vision_pad|>", "</think>"])
    assert [*ids, llama3.convert_tokens_to_ids("<|eot_id|>")] == [320 + 11, 320 + 25, 300 + 9]


def test_only_special_tokens_are_skipped_in_decoding(tmp_path: Path):
    qwen3 = save_qwen3_tokenizer(tmp_path)
    text = "<|im_start|><think>egg</think><|im_end|>"
    assert qwen3.decode(qwen3.encode(text), skip_special_tokens=True) == "<think>egg</think>"


def test_a_vocabulary_larger_than_the_corpus_yields_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"vocab_size 99999: the texts yield \d+ tokens"):
        save_qwen3_tokenizer(tmp_path, vocab_size=99999)


# Loading


@pytest.mark.parametrize("family", SAVE)
def test_a_loaded_tokenizer_gives_the_ids_of_its_file(tmp_path: Path, family: str):
    SAVE[family](tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode(TEXT) == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(TEXT).ids
    assert tokenizer.eos_token == {"qwen3": "<|im_end|>", "llama3": "<|eot_id|>"}[family]
    assert tokenizer.pad_token == {"qwen3": "<|endoftext|>", "llama3": None}[family]


def test_a_template_in_its_own_file_is_the_one_in_the_config(tmp_path: Path):
    save_qwen3_tokenizer(tmp_path / "inside")
    save_qwen3_tokenizer(tmp_path / "apart", jinja_file=True)
    assert (tmp_path / "apart/chat_template.jinja").is_file()
    assert "chat_template" not in json.loads((tmp_path / "apart/tokenizer_config.json").read_text())
    inside, apart = load_tokenizer(tmp_path / "inside"), load_tokenizer(tmp_path / "apart")
    assert apart.chat_template == inside.chat_template
    assert "<think>" in apart.chat_template


def test_a_vocabulary_in_two_files_is_loaded(tmp_path: Path):
    expected = save_qwen3_tokenizer(tmp_path).encode(TEXT)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(merges) + "\n")
    assert load_tokenizer(tmp_path).encode(TEXT) == expected


def test_a_truncation_in_the_file_truncates_nothing(tmp_path: Path):
    expected = save_qwen3_tokenizer(tmp_path).encode(TEXT)
    path = tmp_path / "tokenizer.json"
    limit = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation": limit}))
    assert load_tokenizer(tmp_path).encode(TEXT) == expected


def test_a_folder_without_tokenizer_files_has_no_tokenizer(tmp_path: Path):
    assert load_tokenizer(tmp_path) is None
    (tmp_path / "lora_weights").mkdir()
    for name in ("config.json", "model_config.json", "token_reward_head.pt", "chat_template.jinja"):
        (tmp_path / name).write_text("{}")
    assert load_tokenizer(tmp_path) is None


def test_a_template_in_a_processors_file_is_the_tokenizers(tmp_path: Path):
    save_qwen3_tokenizer(tmp_path)
    content = {"chat_template": "{{ messages[0].content }}!"}
    (tmp_path / "chat_template.json").write_text(json.dumps(content))
    assert load_tokenizer(tmp_path).chat_template != content["chat_template"]  # its own comes first
    rewrite_config(tmp_path, chat_template=None)
    assert load_tokenizer(tmp_path).chat_template == content["chat_template"]
    (tmp_path / "copy").mkdir()
    copy_tokenizer(tmp_path, tmp_path / "copy")
    assert load_tokenizer(tmp_path / "copy").chat_template == content["chat_template"]
    twice = '{"chat_template": "a", "chat_template": "b"}'
    half = '{"chat_template": "\\ud83d"}'
    for broken in ("{", "[]", '"a"', "5", '{"template": ""}', "[" * 100_000, twice, half):
        (tmp_path / "chat_template.json").write_text(broken)
        with pytest.raises(ValueError, match=r"chat_template\.json: expected \{.*or remove it"):
            load_tokenizer(tmp_path)


def test_a_missing_folder_is_not_a_folder_without_a_tokenizer(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_tokenizer(tmp_path / "nowhere")


@pytest.mark.parametrize("family", SAVE)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, family: str, name: str, kept: float):
    SAVE[family](tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(kept * len(content))])
    told = rf"cannot read the tokenizer from {name} \(" if kept else f"{name} is empty"
    with pytest.raises(ValueError, match=told):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("family", SAVE)
@pytest.mark.parametrize("content", ["{}", "[]", "version https://git-lfs.github.com/spec/v1\n"])
def test_a_foreign_file_is_named(tmp_path: Path, family: str, content: str):
    SAVE[family](tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    told = r"cannot read the tokenizer from tokenizer\.json[ ,].*; copy"
    if content.startswith("version"):
        told = r"tokenizer\.json is a Git LFS pointer"
    with pytest.raises(ValueError, match=told):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("family", SAVE)
def test_a_config_without_a_vocabulary_is_no_tokenizer_of_special_tokens(tmp_path: Path, family: str):
    SAVE[family](tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has \['tokenizer_config\.json'\] but no vocabulary, expected"):
        load_tokenizer(tmp_path)


def test_half_of_a_vocabulary_is_none(tmp_path: Path):
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(ValueError, match=r"has \['vocab\.json'\] but no vocabulary"):
        load_tokenizer(tmp_path)


def test_a_link_to_nowhere_is_a_broken_tokenizer_not_an_absent_one(tmp_path: Path):
    os.symlink(tmp_path / "emptied/cache", tmp_path / "tokenizer.json")
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is a link to .*which is gone"):
        load_tokenizer(tmp_path)


def test_loading_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    save_qwen3_tokenizer(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert len(load_tokenizer(tmp_path)) == 346


def test_code_in_the_folder_is_not_run(tmp_path: Path):
    save_qwen3_tokenizer(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\nclass Evil: ...\n")
    rewrite_config(tmp_path, tokenizer_class="Evil", auto_map={"AutoTokenizer": [None, "evil.Evil"]})
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_tokenizer(tmp_path)
    assert not (tmp_path / "was_run").exists()


def test_looking_for_a_tokenizer_does_not_import_transformers(tmp_path: Path):
    code = (
        "import pathlib, sys; from sia_jax.checkpoints.vocabulary import load_tokenizer; "
        f"print(load_tokenizer(pathlib.Path({str(tmp_path)!r})), 'transformers' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["None", "False"]


def test_loading_a_tokenizer_says_nothing_of_torch_and_leaves_the_other_warnings(tmp_path: Path):
    save_qwen3_tokenizer(tmp_path)
    code = (
        "import logging, pathlib, sys; from sia_jax.checkpoints.vocabulary import load_tokenizer; "
        # As if torch were not installed, wherever this runs.
        "import importlib.util as u; found = u.find_spec; "
        "u.find_spec = lambda name, *rest: None if name == 'torch' else found(name, *rest); "
        f"load_tokenizer(pathlib.Path({str(tmp_path)!r})); "
        "log = logging.getLogger('transformers'); log.warning('PyTorch was not found, and this is said')"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    said = [line.removeprefix("[transformers] ") for line in run.stderr.splitlines()]  # 4 has no such prefix
    assert [line for line in said if "PyTorch" in line] == ["PyTorch was not found, and this is said"]


# One vocabulary for two models


def check(policy: PreTrainedTokenizerBase, value: PreTrainedTokenizerBase) -> None:
    check_same_vocabulary(policy, value, policy_name="Qwen3-1.7B", value_name="VM-Qwen3-1.7B")


@pytest.fixture
def policy(tmp_path: Path) -> PreTrainedTokenizerBase:
    return save_qwen3_tokenizer(tmp_path / "policy")


def test_one_tokenizer_saved_twice_is_one_vocabulary(policy: PreTrainedTokenizerBase, tmp_path: Path):
    check(policy, save_qwen3_tokenizer(tmp_path / "value", jinja_file=True))


def test_another_template_and_other_special_roles_are_the_same_vocabulary(
    policy: PreTrainedTokenizerBase, tmp_path: Path
):
    value = save_qwen3_tokenizer(tmp_path / "value")
    value.chat_template = None
    value.eos_token = "<|endoftext|>"
    check(policy, value)


def test_further_ids_of_the_value_model_do_no_harm(policy: PreTrainedTokenizerBase, tmp_path: Path):
    value = save_qwen3_tokenizer(tmp_path / "value")
    value.add_special_tokens({"pad_token": "[PAD]"})
    assert len(value) == len(policy) + 1
    check(policy, value)


def test_an_id_that_only_the_policy_has_is_refused(policy: PreTrainedTokenizerBase, tmp_path: Path):
    value = save_qwen3_tokenizer(tmp_path / "value")
    policy.add_special_tokens({"pad_token": "[PAD]"})
    with pytest.raises(ValueError, match=r"1 of the policy's 347 ids .*\(346: '\[PAD\]' != no token\);"):
        check(policy, value)


def test_two_tokens_that_change_places_are_refused(policy: PreTrainedTokenizerBase, tmp_path: Path):
    save_qwen3_tokenizer(tmp_path / "value")
    path = tmp_path / "value/tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    path.write_text(json.dumps(content))
    value = load_tokenizer(tmp_path / "value")
    with pytest.raises(ValueError, match=r"2 of the policy's 346 ids .*\(32: 'A' != 'B', 33: 'B' != 'A'\);"):
        check(policy, value)


def test_another_family_is_refused_with_its_size_five_examples_and_a_remedy(
    policy: PreTrainedTokenizerBase, tmp_path: Path
):
    value = save_llama3_tokenizer(tmp_path / "value")
    tokens = range(len(policy))
    differing = [i for i in tokens if policy.convert_ids_to_tokens(i) != value.convert_ids_to_tokens(i)]
    with pytest.raises(ValueError, match="different vocabularies") as error:
        check(policy, value)
    message = str(error.value)
    assert "the policy Qwen3-1.7B and the value model VM-Qwen3-1.7B" in message
    assert f"{len(differing)} of the policy's 346 ids" in message
    assert message.count(" != ") == 5
    assert f"({differing[0]}: {policy.convert_ids_to_tokens(differing[0])!r} != " in message
    assert "; take a value model that was trained on the policy's tokenizer" in message


@pytest.mark.parametrize("installed", ["4.51.3", "4.57.6", "5.0.0", "5.23.0"])
@pytest.mark.parametrize("extra", [["<|a|>", "<|b|>"], {"image_token": "<|a|>"}, None])
def test_a_list_of_special_tokens_has_another_name_in_transformers_4(
    tmp_path: Path, installed: str, extra: Any
) -> None:
    fields = {} if extra is None else {"extra_special_tokens": extra}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(fields))
    told = special_tokens_for_4(tmp_path, installed)
    if installed < "5" and isinstance(extra, list):
        assert told == {"additional_special_tokens": extra, "extra_special_tokens": {}}
    else:
        assert told == {}
