"""Groups of what comes, and what follows candidates; whole runs are in tests/decode/test_entropy_study.py."""

from collections.abc import Iterator
from itertools import count

import jax
import numpy as np
import pytest

from sia_jax.runs.engines import Row
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.studies.entropy.positions import Place, Studied
from sia_jax.studies.entropy.sampling import Continuations, Task, continuing_engine, in_groups
from tests.support.checkpoints import tiny_policy

STOP, OTHER = 7, 9


def test_groups_are_full_but_for_the_last() -> None:
    assert list(in_groups(range(7), 3, lambda: True)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(in_groups([], 3, lambda: True)) == []


def test_once_it_is_to_stop_what_is_there_comes_and_no_more_is_waited_for() -> None:
    taken = []

    def found() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    assert list(in_groups(found(), 3, lambda: len(taken) < 5)) == [[0, 1, 2], [3, 4]]
    assert len(taken) == 5


@pytest.mark.parametrize(("position", "candidates"), [(1, [STOP, OTHER]), (3, [OTHER, 11])])
def test_what_ends_a_reply_is_followed_by_nothing(position: int, candidates: list[int]) -> None:
    """A stop token, and a token for which there was just room."""
    policy = tiny_policy(eos_token_ids=(STOP,))
    args = SamplingArgs(policy="", max_new_tokens=4)
    row = Row([3, 4], [3, 4], jax.random.key(0, impl="threefry2x32"), np.inf)
    zeros = np.zeros((4, 2))
    reply = Studied([20, 21, 22, 23], zeros[:, 0], np.tile(candidates, (4, 1)), zeros, zeros[:, 0], zeros)
    task = Task(Place(0, position), row, reply, np.array([0, 1]))
    with continuing_engine(Models(policy, None), args, 6, [row]) as engine:
        (found,) = Continuations(engine, args, 3).run([task])
    assert found[0] is task
    lengths = [[len(ids) for ids in each] for each in found[1]]
    assert [len(each) for each in lengths] == [3, 3]
    assert lengths[0] == [0, 0, 0]
    if position == 3:
        assert lengths[1] == [0, 0, 0]
    else:
        assert all(1 <= length <= 2 for length in lengths[1])
