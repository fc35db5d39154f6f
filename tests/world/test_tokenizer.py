"""The world's tokenizer: any text comes back, turns are ChatML, and the files are those of Qwen3."""

from itertools import islice
from pathlib import Path

import pytest

from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.text.chat import policy_prompt, value_prompt
from sia_jax.text.markup import CHATML, markup_of
from sia_jax.text.tokenizer import Tokenizer
from sia_jax.world.data import texts
from sia_jax.world.grammar import corpus
from sia_jax.world.prompts import prompts
from sia_jax.world.tokenizer import save_world_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_world_tokenizer(texts(0, 500), folder, 512)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder) -> Tokenizer:
    found = load_tokenizer(folder)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "text", ["Bake it slowly.", "  two  spaces\n\n", "Žluťoučký kůň 漢字 🙂", "it's 1999"]
)
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_vocabulary_has_as_many_tokens_as_asked_for(tokenizer):
    assert sorted(tokenizer.get_vocab().values()) == list(range(512))
    assert tokenizer.eos_token == "<|im_end|>"
    assert markup_of(tokenizer) == CHATML


def test_policy_and_value_model_read_the_same_prompt(tokenizer):
    messages = prompts("test")[0].messages
    assert policy_prompt(tokenizer, messages, form="chat") == value_prompt(tokenizer, messages, CHATML)


def test_the_worlds_text_takes_fewer_than_half_as_many_tokens_as_letters(tokenizer):
    replies = [reply for _, reply in islice(corpus(1, 50), 50)]
    tokens = sum(len(tokenizer.encode(reply)) for reply in replies)
    assert tokens < sum(map(len, replies)) / 2


def test_the_same_texts_make_the_same_files(folder, tmp_path):
    save_world_tokenizer(texts(0, 500), tmp_path, 512)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_too_few_texts_for_a_vocabulary_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the texts yield"):
        save_world_tokenizer(["a few words"], tmp_path, 512)
