"""Rewards as numbers and as a picture."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from sia_jax.reports.rewards import QUANTILES, plot_rewards, reward_distribution


def test_the_distribution_is_numpys() -> None:
    rewards = np.random.default_rng(0).normal(2.0, 3.0, 101).tolist()
    distribution = reward_distribution(rewards)
    assert distribution.count == 101
    assert distribution.mean == pytest.approx(np.mean(rewards))
    assert distribution.sd == pytest.approx(np.std(rewards, ddof=1))
    assert distribution.quantiles[0.0] == min(rewards)
    assert distribution.quantiles[0.5] == sorted(rewards)[50]
    assert distribution.quantiles[1.0] == max(rewards)
    assert list(json.loads(json.dumps(distribution.to_json()))["quantiles"]) == [f"{q:g}" for q in QUANTILES]
    assert distribution.describe().startswith(f"mean {np.mean(rewards):.4g}, sd ")


def test_a_single_reward_has_no_spread() -> None:
    distribution = reward_distribution([1.5])
    assert (distribution.mean, distribution.sd) == (1.5, 0.0)
    assert set(distribution.quantiles.values()) == {1.5}


def test_no_rewards_are_refused() -> None:
    with pytest.raises(ValueError, match="there are no rewards to describe"):
        reward_distribution([])


@pytest.mark.parametrize("rewards", [[1.0], [2.0] * 5, [-1e30, 0.0, 1e30], list(range(1000))])
def test_the_picture_is_a_png_whatever_the_rewards(rewards: list[float], tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "rewards.png"
    plot_rewards(rewards, path, "a model on a file")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", content[16:24]) == (840, 480)
