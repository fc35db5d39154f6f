import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia_jax.data.trajectories import Trajectory, check_trajectory
from sia_jax.training.packing import pack
from tests.support.trajectories import random_trajectories


def of_lengths(lengths: list[tuple[int, int]]) -> list[Trajectory]:
    return [
        Trajectory(np.full(p, 10 + i, np.int32), np.full(t, 50 + i, np.int32), float(i), 100 + i)
        for i, (p, t) in enumerate(lengths)
    ]


@settings(derandomize=True, max_examples=100)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 8), st.integers(1, 12)), min_size=1, max_size=9),
    rows=st.integers(1, 4),
    segments=st.integers(1, 4),
)
def test_every_trajectory_lies_whole_in_one_row_once(lengths, rows, segments):
    trajectories = of_lengths(lengths)
    batch = pack(trajectories, length=20, rows=rows, batch_size=9, segments=segments)
    found = {}
    for a, r, m in zip(*np.nonzero(batch.numbers >= 0), strict=True):
        own = batch.segment_ids[a, r] == m + 1
        ids, reply = batch.tokens[a, r][own], batch.is_reply[a, r][own]
        np.testing.assert_array_equal(batch.positions[a, r][own], np.arange(own.sum()))
        assert np.diff(np.flatnonzero(own)).max(initial=1) == 1
        found[int(batch.numbers[a, r, m])] = (
            ids[~reply].tolist(),
            ids[reply].tolist(),
            batch.rewards[a, r, m],
        )
        assert a < batch.micro_batches
    assert found == {t.number: (t.prompt_ids.tolist(), t.reply_ids.tolist(), t.reward) for t in trajectories}
    padding = batch.segment_ids == 0
    assert not batch.is_reply[padding].any()
    assert (batch.tokens.shape, batch.numbers.shape) == (
        (-(-9 // rows), rows, 20),
        (-(-9 // rows), rows, segments),
    )


def test_short_trajectories_share_a_row_and_hardly_any_of_it_is_padding():
    trajectories = random_trajectories(16, 50, longest=100)
    batch = pack(trajectories, length=128, rows=1, batch_size=16)
    filled = sum(t.length for t in trajectories) / (128 * int(batch.micro_batches))
    assert filled > 0.85


def test_a_trajectory_longer_than_a_row_and_a_batch_too_large_are_refused():
    with pytest.raises(ValueError, match=r"row of 20 tokens.*\[\(100, 21\)\]"):
        pack(of_lengths([(9, 12)]), length=20, rows=1, batch_size=2)
    for count in (0, 3):
        with pytest.raises(ValueError, match=f"1 .. 2 trajectories, got {count}"):
            pack(of_lengths([(1, 1)] * count), length=20, rows=1, batch_size=2)


@pytest.mark.parametrize(
    ("prompt", "reply", "reward", "reason"),
    [
        ([1], [2, 3], 0.5, None),
        ([1], [2, 3], np.float32(2), None),
        ([], [2], 0.5, "no prompt"),
        ([1], [], 0.5, "no reply"),
        ([1], [2], None, "no reward"),
        ([1], [2], "3", "no reward"),
        ([1], [2], True, "no reward"),
        ([1], [2], float("nan"), "reward is not finite"),
        ([1], [2], float("-inf"), "reward is not finite"),
        ([1], [60], 0.5, "reply has ids outside the vocabulary"),
        ([-1], [6], 0.5, "prompt has ids outside the vocabulary"),
        ([1.5], [6], 0.5, "prompt is not a list of ids"),
        ([1], [[6]], 0.5, "reply is not a list of ids"),
        ([1] * 5, [2] * 6, 0.5, "longer than a row"),
    ],
)
def test_what_is_no_trajectory_is_named(prompt, reply, reward, reason):
    assert check_trajectory(prompt, reply, reward, vocab_size=60, max_length=10) == reason
