"""Reward functions: what they return is what counts, and what is no number is no reward."""

import importlib
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sia_jax.extras import MissingExtraError
from sia_jax.rewards.functions import RewardFunction, load_function
from tests.support.judging import letters, own_module

ROOT = Path(__file__).parents[2]
LARGEST = 3.4028234663852886e38
"""Of float32."""


def asked(*replies: str) -> list[list[dict[str, str]]]:
    return [
        [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": reply}] for reply in replies
    ]


def function(call: Callable[[Any], Any]) -> RewardFunction:
    return RewardFunction("judging:one", call)


@pytest.mark.parametrize("form", [list, tuple, np.array, jnp.array, lambda x: np.array(x, np.float32)])
def test_rewards_are_what_the_function_returns_in_whichever_form(form: Callable[[Any], Any]) -> None:
    conversations = asked("Yes.", "No, no.", "")
    outcomes = function(lambda given: form(letters(given))).score(conversations)
    assert [outcome.reward for outcome in outcomes] == letters(conversations) == [4.0, 2.0, 0.0]
    assert [outcome.index for outcome in outcomes] == [0, 1, 2]
    assert {outcome.tokens for outcome in outcomes} == {0}


ANYTHING = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), LARGEST, -LARGEST, np.float32(0.5), np.int64(3)]),
    st.none(),
    st.text(),
    st.booleans(),
    st.complex_numbers(),
    st.lists(st.floats(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.floats(), max_size=1),
)


@given(st.lists(ANYTHING, min_size=1, max_size=4))
@example([math.nan, 3.5e38, 10**400, None])
@example([True, "1", [1.0], -math.inf])
def test_whatever_is_no_finite_number_is_no_reward_and_is_told_by_the_function_s_name(
    results: list[Any],
) -> None:
    outcomes = function(lambda given: results[: len(given)]).score(asked(*"abcd"[: len(results)]))
    for result, outcome in zip(results, outcomes, strict=True):
        is_number = type(result) in (float, int, np.float32, np.int64)
        if is_number and -LARGEST <= result <= LARGEST:
            assert (outcome.reward, outcome.reason) == (float(result), None)
        else:
            assert outcome.reward is None
            assert outcome.reason == ("not finite" if is_number else "not a number")
            assert "judging:one" in outcome.why


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda given: [1.0] * (len(given) - 1), "returned a list of 0, expected one of 1"),
        (lambda given: [1.0] * (len(given) + 1), "returned a list of 2, expected one of 1"),
        (lambda given: 1.0, "returned a float, expected a list"),
        (lambda given: np.float32(1.0), "returned a float32, expected a list"),
        (lambda given: None, "returned a NoneType"),
        (lambda given: {0: 1.0}, "returned a dict"),
        (lambda given: "1" * len(given), "returned a str"),
        (lambda given: (1.0 for _ in given), "returned a generator"),
        (lambda given: given[-1]["content"], "raised TypeError"),
    ],
)
def test_a_function_that_gives_no_list_of_the_right_length_gives_no_reward(
    returned: Callable[[Any], Any], told: str
) -> None:
    outcomes = function(returned).score(asked("a", "b"))
    assert [(outcome.reward, outcome.reason) for outcome in outcomes] == [(None, "failed")] * 2
    assert all(told in outcome.why and "judging:one" in outcome.why for outcome in outcomes)


def test_one_conversation_that_fails_takes_no_other_s_reward() -> None:
    def picky(conversations: list[Any]) -> list[float]:
        if any(messages[-1]["content"] == "bad" for messages in conversations):
            raise RuntimeError("no\x1b[2J such word")
        return letters(conversations)

    outcomes = function(picky).score(asked("Yes.", "bad", "No, no."))
    assert [outcome.reward for outcome in outcomes] == [4.0, None, 2.0]
    assert [outcome.index for outcome in outcomes] == [0, 1, 2]
    assert outcomes[1].why == "judging:one raised RuntimeError: no␛[2J such word"


def test_a_function_may_change_what_it_is_given() -> None:
    def spoiling(conversations: list[Any]) -> list[float]:
        found = letters(conversations)
        for messages in conversations:
            messages.pop()["content"] = ""
        return found

    conversations = asked("Yes.")
    assert function(spoiling).score(conversations)[0].reward == 4.0
    assert conversations == asked("Yes.")


GOOD = "def reward(conversations):\n    return [len(m[-1]['content']) for m in conversations]\n"


def test_a_module_of_the_current_folder_is_found_and_its_versions_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = own_module(monkeypatch, tmp_path, GOOD)
    before = load_function(f"{name}:reward", "--reward-function")
    assert before.name == f"{name}:reward"
    assert before.score(asked("four"))[0].reward == 4.0
    sys.modules.pop(name)
    assert load_function(f"{name}:reward", "--reward-function").fingerprint == before.fingerprint
    (tmp_path / f"{name}.py").write_text(GOOD + "# another version\n")
    sys.modules.pop(name)
    assert load_function(f"{name}:reward", "--reward-function").fingerprint != before.fingerprint


def test_the_version_of_a_function_that_is_imported_from_elsewhere_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = own_module(monkeypatch, tmp_path, GOOD)
    outer = own_module(monkeypatch, tmp_path, f"from {inner} import reward\n")
    before = load_function(f"{outer}:reward", "--reward-function").fingerprint
    (tmp_path / f"{inner}.py").write_text(GOOD + "# another version\n")
    for name in (inner, outer):
        sys.modules.pop(name)
    assert load_function(f"{outer}:reward", "--reward-function").fingerprint != before


def test_no_module_of_the_current_folder_hides_one_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_module(monkeypatch, tmp_path, GOOD)
    (tmp_path / "colorsys.py").write_text(GOOD)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(ValueError, match=r"colorsys.py has no reward; name a function of it") as refused:
        load_function("colorsys:reward", "--reward-function")
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "def reward(conversations):\n    raise ValueError('none of mine')\n",
        "def reward(conversations):\n    return [float('nan'), float('inf')]\n",
        "import numpy as np\n\ndef reward(conversations):\n    return np.zeros(len(conversations))\n",
        "class Reward:\n    def __call__(self, conversations):\n        return [1] * len(conversations)\n"
        "reward = Reward()\n",
    ],
)
def test_a_function_need_not_know_the_conversations_that_it_is_tried_out_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    load_function(f"{own_module(monkeypatch, tmp_path, text)}:reward", "--reward-function")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise RuntimeError('not today')", "cannot be imported: raised RuntimeError: not today"),
        ("def reward(", "cannot be imported: raised SyntaxError"),
        ("import sys\nsys.exit()", "cannot be imported: raised SystemExit"),
        ("import no_such_package_of_anybody", "No module named 'no_such_package_of_anybody'"),
        ("other = 1", r"has no reward; name a function of it"),
        ("reward = 1", "it is a int, which cannot be called"),
        ("def reward():\n    return []", "it raised TypeError"),
        ("def reward(x):\n    return [m['reply'] for m in x]", "it raised TypeError"),
        ("def reward(x):\n    return [1.0]", "it returned a list of 1, expected one of 2"),
        ("def reward(x):\n    return 1.0", "it returned a float, expected a list or an array"),
        ("def reward(x):\n    return [None] * len(x)", "it returned None, expected a number"),
        ("def reward(x):\n    return ['1'] * len(x)", "it returned a str, expected a number"),
        ("def reward(x):\n    return [[1.0]] * len(x)", "it returned a list, expected a number"),
        ("def reward(x):\n    return [True] * len(x)", "it returned a bool, expected a number"),
        (
            "def reward(x):\n    return [1, 2]\ndef reward_provenance():\n    return 3",
            "must return texts by names",
        ),
        (
            "def reward(x):\n    return [1, 2]\ndef reward_provenance():\n    1 / 0",
            "raised ZeroDivisionError",
        ),
    ],
)
def test_what_cannot_be_a_reward_function_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    name = own_module(monkeypatch, tmp_path, text)
    with pytest.raises(ValueError, match=rf"^--reward-function {name}:reward: .*{told}"):
        load_function(f"{name}:reward", "--reward-function")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("judging", "must be MODULE:FUNCTION, such as sia_jax.rewards.sentiment:vader, got 'judging'"),
        ("judging:", "must be MODULE:FUNCTION"),
        (":reward", "must be MODULE:FUNCTION"),
        ("./judging.py:reward", "must be MODULE:FUNCTION"),
        ("a:b:c", "must be MODULE:FUNCTION"),
        (
            "no_such_module_of_anybody:reward",
            "No module named 'no_such_module_of_anybody'; start the program",
        ),
        ("math:fsum", "math has no source file|it raised TypeError"),
        ("json:dumps", "it returned a str, expected a list"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_function(name, "--reward-function")


def test_a_module_that_lacks_a_package_of_an_extra_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    monkeypatch.delitem(sys.modules, "sia_jax.rewards.sentiment", raising=False)
    with pytest.raises(MissingExtraError, match=r"vaderSentiment.* pip install 'sia_jax\[sentiment\]'"):
        load_function("sia_jax.rewards.sentiment:vader", "--reward-function")


def test_the_command_sia_sees_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started as an installed script is, without the current folder on its path."""
    name = own_module(monkeypatch, tmp_path, "def reward(conversations):\n    return 'seen'\n")
    code = "from sia_jax.console import main; main()"
    options = ["--input", "none", "--out", "out.jsonl", "--reward-function", f"{name}:reward"]
    start = f"import sys; sys.path = [{str(ROOT)!r}, *sys.path[1:]]; "
    done = subprocess.run(
        [sys.executable, "-c", start + code, "train", "label", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"--reward-function {name}:reward: tried out" in done.stderr
    assert "it returned a str" in done.stderr


def test_vader_is_the_package_s_own_score_of_the_last_message_twice() -> None:
    found = load_function("sia_jax.rewards.sentiment:vader", "--reward-function")
    package = importlib.import_module("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()
    replies = (
        "I love it, it is wonderful!",
        "I hate it. It is horrible.",
        "It is a table.",
        "",
        "🙂 ✨",
        "卵",
    )
    outcomes = found.score(asked(*replies))
    for reply, outcome in zip(replies, outcomes, strict=True):
        assert outcome.reward == pytest.approx(2 * package.polarity_scores(reply)["compound"])
    good, bad, plain, empty, *_ = (outcome.reward for outcome in outcomes)
    assert good is not None
    assert bad is not None
    assert -2 <= bad < -1 < 1 < good <= 2
    assert plain == empty == 0
    assert all(math.isfinite(outcome.reward or 0) for outcome in outcomes)
