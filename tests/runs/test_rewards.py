"""Where the rewards of a run come from: names with weights, and what cannot be a reward."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from sia_jax.data.prompts import parse_prompts
from sia_jax.rewards.functions import RewardFunction
from sia_jax.runs import preflight
from sia_jax.runs.rewards import RewardArgs, find_judge, find_reward, weighted
from tests.support.judging import letters

LETTERS = "tests.support.judging:letters"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("models/reward", ("models/reward", 1.0)),
        ("models/reward=0.5", ("models/reward", 0.5)),
        ("judging:one=-2", ("judging:one", -2.0)),
        ("a=b", ("a=b", 1.0)),
        ("a=b=3", ("a=b", 3.0)),
        ("a=3=1", ("a=3", 1.0)),
        ("=3", ("=3", 1.0)),
        ("3", ("3", 1.0)),
    ],
)
def test_a_number_behind_the_last_sign_is_the_weight(text: str, found: tuple[str, float]) -> None:
    assert weighted(text, "--reward") == found


def test_a_folder_whose_name_looks_like_a_weight_must_be_given_one(tmp_path: Path) -> None:
    (tmp_path / "reward=0.5").mkdir()
    name = str(tmp_path / "reward=0.5")
    with pytest.raises(ValueError, match=rf"is the name of a folder, and may be a weight; say {name}=1"):
        weighted(name, "--reward")
    assert weighted(f"{name}=1", "--reward") == (name, 1.0)


@pytest.mark.parametrize("text", ["a=nan", "a=inf", "a=-inf", "a=1e39"])
def test_a_weight_that_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=rf"--reward {text}: the weight must be a finite number"):
        weighted(text, "--reward")


@pytest.mark.parametrize(
    ("models", "options", "told"),
    [
        ((), {}, "there is no reward: give --reward DIR, a reward model, or --reward-function"),
        ((), {"length_penalty": 1.0}, "there is no reward"),
        (("r",), {"length_penalty": 0.0}, "--length-penalty must be a finite number above 0, got 0.0"),
        (("r",), {"length_penalty": -1.0}, "--length-penalty must be a finite number above 0"),
        (("r",), {"length_penalty": math.nan}, "--length-penalty must be a finite number above 0, got nan"),
        (("r",), {"length_penalty": math.inf}, "--length-penalty must be a finite number above 0, got inf"),
        ((), {"reward_function": (LETTERS, f"{LETTERS}=2")}, f"two rewards are called '{LETTERS}'"),
        ((), {"reward_function": (f"{LETTERS}=nan",)}, "the weight must be a finite number"),
        ((), {"reward_function": ("nowhere:reward",)}, "--reward-function nowhere:reward: the module"),
        (("words",), {"length_penalty": 1.0}, "two rewards are called 'words'"),
        (("a/r", "b/r=2"), {}, "two rewards are called 'r'; leave one out, or rename a folder"),
    ],
)
def test_what_is_no_reward_is_refused(models: tuple[str, ...], options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        find_reward(models, RewardArgs(**options))


def test_settings_name_all_that_a_reward_is_made_of_and_a_model_alone_adds_none() -> None:
    assert find_reward(("r",), RewardArgs()).settings() == {}
    found = find_reward(("r=2",), RewardArgs(reward_function=(f"{LETTERS}=0.5",), length_penalty=0.1))
    fingerprint = found.functions[0].fingerprint
    assert re.fullmatch("[0-9a-f]{16}", fingerprint)
    assert found.settings() == {
        "reward_weight": 2.0,
        "reward_functions": {LETTERS: 0.5},
        "reward_functions_fingerprint": {LETTERS: fingerprint},
        "length_penalty": 0.1,
    }
    assert [(term.name, term.weight) for term in found.total.terms] == [
        *(("r", 2.0), (LETTERS, 0.5), ("words", -0.1)),
    ]


def test_a_judge_is_one_reward() -> None:
    assert find_judge(None, None) is None
    with pytest.raises(ValueError, match="--gold-reward and --gold-function are two gold rewards"):
        find_judge("r", LETTERS)
    found = find_judge(None, LETTERS)
    assert found is not None
    assert found.described() == f"{LETTERS} ({found.functions[0].fingerprint})"


def test_prompts_that_a_function_fails_for_are_told_and_others_are_not() -> None:
    def picky(conversations: Any) -> list[float]:
        if any("bad" in messages[0]["content"] for messages in conversations):
            raise ValueError("no such word")
        return [math.nan for _ in letters(conversations)]  # of a reply, which says nothing of the prompt

    prompts = parse_prompts(b"Good.\nA bad one.\n", "file")
    check = preflight.function_check([RewardFunction("judging:picky", picky)], prompts, "--gold-function")
    check(prompts[0])
    with pytest.raises(
        ValueError, match="prompt 1 has no reward of --gold-function, leave it out: judging:picky raised"
    ):
        check(prompts[1])
