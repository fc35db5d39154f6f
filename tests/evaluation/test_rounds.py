"""Rounds of an iteration beside the policy alone: pairs by prompt and reply, what is missing, the best."""

import numpy as np
import pytest

from sia_jax.evaluation.rounds import ALONE, Replies, best_of, compare_rounds
from sia_jax.evaluation.statistics import Interval

PROMPTS, BRANCHES = 30, 2


def replies(shift: float, missing: tuple[str, ...] = (), seed: int = 0) -> Replies:
    """Rewards of prompts of unequal difficulty, each above the same by `shift`."""
    rng = np.random.default_rng(seed)
    found = {
        f"{prompt}:{branch}": 10.0 * prompt + rng.normal(shift, 0.1)
        for prompt in range(PROMPTS)
        for branch in range(BRANCHES)
    }
    kept = {name: reward for name, reward in found.items() if name not in missing}
    return Replies(kept, {name: name.partition(":")[0] for name in kept}, 5 * len(kept))


def test_a_gain_is_of_pairs_and_leaves_out_how_hard_the_prompts_are() -> None:
    rows = compare_rounds(
        {ALONE: replies(0.0), "round 1": replies(1.0, seed=1), "round 2": replies(3.0, seed=2)},
        PROMPTS * BRANCHES,
    )
    assert [row["name"] for row in rows] == [ALONE, "round 1", "round 2"]
    assert "gain" not in rows[0]
    assert "step" not in rows[1]
    for row, gain in ((rows[1], 1.0), (rows[2], 3.0)):
        found = Interval.from_json(row["gain"])
        assert found.low < gain < found.high
        assert found.high - found.low < 0.5  # of single rewards it is some 60
    assert rows[2]["step"]["mean"] == pytest.approx(rows[2]["reward"]["mean"] - rows[1]["reward"]["mean"])
    assert Interval.from_json(rows[0]["reward"]).high - rows[0]["reward"]["low"] > 30


def test_a_reply_without_a_reward_is_counted_and_left_out_with_its_partner() -> None:
    other = replies(1.0, seed=1)
    rows = compare_rounds({ALONE: replies(0.0, ("29:0", "29:1")), "round 1": other}, PROMPTS * BRANCHES)
    assert [row["missing"] for row in rows] == [2, 0]
    assert [row["replies"] for row in rows] == [58, 60]
    assert rows[1]["reward"]["mean"] == pytest.approx(np.mean(list(other.rewards.values())))
    assert rows[1]["gain"]["mean"] == pytest.approx(1.0, abs=0.2)  # with the partners it would be above 5
    assert [row["tokens"] for row in rows] == [5.0, 5.0]


def test_the_best_is_the_first_of_the_highest_mean_and_never_the_policy_alone() -> None:
    def row(name: str, mean: float) -> dict[str, object]:
        return {"name": name, "reward": {"mean": mean}}

    rows = [row(ALONE, 9.0), row("start", 1.0), row("round 1", 2.0), row("round 2", 2.0)]
    assert best_of(rows) == "round 1"
    assert best_of(rows[:2]) == "start"
