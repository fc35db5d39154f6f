"""Contenders in whole replies: the tokens that reading all gives, fewer values, and the bound on the KL."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from sia_jax.steering import gates, tilts
from sia_jax.steering.config import SteeringConfig
from tests.support.marks import long
from tests.support.sampling import Program, Row, first_small_margin, make_program, random_row, reply_of, run

ROWS, LENGTH = 48, 20
ADVANTAGE = tilts.Clipped(0.5, tilts.Advantage())
PROGRAMS: dict[str, dict[str, Any]] = {
    "advantage": {"steering": {"tilt": ADVANTAGE}},
    "additive, llama": {"steering": {"tilt": tilts.Clipped(0.7)}, "family": "llama", "merged": True},
    "standardised": {"steering": {"tilt": tilts.Clipped(0.5, tilts.Standardised())}},
    "nested, other gates": {
        "steering": {
            "tilt": tilts.Clipped(0.5, tilts.Clipped(0.9, tilts.Advantage())),
            "gate": gates.Entropy() & gates.Refractory(1) | gates.Bernoulli(0.3),
            "unsteered": "candidates",
        }
    },
    "vocab head": {"steering": {"tilt": ADVANTAGE}, "head": "vocab"},
    "one row at a time": {"steering": {"tilt": ADVANTAGE}, "slots": 1, "row_tokens": 8, "pass_tokens": 8},
}
NUMBERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0, "beta": 2.0},
    {"temperature": 1e-3, "beta": -1.0},
    {"top_k": 4, "temperature": 0.7},
    {"top_p": 0.8, "beta": 4.0},
    {"min_p": 0.1, "temperature": 1.5},
    {"threshold": 1.5},
    {"temperature": 0.3, "top_p": 0.95, "top_k": 20, "beta": 8.0},
]
SCHEDULES = ({"min_waiting": 1, "max_wait": 0}, {"min_waiting": 20, "max_wait": 5})


def made(name: str, **changes: Any) -> Program:
    fields = PROGRAMS[name] | changes
    steering = SteeringConfig(num_candidates=6, **fields.pop("steering"))
    return make_program(steering, num_layers=1, max_new_tokens=LENGTH, **fields)


def rows_of(program: Program, seed: int) -> list[Row]:
    rng, numbers = np.random.default_rng([77, seed]), len(jax.tree.leaves(program.config.steering.tilt))
    found = []
    for i in range(ROWS):
        bound = float(rng.choice([0.1, 0.5, 1.0, 3.0, np.inf]))
        given = {"threshold": -np.inf, "stop_ids": (), "tilt": (bound,) * numbers} | NUMBERS[i % len(NUMBERS)]
        found.append(random_row(program, rng, **given))
    return found


@pytest.mark.parametrize("name", ["advantage", *map(long, list(PROGRAMS)[1:])])
def test_the_tokens_are_those_of_reading_all_up_to_small_margins(name: str) -> None:
    program, positions, read, parted = made(name), 0, [0, 0], 0
    for call in range(4):
        rows = rows_of(program, call)
        schedule = SCHEDULES[call % 2]
        contending, everything = (
            run(program, [replace(row, read_all=read_all) for row in rows], **schedule).samples
            for read_all in (0, 1)
        )
        for i, row in enumerate(rows):
            same = np.ones(LENGTH, bool)
            for field in ("tokens", "junction", "shifted", "contenders"):
                same &= getattr(contending, field)[i] == getattr(everything, field)[i]
            first = LENGTH if same.all() else int(np.argmin(same))
            positions += first
            if first < LENGTH:
                parted += 1
                assert first_small_margin(program, reply_of(program, row)) <= first
        read[0] += int(contending.values_read.sum())
        read[1] += int(everything.values_read.sum())
        assert (everything.values_read[everything.junction] == 6).all()
        alone = contending.junction & (contending.values_read == 0)
        assert (contending.contenders[alone] == 1).all()
        assert (contending.contenders[contending.junction] >= 1).all()
        assert (contending.contenders[~contending.junction] == 0).all()
        assert np.isnan(contending.value[alone]).all()
    assert positions > 0.98 * 4 * ROWS * LENGTH
    assert parted < 8
    assert read[0] < (0.7 if name != "standardised" else 0.9) * read[1]


def test_no_position_is_further_from_the_policy_than_the_bound_allows() -> None:
    program = made("advantage")
    rows = [
        replace(row, read_all=1, top_k=0, top_p=1.0, min_p=0.0, beta=30.0)
        for row in rows_of(program, 9)
        if row.temperature >= 0.3
    ]
    rows = (rows * 2)[:ROWS]
    samples = run(program, rows).samples
    assert samples.candidates is not None
    logits = np.float64(samples.candidates.logits)
    log_q = np.float64(samples.candidates.logprobs)
    t = np.array([row.temperature for row in rows])[:, None]
    bound = np.array([row.tilt[0] for row in rows if row.tilt])[:, None]
    log_p = logits / t[..., None]
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    kl = np.sum(np.exp(log_q) * (log_q - log_p), axis=-1)
    limit = np.minimum(2 * bound / t, bound**2 / (2 * t**2))
    steered = samples.junction
    assert (kl <= limit * (1 + 1e-4) + 1e-5)[steered].all()
    assert (kl > 0.5 * limit)[steered].any()  # the bound is not far off


def test_a_reply_of_decided_tokens_alone_never_runs_the_value_model() -> None:
    program = made("advantage")
    rows = [replace(row, tilt=(0.0,), max_new_tokens=9) for row in rows_of(program, 3)]
    samples = run(program, rows).samples
    assert samples.junction.sum() > 0
    np.testing.assert_array_equal(samples.value_calls, 0)
    np.testing.assert_array_equal(samples.value_tokens, 0)
    np.testing.assert_array_equal(samples.policy_steps, samples.lengths.max())


@pytest.mark.long
def test_values_that_are_not_read_may_be_anything() -> None:
    """A candidate whose embedding is NaN in the value model ends no reply unless it contends."""
    program, bad = made("advantage", merged=True), 11
    value = program.params.value
    assert value is not None
    rows = [
        replace(row, bias=((bad, 2.0),), tilt=(0.3,), temperature=0.7, value_prompt=(3, 5), beta=1.0)
        for row in rows_of(program, 5)
    ]
    clean = run(program, rows).samples
    assert clean.candidates is not None
    spoilt = value["model"]["embed_tokens"]["weight"].at[bad].set(np.nan)
    model = value["model"] | {"embed_tokens": {"weight": spoilt}}
    params = replace(program.params, value=value | {"model": model})
    found = run(replace(program, params=params), rows).samples
    read_bad = (clean.candidates.ids == bad) & np.isfinite(clean.candidates.values)
    unread_bad = (clean.candidates.ids == bad) & ~np.isfinite(clean.candidates.values)
    survived = 0
    for i in range(ROWS):
        hurt = read_bad[i].any(-1) | (clean.tokens[i] == bad)
        first = int(np.argmax(hurt)) if hurt.any() else LENGTH
        np.testing.assert_array_equal(found.tokens[i, :first], clean.tokens[i, :first])
        survived += int(unread_bad[i, :first].any())
    assert survived > 5
