"""Contenders: those that win for some values, and no others; what they decide is what all values decide."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia_jax.steering import gumbel
from sia_jax.steering.config import DecisionConfig, SteeringConfig
from sia_jax.steering.contenders import contest
from sia_jax.steering.decision import steer
from sia_jax.steering.tilts import Additive, Advantage, Centred, Clipped, Standardised, Tilt
from sia_jax.steering.types import Pending, RowParams
from tests.support.marks import long

C = 6
ROWS = 4_000
"""Of every call, so that a tilt's program is compiled once."""
BOUNDED = [
    Clipped(1.0, Advantage()),
    long(Clipped(1.0)),
    Clipped(1.0, Standardised()),
    long(Clipped(1.0, Centred())),
    long(Clipped(2.0, Clipped(1.0, Advantage()))),
]


def numbers_of(tilt: Tilt, bound: Any, **numbers: Any) -> RowParams:
    """Under keys that differ; bounds, and what is given, [] or [ROWS]."""
    fields: dict[str, Any] = {f.name: jnp.zeros(ROWS) for f in dataclasses.fields(RowParams)}
    fields |= {name: jnp.broadcast_to(jnp.asarray(x, jnp.float32), ROWS) for name, x in numbers.items()}
    keys = np.random.default_rng(5).integers(2**32, size=(ROWS, 2), dtype=np.uint32)
    bounds = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x * bound, jnp.float32), ROWS), tilt)
    return RowParams(**fields | {"keys": jnp.asarray(keys), "tilt": bounds})


def config_of(tilt: Tilt, **changes: Any) -> DecisionConfig:
    return DecisionConfig(SteeringConfig(num_candidates=C, tilt=tilt), 64, record_candidates=True, **changes)


@functools.partial(jax.jit, static_argnames="config")
def run(logits, kept, values, index, prefix_value, numbers, config):
    """(who contends, whether one alone does, who is read; the choices with those values, and with all)."""
    ids = jnp.broadcast_to(jnp.arange(C) * 7 + 1, logits.shape)
    keys, _ = gumbel.position_keys(numbers.keys, index)
    noise = jnp.where(numbers.temperature[:, None] > 0, gumbel.gumbel(gumbel.uniform(keys, ids)), 0)
    found = contest(logits, kept, noise, index, numbers, config)

    def choose(reads):
        pending = Pending(ids, logits, jax.nn.log_softmax(logits), kept, kept, reads, kept * 1.0, kept, ())
        seen = jnp.where(reads, values, jnp.nan)
        seen = jnp.where(jnp.isfinite(seen), seen, 0)
        place, entry, _ = steer(seen, pending, index, prefix_value, numbers, config)
        return place, entry.candidates

    whole = jnp.ones_like(found.reads)
    read, _ = choose(found.reads)
    everything, record = choose(whole)
    return found.contenders, found.decided, found.winner, found.reads, read, everything, noise, record


def drawn(seed: int) -> dict[str, Any]:
    rng, rows = np.random.default_rng(seed), ROWS
    logits = -np.sort(-rng.normal(size=(rows, C)) * rng.uniform(0.1, 4, (rows, 1)), axis=-1)
    return {
        "logits": jnp.asarray(logits, jnp.float32),
        "kept": jnp.asarray(rng.integers(1, C + 1, rows), jnp.int32),
        # Half of the values lie far beyond the bounds: only there a margin too small is seen.
        "values": jnp.asarray(rng.choice([-9, 9, 0.3, -0.4], (rows, C)) + rng.normal(size=(rows, C)) / 10),
        "index": jnp.asarray(rng.integers(0, 3, rows), jnp.int32),
        "prefix_value": jnp.asarray(rng.normal(size=rows) / 5, jnp.float32),
    }


@pytest.mark.parametrize("tilt", BOUNDED, ids=repr)
def test_the_values_that_are_read_decide_as_all_values_would(tilt: Tilt) -> None:
    rng = np.random.default_rng(1)
    numbers = numbers_of(
        tilt,
        rng.choice([0, 0.1, 0.5, 2.0, np.inf], ROWS),
        temperature=rng.choice([0, 1e-3, 0.5, 1, 2], ROWS),
        beta=rng.choice([-2, 0, 1, 5], ROWS),
    )
    given_ = drawn(2)
    count, decided, winner, reads, read, everything, noise, _ = (
        jax.device_get(x) for x in run(**given_, numbers=numbers, config=config_of(tilt))
    )
    chosen = np.where(decided, winner, read)
    gap = steered_gap(tilt, given_, numbers, noise)
    np.testing.assert_array_equal(chosen[gap > 1e-4], everything[gap > 1e-4])
    assert (gap > 1e-4).mean() > 0.95
    assert 0.2 < decided.mean() < 0.8
    several = reads[~decided]
    assert (several.sum(-1) < given_["kept"][~decided]).mean() > 0.1 or not tilt.separable
    assert (count[decided] == 1).all()


def steered_gap(tilt: Tilt, given_: dict[str, Any], numbers: RowParams, noise: np.ndarray) -> np.ndarray:
    """By how much the best steered score leads, in float64, with all values read; in nats times T or 1."""
    found = []
    bounds = np.minimum.reduce([np.asarray(x, float) for x in jax.tree.leaves(numbers.tilt)])
    for i in range(len(noise)):
        n = int(given_["kept"][i])
        v, l = (np.asarray(given_[name][i][:n], float) for name in ("values", "logits"))
        beta, t = float(numbers.beta[i]), float(numbers.temperature[i]) or 1.0
        base = repr(tilt)
        if "Advantage" in base:
            v = v - (v.mean() if given_["index"][i] == 0 else float(given_["prefix_value"][i]))
        elif "Centred" in base or "Standardised" in base:
            v = v - v.mean()
            v = v / v.std() if "Standardised" in base and v.std() > 1e-6 else v
        scores = (l + np.clip(beta * v, -bounds[i], bounds[i])) / t + noise[i][:n]
        ranked = np.sort(scores)[::-1]
        found.append((ranked[0] - ranked[1]) * min(t, 1.0) if n > 1 else np.inf)
    return np.array(found)


def test_a_candidate_contends_if_and_only_if_some_values_make_it_win() -> None:
    tilt = Clipped(1.0, Advantage())
    numbers = numbers_of(tilt, np.random.default_rng(3).uniform(0, 2, ROWS), temperature=0.8, beta=1.0)
    given_ = drawn(4)
    given_["index"] += 1
    reads = np.asarray(run(**given_, numbers=numbers, config=config_of(tilt))[3])
    kept = np.asarray(given_["kept"])
    for place in range(C):
        values = jnp.full((ROWS, C), -100.0).at[:, place].set(100.0)
        everything = np.asarray(
            run(**given_ | {"values": values}, numbers=numbers, config=config_of(tilt))[5]
        )
        assert ((everything == place) <= reads[:, place]).all()
        spurious = reads[:, place] & (everything != place)
        assert spurious.mean() < 1e-3  # a tie, as far as rounding can tell
    assert not reads[np.arange(C) >= kept[:, None]].any()
    assert 1 < reads.sum(-1).mean() < 5


def test_reading_all_is_a_number_and_decides_nothing_at_once() -> None:
    tilt, given_ = Clipped(1.0, Advantage()), drawn(6)
    for read_all in (0, 1):
        numbers = numbers_of(tilt, 0.5, temperature=1.0, beta=1.0, read_all=read_all)
        count, decided, _, reads, *_ = run(**given_, numbers=numbers, config=config_of(tilt))
        assert bool(decided.any()) == (read_all == 0)
        assert bool(reads.all()) == (read_all == 1)
        assert (np.asarray(count) >= 1).all()


@pytest.mark.parametrize("tilt", [Additive(), *map(long, [Advantage(), Centred(), Standardised()])], ids=repr)
def test_without_a_bound_all_of_a_are_read_and_all_of_a_and_n_contend(tilt: Tilt) -> None:
    given_ = drawn(7)
    numbers = numbers_of(tilt, 1.0, temperature=1.0, beta=1.0)
    count, decided, _, reads, *_ = run(**given_, numbers=numbers, config=config_of(tilt))
    np.testing.assert_array_equal(count, given_["kept"])
    assert not decided.any()
    assert reads.all()


def test_at_the_first_token_an_advantage_reads_all_whose_mean_it_takes_and_a_vocab_head_always_does() -> None:
    given_ = drawn(8)
    for tilt in (Clipped(1.0, Advantage()), Clipped(1.0)):
        numbers = numbers_of(tilt, 0.5, temperature=1.0, beta=1.0)
        whole = run(**given_, numbers=numbers, config=config_of(tilt, reads_candidates=False))[3]
        assert whole.all()
        count, _, _, reads, *_ = run(**given_, numbers=numbers, config=config_of(tilt))
        first = np.asarray(given_["index"]) == 0
        expected = np.where(first & tilt.reads_prefix_value, given_["kept"], count)
        np.testing.assert_array_equal(np.asarray(reads).sum(-1), expected)


@settings(max_examples=40)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=C, max_size=C),
    st.lists(st.floats(-100, 100, width=32), min_size=C, max_size=C),
    st.floats(0.0625, 4, width=32),
    st.floats(0.125, 4, width=32),
)
def test_no_values_move_the_distribution_by_more_than_the_bound_allows(logits, values, bound, t) -> None:
    tilt = Clipped(1.0, Advantage())
    numbers = numbers_of(tilt, bound, temperature=t, beta=50.0)
    l = np.sort(np.float32(logits))[::-1]
    record = run(
        logits=jnp.broadcast_to(l.copy(), (ROWS, C)),
        kept=jnp.full(ROWS, C),
        values=jnp.broadcast_to(np.float32(values), (ROWS, C)),
        index=jnp.ones(ROWS, int),
        prefix_value=jnp.zeros(ROWS),
        numbers=numbers,
        config=config_of(tilt),
    )[-1]
    log_q = np.asarray(record.logprobs, np.float64)[0]
    log_p = l.astype(np.float64) / t - np.log(np.exp(l.astype(np.float64) / t).sum())
    kl = float(np.sum(np.exp(log_q) * (log_q - log_p)))
    assert kl <= min(2 * bound / t, bound**2 / (2 * t**2)) * (1 + 1e-5) + 1e-5
