"""What is said of prompts and models before anything is sampled: what concerns every prompt, once."""

from dataclasses import replace
from pathlib import Path

import pytest

import sia_jax
from sia_jax.data.prompts import parse_prompts
from sia_jax.runs import preflight
from tests.support.checkpoints import tiny_reward_model
from tests.support.tokenizers import save_qwen3_tokenizer

TURNS = "{% for m in messages %}{{ m.content }}{% endfor %}"


def reward(folder: Path, template: str | None) -> str:
    """A reward model with this chat template."""
    tokenizer = save_qwen3_tokenizer(folder / "tokenizer")
    tokenizer.chat_template = template
    model = replace(tiny_reward_model(vocab_size=352), tokenizer=tokenizer)
    sia_jax.save_reward_model(model, folder / "reward")
    return str(folder / "reward")


@pytest.mark.parametrize(
    ("template", "variables", "told"),
    [
        (TURNS.replace("messages", "messages[:-1]"), {}, "leaves out what the assistant says"),
        ("No such file", {}, "leaves out what the user says"),
        (None, {}, "has no chat template"),
        ("{% for m in messages %}", {}, "is no template that can be read"),
        (TURNS, {"date_string": "1 Jan 2000"}, "has no variables"),
    ],
)
def test_a_reward_template_that_scores_no_prompt_is_an_error_of_its_own(
    tmp_path: Path, template: str | None, variables: dict[str, str], told: str
) -> None:
    with pytest.raises(ValueError, match=told) as found:
        preflight.reward_check(reward(tmp_path, template), None, variables, 8)
    assert "prompt 0" not in str(found.value)


def test_a_reward_template_that_refuses_some_prompts_refuses_those(tmp_path: Path) -> None:
    picky = "{% if messages[0].content | length < 3 %}{{ raise_exception('too short') }}{% endif %}" + TURNS
    check = preflight.reward_check(reward(tmp_path, picky), None, {}, 8)
    short, long = parse_prompts(b"Hi\nHello\n", "file")
    check(long)
    with pytest.raises(ValueError, match=r"prompt 0: the reward model's chat template refuses it.*too short"):
        check(short)
