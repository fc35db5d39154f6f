"""Which prompts are shown."""

import pytest

from sia_jax.reports.examples import choose_shown


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
