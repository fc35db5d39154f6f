"""What a run asks of its engine: what is missing and no more; and in which order replies are shown."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from sia_jax.engine.handle import EngineClosed
from sia_jax.engine.reply import Reply
from sia_jax.runs import runner
from sia_jax.runs.cli import memory_explained
from sia_jax.runs.engines import Row, completed, in_order, make_engine, missing_replies, warm_up
from sia_jax.runs.options import Models, SamplingArgs
from tests.support.checkpoints import tiny_policy

ARGS = SamplingArgs(policy="policy", max_new_tokens=6)


def rows(*lengths: int) -> list[Row]:
    return [
        Row([*range(1, n + 1)], [*range(1, n + 1)], runner.prompt_key(0, i), float("inf"))
        for i, n in enumerate(lengths)
    ]


def test_replies_are_asked_for_together_or_one_by_one_where_some_are_there() -> None:
    done = {(0, 0), (0, 1), (0, 2), (2, 1)}
    found = missing_replies(rows(3, 4, 5), ARGS, 3, lambda *place: place in done)
    assert [(each.index, each.branches, each.request.n) for each in found] == [
        (1, [0, 1, 2], 3),
        (2, [0], 1),
        (2, [2], 1),
    ]


def test_a_run_that_goes_on_gets_the_replies_that_it_would_have_got() -> None:
    """And of more ids that end a reply than an engine has room for by itself."""
    models = Models(tiny_policy(eos_token_ids=tuple(range(20, 40))), None)
    asked, said = rows(3, 21, 5), list[str]()

    @contextlib.contextmanager
    def aside(what: str) -> Iterator[None]:
        said.append(what)
        yield

    whole: dict[tuple[int, int], Reply] = {}
    with make_engine(models, ARGS, 4, asked) as engine:
        for left in ({(i, j) for i in range(3) for j in range(3)}, {(0, 2), (1, 0), (2, 0), (2, 1), (2, 2)}):
            missing = missing_replies(asked, ARGS, 3, lambda *place, left=left: place not in left)
            warm_up(engine, missing, aside)
            for index, branch, reply in completed(engine, missing):
                other = whole.setdefault((index, branch), reply)
                np.testing.assert_array_equal(reply.tokens, other.tokens)
                left.remove((index, branch))
            assert not left
        warm_up(engine, [], aside)
    assert said == ["compiling for prompts of up to 21 tokens"] * 2
    assert len({reply.tokens.tobytes() for reply in whole.values()}) > 5


def test_a_reply_that_is_whole_early_waits_for_its_turn() -> None:
    replies: Any = [(place, place) for place in (2, 0, 1, 4, 3)]
    assert list(in_order(replies)) == [0, 1, 2, 3, 4]


def test_memory_that_an_engine_lacks_is_said_with_what_needs_less() -> None:
    full = EngineClosed("the engine ended before the reply was whole: RESOURCE_EXHAUSTED")
    full.__cause__ = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand more")
    small = MemoryError("8 rows of 64 tokens take 9 GB")
    for error, said in (
        (full, "(RESOURCE_EXHAUSTED: Out of memory)"),
        (small, "(8 rows of 64 tokens take 9 GB)"),
    ):
        with (
            pytest.raises(ValueError, match="the memory is full") as raised,
            memory_explained("lower --batch"),
        ):
            raise error
        assert str(raised.value) == f"the memory is full {said}; lower --batch"
    with pytest.raises(EngineClosed), memory_explained("lower --batch"):
        raise EngineClosed("it was closed")
