"""Perplexities, their ratios, and KL from the policy: by hand, by enumeration, and as the sampler has it."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sia_jax
from sia_jax.evaluation.likelihoods import best_of_n_kl, likelihoods
from sia_jax.evaluation.statistics import Interval
from tests.support.checkpoints import tiny_policy, tiny_value_model

PROMPTS = 30
Records = list[dict[str, Any]]


def of_pairs(figure: Callable[..., Interval], *values: np.ndarray) -> Interval:
    """As `Comparison` has it, of replies to a prompt each."""
    known = np.isfinite(np.stack(values)).all(axis=0)
    return figure(*(own[known] for own in values), np.flatnonzero(known).tolist(), resamples=400)


def records(seed: int, **changes: Any) -> Records:
    rng, found = np.random.default_rng(seed), []
    for _ in range(PROMPTS):
        length = int(rng.integers(1, 9))
        policy = -float(rng.exponential(size=length).sum())
        found.append({"length": length, "policy_logprob": policy, "logprob": policy / 2} | changes)
    return found


def perplexity_of(own: Records, nats: str = "policy_logprob", tokens: str = "length") -> float:
    return math.exp(-sum(r[nats] for r in own) / sum(r[tokens] for r in own))


def test_a_perplexity_and_its_ratio_to_a_rivals_by_hand() -> None:
    own, base = records(0), records(1)
    found = likelihoods(own, {"base": base}, of_pairs, drawn=1)
    policy = found["perplexities"]["policy"]
    assert list(found["perplexities"]) == ["policy"]
    assert policy["perplexity"]["mean"] == pytest.approx(perplexity_of(own))
    assert policy["over"]["base"]["mean"] == pytest.approx(perplexity_of(own) / perplexity_of(base))
    assert policy["unscored"] == 0
    for interval in (policy["perplexity"], policy["over"]["base"]):
        assert 0 < interval["low"] < interval["mean"] < interval["high"]
    assert 0 < policy["over"]["base"]["p"] <= 1
    kl = found["kl"]
    ratios = [r["logprob"] - r["policy_logprob"] for r in own]
    assert kl["is_bound"] is False
    assert kl["reply"]["mean"] == pytest.approx(np.mean(ratios))
    assert kl["token"]["mean"] == pytest.approx(sum(ratios) / sum(r["length"] for r in own))


def test_a_reply_that_the_second_model_cannot_read_is_left_out_with_its_partner_and_counted() -> None:
    own = [
        r | {"fluency_logprob": 2 * r["policy_logprob"], "fluency_tokens": r["length"] + 1}
        for r in records(0)
    ]
    base = [r | {"fluency_logprob": r["policy_logprob"], "fluency_tokens": r["length"]} for r in records(1)]
    own[3] |= {"fluency_logprob": None, "fluency_unscored": "too long"}
    base[5] |= {"fluency_logprob": None, "fluency_unscored": "too long"}
    found = likelihoods(own, {"base": base}, of_pairs, drawn=None)["perplexities"]["fluency"]
    names = ("fluency_logprob", "fluency_tokens")
    scored = [r for r in own if r["fluency_logprob"] is not None]
    assert found["perplexity"]["mean"] == pytest.approx(perplexity_of(scored, *names))
    both = [[r for i, r in enumerate(of) if i not in (3, 5)] for of in (own, base)]
    expected = perplexity_of(both[0], *names) / perplexity_of(both[1], *names)
    assert found["over"]["base"]["mean"] == pytest.approx(expected)
    assert found["unscored"] == 1


def test_what_is_not_known_is_not_told() -> None:
    own = records(0)
    assert "kl" not in likelihoods(own, {}, of_pairs, drawn=None)
    own[4]["logprob"] = None
    assert "kl" not in likelihoods(own, {}, of_pairs, drawn=1)
    assert "perplexities" in likelihoods(own, {}, of_pairs, drawn=1)
    old = [{"length": 3} for _ in range(PROMPTS)]
    assert likelihoods(old, {"base": old}, of_pairs, drawn=1) == {}
    empty = records(0, length=0, policy_logprob=0.0, logprob=0.0)
    found = likelihoods(empty, {}, of_pairs, drawn=1)
    assert found["perplexities"]["policy"]["perplexity"]["why"] == "no tokens"
    assert "token" not in found["kl"]
    lost = likelihoods(records(0, policy_logprob=None), {}, of_pairs, drawn=1)["perplexities"]["policy"]
    assert (lost["perplexity"]["why"], lost["unscored"]) == ("no reply with a number", PROMPTS)


def test_what_no_float_holds_has_no_interval() -> None:
    own = records(0, length=1)
    for r in own:
        r["policy_logprob"] *= 1000
    found = likelihoods(own, {}, of_pairs, drawn=1)["perplexities"]["policy"]["perplexity"]
    assert found["mean"] is found["high"] is None


@given(
    st.lists(st.tuples(st.floats(0.05, 1), st.floats(0.05, 1), st.integers(0, 3)), min_size=2, max_size=4),
    st.integers(1, 4),
)
def test_the_bound_of_the_best_of_n_holds_for_every_law(rows: list[tuple[float, float, int]], n: int) -> None:
    """KL(best of n || p), by going through all that n draws may be."""
    q, p = (np.array([row[i] for row in rows]) for i in (0, 1))
    q, p, scores = q / q.sum(), p / p.sum(), [row[2] for row in rows]
    best = np.zeros(len(rows))
    for drawn in itertools.product(range(len(rows)), repeat=n):
        best[max(drawn, key=lambda y: scores[y])] += math.prod(q[y] for y in drawn)
    some = best > 0
    exact = float(np.sum(best[some] * np.log(best[some] / p[some])))
    bound = best_of_n_kl(n) + float(np.sum(best * np.log(q / p)))
    assert exact <= bound + 1e-9
    if n == 1:
        assert exact == pytest.approx(bound, abs=1e-9)


def test_the_best_of_n_is_told_as_a_bound() -> None:
    own = records(0)
    one, four = (likelihoods(own, {}, of_pairs, drawn=n)["kl"] for n in (1, 4))
    assert four["is_bound"] is True
    assert four["reply"]["mean"] - one["reply"]["mean"] == pytest.approx(math.log(4) - 3 / 4)
    tokens = sum(r["length"] for r in own)
    more = PROMPTS * (math.log(4) - 3 / 4) / tokens
    assert four["token"]["mean"] - one["token"]["mean"] == pytest.approx(more)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_of_many_replies_the_mean_is_the_kl_that_the_sampler_records_of_its_distributions(
    temperature: float,
) -> None:
    """Two estimates of one number: by log-probabilities of tokens, and by the KL of whole laws."""
    rows, policy = 512, tiny_policy(num_layers=1)
    value = tiny_value_model(policy)
    config = sia_jax.SamplerConfig(
        policy=policy.config, value=value.config, max_new_tokens=4, record="candidates"
    )
    params = sia_jax.SteeringParams(policy.params, value.params)
    samples = sia_jax.sample(
        params,
        sia_jax.Prompt.pack([[5, 6, 7]] * rows),
        float("-inf"),
        rng_key=jax.random.key(0, impl="threefry2x32"),
        config=config,
        knobs=sia_jax.Knobs(beta=2.0, temperature=temperature),
    )
    said = np.arange(4) < np.asarray(samples.lengths)[:, None]
    ratios = np.where(said, np.asarray(samples.logprob) - np.asarray(samples.policy_logprob), 0).sum(axis=1)
    laws = np.where(said, np.asarray(samples.candidates.kl), 0).sum(axis=1)
    assert laws.mean() > 0.1
    beyond = ratios - laws
    assert abs(beyond.mean()) < 4 * beyond.std() / math.sqrt(rows)
    assert beyond.std() > 0.01
