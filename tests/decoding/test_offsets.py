"""A number common to all logits, or to all values, changes neither the law nor the record.

One position is decided for many keys at once, from logits by hand: what a float64 reference is given is the
float32 logits that the sampler gets, so that only the sampler's own rounding is looked at.
"""

import functools
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import sia_jax
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.row_params import make_row_params
from sia_jax.steering.decision import decide, steer
from sia_jax.steering.tilts import Additive, Centred, Clipped, Standardised, Tilt
from sia_jax.steering.types import History, Pending
from tests.support.checkpoints import tiny_config

V, C, TIED = 40, 3, 5
ROWS = 4096
OFFSETS = (0.0, 20.0, 1e4, 1e9)
TEMPERATURES = (1e-30, 1e-6, 1e-3, 0.3, 1.0, 50.0)
NATS, ULP = 1e-5, 2.0**-22
ACCEPTED, REJECTED = 1e-4, 1e-6
CONFIG = SamplerConfig(
    policy=tiny_config(vocab_size=V),
    value=sia_jax.ValueConfig(tiny_config(vocab_size=V)),
    steering=sia_jax.SteeringConfig(num_candidates=C),
    max_new_tokens=1,
    record="candidates",
)
BASE = np.random.default_rng(0).normal(0, 1.5, V).astype(np.float32)
BASE[[4, 9, 17, 25, 33]] = 6.0  # more tied ids than candidates, so that some are in the rest
BASE[11] = -np.inf  # what a mask leaves


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def logarithm(p: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(p)


def divergence(q: np.ndarray, p: np.ndarray) -> float:
    return float(np.sum(q[q > 0] * (np.log(q[q > 0]) - np.log(p[q > 0]))))


def chi_square(tokens: np.ndarray, p: np.ndarray) -> float:
    observed = np.bincount(tokens, minlength=len(p))
    if observed[p == 0].any():
        return 0.0
    expected = p * observed.sum()
    rare = expected < 5
    seen, wanted = (
        np.append(observed[~rare], observed[rare].sum()),
        np.append(expected[~rare], expected[rare].sum()),
    )
    if wanted[-1] < 1e-3:
        seen, wanted = seen[:-1], wanted[:-1] * (observed.sum() / wanted[:-1].sum())
    return 1.0 if len(seen) == 1 else float(scipy.stats.chisquare(seen, wanted).pvalue)


# The policy's own choice


def numbers_of(config=CONFIG, seed=7, **knobs):
    ids = np.arange(V)
    defaults = {"banned_ids": [11], "bias_ids": ids, "bias": np.zeros(V), "stop_ids": []}
    key = jax.random.key(seed, impl="threefry2x32")
    return make_row_params(np.inf, key, sia_jax.Knobs(**(defaults | knobs)), ROWS, config.resolve(ROWS))


def history() -> History:
    zeros = jnp.zeros(ROWS, jnp.int32)
    nothing = jnp.zeros((ROWS, V), jnp.int32)
    return History(zeros, jnp.zeros(ROWS), (), nothing.astype(bool), nothing, zeros - 1)


@functools.partial(jax.jit, static_argnames="config")
def decided(logits, numbers, config):
    rows = jnp.broadcast_to(logits, (ROWS, V))
    found = decide(rows, history(), numbers, config.decision)
    return found.entry, found.pending


def in_order(l: np.ndarray) -> np.ndarray:
    return np.lexsort((np.arange(V), -l))


def own_law(
    l: np.ndarray, temperature: float, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0
) -> np.ndarray:
    scaled = (np.asarray(l, np.float64) - np.max(l)) / np.float64(np.float32(temperature))
    order = in_order(l)
    kept = order[: top_k or V]
    cumulative = np.cumsum(softmax(scaled[kept]))
    kept = kept[: int(np.argmax(cumulative >= top_p)) + 1] if top_p < 1 else kept
    kept = kept[np.exp(scaled[kept]) >= min_p]
    within = np.full(V, -np.inf)
    within[kept] = scaled[kept]
    return softmax(within)


@dataclass(frozen=True)
class Drawn:
    tokens: np.ndarray
    entry: object
    logits: np.ndarray  # float32, processed
    raw: np.ndarray


def draw(raw_offset=0.0, bias=0.0, config=CONFIG, **knobs) -> Drawn:
    raw = np.where(np.isinf(BASE), 0, BASE) + np.float32(raw_offset)
    entry, _ = jax.device_get(decided(raw, numbers_of(bias=np.full(V, bias), **knobs), config))
    raw = np.where(np.isinf(BASE), -np.inf, raw)
    return Drawn(np.asarray(entry.tokens), entry, raw + np.float32(bias), raw)


def check(drawn: Drawn, q: np.ndarray, accepted: float = ACCEPTED) -> None:
    """The law of the tokens, and all that the record says of them."""
    entry, tokens = drawn.entry, drawn.tokens
    assert chi_square(tokens, q) >= accepted
    p = softmax(drawn.raw)
    np.testing.assert_allclose(entry.logprob, logarithm(q)[tokens], rtol=0, atol=NATS)
    np.testing.assert_allclose(entry.policy_logprob, logarithm(p)[tokens], rtol=0, atol=NATS)
    np.testing.assert_allclose(entry.candidates.kl, divergence(q, p), rtol=0, atol=NATS)
    ids = in_order(drawn.logits)[:C]
    assert (entry.candidates.ids == ids).all()
    with np.errstate(over="ignore"):
        of_q = np.where(q > 0, logarithm(q), -np.inf)[ids]
    seen = q[ids] > 0
    np.testing.assert_allclose(entry.candidates.logprobs[0][seen], of_q[seen], rtol=ULP, atol=NATS)
    inside = softmax(drawn.logits[ids])
    np.testing.assert_allclose(entry.entropy, -np.sum(inside * logarithm(inside)), rtol=0, atol=NATS)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_own_choice_does_not_feel_what_all_logits_share(temperature):
    for offset, where in itertools.product(OFFSETS, ("bias", "raw_offset")):
        drawn = draw(**{where: offset}, temperature=temperature)
        check(drawn, own_law(drawn.logits, temperature))


@pytest.mark.long
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_two_hundred_thousand_choices_follow_the_law_under_every_offset(temperature):
    for offset in OFFSETS:
        all_of = [draw(bias=offset, temperature=temperature, seed=seed) for seed in range(50)]
        law = own_law(all_of[0].logits, temperature)
        for drawn in all_of:
            check(drawn, law, accepted=0.0)
        assert chi_square(np.concatenate([drawn.tokens for drawn in all_of]), law) > ACCEPTED


@pytest.mark.parametrize("offset", [*OFFSETS, -1e4, -1e9])
def test_filters_do_not_feel_what_all_logits_share(offset):
    filters = ((0.71, 0, 0), (1.0, 4, 0), (0.71, 17, 0), (0.999, 0, 0), (1e-6, 0, 0), (1.0, 0, 0.3))
    for temperature, (top_p, top_k, min_p) in itertools.product((1e-3, 0.3, 1.0, 50.0), filters):
        drawn = draw(bias=offset, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)
        top_p, min_p = float(np.float32(top_p)), float(np.float32(min_p))
        check(drawn, own_law(drawn.logits, temperature, top_p, top_k, min_p))


def test_the_best_is_taken_at_temperature_0_under_any_offset():
    for offset in OFFSETS:
        drawn = draw(bias=offset, temperature=0.0)
        assert set(drawn.tokens.tolist()) == {int(in_order(drawn.logits)[0])}
        assert (drawn.entry.logprob == 0).all()


def test_the_entropy_of_the_vocabulary_does_not_feel_what_all_logits_share():
    steering = sia_jax.SteeringConfig(num_candidates=C, entropy="vocabulary")
    config = SamplerConfig(policy=CONFIG.policy, steering=steering, max_new_tokens=1, record="candidates")
    for offset in OFFSETS:
        drawn = draw(bias=offset, config=config, temperature=1.0)
        p = softmax(drawn.logits)
        expected = -np.sum(p[p > 0] * np.log(p[p > 0]))
        np.testing.assert_allclose(drawn.entry.entropy, expected, rtol=0, atol=NATS)


def test_a_law_that_is_slightly_wrong_is_told_from_the_right_one():
    drawn = draw(bias=20.0, temperature=1.0)
    assert chi_square(drawn.tokens, own_law(drawn.logits, 1.3)) < REJECTED


# The steered choice


@functools.partial(jax.jit, static_argnames="config")
def steered(values, logits, policy_logprobs, kept, numbers, config):
    def rows(x):
        return jnp.broadcast_to(x, (ROWS, *x.shape))

    ids = rows(jnp.array([30, 2, 8], jnp.int32))
    zeros = jnp.zeros(ROWS, jnp.int32)
    pending = Pending(
        ids=ids,
        logits=rows(logits),
        policy_logprobs=rows(policy_logprobs),
        kept=zeros + kept,
        contenders=zeros + kept,
        reads=jnp.ones(ids.shape, bool),
        entropy=zeros * 1.0,
        policy_choice=ids[:, 0],
        gate=(),
    )
    return steer(rows(values), pending, zeros, jnp.zeros(ROWS), numbers, config.decision)


STEERED = {
    # (logits, values, beta)
    "values that share a million": (np.array([2.5, 2.5, 1.0]), 1e6 + np.array([0.0, 0.0625, 0.5]), 1.7),
    "values that share a million, against": (
        np.array([2.5, 2.5, 1.0]),
        1e6 + np.array([0.0, 0.25, 0.5]),
        -1.3,
    ),
    "a huge beta": (np.array([0.3, 0.2, 0.1]), -5e3 + np.array([0.0, 1.0, 1.0]) / 2048, 1e6),
    "logits that share a billion": (1e9 + np.array([64.0, 64.0, 0.0]), np.array([0.1, 0.4, 9.0]), 2.0),
    "small values beside logits of a size": (
        2e4 + np.array([0.5, 0.25, 0.0]),
        np.array([0.1, 0.4, 0.6]),
        1.0,
    ),
}


def reference_tilt(tilt: Tilt, values: np.ndarray, beta: float) -> np.ndarray:
    v, b = values.astype(np.float64), np.float64(np.float32(beta))
    if isinstance(tilt, Standardised):
        return b * (v - v.mean()) / v.std()
    if isinstance(tilt, Clipped):
        return np.clip(b * v, -np.float32(tilt.bound), np.float32(tilt.bound))
    return b * v


@pytest.mark.parametrize("name", STEERED)
@pytest.mark.parametrize(
    "tilt", [Additive(), Centred(), Standardised(), Clipped(1.5)], ids=lambda x: type(x).__name__
)
def test_the_steered_choice_does_not_feel_what_values_or_logits_share(name, tilt):
    l, values, beta = (np.float32(x) for x in STEERED[name])
    config = SamplerConfig(
        policy=CONFIG.policy,
        value=CONFIG.value,
        steering=sia_jax.SteeringConfig(num_candidates=C, tilt=tilt),
        max_new_tokens=1,
        record="candidates",
    )
    log_p = logarithm(softmax(l)).astype(np.float32)
    score = l.astype(np.float64) + reference_tilt(tilt, values, beta)
    for temperature in TEMPERATURES:
        numbers = numbers_of(config, beta=beta, temperature=temperature)
        place, entry, sound = jax.device_get(steered(values, l, log_p, C, numbers, config))
        q = softmax((score - score.max()) / np.float64(np.float32(temperature)))
        assert sound.all()
        assert not np.isnan(entry.logprob).any()
        # What the reference sums in float64 and the sampler in float32 differs by an ulp of the difference.
        margin = NATS + ULP * np.ptp(score) / temperature
        if margin > 0.01:
            assert np.isin(place, np.flatnonzero(score > score.max() - ULP * np.ptp(score))).all()
            continue
        assert chi_square(place, q) > ACCEPTED
        drawn = logarithm(q)[place]
        np.testing.assert_allclose(entry.logprob, drawn, rtol=0, atol=margin)
        np.testing.assert_allclose(
            entry.candidates.kl, divergence(q, np.exp(log_p.astype(float))), atol=10 * NATS
        )


@pytest.mark.parametrize("beta", [0.0, 2.0, -1e6])
def test_where_all_values_are_equal_the_steered_choice_is_the_policy_s_own(beta):
    l = np.float32([1.5, 1.25, 0.5])
    for shared in (0.0, -3.0, 1e6, 3e38):
        if abs(beta * shared) > 3e38:
            continue
        numbers = numbers_of(beta=beta, temperature=0.7)
        log_p = logarithm(softmax(l)).astype(np.float32)
        place, entry, _ = steered(np.full(C, shared, np.float32), l, log_p, C, numbers, CONFIG)
        plain, reference, _ = steered(np.zeros(C, np.float32), l, log_p, C, numbers, CONFIG)
        assert (place == plain).all()
        assert (entry.logprob == reference.logprob).all()
