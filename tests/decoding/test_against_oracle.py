"""The sampler against the float64 oracle, over structures (programs) and numbers (rows of each call).

What has to be equal is said by `tests.support.sampling.difference`. The last tests see to it that the cases
are worth something: that they contain what they should, and that known errors would be found.
"""

import functools
import sys
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.sample import SteeringParams, sample
from sia_jax.decoding.schedule import Shared
from sia_jax.steering import gates, tilts
from sia_jax.steering.config import SteeringConfig
from sia_jax.types import Params
from tests.support.checkpoints import tiny_policy
from tests.support.marks import long
from tests.support.oracle import MUTATIONS, NumpyModel, Reply
from tests.support.oracle_parts import fold_in
from tests.support.sampling import (
    PROMPT_LENGTH,
    VALUE_PROMPT_LENGTH,
    Outcome,
    Program,
    Row,
    clear_row,
    difference,
    first_small_margin,
    make_program,
    random_row,
    replies_of,
    reply_of,
    run,
)

TIED = tuple(range(8, 44))
"""Ids whose logits are exactly 0 in the program "ties"."""

NUMBERS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.7, "beta": 2.0},
    {"temperature": 0.0},
    {"temperature": 0.3, "beta": 2.0},
    {"top_k": 4},
    {"top_k": 17, "temperature": 1.7},
    {"top_p": 0.5},
    {"top_p": 0.93, "temperature": 1.7},
    {"top_k": 12, "top_p": 0.9, "temperature": 1.3, "beta": -1.5},
    {"repetition_penalty": 1.4, "temperature": 0.0},
    {"repetition_penalty": 0.7, "top_k": 14},
    {"presence_penalty": 0.7, "frequency_penalty": 0.4},
    {"presence_penalty": -0.3, "frequency_penalty": -0.3, "repetition_penalty": 1.2, "top_p": 0.8},
    {"stop_ids": tuple(range(1, 5)), "min_new_tokens": 5},
    {"stop_ids": (4, 5, 6, 7), "bias": ((5, 2.5), (6, 2.0))},
    {"stop_ids": (), "banned_ids": (4, 5, 6)},
    {"bias": ((9, 1.5), (1, -2.0), (5, 3.0)), "banned_ids": (7,)},
    {"max_new_tokens": 6},
    {"max_new_tokens": 1},
    {"stop_ids": (8, 9, 10), "max_new_tokens": 9, "temperature": 1.3},
    {"stop_ids": (6, 7), "bias": ((7, 3.0), (6, 1.0)), "min_new_tokens": 3, "beta": 2.0},
]
"""What rows are sampled with; each program meets most of them, next to one another."""

THRESHOLDS = ["middle", "middle", "low", "middle", "-inf", "middle", "low", "inf"]

SCHEDULES: list[dict[str, int | None]] = [
    {"min_waiting": None, "max_wait": None},
    {"min_waiting": 1, "max_wait": 4},
    {"min_waiting": 6, "max_wait": 3},
    {"min_waiting": 2, "max_wait": 0},
]


@dataclass(frozen=True)
class Structure:
    """How a program is made, and which numbers suit it."""

    middle: float
    """A threshold at which some positions are junctions."""
    gate_numbers: tuple[tuple[float, ...] | None, ...] = (None,)
    tilt_numbers: tuple[tuple[float, ...] | None, ...] = (None,)
    fields: tuple[tuple[str, Any], ...] = ()
    numbers: tuple[dict[str, Any], ...] = ()
    """Before NUMBERS."""
    rows: int = 6
    calls: int = 4


def structure(middle: float, **options: Any) -> Structure:
    own = {
        name: options.pop(name)
        for name in ("gate_numbers", "tilt_numbers", "numbers", "rows", "calls")
        if name in options
    }
    return Structure(middle, fields=tuple(options.items()), **own)


def steering(gate: gates.Gate | None = None, tilt: tilts.Tilt | None = None, **fields: Any) -> SteeringConfig:
    given = {
        "gate": gates.Entropy() if gate is None else gate,
        "tilt": tilts.Additive() if tilt is None else tilt,
        "num_candidates": 6,
    }
    return SteeringConfig(**(given | fields))


def with_ties(params: Params) -> Params:
    """The ids of TIED have logits of 0 to the last bit, in float32 and in float64."""
    head = params["lm_head"]["weight"].at[jnp.array(TIED)].set(0)
    return params | {"lm_head": {"weight": head}}


SMALL = {"slots": 2, "row_tokens": 8, "pass_tokens": 14}
OTHER = {"hidden_size": 16, "intermediate_size": 20, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
STRUCTURES = {
    "paper": structure(1.52, max_new_tokens=20, calls=8, top_logprobs=5, **SMALL),
    "merged llama": structure(
        1.9,
        steering=steering(tilt=tilts.Centred(), entropy="vocabulary"),
        family="llama",
        merged=True,
        slots=3,
        row_tokens=7,
        pass_tokens=7,
        chunk=5,
    ),
    "value model of its own shape": structure(
        1.55,
        steering=steering(gates.Entropy() | gates.Never(), tilts.Clipped(2.0, tilts.Standardised())),
        tilt_numbers=(None, (0.7,)),
        backbone=lambda: tiny_policy("llama", 5, vocab_size=50, **OTHER),
        vocab_size=56,
        num_tokens=50,
        num_layers=1,
        top_logprobs=56,
    ),
    "vocab head": structure(
        1.56,
        steering=steering(gates.Entropy() & ~gates.Position(2)),
        gate_numbers=(None, (0.0,), (5.0,)),
        head="vocab",
        slots=2,
        row_tokens=3,
        pass_tokens=4,
        max_new_tokens=20,
    ),
    "vocab head of its own shape": structure(
        2.0,
        steering=steering(gates.Budget(0.4), tilts.Standardised(), entropy="vocabulary"),
        gate_numbers=(None, (0.2,), (0.6,)),
        family="llama",
        head="vocab",
        backbone=lambda: tiny_policy("qwen3", 6, vocab_size=48, **OTHER),
        slots=6,
        num_layers=1,
    ),
    "budget": structure(
        1.5,
        steering=steering(gates.Budget(0.4)),
        gate_numbers=(None, (0.2,), (0.7,)),
        slots=1,
        row_tokens=7,
        pass_tokens=7,
        max_new_tokens=20,
    ),
    "nested gates": structure(
        1.8,
        steering=steering(
            (gates.Entropy() & gates.Budget(0.5))
            | (gates.Bernoulli(0.2) & ~(gates.Position(1) | gates.Budget(0.9))),
            tilts.Clipped(3.0, tilts.Centred()),
            entropy="vocabulary",
        ),
        gate_numbers=(None, (0.3, 0.5, 2.0, 0.8)),
        tilt_numbers=(None, (1.0,)),
        family="llama",
        merged=True,
        num_layers=1,
        **SMALL,
    ),
    "entropy ratio": structure(
        1.35,
        steering=steering(gates.EntropyRatio(0.05) | gates.TopProbability(0.2)),
        gate_numbers=(None, (0.2, 0.25), (-0.1, 0.1)),
        num_layers=1,
        slots=4,
        row_tokens=9,
        pass_tokens=20,
    ),
    "candidates only": structure(
        1.35,
        steering=steering(
            gates.LogitGap(1.0) & ~gates.TopProbability(0.2),
            tilts.Clipped(1.5, tilts.Clipped(2.0)),
            unsteered="candidates",
        ),
        gate_numbers=(None, (0.5, 0.1)),
        tilt_numbers=(None, (3.0, 1.0)),
        num_layers=1,
        **SMALL,
    ),
    "branches": structure(
        1.35, steering=steering(gates.Bernoulli(0.5) & gates.Entropy()), branches=3, rows=2, calls=8, **SMALL
    ),
    "ties": structure(
        1.35,
        change=with_ties,
        exact_ties=True,
        top_logprobs=12,
        numbers=(
            {"temperature": 0.0, "beta": 0.0, "bias": ((20, 9.0), (10, 9.0), (30, 9.0))},
            {"top_k": 10, "bias": ((20, 1.0), (10, 1.0))},
            {"top_p": 0.6, "bias": ((20, 9.0), (10, 9.0), (30, 9.0), (15, 9.0))},
        ),
        calls=8,
        max_new_tokens=20,
        **SMALL,
    ),
    "every real id a candidate": structure(
        1.35,
        steering=steering(gates.Always() & ~gates.Never(), num_candidates=12),
        num_tokens=12,
        family="llama",
        num_layers=1,
        slots=4,
        row_tokens=13,
        pass_tokens=30,
    ),
    "one candidate": structure(
        1.0,
        steering=steering(gates.LogitGap(0.6), num_candidates=1, entropy="vocabulary"),
        num_layers=1,
        calls=2,
        **SMALL,
    ),
    "no value model": structure(np.inf, steered=False, num_layers=1, record=None, top_logprobs=48),
    "advantage": structure(
        1.5,
        steering=steering(
            (gates.Entropy() & gates.Refractory(1)) & gates.Budget(0.5), tilts.Clipped(0.2, tilts.Advantage())
        ),
        gate_numbers=(None, (0.0, 0.8), (3.0, 0.5)),
        tilt_numbers=(None, (0.5,), (np.inf,)),
        num_layers=1,
        max_new_tokens=20,
        **SMALL,
    ),
    "vocab head's advantage": structure(
        1.5,
        steering=steering(
            gates.Entropy() & ~gates.Never() & gates.Refractory(2), tilts.Clipped(0.2, tilts.Advantage())
        ),
        gate_numbers=(None, (0.0,)),
        tilt_numbers=(None, (0.5,)),
        head="vocab",
        num_layers=1,
        slots=2,
        row_tokens=3,
        pass_tokens=4,
    ),
    "min_p": structure(
        1.52,
        numbers=(
            {"min_p": 0.1, "temperature": 1.3},
            {"min_p": 0.02, "top_p": 0.95, "top_k": 30, "temperature": 2.0},
            {"min_p": 0.3, "bias": ((9, 1.5), (5, 3.0))},
            {"min_p": 1.0},
        ),
        max_new_tokens=20,
        **SMALL,
    ),
    "markers": structure(
        1.5,
        steering=steering(
            (gates.Entropy() & gates.After((7, 7, 40))) | (gates.Position(4) & ~gates.After((9,)))
        ),
        gate_numbers=(None, (0.0, 4.0, 0.0), (1.0, 4.0, 0.0), (0.0, 9.0, 1.0)),
        numbers=({"bias": ((7, 3.0), (40, 3.5)), "stop_ids": ()},) * 7,
        num_layers=1,
        max_new_tokens=20,
        calls=2,
        **SMALL,
    ),
    "contenders": structure(
        1.4,
        steering=steering(tilt=tilts.Clipped(0.5, tilts.Advantage())),
        tilt_numbers=(None, (1.0,), (0.2,), (0.5,), (2.0,)),
        numbers=(
            {"temperature": 1e-3, "threshold": -np.inf},
            {"temperature": 0.0, "threshold": -np.inf, "beta": 3.0},
            {"threshold": -np.inf, "read_all": 1},
            {"threshold": -np.inf, "top_p": 0.8},
            {"threshold": -np.inf, "beta": 4.0},
        ),
        max_new_tokens=20,
        **SMALL,
    ),
    "shared": structure(
        1.5,
        steering=steering(gates.Budget(0.4), tilts.Advantage()),
        gate_numbers=(None, (0.2,), (0.7,)),
        schedule=Shared(),
        num_layers=1,
        max_new_tokens=20,
        **SMALL,
    ),
    "shared, looking ahead": structure(
        1.5,
        steering=steering(tilt=tilts.Clipped(0.8, tilts.Advantage())),
        tilt_numbers=(None, (np.inf,), (0.3,)),
        numbers=({"threshold": -np.inf, "beta": 3.0}, {"threshold": -np.inf, "temperature": 0.0}),
        schedule=Shared(look_ahead=True),
        top_logprobs=3,
        max_new_tokens=20,
        **SMALL,
    ),
    "shared llama, looking ahead": structure(
        1.9,
        steering=steering(gates.Entropy() & gates.Refractory(1), entropy="vocabulary"),
        gate_numbers=(None, (0.0,)),
        schedule=Shared(look_ahead=True),
        family="llama",
        num_layers=1,
        slots=6,
        row_tokens=9,
        pass_tokens=30,
        chunk=5,
    ),
    "shared vocab head": structure(
        1.5,
        steering=steering(tilt=tilts.Clipped(0.5)),
        schedule=Shared(),
        head="vocab",
        num_layers=1,
        slots=2,
        row_tokens=3,
        pass_tokens=4,
    ),
    "head on the policy's states": structure(
        1.5,
        steering=steering(gates.Entropy() & gates.Refractory(1), tilts.Clipped(2.0, tilts.Advantage())),
        gate_numbers=(None, (0.0,)),
        tilt_numbers=(None, (0.5,)),
        head="states",
        num_layers=1,
        max_new_tokens=20,
        top_logprobs=4,
    ),
    "branches on the policy's states": structure(
        1.9,
        steering=steering(gates.Budget(0.4), tilts.Centred(), entropy="vocabulary"),
        gate_numbers=(None, (0.2,), (0.7,)),
        family="llama",
        head="states",
        num_layers=1,
        branches=2,
        rows=3,
        calls=2,
        chunk=5,
    ),
    "linear": structure(
        1.5,
        steering=steering(gates.Linear(-2.0, 1.0, 0.5, -2.0, -0.25, 0.02)),
        gate_numbers=(None, (-1.4, 1.0, 0.0, 0.0, 0.0, 0.0), (0.4, 0.0, 0.0, 0.0, -1.0, 0.0)),
        num_layers=1,
        max_new_tokens=20,
        calls=2,
        **SMALL,
    ),
}
DENSE = ("every real id a candidate", "no value model")
CASES = [(name, call) for name, of in STRUCTURES.items() for call in range(of.calls)]
LONG = (
    "vocab head of its own shape",
    "budget",
    "entropy ratio",
    "candidates only",
    "every real id a candidate",
    "one candidate",
    "vocab head's advantage",
    "shared",
    "shared llama, looking ahead",
    "shared vocab head",
    "nested gates",
    "min_p",
    "value model of its own shape",
    "branches on the policy's states",
    "linear",
)
"""Structures whose programs are compiled in the long tests alone."""


@functools.cache
def program_of(name: str) -> Program:
    fields = dict(STRUCTURES[name].fields)
    if "backbone" in fields:
        fields["backbone"] = fields["backbone"]()
    return make_program(**fields)


@functools.cache
def rows_of(name: str, call: int) -> list[Row]:
    """The rows of a call, as chance gives them."""
    of, index = STRUCTURES[name], list(STRUCTURES).index(name)
    numbers = [*of.numbers, *NUMBERS]
    rows = []
    for n in range(call * of.rows, (call + 1) * of.rows):
        level = THRESHOLDS[(n + n // len(THRESHOLDS)) % len(THRESHOLDS)]
        threshold = {"middle": of.middle, "low": of.middle - 0.1, "-inf": -np.inf, "inf": np.inf}[level]
        given = {
            "threshold": np.inf if name == "no value model" else threshold,
            "gate": of.gate_numbers[n % len(of.gate_numbers)],
            "tilt": of.tilt_numbers[n % len(of.tilt_numbers)],
        } | numbers[(n + 5 * index) % len(numbers)]
        row = random_row(program_of(name), np.random.default_rng([index, n]), **given)
        rows.append(row)
    return rows


@functools.cache
def outcome_of(name: str, call: int) -> Outcome:
    return run(program_of(name), rows_of(name, call), **SCHEDULES[call % len(SCHEDULES)])


def expected_of(name: str, call: int, mutation: str | None = None) -> list[Reply]:
    program = program_of(name)
    return [reply for row in rows_of(name, call) for reply in replies_of(program, row, mutation)]


def differences(name: str, call: int, mutation: str | None = None) -> list[str]:
    replies, outcome = expected_of(name, call, mutation), outcome_of(name, call)
    assert len(replies) == len(outcome.samples.lengths)
    return [difference(program_of(name), outcome, i, reply) for i, reply in enumerate(replies)]


@pytest.mark.parametrize(("name", "call"), [long(*case) if case[0] in LONG else case for case in CASES])
def test_the_sampler_and_the_oracle_agree(name, call):
    assert differences(name, call) == [""] * len(expected_of(name, call))


def test_the_official_configuration_agrees_when_nothing_else_is_said():
    program = make_program(SteeringConfig.official(), spread=3.0, vocab_size=64, num_layers=1, record=None)
    rows = [random_row(program, np.random.default_rng([97, i]), threshold=1.0) for i in range(4)]
    samples = sample(
        program.params,
        Prompt.pack([row.prompt for row in rows]),
        1.0,
        rng_key=jax.random.key(8, impl="threefry2x32"),
        config=program.config,
    )
    outcome = Outcome(jax.device_get(samples))
    replies = [
        reply_of(program, replace(row, value_prompt=row.prompt, key=fold_in((0, 8), i)))
        for i, row in enumerate(rows)
    ]
    assert all(first_small_margin(program, reply) == len(reply.margins) for reply in replies)
    assert 0.2 < np.concatenate([reply.junction for reply in replies]).mean() < 0.6
    assert any(any(reply.shifted) for reply in replies)
    assert [difference(program, outcome, i, reply) for i, reply in enumerate(replies)] == [""] * len(rows)


def test_a_reply_ends_where_logits_or_values_are_not_finite_and_no_neighbour_notices():
    program, bad = with_nan("paper", 11), 11
    common = {"max_new_tokens": 20, "stop_ids": ()}
    rows = [
        clear_row(program, 98, i, **(common | numbers))[0]
        for i, numbers in enumerate(
            [
                {"threshold": np.inf, "banned_ids": (bad,)},
                {"threshold": np.inf, "prompt": (3, bad, 5)},
                {"threshold": np.inf, "bias": ((bad, 3.0),)},
                {"threshold": 1.52, "prompt": (3, 5), "bias": ((bad, 1.0),)},
                {"threshold": 1.52, "prompt": (3, 5), "value_prompt": (bad, 3)},
                {"threshold": -np.inf, "prompt": (3,), "value_prompt": (3,), "max_new_tokens": 2},
            ]
        )
    ]
    replies, outcome = [replies_of(program, row)[0] for row in rows], run(program, rows)
    assert [difference(program, outcome, i, reply) for i, reply in enumerate(replies)] == [""] * 6
    ends = [(reply.finish_reason, len(reply.comparisons) > len(reply.tokens)) for reply in replies]
    policy_s, value_s = ("non_finite", False), ("non_finite", True)
    assert ends == [("length", False), policy_s, policy_s, value_s, value_s, ("length", False)]
    assert [len(reply.tokens) > 0 for reply in replies[:4]] == [True, False, True, True]


def with_nan(name: str, token: int) -> Program:
    """The same compiled program with other weights: in policy and value model an id's embedding is NaN."""
    program = program_of(name)
    model = program.params.policy["model"]
    spoilt = {"weight": model["embed_tokens"]["weight"].at[token].set(jnp.nan)}
    model = model | {"embed_tokens": spoilt}
    policy, value = program.params.policy | {"model": model}, program.params.value
    return replace(
        program,
        params=SteeringParams(policy, value),
        policy=NumpyModel(policy, program.config.policy),
        value=NumpyModel(value, program.config.value, model),
    )


# What the cases are worth


def test_the_cases_contain_what_a_sampler_may_get_wrong():
    sparse = [
        (reply, name)
        for name, call in CASES
        for reply, threshold in zip(expected_of(name, call), thresholds_of(name, call), strict=True)
        if name not in DENSE and np.isfinite(threshold)
    ]
    junctions = np.concatenate([reply.junction for reply, _ in sparse])
    shifted = np.concatenate([reply.shifted for reply, _ in sparse])
    assert 0.2 < junctions.mean() < 0.6
    assert shifted.sum() > 0.3 * junctions.sum()

    replies = [(reply, name) for name, call in CASES for reply in expected_of(name, call)]
    cut = [first_small_margin(program_of(name), reply) < len(reply.margins) for reply, name in replies]
    assert len(replies) > 300
    assert np.mean(cut) < 0.01

    at_junctions = [reply for reply, _ in replies if any(reply.junction)]
    assert sum(reply.junction[0] for reply in at_junctions) > 20
    assert sum(reply.junction[-1] for reply in at_junctions) > 20
    assert sum(reply.junction[-1] and reply.finish_reason == "stop" for reply in at_junctions) > 10
    assert sum(reply.finish_reason == "stop" for reply, _ in replies) > 50
    assert sum(longest_span(reply) > room_of(name) for reply, name in replies) > 20
    completed = [reply.gate_state[-1][0] == 3 for call in range(2) for reply in expected_of("markers", call)]
    assert sum(completed) >= 5
    drawn_outside = [
        a not in ids for reply, _ in replies for a, ids in zip(reply.tokens, reply.candidate_ids, strict=True)
    ]
    assert np.mean(drawn_outside) > 0.05
    lengths = {
        (len(row.prompt), len(row.value_prompt)) for name, call in CASES for row in rows_of(name, call)
    }
    assert {1, PROMPT_LENGTH} <= {policy for policy, _ in lengths}
    assert {1, VALUE_PROMPT_LENGTH} <= {value for _, value in lengths}


def test_rows_wait_for_one_another_in_many_calls():
    waited = {case: rows_waited(outcome_of(*case)) for case in CASES if case[0] not in LONG}
    assert sum(waited.values()) > 10
    assert not any(waited[case] for case in waited if not program_of(case[0]).config.value_passes)


def thresholds_of(name: str, call: int) -> list[float]:
    """One for each reply."""
    return [row.threshold for row in rows_of(name, call) for _ in range(program_of(name).config.branches)]


def longest_span(reply: Reply) -> int:
    """The most tokens between two junctions, or before the first."""
    junctions = [-1, *np.flatnonzero(reply.junction)]
    return max(np.diff(junctions), default=1) - 1


def room_of(name: str) -> int:
    """Tokens of a span that a value pass takes from one row, next to its candidates."""
    config = program_of(name).config.resolve(6)
    return (config.row_tokens or 0) - config.candidate_tokens if config.value_passes else sys.maxsize


def rows_waited(outcome: Outcome) -> bool:
    """Whether the call took more policy steps than its longest reply."""
    return int(outcome.samples.policy_steps) > int(outcome.samples.lengths.max())


KNOWN_ERRORS = [
    ("candidate_position", "paper"),
    ("candidate_position", "merged llama"),
    ("policy_prompt", "paper"),
    ("policy_prompt", "vocab head"),
    ("value_prompt", "head on the policy's states"),
    ("unwritten", "paper"),
    ("unwritten", "vocab head of its own shape"),
    ("step_key", "paper"),
    ("step_key", "branches"),
    ("late_penalty", "paper"),
    ("late_penalty", "vocab head"),
    ("filtered_entropy", "paper"),
    ("filtered_entropy", "merged llama"),
    ("waiting_gate", "budget"),
    ("waiting_gate", "nested gates"),
    ("early_verdict", "advantage"),
    ("late_marker", "markers"),
    ("prefix_value_shifted", "advantage"),
    ("stale_prefix_value", "advantage"),
    ("half_reach", "contenders"),
    ("half_reach", "advantage"),
    ("own_where_decided", "contenders"),
    ("unread_as_read", "contenders"),
    ("adapted_policy", "shared, looking ahead"),
    ("policy_unwritten", "shared, looking ahead"),
    ("policy_unwritten", "shared"),
    ("neighbour_state", "shared, looking ahead"),
    ("unwritten", "shared, looking ahead"),
    ("candidate_position", "shared, looking ahead"),
    ("prefix_value_shifted", "contenders"),
    ("unwritten", "contenders"),
    ("processed_top", "paper"),
    ("processed_top", "no value model"),
    ("late_top", "paper"),
    ("late_top", "shared, looking ahead"),
    ("late_top", "head on the policy's states"),
]
"""Mutations of the oracle, each with structures that show it."""


@pytest.mark.parametrize(
    ("mutation", "name"), [long(*error) if error[1] in LONG else error for error in KNOWN_ERRORS]
)
def test_a_known_error_is_found_before_any_small_margin(mutation, name):
    assert any(
        difference
        for call in range(STRUCTURES[name].calls)
        for difference in differences(name, call, mutation)
    )


def test_every_known_error_is_looked_for():
    assert {mutation for mutation, _ in KNOWN_ERRORS} == set(MUTATIONS)


# Gates and tilts of one's own


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EveryNth(gates.Gate):
    """t mod n = 0."""

    n: Any

    def decide(self, features: gates.Features, state: Any) -> jax.Array:
        return features.index % self.n == 0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ranked(tilts.Tilt):
    """`step` nats for every candidate of a lower value."""

    step: Any

    def __call__(self, values: jax.Array, at: tilts.Junction) -> jax.Array:
        lower = (values[:, :, None] > values[:, None, :]) & at.allowed[:, None, :]
        return self.step[:, None] * jnp.sum(lower, axis=-1)


def test_a_gate_and_a_tilt_of_ones_own_work_in_sample():
    program = make_program(steering(EveryNth(3), Ranked(2.0)), num_layers=1, max_new_tokens=12, **SMALL)
    rows = [random_row(program, np.random.default_rng([7, i]), stop_ids=()) for i in range(6)]
    for step in (2.0, 0.25):
        samples = run(program, [replace(row, gate=(3,), tilt=(step,)) for row in rows]).samples
        np.testing.assert_array_equal(samples.junction, np.tile(np.arange(12) % 3 == 0, (6, 1)))
        found = samples.candidates
        for row, t in zip(*np.nonzero(samples.junction), strict=True):
            lower = (found.values[row, t][:, None] > found.values[row, t][None]).sum(axis=-1)
            scores = np.float64(found.logits[row, t]) + step * lower
            expected = scores - np.log(np.exp(scores - scores.max()).sum()) - scores.max()
            np.testing.assert_allclose(found.logprobs[row, t], expected, atol=1e-5)
