"""A chat template decides how a policy is prompted, but for the paper's base models; the choice is said."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia_jax.checkpoints.hub import checkpoint_name
from sia_jax.text.forms import Prompting, date_variables, prompt_form, settle, unsettled
from tests.support.tokenizers import LLAMA3_TEMPLATE, QWEN3_TEMPLATE

BASE = (
    *("Qwen3-0.6B-Base", "Qwen3-1.7B-Base", "Qwen3-14B-Base", "Qwen3-30B-A3B-Base", "Llama-3.2-1B"),
    *("Llama-3.1-8B", "Llama-3.1-405B", "Meta-Llama-3.1-70B", "Meta-Llama-3-8B", "Llama-3-8B"),
)
OTHERS = (
    *(
        "Qwen3-1.7B",
        "Qwen3-8B-Base-dpo",
        "my-Qwen3-8B-Base",
        "Qwen3-8B-base",
        "Qwen2.5-7B-Base",
        "Qwen3-Base",
    ),
    *("Llama-3.2-1B-Instruct", "OpenHermes-Llama-3.1-8B", "Llama-3.1-8B-sft", "llama-3.1-8b", "Llama-2-7B"),
    *("R1-Distill-Llama-8B", "Llama-3.1-Storm-8B", "Base", "Llama", "policy", "checkpoint-9", ""),
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tokenizer(template: Any = QWEN3_TEMPLATE) -> Any:
    return SimpleNamespace(
        name_or_path="some/checkpoint", chat_template=template, special_tokens_map={"bos_token": ""}
    )


@pytest.mark.parametrize("prefix", ["", "some-owner/", "/data/Instruct/", "./"])
@pytest.mark.parametrize(("names", "form"), [(BASE, "raw"), (OTHERS, "chat")])
def test_a_template_is_used_but_under_exactly_the_names_of_the_papers_base_models(
    names: tuple[str, ...], form: str, prefix: str
) -> None:
    for name in names:
        assert prompt_form(prefix + name, tokenizer()) == form, name
        assert prompt_form(prefix + name, tokenizer(None)) == "raw", name


@settings(derandomize=True, database=None)
@given(
    name=st.sampled_from(BASE), before=st.text("abQL-.3", max_size=4), after=st.text("abQL-.3", max_size=4)
)
def test_no_name_around_a_base_models_name_is_one(name: str, before: str, after: str) -> None:
    whole = before + name + after
    assert prompt_form(whole, tokenizer()) == ("raw" if whole in BASE or whole == f"Meta-{name}" else "chat")


@pytest.mark.parametrize("name", BASE)
def test_a_folder_of_the_hubs_cache_is_called_by_its_repository(name: str, tmp_path: Path) -> None:
    folder = tmp_path / f"models--some-owner--{name}" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(folder)
    for path in (folder, str(folder), f"{folder}/", link):
        assert checkpoint_name(path) == name
        assert prompt_form(checkpoint_name(path), tokenizer()) == "raw"
    (folder / "one-of-several").mkdir()
    assert checkpoint_name(folder / "one-of-several") == "one-of-several"
    other = tmp_path / "snapshots" / COMMIT
    other.mkdir(parents=True)
    assert checkpoint_name(other) == COMMIT


def test_the_cache_is_known_from_inside_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models--tiny" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert checkpoint_name(".") == "tiny"
    monkeypatch.chdir(folder.parent)
    assert checkpoint_name(COMMIT) == "tiny"


@pytest.mark.parametrize(
    ("options", "form", "why"),
    [
        ({}, "chat", "prompt form: chat, the checkpoint's template (the checkpoint has one)"),
        ({"name": BASE[0]}, "raw", f"prompt form: raw, Human: ... Assistant: ({BASE[0]} is a base model)"),
        ({"official": True}, "raw", "(the official code's, with --preset official)"),
        ({"official": True, "form": "chat"}, "chat", "(as told)"),
        ({"name": BASE[0], "form": "chat"}, "chat", "(as told)"),
        ({"form": "raw"}, "raw", "(as told)"),
    ],
)
def test_what_is_chosen_is_said_with_its_reason(options: dict[str, Any], form: str, why: str) -> None:
    found = settle(**({"name": "policy", "tokenizer": tokenizer()} | options))
    assert found.form == form
    assert why in found.why[0]
    is_told = any("enable_thinking=False (the default" in line for line in found.why)
    assert is_told == (form == "chat")  # where the template knows the switch


def test_a_checkpoint_without_a_template_says_so() -> None:
    found = settle("policy", tokenizer(None))
    assert found == Prompting("raw", False, None, found.why)
    assert "has no chat template" in found.why[0]


def test_thinking_is_no_default_where_it_is_asked_for_or_cannot_be() -> None:
    thinking = settle("policy", tokenizer(), thinking=True)
    assert len(thinking.why) == 1
    assert thinking.variables == {"enable_thinking": True}
    without = settle("policy", tokenizer("{# enable_thinking #}{{ messages[0].content }}"))
    assert len(without.why) == 1


def test_the_date_that_a_template_writes_by_itself_is_found_and_said() -> None:
    found = settle("policy", tokenizer(LLAMA3_TEMPLATE))
    assert found.date_string == "26 Jul 2024"
    assert found.why[1:] == ("date: 26 Jul 2024 (the template's own; --date-string sets another)",)
    assert found.variables == {"date_string": "26 Jul 2024", "enable_thinking": False}
    told = settle("policy", tokenizer(LLAMA3_TEMPLATE), date_string="1 Jan 2000")
    assert (told.date_string, len(told.why)) == ("1 Jan 2000", 1)
    assert settle("policy", tokenizer("{{ messages[0].content }}")).date_string is None


def test_today_s_date_must_be_given_unless_no_template_is_used() -> None:
    today = tokenizer("{{ date_string | default(strftime_now('%d %b %Y')) }}{{ messages[0].content }}")
    with pytest.raises(ValueError, match=r"policy: .*another one tomorrow; fix it with --date-string"):
        settle("policy", today)
    assert settle("policy", today, date_string="1 Jan 2000").date_string == "1 Jan 2000"
    assert settle("policy", today, form="raw").date_string is None
    with pytest.raises(ValueError, match=r"fix it with --other"):
        date_variables(today, None, "reward", "--other")
    fixed = tokenizer("{{ strftime_now('%d %b %Y') }}")
    with pytest.raises(ValueError, match="takes no date_string, so write a fixed date into"):
        settle("policy", fixed)
    assert date_variables(tokenizer("{# strftime_now #}a"), None, "reward") == {}


@pytest.mark.parametrize(
    "template", ["<html>404</html>", "[INST] {{ prompt }} [/INST]", "\ufeff{{ messages }}"]
)
def test_a_template_without_the_users_words_is_refused_unless_none_is_used(template: str) -> None:
    with pytest.raises(
        ValueError, match=r"some/checkpoint: the chat template (leaves out what the user|begins)"
    ):
        settle("policy", tokenizer(template))
    assert settle("policy", tokenizer(template), form="raw").form == "raw"


def test_a_template_that_knows_no_system_messages_is_taken() -> None:
    users = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    assert settle("policy", tokenizer(users)).form == "chat"
    assert settle("policy", tokenizer("{{ raise_exception('never') }}")).form == "chat"  # prompts will tell


def test_a_record_of_auto_is_explained() -> None:
    assert "does not say how the policy was prompted" in unsettled({"prompt_form": "auto"})
    assert unsettled({"prompt_form": "chat"}) == unsettled({}) == ""
