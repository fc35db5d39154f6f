"""Chat templates render as transformers renders them, and none of them runs for ever or fills the memory."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sia_jax.text.templates import LONGEST_TEMPLATE, TemplateRefusal, names_read, render
from tests.support.tokenizers import save_llama3_tokenizer, save_qwen3_tokenizer

MESSAGES = [{"role": "user", "content": "Which way is north?"}]

# What templates of published checkpoints make use of, here in small.
CONSTRUCTS = {
    "tojson": "{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ 'é<' | tojson }}",
    "dates": "{{ strftime_now is defined }} {{ date_string | default('26 Jul 2024') }}",
    "trimming": "a\n  {% if true %}\n  b\n  {% endif %}\n{#- c -#}\n d\n",
    "loopcontrols": "{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "namespace": "{% set n = namespace(a=1) %}{% for m in messages %}{% set n.a = 2 %}{% endfor %}{{ n.a }}",
    "macro": "{% macro f(x, y='!') %}{{ x ~ y }}{% endmacro %}{{ f(messages[0].content) }}{{ f('a', y=2) }}",
    "slices": "{{ messages[1:] }}{{ messages[-1]['content'][:3] }}{{ (messages | length) - 1 }}",
    "strings": "{{ messages[0].content.split(' ')[-1].strip('?').upper() }}{{ 'a-b'.replace('-', '+') }}",
    "filters": "{{ messages | map(attribute='role') | join(',') }}{{ [3, 1]|sort }}{{ {'b': 1}|items|list }}",
    "dict": "{{ dict(a=1, b=messages[0].role) }}{{ tools is none }}{{ documents }}{{ undefined_name }}",
    "special": "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ '<' + eos_token }}",
}

ENDLESS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "words without end": "{{ lipsum(n=1000000000) }}",
    "two trees of twos compared": (
        "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(50) %}{% set n.x = [n.x, n.x] %}"
        "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}"
    ),
    "a tree of twos written": (
        "{% set n = namespace(x=1) %}{% for i in range(50) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}"
    ),
}
HUGE = {
    "a text times a number": "{{ 'a' * 10 ** 9 }}",
    "a list times a number": "{{ ([1] * 10 ** 9) | length }}",
    "a text doubled": (
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
    ),
    "a text padded": "{{ 'a'.center(10 ** 10) }}",
    "a filter that pads": "{{ 'a' | center(10 ** 10) }}",
    "a width": "{{ '%1000000000d' % 1 }}",
    "a format": "{{ '{:1000000000}'.format(1) }}",
    "a text replaced": "{{ 'aaaaaaaaaa'.replace('a', 'b' * 10 ** 7).replace('b', 'c' * 1000) }}",
    "numbers": "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
}
WRONG = {
    "another template": ("{% include 'x' %}", "it wants another template, 'x'"),
    "an import": ("{% import 'x' as x %}", "it wants another template, 'x'"),
    "a parent": ("{% extends 'x' %}", "it wants another template, 'x'"),
    "no macro's end": ("\n{% macro f() %}{{ f() }}", "line 2: .*[Ee]nd of template"),
    "a macro without end": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
    "attributes of Python": ("{{ messages.__class__.__mro__ }}", "'__class__' of 'list' object is unsafe"),
    "a namespace of Python's": ("{% set n = namespace(__class__=1) %}", "names that begin with _"),
    "an append": ("{{ messages.append(1) }}", "unsafe|not safely"),
    "no number": ("a\nb {{ messages[0].content + 1 }}", "line 2: TypeError"),
    "a name that is none": ("{{ messages[0].name.first }}", "line 1: .* has no attribute 'name'"),
    "a refusal": ("{{ raise_exception('no ' + messages[0].role) }}", "line 1: no user"),
    "a division": ("{{ 1 / 0 }}", "line 1: ZeroDivisionError"),
    "a syntax error": ("\n\n{% for m in messages %}{{ m.content }", "line 3: unexpected"),
    "an unknown tag": ("{% break %}{% nothing %}", "line 1: .*unknown tag 'nothing'"),
    "an unknown filter": ("{{ 1 | nothing }}", "No filter named 'nothing'"),
    "brackets": ("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}", "nested too deeply"),
    "blocks": ("{% if 1 %}" * 150 + "{% endif %}" * 150, "too many"),
    "half a surrogate pair": ("{{ '\ud83d' }}", "half a surrogate pair at character 0"),
    "a template that is too long": ("a" * (LONGEST_TEMPLATE + 1), "at most 131,072 are taken"),
}


def checkpoint(template: Any, **special: str) -> Any:
    """What `render` looks at in a tokenizer."""
    return SimpleNamespace(name_or_path="some/checkpoint", chat_template=template, special_tokens_map=special)


@pytest.fixture(scope="module", params=["qwen3", "llama3"])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedTokenizerBase:
    folder: Path = tmp_path_factory.mktemp(request.param)
    {"qwen3": save_qwen3_tokenizer, "llama3": save_llama3_tokenizer}[request.param](folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def theirs(tokenizer: PreTrainedTokenizerBase, messages: list[Any], **variables: Any) -> str:
    text = tokenizer.apply_chat_template(messages, tokenize=False, **variables)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("template", CONSTRUCTS.values(), ids=CONSTRUCTS)
def test_a_template_is_rendered_as_transformers_renders_it(
    tokenizer: PreTrainedTokenizerBase, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    for variables in ({}, {"add_generation_prompt": True, "date_string": "1 May 2001"}):
        assert render(tokenizer, MESSAGES, **variables) == theirs(tokenizer, MESSAGES, **variables)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(derandomize=True, database=None, max_examples=60)
@given(
    contents=st.lists(texts, min_size=1, max_size=4),
    system=st.none() | texts,
    thinking=st.booleans(),
    opened=st.booleans(),
)
def test_any_conversation_is_rendered_as_transformers_renders_it(
    tokenizer: PreTrainedTokenizerBase, contents: list[str], system: str | None, thinking: bool, opened: bool
) -> None:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    variables = {"add_generation_prompt": opened, "enable_thinking": thinking}
    assert render(tokenizer, messages, **variables) == theirs(tokenizer, messages, **variables)


def measured(template: str) -> tuple[str, float]:
    """What is said of a template, and the seconds until then."""
    begin = time.perf_counter()
    with pytest.raises(
        ValueError, match=r"^some/checkpoint: the chat template .*original checkpoint"
    ) as error:
        render(checkpoint(template), MESSAGES)
    assert not isinstance(error.value, TemplateRefusal)  # other messages would do no better
    return str(error.value), time.perf_counter() - begin


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_without_end_is_a_value_error(template: str) -> None:
    said, seconds = measured(template)
    assert "of processor time" in said or "MB of memory" in said
    assert seconds < 30  # of a machine that does other things too; it is 1.5 s alone
    assert render(checkpoint("{{ messages | length }}"), MESSAGES) == "1"  # the next one is not concerned


@pytest.mark.parametrize("template", HUGE.values(), ids=HUGE)
def test_a_template_that_fills_the_memory_is_a_value_error(template: str) -> None:
    said, _ = measured(template)
    assert "goes beyond what a template may take" in said


def test_a_template_writes_no_more_than_a_conversation_can_need() -> None:
    said, _ = measured("{% for i in range(99999) %}{{ 'abcdefgh' }}{% endfor %}")
    assert "it writes more than" in said
    long = [{"role": "user", "content": "north " * 100_000}]
    assert len(render(checkpoint("{{ messages[0].content * 3 }}"), long)) == 1_800_000


@pytest.mark.parametrize(("template", "problem"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_template_is_said_with_its_line(template: str, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)^some/checkpoint: .*chat template .*{problem}"):
        render(checkpoint(template), MESSAGES)


def test_a_refusal_of_messages_is_told_from_a_template_that_is_broken() -> None:
    picky = checkpoint("{{ raise_exception('one turn, please') if messages | length > 1 else 'fine' }}")
    assert render(picky, MESSAGES) == "fine"
    with pytest.raises(TemplateRefusal) as refused:
        render(picky, [*MESSAGES, {"role": "assistant", "content": "Up."}])
    assert refused.value.why == "line 1: one turn, please"
    with pytest.raises(ValueError, match="chat template") as found:
        render(checkpoint("{% if %}"), MESSAGES)
    assert not isinstance(found.value, TemplateRefusal)


@pytest.mark.parametrize("template", [None, "", {}, 5, ["a"], {"default": 5}, {"default": None}])
def test_what_is_no_template_is_a_value_error(template: Any) -> None:
    with pytest.raises(ValueError, match="some/checkpoint: the tokenizer has"):
        render(checkpoint(template), MESSAGES)


def test_a_template_behind_a_byte_order_mark_is_refused() -> None:
    for template in ("\ufeff{{ messages }}", {"default": "\ufeff{{ messages }}"}):
        for ask in (names_read, lambda found: render(found, MESSAGES)):
            with pytest.raises(ValueError, match=r"begins with a byte order mark, .*UTF-8 without one"):
                ask(checkpoint(template))
    assert render(checkpoint("a\ufeff"), MESSAGES) == "a\ufeff"


def test_variables_that_are_not_json_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="variables of a chat template must be JSON"):
        render(checkpoint("a"), MESSAGES, tool=object())


def test_a_long_error_of_a_template_is_cut() -> None:
    with pytest.raises(TemplateRefusal) as refused:
        render(checkpoint("{{ raise_exception('a' * 10 ** 6) }}"), MESSAGES)
    assert len(str(refused.value)) < 600


NAMES = ("a", "messages", "0", "1e9", "'x'", "range(9)", "n.x", "namespace", "loop", "\\ud800", "tojson")
GLUE = (
    *("{{", "}}", "{%", "%}", " if ", " for ", " in ", "endfor", "endif", "set ", "=", "+", "*", "**", "~"),
    *("|", "(", ")", "[", "]", ":", ",", ".", "join", "list", "string", "macro ", "{#", "#}", "-", "\n"),
)


@settings(derandomize=True, database=None, max_examples=150)
@given(pieces=st.lists(st.sampled_from(NAMES + GLUE), max_size=24))
def test_any_template_gives_a_text_or_a_value_error(pieces: list[str]) -> None:
    try:
        found = render(checkpoint("".join(pieces) or "a"), MESSAGES)
    except ValueError as error:
        found = str(error)
        assert found.startswith("some/checkpoint: the chat template")
    assert isinstance(found, str)


def test_the_names_that_a_template_reads_are_neither_in_comments_nor_in_its_text() -> None:
    template = (
        "{# enable_thinking #}date_string{{ 'tools' }}{% if strftime_now is defined %}{{ day }}{% endif %}"
    )
    assert names_read(checkpoint(template)) == {"strftime_now", "day"}
    with pytest.raises(ValueError, match="line 1"):
        names_read(checkpoint("{{ a"))


def test_a_template_sees_what_transformers_shows_it(tokenizer: PreTrainedTokenizerBase) -> None:
    seen = json.loads(
        render(tokenizer, MESSAGES, chat_template="{{ [messages, tools, eos_token] | tojson }}")
    )
    assert seen == [MESSAGES, None, tokenizer.eos_token]
