"""The law of what is sampled: 200,000 replies against the exact probabilities of all that there can be.

The vocabulary has six ids and a reply three tokens, so that the probability of each of the 216 replies
follows from the definition alone, in float64: no Gumbel numbers, no rest, no bisection. The seeds are pinned.
"""

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sia_jax import Burst, Knobs, Prompt, SamplerConfig, SteeringConfig, SteeringParams, sample
from sia_jax.steering.tilts import Additive, Advantage, Clipped, Tilt
from tests.support.checkpoints import tiny_policy, tiny_value_model
from tests.support.oracle import NumpyModel

pytestmark = pytest.mark.optimised

V, T, C = 6, 3, 3
BETA = 2.0
POLICY_PROMPT, VALUE_PROMPT = (3, 0, 5, 1), (4, 2, 2)
SAMPLES, ROWS = 200_000, 400
SEEDS = (0, 1, 2, 3, 4)
ACCEPTED, REJECTED = 1e-3, 1e-6

Prefix = tuple[int, ...]


@dataclass(frozen=True)
class Law:
    threshold: float
    temperature: float = 1.0
    top_p: float = 1.0
    beta: float = BETA
    num_candidates: int = C
    filters_after_tilt: bool = False
    bound: float | None = None
    """Of a clipped advantage; None: the paper's additive tilt."""
    prefix_value_of: int = 0
    """Tokens by which V(s) lags behind."""


DENSE, SPARSE = -np.inf, 0.972
LAWS = {
    "dense": Law(DENSE),
    "sparse": Law(SPARSE),
    "dense, top_p, temperature": Law(DENSE, top_p=0.9, temperature=1.4),
    "sparse, top_p": Law(SPARSE, top_p=0.8),
    # Values so strong that most tilts lie at the bound: elsewhere a margin that is too small is not seen.
    "dense, bounded": Law(DENSE, beta=40.0, bound=0.35),
    "sparse, bounded, top_p": Law(SPARSE, top_p=0.9, beta=40.0, bound=0.7),
}
BOUNDED = [name for name, law in LAWS.items() if law.bound is not None]
WRONG = {
    "beta 5% too large": {"beta": 1.05 * BETA},
    "beta 5% too small": {"beta": 0.95 * BETA},
    "a candidate too many": {"num_candidates": C + 1},
    "a candidate too few": {"num_candidates": C - 1},
    "filtered after the tilt": {"filters_after_tilt": True},
    "no bound": {"bound": 1e6},
    "V(s) one token late": {"prefix_value_of": 1},
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HalfReach(Clipped):
    """A bounded tilt that says it moves logits by half as much as it does."""

    def limit(self):
        return super().limit() / 2


@functools.cache
def models():
    policy = tiny_policy(
        seed=11,
        vocab_size=V,
        hidden_size=8,
        intermediate_size=8,
        num_layers=1,
        num_heads=2,
        num_kv_heads=2,
        head_dim=4,
        eos_token_ids=(),
    )
    policy.params["lm_head"]["weight"] *= 4  # entropies of many sizes
    value = tiny_value_model(policy, seed=11)
    oracles = NumpyModel(policy.params, policy.config), NumpyModel(value.params, value.config, value.base)
    return policy, value, oracles


def is_wrong(name: str, wrong: str) -> bool:
    if wrong in ("no bound", "V(s) one token late"):
        return name in BOUNDED
    if name in BOUNDED:
        return not wrong.startswith(("beta", "filtered"))  # of values at the bound beta is no matter
    return LAWS[name].top_p < 1 or wrong != "filtered after the tilt"


# The exact law


@functools.cache
def logits_after(prefix: Prefix) -> np.ndarray:
    return models()[2][0].logits([*POLICY_PROMPT, *prefix])


@functools.cache
def values_after(prefix: Prefix) -> np.ndarray:
    return models()[2][1].candidate_values([*VALUE_PROMPT, *prefix], range(V))


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def entropy_after(prefix: Prefix, count: int = C) -> float:
    p = softmax(np.sort(logits_after(prefix))[-count:])
    return -float(np.sum(p * np.log(p)))


def masses_before(x: np.ndarray) -> np.ndarray:
    """Of each id, the probability under softmax(x) of all that are likelier."""
    p = softmax(x)
    return np.array([p[x > x[a]].sum() for a in range(V)])


def next_token(prefix: Prefix, law: Law) -> np.ndarray:
    """[V] probabilities of the token after a prefix."""
    l = logits_after(prefix)
    scaled = l / law.temperature
    kept = masses_before(scaled) < law.top_p
    if entropy_after(prefix, law.num_candidates) < law.threshold:
        return softmax(np.where(kept, scaled, -np.inf))
    is_candidate = l >= np.sort(l)[-law.num_candidates]
    tilt = law.beta * values_after(prefix)
    if law.bound is not None:
        tilt = tilt - law.beta * prefix_value(prefix, values_after(prefix)[is_candidate & kept], law)
        tilt = np.clip(tilt, -law.bound, law.bound)
    score = np.where(is_candidate, l + tilt, -np.inf) / law.temperature
    if law.filters_after_tilt:
        kept = masses_before(score) < law.top_p
    return softmax(np.where(kept, score, -np.inf))


def prefix_value(prefix: Prefix, of_candidates: np.ndarray, law: Law) -> float:
    """V(s): at the last token of the prefix, and of a prompt the mean over what may be drawn."""
    read = len(prefix) - law.prefix_value_of
    if not prefix:
        return float(of_candidates.mean())
    *before, last = [*VALUE_PROMPT, *prefix[:read]]
    return float(models()[2][1].candidate_values(before, [last])[0])


@functools.cache
def exact(law: Law) -> np.ndarray:
    """[V, V, V] probabilities of the replies."""
    p = np.ones((V,) * T)
    for t in range(T):
        for prefix in itertools.product(range(V), repeat=t):
            p[prefix] *= next_token(prefix, law).reshape(-1, *[1] * (T - t - 1))
    np.testing.assert_allclose(p.sum(), 1)
    return p


# What is sampled


@functools.partial(jax.jit, static_argnames="tilt")
def replies(params, threshold, knobs, keys, *, tilt):
    """[keys, ROWS, T] tokens, and the same with the policy's own last one where one alone contends."""
    policy, value, _ = models()
    config = SamplerConfig(
        policy=policy.config,
        value=value.config,
        steering=SteeringConfig(num_candidates=C, tilt=tilt),
        max_new_tokens=T,
        record="candidates",
        branches=ROWS,
        slots=ROWS,
        pass_tokens=ROWS * (C + 1),
        row_tokens=C + T,
        schedule=Burst(ROWS),
        chunk=T,
    )
    prompt = Prompt.pack([POLICY_PROMPT], [VALUE_PROMPT], policy_length=4, value_length=3)

    def tokens(key):
        found = sample(params, prompt, threshold, rng_key=key, config=config, knobs=knobs)
        alone = found.junction & (found.values_read == 0)
        own = jnp.where(alone, found.candidates.policy_choice, found.tokens)[:, -1]
        return found.tokens, found.tokens.at[:, -1].set(own)

    return jax.lax.map(tokens, keys)


@functools.cache
def counts(law: Law, seed: int, kind: type[Tilt] = Clipped, own: bool = False) -> np.ndarray:
    """[V, V, V] how often each reply came."""
    policy, value, _ = models()
    tilt = Additive() if law.bound is None else kind(law.bound, Advantage())
    numbers = {name: jnp.float32(getattr(law, name)) for name in ("temperature", "top_p", "beta")}
    keys = jax.random.split(jax.random.key(seed, impl="threefry2x32"), SAMPLES // ROWS)
    params, threshold = SteeringParams(policy.params, value.params), jnp.float32(law.threshold)
    tokens = replies(params, threshold, Knobs(**numbers), keys, tilt=tilt)[own]
    numbers = np.asarray(tokens).reshape(-1, T) @ (V ** np.arange(T)[::-1])
    return np.bincount(numbers, minlength=V**T).reshape((V,) * T)


def p_value(observed: np.ndarray, law: Law) -> float:
    """Pearson's test; cells of which fewer than five are expected are one. 0 where the impossible came."""
    p = exact(law)
    if observed[p == 0].any():
        return 0.0
    expected = p * observed.sum()
    rare = expected < 5
    seen = np.append(observed[~rare], observed[rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum())
    if wanted[-1] == 0:
        seen, wanted = seen[:-1], wanted[:-1]
    return float(scipy.stats.chisquare(seen, wanted).pvalue)


@pytest.mark.long
@pytest.mark.parametrize("name", LAWS)
def test_replies_follow_the_exact_law_at_every_seed_and_none_is_impossible(name):
    law = LAWS[name]
    with ThreadPoolExecutor(2) as pool:
        by_seed = list(pool.map(functools.partial(counts, law), SEEDS))
    for observed in by_seed:
        assert observed.sum() == SAMPLES
        assert not observed[exact(law) == 0].any()
        assert p_value(observed, law) > ACCEPTED


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "wrong"), [pair for pair in itertools.product(LAWS, WRONG) if is_wrong(*pair)]
)
def test_replies_do_not_follow_a_law_that_is_slightly_wrong(name, wrong):
    law = LAWS[name]
    assert p_value(counts(law, SEEDS[0]), replace(law, **WRONG[wrong])) < REJECTED


@pytest.mark.long
@pytest.mark.parametrize("name", BOUNDED)
def test_a_sampler_whose_contenders_are_too_few_or_lose_to_the_policy_s_choice_is_found(name):
    law = LAWS[name]
    assert p_value(counts(law, SEEDS[0], kind=HalfReach), law) < REJECTED
    assert p_value(counts(law, SEEDS[0], own=True), law) < REJECTED


def test_the_laws_hang_on_no_tie_and_have_junctions_and_others():
    gates, filters, candidates = [], [], []
    for prefix in itertools.chain(*[itertools.product(range(V), repeat=t) for t in range(T)]):
        gates.append(entropy_after(prefix) - SPARSE)
        falling = np.sort(logits_after(prefix))[::-1]
        candidates.append(falling[C - 1] - falling[C])
        for law in [law for law in LAWS.values() if law.top_p < 1]:
            filters.append(masses_before(logits_after(prefix) / law.temperature) - law.top_p)
    for distances in (gates, filters, candidates):
        assert np.abs(distances).min() > 5e-4
    assert 10 < np.sum(np.array(gates) > 0) < 30
