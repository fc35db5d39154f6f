"""A chat template that leaves out what somebody says is told from one that only changes it."""

from types import SimpleNamespace
from typing import Any

import pytest

from sia_jax.text import omissions
from sia_jax.text.omissions import check_words
from sia_jax.text.templates import TemplateRefusal
from tests.support.sources import user as conversation
from tests.support.tokenizers import LLAMA3_TEMPLATE, QWEN3_TEMPLATE

ASKED = conversation("Which way is north?")
ANSWERED = conversation("Which way is north?", "Up.")
LONG = conversation("Which way is north?", "Up.", "And south?", "Down.", "And east?", system="Be brief.")

TURNS = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
# What stands in a file that was not downloaded, or is no template of conversations.
NONE = {
    "a page": "<!DOCTYPE html>\n<html><title>404</title></html>",
    "an answer": "Entry not found",
    "a pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n",
    "other variables": "{{ bos_token }}[INST] {{ prompt }} [/INST]",
    "roles alone": "{% for m in messages %}<{{ m.role }}>{% endfor %}",
    "replies alone": "{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}",
}
WHOLE = {
    "Qwen3": QWEN3_TEMPLATE,
    "Llama 3": LLAMA3_TEMPLATE,
    "trimmed": "{% for m in messages %}{{ m.content | trim }}{% endfor %}",
    "in capitals": "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
    "in small letters": "{% for m in messages %}{{ m.content | lower }}{% endfor %}",
    "as JSON": "{{ messages | tojson }}",
    "the last one first": "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
    "picky": "{% if '?' not in messages[-1].content %}{{ raise_exception('ask!') }}{% endif %}north",
}


def checkpoint(template: Any) -> Any:
    return SimpleNamespace(
        name_or_path="some/checkpoint", chat_template=template, special_tokens_map={"bos_token": "<s>"}
    )


@pytest.mark.parametrize("template", NONE.values(), ids=NONE)
def test_a_template_without_the_question_is_an_error_for_every_conversation(template: str) -> None:
    for messages in (ASKED, LONG):
        with pytest.raises(ValueError, match=r"some/checkpoint: .* leaves out what the user says") as found:
            check_words(checkpoint(template), messages, add_generation_prompt=True)
        assert not isinstance(found.value, TemplateRefusal)
        assert "--prompt-form raw" in str(found.value)


@pytest.mark.parametrize("template", WHOLE.values(), ids=WHOLE)
def test_a_template_that_changes_contents_or_refuses_the_probe_leaves_nothing_out(template: str) -> None:
    for messages in (ASKED, LONG):
        check_words(checkpoint(template), messages, add_generation_prompt=True)
    check_words(checkpoint(template), ANSWERED)


USERS = "{% for m in messages if m.role == 'user' %}### {{ m.content }}\n{% endfor %}"
LAST = "{{ messages[-1].content }}"
PARTS = {
    "users alone, a system message": (
        USERS,
        conversation("a", system="b"),
        "it leaves the system message out",
    ),
    "users alone, an earlier reply": (USERS, conversation("a", "b", "c"), r"it leaves messages\[1\] out"),
    "the last turn": (
        "{{ messages[-1].content }}",
        conversation("a", "b", "c"),
        r"it leaves messages\[0\] out",
    ),
    "the last exchange": (
        "{% for m in messages[-2:] %}{{ m.content }}{% endfor %}",
        conversation("a", "b", "c", "d"),
        r"it leaves messages\[0\] out",
    ),
}


@pytest.mark.parametrize(("template", "messages", "why"), PARTS.values(), ids=PARTS)
def test_what_a_template_leaves_out_of_some_conversations_it_refuses(
    template: str, messages: list[dict[str, str]], why: str
) -> None:
    with pytest.raises(TemplateRefusal, match=f"some/checkpoint: the chat template refuses it: {why}"):
        check_words(checkpoint(template), messages)
    others = messages[-1:] if messages[-1]["role"] == "user" else messages[-2:]
    check_words(checkpoint(template), others)


def test_a_message_that_says_nothing_cannot_be_left_out() -> None:
    for nothing in ("", " \n"):
        check_words(checkpoint(USERS), conversation("a", nothing, "c", system=nothing))
    with pytest.raises(ValueError, match="leaves out what the user says"):
        check_words(checkpoint("Entry not found"), conversation(""))


def test_a_template_without_the_reply_is_an_error_where_there_is_one() -> None:
    check_words(checkpoint(USERS), ASKED)
    with pytest.raises(
        ValueError, match="leaves out what the assistant says; take that of the orig"
    ) as found:
        check_words(checkpoint(USERS), ANSWERED)
    assert "raw" not in str(found.value)


def test_a_template_is_probed_once_for_an_order_of_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    probed = []

    def render(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str:
        probed.append(tuple(message["role"][0] for message in messages))
        return " ".join(message["content"] for message in messages)

    monkeypatch.setattr(omissions, "render", render)
    omissions._left_out.cache_clear()
    for text in ("a", "b"):
        for _ in range(3):
            check_words(checkpoint(TURNS), conversation(text))
            check_words(checkpoint(TURNS), conversation(text, text, text, system=text))
    assert probed == [("u",), ("s", "u", "a", "u")]
    check_words(checkpoint(TURNS + " "), conversation("a"))
    assert probed[2:] == [("u",)]
    omissions._left_out.cache_clear()


def test_words_of_a_probe_are_letters_and_none_is_in_another() -> None:
    words = [omissions._word(index) for index in range(1000)]
    assert len(set(words)) == 1000
    assert len(set(map(len, words))) == 1
    assert all(word.isalpha() and word == word.casefold() for word in words)
