"""Windows are short for who waits for a first token, and whole where many wait for replies to end."""

import math
from concurrent.futures import ThreadPoolExecutor

from sia_jax.engine.request import Request
from tests.support.engines import make_engine
from tests.support.waiting import wait_until

ROWS, STEPS, FEW = 8, 8, 4
TOKENS = 4 * STEPS


def windows(count: int, *, streams: bool) -> int:
    """Of so many unsteered requests, handed in together, each with a reply of `TOKENS`."""
    requests = [
        Request(prompt_ids=[5, 6], seed=seed, threshold=math.inf, ignore_eos=True, max_new_tokens=TOKENS)
        for seed in range(count)
    ]
    with make_engine(rows=ROWS, steps=STEPS) as engine, ThreadPoolExecutor(1) as other:
        with engine.paused():  # until all are handed in, so that rows are filled in whole rounds
            if streams:
                handles = [engine.submit(request) for request in requests]
            else:
                whole = other.submit(engine.generate, requests)
            wait_until(lambda: engine.statistics().waiting == count)
        replies = [handle.result(timeout=120) for handle in handles] if streams else whole.result(120)
        assert [len(reply.tokens) for reply in replies] == [TOKENS] * count
        return engine.statistics().windows


def test_a_queue_as_long_as_the_rows_is_written_in_whole_windows() -> None:
    rounds = 5
    assert windows(rounds * ROWS, streams=False) == windows(ROWS, streams=False) * rounds
    # In all rounds but the last two somebody waits behind a queue as long as the rows.
    whole, short = windows(ROWS, streams=False), -(-TOKENS // FEW)
    assert windows(rounds * ROWS, streams=True) <= (rounds - 2) * whole + 2 * short + 1


def test_who_may_come_next_and_who_just_came_is_told_soon() -> None:
    alone, whole = windows(ROWS, streams=True), windows(ROWS, streams=False)
    assert alone == whole + 1  # the first window of each is short
    one_waits = windows(ROWS + 1, streams=True)
    assert one_waits > windows(ROWS + 1, streams=False) + TOKENS // FEW - TOKENS // STEPS - 1
