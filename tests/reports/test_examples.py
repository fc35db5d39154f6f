"""Which prompts are shown."""

import re

import pytest

from sia_jax.evaluation.methods import Method
from sia_jax.reports.examples import (
    Example,
    choose_shown,
    example_methods,
    examples_of,
    examples_section,
)


@pytest.mark.parametrize(
    ("gains", "count", "expected"),
    [
        ([0.0, 3.0, -2.0, 1.0, 0.5], 3, {1: "the largest gain", 4: "the median gain", 2: "the largest loss"}),
        ([0.0, 3.0, -2.0], 1, {1: "the largest gain"}),
        ([2.0, 2.0], 2, {0: "the largest gain", 1: "the median gain"}),
        ([0.0, 0.0, 0.0], 3, {0: "no change", 1: "the median gain", 2: "no change"}),
        ([1.0, 2.0, 3.0], 3, {2: "the largest gain", 1: "the median gain", 0: "among the smallest gains"}),
        (
            [5, 4, 3, 2, 1, -1, -2],
            5,
            {0: "the largest gain", 1: "a large gain", 3: "the median gain", 6: "the l"},
        ),
    ],
)
def test_replies_are_shown_by_a_rule_gains_middle_and_losses(
    gains: list[float], count: int, expected: dict[int, str]
) -> None:
    chosen = choose_shown([1.0] * len(gains), [1.0 + gain for gain in gains], count)
    assert len(chosen) == count
    for place, why in expected.items():
        assert chosen[place].startswith(why)
        assert chosen[place].endswith(f"({gains[place]:+.1f})")


def test_the_chosen_prompts_stand_there_with_both_replies_in_full_and_nobody_else_s() -> None:
    examples = [
        Example(f"Question {i}?", f"Own reply {i}.", f"Steered reply {i}.", 0.0, gain)
        for i, gain in enumerate([0.5, 2.0, -1.0, 0.4])
    ]
    text = examples_section(examples, 3, measure="proxy", steered="dense", chosen_from="seed 0")
    for i in (0, 1, 2):
        for said in (f"Question {i}?", f"Own reply {i}.", f"Steered reply {i}."):
            assert f"```text\n{said}\n```" in text
    assert "reply 3" not in text
    assert "**The largest gain: proxy +0.0 alone, +2.0 with dense (+2.0).**" in text
    assert "Chosen from seed 0" in text


def test_a_reply_cannot_end_the_block_that_it_stands_in() -> None:
    hostile = "```\n# Not a heading\n````\n<script>\x1b[2J"
    text = examples_section(
        [Example("?", hostile, "fine", 0.0, 1.0)], 10, measure="gold", steered="dense", chosen_from="one"
    )
    assert "`````text\n" in text
    assert "\x1b" not in text
    outside = re.sub(r"(`{3,})text\n.*?\n\1(?!`)", "", text, flags=re.DOTALL)
    assert "# Not a heading" not in outside
    assert text.startswith("## 1 prompt with replies in full\n")


def test_shown_beside_the_policy_is_the_plain_entropy_gate_nearest_to_a_fifth_and_else_dense() -> None:
    base, dense = Method("base"), Method("dense")
    gates = [Method("entropy", ratio) for ratio in (0.1, 0.25, 0.4)]
    others = [Method("entropy", 0.2, n=4, chooser="value"), Method("random", 0.2)]
    assert example_methods([*others, base, dense, *gates]) == (base, gates[1])
    assert example_methods([dense, *others, base]) == (base, dense)
    for lacking in ([base, *others], [dense, *gates]):
        with pytest.raises(ValueError, match="add base, and entropy or dense"):
            example_methods(lacking)


def test_a_pair_of_which_one_has_no_reward_is_no_example() -> None:
    base = [{"text": f"own {i}", "proxy": reward} for i, reward in enumerate([1.0, None, 3.0])]
    steered = [{"text": f"steered {i}", "proxy": reward} for i, reward in enumerate([4.0, 5.0, None])]
    found = examples_of(["a", "b", "c"], base, steered, "proxy")
    assert found == [Example("a", "own 0", "steered 0", 1.0, 4.0)]
