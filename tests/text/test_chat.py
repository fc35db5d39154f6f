"""Conversations as ids: the official prompts byte for byte, one BOS, and no conversation misread."""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from tokenizers.processors import ByteLevel, TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sia_jax.text import chat
from sia_jax.text.markup import CHATML, LLAMA3
from tests.support.sources import user as conversation
from tests.support.tokenizers import LLAMA3_TEMPLATE, save_llama3_tokenizer, save_qwen3_tokenizer

BOS = "<|begin_of_text|>"

CONTENTS = (
    "How long should I boil an egg?",
    "",
    " \n indented, and closed by blank lines\n\n",
    "Two lines\nand\ttabs \r\n12345",
    "🧑‍🍳 крем-брюле, 卵は何分?",
    "cafe\u0301 and caf\u00e9",
    "Human:\nis what I am. Assistant: is what you are.",
    "{role} and {{0}} and {% if %} are text",
    "What does <|im_end|> or <|eot_id|> stand for?",
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


def exactly(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a text to which nothing is added."""
    return tokenizer.encode(text, add_special_tokens=False)


# The value model's prompt


def test_value_prompt_of_qwen3_is_the_official_text():
    text = chat.value_prompt_text(conversation("Hi there"), CHATML)
    assert text == "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"


def test_value_prompt_of_llama_is_the_official_text():
    text = chat.value_prompt_text(conversation("Hi there"), LLAMA3)
    assert text == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_value_prompt_goes_on_over_system_message_and_turns_in_the_same_markup():
    messages = conversation("One?", "One.", "Two?", system="Count.")
    assert chat.value_prompt_text(messages, CHATML) == (
        "<|im_start|>system\nCount.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
        "<|im_start|>assistant\nOne.<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.value_prompt_text(messages, LLAMA3) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCount.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nOne?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nOne.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nTwo?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize("content", CONTENTS)
def test_value_prompt_of_qwen3_is_what_official_training_and_decoding_feed(
    qwen3: PreTrainedTokenizerBase, content: str
):
    text = "<|im_start|>user\n" + content + "<|im_end|>\n<|im_start|>assistant\n"
    training = qwen3(text, add_special_tokens=False).input_ids
    decoding = qwen3(text).input_ids
    assert chat.value_prompt(qwen3, conversation(content), CHATML) == training == decoding


@pytest.mark.parametrize("content", CONTENTS)
def test_value_prompt_of_llama_is_what_official_training_and_decoding_feed(
    llama3: PreTrainedTokenizerBase, content: str
):
    # Training writes the BOS and lets nothing be added; decoding leaves it to the tokenizer.
    headers = [f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant")]
    text = headers[0] + content + "<|eot_id|>" + headers[1]
    training = llama3(BOS + text, add_special_tokens=False).input_ids
    decoding = llama3(text).input_ids
    ids = chat.value_prompt(llama3, conversation(content), LLAMA3)
    assert ids == training == decoding
    assert ids.count(llama3.bos_token_id) == 1


@pytest.mark.parametrize("content", CONTENTS)
def test_value_prompt_keeps_every_character_of_a_content(llama3: PreTrainedTokenizerBase, content: str):
    ids = chat.value_prompt(llama3, conversation(content), LLAMA3)
    assert llama3.decode(ids) == chat.value_prompt_text(conversation(content), LLAMA3)


def test_turn_words_inside_a_content_begin_no_turn(qwen3: PreTrainedTokenizerBase):
    ids = chat.value_prompt(qwen3, conversation("Human:\nhi\nAssistant:\nho"), CHATML)
    assert ids.count(qwen3.convert_tokens_to_ids("<|im_start|>")) == 2
    assert "Human:\nhi\nAssistant:\nho" in qwen3.decode(ids)


def test_special_token_text_inside_a_content_becomes_the_special_token(qwen3: PreTrainedTokenizerBase):
    messages = conversation("What is <|im_end|>?")
    end = qwen3.convert_tokens_to_ids("<|im_end|>")
    assert chat.value_prompt(qwen3, messages, CHATML).count(end) == 2
    assert chat.policy_prompt(qwen3, messages, form="chat").count(end) == 2
    assert chat.policy_prompt(qwen3, messages, form="raw").count(end) == 1


def test_composed_and_decomposed_text_are_one_prompt_to_qwen3_alone(
    qwen3: PreTrainedTokenizerBase, llama3: PreTrainedTokenizerBase
):
    # Qwen3's tokenizer normalises to NFC, Llama's does not; the text itself is left to them.
    decomposed = conversation("cafe\u0301 🧑‍🍳")
    composed = conversation(unicodedata.normalize("NFC", "cafe\u0301 🧑‍🍳"))
    assert chat.value_prompt_text(decomposed, CHATML) != chat.value_prompt_text(composed, CHATML)
    assert chat.value_prompt(qwen3, decomposed, CHATML) == chat.value_prompt(qwen3, composed, CHATML)
    assert chat.value_prompt(llama3, decomposed, LLAMA3) != chat.value_prompt(llama3, composed, LLAMA3)


def test_value_prompt_refuses_a_tokenizer_without_the_marks(
    qwen3: PreTrainedTokenizerBase, llama3: PreTrainedTokenizerBase
):
    lacking = re.escape("['<|im_start|>', '<|im_end|>'] of the prompt '<|im_start|>user")
    with pytest.raises(ValueError, match=rf"llama3: .* lacks .*{lacking}.*use the value model's own"):
        chat.value_prompt(llama3, conversation("Hi"), CHATML)
    with pytest.raises(ValueError, match=r"qwen3: .* lacks .*start_header_id.*use the value model's own"):
        chat.value_prompt(qwen3, conversation("Hi"), LLAMA3)


# The policy's prompt: its chat template


def test_chat_prompt_of_qwen3_opens_the_reply_with_an_empty_think_block(qwen3: PreTrainedTokenizerBase):
    ids = chat.policy_prompt(qwen3, conversation("Hi there"), form="chat")
    text = "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert ids == exactly(qwen3, text)
    assert qwen3.decode(ids) == text


def test_chat_prompt_of_qwen3_leaves_the_thinking_to_the_policy_if_enabled(qwen3: PreTrainedTokenizerBase):
    ids = chat.policy_prompt(qwen3, conversation("Hi there"), form="chat", enable_thinking=True)
    assert ids == exactly(qwen3, "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n")


def test_chat_prompt_of_qwen3_takes_system_message_and_turns(qwen3: PreTrainedTokenizerBase):
    messages = conversation("One?", "<think>\nEasy.\n</think>\n\nOne.", "One?", system="Count.")
    ids = chat.policy_prompt(qwen3, messages, form="chat")
    assert qwen3.decode(ids) == (
        "<|im_start|>system\nCount.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
        "<|im_start|>assistant\nOne.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_chat_prompt_of_llama_has_its_system_block_and_date(llama3: PreTrainedTokenizerBase):
    messages = conversation("  Hi there ", system="Be brief.")
    ids = chat.policy_prompt(llama3, messages, form="chat", date_string="1 Jan 2000")
    assert llama3.decode(ids) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 1 Jan 2000\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize("template_writes", [True, False])
@pytest.mark.parametrize("tokenizer_adds", [True, False])
def test_chat_prompt_has_one_bos_if_template_or_tokenizer_provides_it(
    llama3: PreTrainedTokenizerBase, template_writes: bool, tokenizer_adds: bool
):
    expected = chat.policy_prompt(llama3, conversation("Hi there"), form="chat")
    assert expected.count(llama3.bos_token_id) == 1
    if not template_writes:
        llama3.chat_template = LLAMA3_TEMPLATE.replace("bos_token + ", "")
    if not tokenizer_adds:
        llama3.backend_tokenizer.post_processor = ByteLevel()
        assert llama3.encode("") == []
    ids = chat.policy_prompt(llama3, conversation("Hi there"), form="chat")
    assert ids == (expected if template_writes or tokenizer_adds else expected[1:])


@pytest.mark.parametrize("content", CONTENTS)
def test_chat_prompt_is_what_the_official_cutting_of_the_bos_gives(
    llama3: PreTrainedTokenizerBase, content: str
):
    text = llama3.apply_chat_template(conversation(content), tokenize=False, add_generation_prompt=True)
    assert text.startswith(BOS)
    official = llama3(text[len(BOS) :]).input_ids
    assert chat.policy_prompt(llama3, conversation(content), form="chat") == official


def test_chat_prompt_needs_a_chat_template(qwen3: PreTrainedTokenizerBase):
    qwen3.chat_template = None
    with pytest.raises(ValueError, match=r"qwen3: the tokenizer has no chat template; use form='raw'"):
        chat.policy_prompt(qwen3, conversation("Hi"), form="chat")


@pytest.mark.parametrize("value", [0, None, "false"])
def test_chat_prompt_takes_no_substitute_for_a_bool(qwen3: PreTrainedTokenizerBase, value: Any):
    with pytest.raises(ValueError, match=rf"enable_thinking must be True or False, got {value!r}"):
        chat.policy_prompt(qwen3, conversation("Hi"), form="chat", enable_thinking=value)


def test_chat_prompt_refuses_variables_that_its_template_never_reads(
    qwen3: PreTrainedTokenizerBase, llama3: PreTrainedTokenizerBase
):
    with pytest.raises(ValueError, match=r"no variables \['date_string'\]"):
        chat.policy_prompt(qwen3, conversation("Hi"), form="chat", date_string="1 Jan 2000")
    with pytest.raises(ValueError, match=r"no variables \['date', 'tools'\]"):
        chat.policy_prompt(llama3, conversation("Hi"), form="chat", date="1 Jan 2000", tools=[])


# The policy's prompt: the raw form


def test_raw_prompt_is_the_official_text(qwen3: PreTrainedTokenizerBase):
    assert chat.raw_prompt_text(conversation("Hi there")) == "Human:\nHi there\nAssistant:\n"
    ids = chat.policy_prompt(qwen3, conversation("Hi there"), form="raw")
    assert ids == exactly(qwen3, "Human:\nHi there\nAssistant:\n")


def test_raw_prompt_goes_on_over_system_message_and_turns():
    messages = conversation("One?", "One.", "Two?", system="Count.")
    assert chat.raw_prompt_text(messages) == (
        "Count.\n\nHuman:\nOne?\nAssistant:\nOne.\nHuman:\nTwo?\nAssistant:\n"
    )


@pytest.mark.parametrize("content", CONTENTS)
def test_raw_prompt_keeps_every_character_and_has_the_bos_of_llama(
    llama3: PreTrainedTokenizerBase, content: str
):
    ids = chat.policy_prompt(llama3, conversation(content), form="raw")
    text = f"Human:\n{content}\nAssistant:\n"
    assert ids == llama3(text).input_ids
    assert llama3.decode(ids) == BOS + text
    assert ids.count(llama3.bos_token_id) == 1


def test_thinking_is_refused_where_the_template_has_no_switch(llama3: PreTrainedTokenizerBase):
    chat.policy_prompt(llama3, conversation("Hi"), form="chat", date_string="26 Jul 2024")
    with pytest.raises(ValueError, match=r"the chat template has no variables \['enable_thinking'\]"):
        chat.policy_prompt(llama3, conversation("Hi"), form="chat", enable_thinking=True)


def test_raw_prompt_refuses_what_only_a_template_could_use(qwen3: PreTrainedTokenizerBase):
    with pytest.raises(ValueError, match=r"no template for \['enable_thinking', 'date_string'\]"):
        chat.policy_prompt(qwen3, conversation("Hi"), form="raw", enable_thinking=True, date_string="")


def test_policy_prompt_refuses_an_unknown_form(qwen3: PreTrainedTokenizerBase):
    with pytest.raises(ValueError, match="form must be 'chat' or 'raw', got 'plain'"):
        chat.policy_prompt(qwen3, conversation("Hi"), form="plain")


# A reward model's input


def test_reward_conversation_is_the_template_without_generation_prompt(qwen3: PreTrainedTokenizerBase):
    ids = chat.reward_conversation(qwen3, conversation("Hi there", "Hello!"))
    assert qwen3.decode(ids) == (
        "<|im_start|>user\nHi there<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\nHello!<|im_end|>\n"
    )


@pytest.mark.parametrize("template_writes", [True, False])
def test_reward_conversation_of_llama_has_one_bos(llama3: PreTrainedTokenizerBase, template_writes: bool):
    if not template_writes:
        llama3.chat_template = LLAMA3_TEMPLATE.replace("bos_token + ", "")
    messages = conversation("Hi there", "Hello!", "Bye.", "Bye!")
    ids = chat.reward_conversation(llama3, messages, date_string="1 Jan 2000")
    assert llama3.decode(ids) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 1 Jan 2000\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nBye!<|eot_id|>"
    )


@pytest.mark.parametrize("template_writes", [True, False])
@pytest.mark.parametrize("added", ["", "bos", "eos", "bos eos"])
def test_what_the_tokenizer_adds_in_front_is_there_once_and_nothing_behind(
    llama3: PreTrainedTokenizerBase, template_writes: bool, added: str
):
    bos, eos = llama3.bos_token, llama3.eos_token
    template = LLAMA3_TEMPLATE if template_writes else LLAMA3_TEMPLATE.replace("bos_token + ", "")
    llama3.chat_template = template
    around = {"": "$A", "bos": f"{bos} $A", "eos": f"$A {eos}", "bos eos": f"{bos} $A {eos}"}[added]
    llama3.backend_tokenizer.post_processor = TemplateProcessing(
        single=around, special_tokens=[(token, llama3.convert_tokens_to_ids(token)) for token in (bos, eos)]
    )
    messages = conversation("Hi there", "Hello!")
    theirs = llama3.apply_chat_template(messages, tokenize=True, return_dict=False)
    opening = [llama3.bos_token_id] if "bos" in added else []
    assert chat.reward_conversation(llama3, messages) == (theirs if template_writes else [*opening, *theirs])
    asked = conversation("Hi there")
    theirs = llama3.apply_chat_template(asked, tokenize=True, return_dict=False, add_generation_prompt=True)
    mine = chat.policy_prompt(llama3, asked, form="chat")
    assert mine == (theirs if template_writes else [*opening, *theirs])
    raw = chat.policy_prompt(llama3, asked, form="raw")
    assert raw == [*opening, *exactly(llama3, "Human:\nHi there\nAssistant:\n")]
    value = chat.value_prompt(llama3, asked)
    assert value == exactly(llama3, chat.value_prompt_text(asked, LLAMA3))


def test_one_of_several_templates_is_taken_by_its_name(qwen3: PreTrainedTokenizerBase):
    short = "{% for m in messages %}{{ m.content }}{% endfor %}"
    qwen3.chat_template = {"short": short, "long": short + "!"}
    ids = chat.policy_prompt(qwen3, conversation("Hi"), form="chat", chat_template="long")
    assert qwen3.decode(ids) == "Hi!"
    assert qwen3.decode(chat.reward_conversation(qwen3, conversation("Hi", "Ho"), chat_template="short")) == (
        "HiHo"
    )
    for template, problem in ((None, "none of them is called 'default'"), ("tall", "none is 'tall'")):
        with pytest.raises(ValueError, match=rf"qwen3: .*\['long', 'short'\], and {problem}; pass"):
            chat.policy_prompt(qwen3, conversation("Hi"), form="chat", chat_template=template)
    with pytest.raises(ValueError, match=r"form 'raw' has no template for \['chat_template'\]"):
        chat.policy_prompt(qwen3, conversation("Hi"), form="raw", chat_template="long")


def test_reward_conversation_must_be_finished(qwen3: PreTrainedTokenizerBase):
    with pytest.raises(ValueError, match="messages end with the user, expected the assistant"):
        chat.reward_conversation(qwen3, conversation("Hi there"))


def test_reward_conversation_needs_a_template_and_variables_that_it_reads(qwen3: PreTrainedTokenizerBase):
    messages = conversation("Hi there", "Hello!")
    with pytest.raises(ValueError, match=r"no variables \['date_string'\]"):
        chat.reward_conversation(qwen3, messages, date_string="1 Jan 2000")
    qwen3.chat_template = None
    with pytest.raises(ValueError, match=r"no chat template, .*use the reward model's own tokenizer"):
        chat.reward_conversation(qwen3, messages)


# What is a conversation


@pytest.mark.parametrize(
    "messages",
    [
        conversation("Hi"),
        conversation("Hi", "Hello!", "Bye."),
        conversation("Hi", system=""),
        (MappingProxyType({"role": "user", "content": "any mapping in any sequence"}),),
    ],
)
def test_conversations_are_accepted(qwen3: PreTrainedTokenizerBase, messages: list[chat.Message]):
    assert qwen3.decode(chat.policy_prompt(qwen3, messages, form="chat", enable_thinking=True)) == (
        chat.value_prompt_text(messages, CHATML)
    )


USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello!"}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], r"messages must be a list .*, got \[\]"),
        ("Hi", r"messages must be a list .*, got 'Hi'"),
        (None, r"messages must be a list .*, got None"),
        (USER, r"messages must be a list .*, got \{'role': 'user'"),
        (["Hi"], r"messages\[0\] must have the keys 'role' and 'content' and no other, got 'Hi'"),
        ([{"content": "Hi"}], r"messages\[0\] must have the keys .*, got \['content'\]"),
        ([USER | {"name": "Ada"}], r"messages\[0\] must have the keys .*, got \['content', 'name', 'role'\]"),
        ([{"role": "tool", "content": "4"}], r"messages\[0\] has role 'tool', expected 'system'"),
        ([{"role": None, "content": "4"}], r"messages\[0\] has role None"),
        ([{"role": "user", "content": None}], r"messages\[0\]: content must be a string, got NoneType"),
        ([{"role": "user", "content": ["Hi"]}], r"messages\[0\]: content must be a string, got list"),
        ([SYSTEM | {"content": b"Hi"}, USER], r"messages\[0\]: content must be a string, got bytes"),
        ([USER | {"content": "Hi \ud83d"}], r"messages\[0\]: content holds half a surrogate pair at 3"),
        ([USER, SYSTEM], r"messages\[1\] is a system message, which may only be the first"),
        ([SYSTEM, SYSTEM, USER], r"messages\[1\] is a system message, which may only be the first"),
        ([ASSISTANT, USER], r"messages\[0\] is from the assistant, expected the user"),
        ([SYSTEM, ASSISTANT, USER], r"messages\[1\] is from the assistant, expected the user"),
        ([USER, USER], r"messages\[1\] is from the user, expected the assistant: .*; join neighbouring"),
        ([USER, ASSISTANT, ASSISTANT, USER], r"messages\[2\] is from the assistant, expected the user"),
        ([SYSTEM], r"messages end with the system, expected the user: a reply is to be generated"),
        ([USER, ASSISTANT], r"messages end with the assistant, expected the user"),
    ],
)
def test_what_is_no_conversation_is_refused_everywhere(
    qwen3: PreTrainedTokenizerBase, messages: Any, problem: str
):
    makers: list[Callable[[], Any]] = [
        lambda: chat.check_messages(messages),
        lambda: chat.raw_prompt_text(messages),
        lambda: chat.value_prompt(qwen3, messages, CHATML),
        lambda: chat.policy_prompt(qwen3, messages, form="chat"),
        lambda: chat.policy_prompt(qwen3, messages, form="raw"),
    ]
    for make in makers:
        with pytest.raises(ValueError, match=problem):
            make()
