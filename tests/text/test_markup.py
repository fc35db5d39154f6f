"""A value model's prompt is marked as its tokenizer has it, whatever its network, and that is recorded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import sia_jax
from sia_jax.text.chat import value_prompt, value_prompt_text
from sia_jax.text.markup import CHATML, LLAMA3, Markup, check_markup, markup_of, read_markup
from tests.support.checkpoints import edit_json, tiny_policy, tiny_value_model
from tests.support.tokenizers import (
    LLAMA3_TEMPLATE,
    QWEN3_TEMPLATE,
    save_llama3_tokenizer,
    save_qwen3_tokenizer,
)

ASKED = [{"role": "user", "content": "Which way is north?"}]
CHATML_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers")
    save_qwen3_tokenizer(folder / "qwen3")
    save_llama3_tokenizer(folder / "llama3")
    return folder


# Loaded for each test, because some change theirs.
@pytest.fixture
def qwen3(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder / "qwen3", local_files_only=True)


@pytest.fixture
def llama3(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder / "llama3", local_files_only=True)


@pytest.fixture
def both(llama3: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Llama 3's tokenizer with ChatML's tokens too, as some of its fine-tunes have it."""
    llama3.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return llama3


@pytest.mark.parametrize("has_template", [True, False])
def test_the_special_tokens_tell_where_one_markup_has_them(
    qwen3: PreTrainedTokenizerBase, llama3: PreTrainedTokenizerBase, has_template: bool
) -> None:
    for tokenizer, markup in ((qwen3, CHATML), (llama3, LLAMA3)):
        if not has_template:
            tokenizer.chat_template = None
        assert markup_of(tokenizer) == markup


@pytest.mark.parametrize(
    ("template", "markup"),
    [
        (CHATML_TEMPLATE, replace(CHATML, start="<|begin_of_text|>")),
        (CHATML_TEMPLATE.replace("{{ bos_token }}", ""), CHATML),
        (LLAMA3_TEMPLATE, LLAMA3),
        ("{{ raise_exception('no system') if messages[0].role == 'system' }}" + CHATML_TEMPLATE, None),
    ],
)
def test_the_template_tells_where_the_tokens_of_both_are_there(
    both: PreTrainedTokenizerBase, template: str, markup: Markup | None
) -> None:
    both.chat_template = template
    # A template without a system turn: then the BOS is the one that the tokenizer adds.
    assert markup_of(both) == (markup or replace(CHATML, start="<|begin_of_text|>"))


@pytest.mark.parametrize("template", [None, "{{ messages[0].content }}", "{% for %}"])
def test_without_a_template_that_tells_a_tokenizer_of_both_is_refused(
    both: PreTrainedTokenizerBase, template: str | None
) -> None:
    both.chat_template = template
    with pytest.raises(ValueError, match=r"llama3: .*ChatML: <\|im_start\|> <\|im_end\|>.*has those of both"):
        markup_of(both)


def test_a_tokenizer_of_neither_is_refused_with_what_was_looked_for(
    qwen3: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qwen3, "encode", lambda text, add_special_tokens=True: [1, 2])
    with pytest.raises(
        ValueError, match=r"<\|im_start\|>.*<\|eot_id\|>.*of neither; use a tokenizer that has them"
    ):
        markup_of(qwen3)


def test_a_default_system_message_is_no_part_of_the_markup(qwen3: PreTrainedTokenizerBase) -> None:
    default = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    qwen3.chat_template = default + QWEN3_TEMPLATE
    assert markup_of(qwen3) == CHATML
    # The token that opens a turn may also be called the BOS (SmolLM2).
    qwen3.bos_token = "<|im_start|>"
    assert markup_of(qwen3) == CHATML


def test_the_bos_of_a_tokenizer_opens_the_prompt_once(both: PreTrainedTokenizerBase) -> None:
    both.chat_template = CHATML_TEMPLATE
    ids = value_prompt(both, ASKED)
    assert both.decode(ids) == "<|begin_of_text|>" + value_prompt_text(ASKED, CHATML)
    assert ids.count(both.bos_token_id) == 1


@pytest.mark.parametrize("layout", ["sia_jax", "official"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_a_value_model_records_the_markup_of_its_tokenizer_and_is_prompted_by_it(
    both: PreTrainedTokenizerBase, tmp_path: Path, architecture: Any, layout: Any
) -> None:
    both.chat_template = CHATML_TEMPLATE
    policy = tiny_policy(architecture, vocab_size=len(both), tokenizer=both)
    sia_jax.save_value_model(tiny_value_model(policy), tmp_path, base_model="base", layout=layout)
    loaded = sia_jax.load_value_model(tmp_path, policy, check_base=False)
    assert loaded.markup == Markup("<|begin_of_text|>", CHATML.header, CHATML.end)
    assert both.decode(loaded.prompt_ids(ASKED)) == "<|begin_of_text|>" + value_prompt_text(ASKED, CHATML)
    # What it was trained with stays, also with a tokenizer that would now choose otherwise.
    both.chat_template = LLAMA3_TEMPLATE
    again = sia_jax.load_value_model(tmp_path, policy, check_base=False)
    assert again.prompt_ids(ASKED) == loaded.prompt_ids(ASKED)
    (name,) = (path for path in tmp_path.glob("*.json"))
    edit_json(name, remove=("markup",))
    without = sia_jax.load_value_model(tmp_path, policy, check_base=False)
    assert without.markup is None  # as the published ones are
    assert both.decode(without.prompt_ids(ASKED)) == value_prompt_text(ASKED, LLAMA3)


WRONG = (
    *(
        "ChatML",
        5,
        True,
        [],
        {},
        {"start": ""},
        CHATML.to_json() | {"end": None},
        CHATML.to_json() | {"x": ""},
    ),
    CHATML.to_json() | {"header": "{role}: "},
    CHATML.to_json() | {"end": LLAMA3.end},
)


@pytest.mark.parametrize("recorded", WRONG, ids=repr)
def test_a_record_that_is_no_markup_is_refused(recorded: Any) -> None:
    with pytest.raises(ValueError, match=r"^a\.json: markup .*got|^a\.json: markup is .*expected"):
        read_markup(recorded, "a.json")


def test_markups_are_read_back_as_they_were_recorded() -> None:
    for markup in (CHATML, LLAMA3, replace(CHATML, start="<s>")):
        assert read_markup(markup.to_json(), "a.json") == markup
    assert read_markup(None, "a.json") is None


def test_a_role_goes_where_the_header_says_and_text_of_braces_stays(llama3: PreTrainedTokenizerBase) -> None:
    assert Markup("", "{role}{x}", "").open("user") == "user{x}"
    with pytest.raises(ValueError, match="lacks the special tokens"):
        check_markup(llama3, CHATML)
