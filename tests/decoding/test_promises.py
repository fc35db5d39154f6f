"""What a reply depends on: its prompts, its key and its numbers. Not on neighbours, schedules or shapes."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia_jax.decoding import sample as sampler
from sia_jax.decoding.schedule import Shared
from sia_jax.decoding.state import Samples
from sia_jax.steering import gates
from sia_jax.steering.config import SteeringConfig
from tests.support.marks import long
from tests.support.sampling import (
    PROMPT_LENGTH,
    VALUE_PROMPT_LENGTH,
    Outcome,
    Program,
    Row,
    branches_of,
    clear_row,
    difference,
    make_program,
    replies_of,
    reply_of,
    run,
)

ROWS = 6
LENGTH = 20

NUMBERS: list[dict[str, Any]] = [
    {"threshold": 1.5},
    {"threshold": 1.5, "temperature": 1.7, "top_p": 0.9, "beta": 2.0},
    {"threshold": 1.4, "repetition_penalty": 1.3, "presence_penalty": 0.4, "max_new_tokens": 9},
    {"threshold": -np.inf, "temperature": 0.0, "frequency_penalty": 0.5},
    {"threshold": np.inf, "top_k": 12, "stop_ids": (4, 5, 6), "min_new_tokens": 4},
    {"threshold": 1.45, "bias": ((9, 1.5), (1, -2.0)), "banned_ids": (7,), "stop_ids": ()},
]
"""One for each row of a batch."""

SHAPES: dict[str, dict[str, Any]] = {
    "few slots": dict(slots=2, row_tokens=8, pass_tokens=14, record="candidates"),
    "one slot, one row a pass, one step a chunk": dict(slots=1, row_tokens=7, pass_tokens=7, chunk=1),
    "a slot for every row, a longer buffer": dict(
        slots=6, row_tokens=20, pass_tokens=60, chunk=7, max_new_tokens=33
    ),
    "what the rule of auto says": dict(),
}
VOCAB_SHAPES: dict[str, dict[str, Any]] = {
    "few slots": dict(slots=2, row_tokens=3, pass_tokens=4, record="candidates"),
    "one slot, one row a pass, one step a chunk": dict(slots=1, row_tokens=1, pass_tokens=1, chunk=1),
    "a slot for every row, a longer buffer": dict(
        slots=6, row_tokens=20, pass_tokens=60, chunk=7, max_new_tokens=33
    ),
}
SHARED_SHAPES: dict[str, dict[str, Any]] = {
    "few slots": dict(
        schedule=Shared(look_ahead=True), slots=2, row_tokens=8, pass_tokens=14, record="candidates"
    ),
    "one slot, one row a pass, one step a chunk": dict(
        schedule=Shared(), slots=1, row_tokens=7, pass_tokens=7, chunk=1
    ),
}
PROGRAMS = [
    *(("scalar", shape) for shape in list(SHAPES)[:3]),
    *(("vocab", shape) for shape in VOCAB_SHAPES),
    *(("shared", shape) for shape in SHARED_SHAPES),
]


@functools.cache
def program_of(head: str, shape: str = "few slots", **options: Any) -> Program:
    fields = {"scalar": SHAPES, "vocab": VOCAB_SHAPES, "shared": SHARED_SHAPES}[head][shape]
    gate = gates.Entropy() & ~gates.Position(2) if head == "vocab" else gates.Entropy()
    fields = {"max_new_tokens": LENGTH, "record": None} | fields | options
    head = "vocab" if head == "vocab" else "scalar"
    return make_program(SteeringConfig(num_candidates=6, gate=gate), head=head, **fields)


@functools.cache
def rows_of(head: str, batch: int = 0) -> list[Row]:
    program = program_of(head)
    return [clear_row(program, 50 + batch, i, **numbers)[0] for i, numbers in enumerate(NUMBERS)]


def assert_agrees(program: Program, outcome: Outcome, rows: Sequence[Row]) -> None:
    """Every row is the oracle's reply."""
    replies = [reply for row in rows for reply in replies_of(program, row)]
    assert [difference(program, outcome, i, reply) for i, reply in enumerate(replies)] == [""] * len(replies)


def bits_of(samples: Samples, i: int) -> list[bytes]:
    """Every leaf of row i, NaNs included."""
    return [np.asarray(leaf[i]).tobytes() for leaf in jax.tree.leaves(samples) if np.ndim(leaf)]


# Within one compiled program: to the last bit


@pytest.mark.parametrize("head", ["scalar", "vocab", "shared"])
def test_the_order_of_the_rows_changes_no_bit(head):
    program, rows = program_of(head), rows_of(head)
    one = run(program, rows, min_waiting=3).samples
    for order in ([5, 4, 3, 2, 1, 0], [2, 0, 1, 5, 3, 4]):
        other = run(program, [rows[i] for i in order], min_waiting=3).samples
        assert [bits_of(other, place) for place in range(ROWS)] == [bits_of(one, i) for i in order]


@pytest.mark.parametrize("head", ["scalar", "vocab", "shared"])
def test_neighbours_with_other_prompts_and_keys_change_no_bit(head):
    program, rows, others = program_of(head), rows_of(head), rows_of(head, batch=1)
    one, two = run(program, rows, min_waiting=3).samples, run(program, others, min_waiting=3).samples
    steps = set()
    for kept in range(1, 2**ROWS - 1, 7):
        is_kept = [bool(kept >> i & 1) for i in range(ROWS)]
        mixed = run(
            program, [a if k else b for a, b, k in zip(rows, others, is_kept, strict=True)], min_waiting=3
        )
        for i, k in enumerate(is_kept):
            assert bits_of(mixed.samples, i) == bits_of(one if k else two, i)
        steps.add((int(mixed.samples.policy_steps), int(mixed.samples.value_calls)))
    assert len(steps) > 3, "rows must have waited for one another, differently"


@pytest.mark.parametrize("head", ["scalar", "vocab"])
@pytest.mark.parametrize(
    "numbers",
    [
        {"threshold": np.inf},
        {"threshold": -np.inf, "temperature": 0.0},
        {"top_k": 3, "top_p": 0.4, "temperature": 2.0, "beta": -3.0},
        {"min_p": 0.3},
        {"repetition_penalty": 2.0, "presence_penalty": 1.0, "frequency_penalty": 1.0},
        {"min_new_tokens": 9, "stop_ids": (1, 2, 3, 4), "bias": ((1, 5.0),), "banned_ids": (5, 6)},
        {"max_new_tokens": 1, "min_new_tokens": 0},
    ],
    ids=lambda numbers: "-".join(numbers),
)
def test_other_rows_knobs_change_no_bit(head, numbers):
    program, rows = program_of(head), rows_of(head)
    one = run(program, rows, min_waiting=3).samples
    for i in range(ROWS):
        changed = [row if j == i else replace(row, **numbers) for j, row in enumerate(rows)]
        assert bits_of(run(program, changed, min_waiting=3).samples, i) == bits_of(one, i)


# Between schedules and programs: one reply


@pytest.mark.parametrize(
    ("head", "shape"),
    [case if case == PROGRAMS[1] else long(*case) for case in PROGRAMS],
)
def test_slots_sizes_buffers_chunks_and_schedules_change_no_reply(head, shape):
    program, rows, schedules = program_of(head, shape), rows_of(head), set()
    for min_waiting in (1, 2, ROWS):
        for max_wait in (0, 1, 4):
            outcome = run(program, rows, min_waiting=min_waiting, max_wait=max_wait)
            assert_agrees(program, outcome, rows)
            schedules.add((int(outcome.samples.policy_steps), int(outcome.samples.value_calls)))
    assert len(schedules) > 2 or head == "shared"  # which knows no such numbers


@pytest.mark.parametrize("batch", [1, long(2)])
def test_the_size_of_the_batch_changes_no_reply(batch):
    program, rows = program_of("scalar"), rows_of("scalar")
    for first in range(0, ROWS, batch):
        some = rows[first : first + batch]
        assert_agrees(program, run(program, some), some)


@pytest.mark.long
def test_an_adapter_kept_apart_and_one_merged_give_one_reply():
    program, rows = program_of("scalar", merged=True), rows_of("scalar")
    assert "lora" not in program.params.value
    assert "lora" in program_of("scalar").params.value
    assert_agrees(program_of("scalar"), run(program, rows), rows)


@pytest.mark.long
def test_branches_are_rows_with_folded_keys():
    program = program_of("scalar", "what the rule of auto says", branches=3)
    rows = [clear_row(program, 60, i, **numbers)[0] for i, numbers in enumerate(NUMBERS[:2])]
    alone = [branch for row in rows for branch in branches_of(program, row)]
    assert_agrees(program, run(program, rows), rows)
    assert_agrees(program_of("scalar"), run(program_of("scalar"), alone), alone)
    assert len({tuple(reply_of(program, row).tokens) for row in alone}) == len(alone)


# Anything at all


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32)


def prompts(longest: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, 47), min_size=1, max_size=longest).map(tuple)


IDS = st.lists(st.integers(0, 47), max_size=4, unique=True).map(tuple)
ANY_ROW = st.builds(
    lambda min_new_tokens, **fields: Row(
        min_new_tokens=min(min_new_tokens, fields["max_new_tokens"]), **fields
    ),
    prompt=prompts(PROMPT_LENGTH),
    value_prompt=prompts(VALUE_PROMPT_LENGTH),
    key=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    threshold=st.sampled_from([-np.inf, np.inf]) | floats(1, 1.75),
    max_new_tokens=st.integers(1, LENGTH),
    beta=floats(-3, 3),
    temperature=st.just(0.0) | floats(0.5, 2),
    top_k=st.integers(0, 50),
    top_p=st.just(1.0) | floats(0.125, 1),
    min_p=st.just(0.0) | floats(0.0, 1),
    repetition_penalty=st.just(1.0) | floats(0.5, 2),
    presence_penalty=st.just(0.0) | floats(-1, 1),
    frequency_penalty=st.just(0.0) | floats(-1, 1),
    min_new_tokens=st.integers(0, 8),
    stop_ids=IDS,
    banned_ids=IDS,
    bias=st.dictionaries(st.integers(0, 47), floats(-4, 4), max_size=4).map(lambda bias: tuple(bias.items())),
)
BATCH = st.lists(ANY_ROW, min_size=ROWS, max_size=ROWS)


@settings(derandomize=True, max_examples=40, database=None)
@given(
    program=st.sampled_from(PROGRAMS),
    rows=BATCH,
    others=BATCH,
    order=st.permutations(range(ROWS)),
    min_waiting=st.integers(1, ROWS),
    max_wait=st.integers(0, 6),
)
@pytest.mark.long
def test_any_batch_under_any_schedule_agrees_with_the_oracle_and_knows_no_neighbours(
    program, rows, others, order, min_waiting, max_wait
):
    program = program_of(*program)
    outcome = run(program, rows, min_waiting=min_waiting, max_wait=max_wait)
    assert_agrees(program, outcome, rows)
    mixed = [rows[i] if place % 2 else others[i] for place, i in enumerate(order)]
    other = run(program, mixed, min_waiting=min_waiting, max_wait=max_wait)
    for place in range(1, ROWS, 2):
        assert bits_of(other.samples, place) == bits_of(outcome.samples, order[place])


def test_few_programs_are_compiled_for_many_calls():
    assert sampler._sample._cache_size() < 60
