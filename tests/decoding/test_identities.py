"""Settings that mean the same give the same tokens and flags, in one program or in two."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax import Knobs, Prompt, SamplerConfig, Samples, SteeringConfig, SteeringParams, ValueConfig, sample
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.sample import finish, start
from sia_jax.decoding.schedule import Burst, make_schedule
from sia_jax.models.heads import value_head
from sia_jax.steering.gates import (
    BUDGET_STEP,
    After,
    Always,
    Bernoulli,
    Budget,
    Entropy,
    EntropyRatio,
    Features,
    Gate,
    Linear,
    LogitGap,
    Never,
    Position,
    TopProbability,
)
from tests.support.checkpoints import random_tokens, tiny_policy, tiny_value_model

ROWS, T, C = 8, 12, 4
THRESHOLD = 1.0
"""Nats of at most ln 4: about half of the positions are junctions."""


@functools.cache
def models():
    policy = tiny_policy(num_layers=1)
    policy.params["lm_head"]["weight"] *= 2  # the candidates have most of the mass
    return policy, tiny_value_model(policy)


@functools.cache
def prompt() -> Prompt:
    config = models()[0].config
    lengths = [5, 3, 8, 1, 4, 6, 2, 7]

    def rows(seed):
        return [
            row[:n].tolist() for row, n in zip(random_tokens(config, ROWS, 8, seed), lengths, strict=True)
        ]

    return Prompt.pack(rows(0), rows(1), policy_length=8, value_length=8)


def config_of(value: ValueConfig | None, **steering: Any) -> SamplerConfig:
    steering = {"num_candidates": C, "beta": 2.0} | steering
    return SamplerConfig(
        policy=models()[0].config,
        value=value,
        steering=SteeringConfig(**steering),
        max_new_tokens=T,
        record="candidates",
    )


def run(threshold: Any = THRESHOLD, *, seed: int = 0, steer: bool = True, **options: Any) -> Samples:
    """Sample with the tiny models; `options` are knobs if named below, and else fields of SteeringConfig."""
    policy, value = models()
    knobs = {name: options.pop(name) for name in list(options) if name in ("beta", "temperature", "top_p")}
    config = config_of(value.config if steer else None, **options)
    params = SteeringParams(policy.params, value.params if steer else None)
    key = jax.random.key(seed, impl="threefry2x32")
    samples = sample(params, prompt(), threshold, rng_key=key, config=config, knobs=Knobs(**knobs))
    return jax.tree.map(np.asarray, samples)


def is_reply(samples: Samples) -> np.ndarray:
    return np.arange(T) < samples.lengths[:, None]


def assert_same_replies(one: Samples, other: Samples) -> None:
    """Tokens, flags and counts are equal; floats are close, whatever the order of summation."""
    for name in (
        "tokens",
        "junction",
        "shifted",
        "lengths",
        "finish_reason",
        "policy_tokens",
        "value_tokens",
    ):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("entropy", "policy_logprob", "logprob", "value"):
        np.testing.assert_allclose(
            getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5, err_msg=name
        )
    np.testing.assert_array_equal(one.candidates.ids, other.candidates.ids)
    np.testing.assert_array_equal(one.candidates.policy_choice, other.candidates.policy_choice)
    np.testing.assert_allclose(one.candidates.kl, other.candidates.kl, rtol=1e-4, atol=1e-5)


def test_half_of_the_positions_are_junctions_and_values_matter_there():
    samples = run()
    share = samples.junction[is_reply(samples)].mean()
    assert 0.3 < share < 0.8
    assert samples.shifted[samples.junction].mean() > 0.2


def test_an_infinite_threshold_is_no_value_model():
    never, without = run(np.inf), run(np.inf, steer=False)
    assert_same_replies(never, without)
    assert not never.junction.any()
    assert never.value_calls == without.value_calls == 0
    assert np.isnan(never.value).all()


def test_the_gate_that_is_always_open_is_the_threshold_minus_infinity():
    always = run(np.inf, gate=Always())
    assert_same_replies(always, run(-np.inf))
    np.testing.assert_array_equal(always.junction, is_reply(always))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("knobs", [{}, {"top_p": 0.7}, {"temperature": 0.6}, {"temperature": 0.0}], ids=str)
def test_beta_zero_is_plain_decoding_where_the_policys_choice_is_a_candidate(seed, knobs):
    plain, steered = run(np.inf, seed=seed, **knobs), run(-np.inf, seed=seed, beta=0.0, **knobs)
    compared = 0
    for row in range(ROWS):
        n = plain.lengths[row]
        own = plain.tokens[row, :n]
        np.testing.assert_array_equal(plain.candidates.policy_choice[row, :n], own)
        is_candidate = (plain.candidates.ids[row, :n] == own[:, None]).any(axis=-1)
        first = n if is_candidate.all() else int(np.argmin(is_candidate))
        np.testing.assert_array_equal(steered.tokens[row, :first], own[:first])
        assert not steered.shifted[row, :first].any()
        np.testing.assert_allclose(
            steered.policy_logprob[row, :first], plain.policy_logprob[row, :first], rtol=1e-4, atol=1e-5
        )
        if first < n:
            assert steered.shifted[row, first]
            assert steered.tokens[row, first] in plain.candidates.ids[row, first]
        compared += first
    assert compared > 8


@pytest.mark.parametrize("threshold", [-np.inf, THRESHOLD])
@pytest.mark.parametrize("seed", range(3))
def test_beta_zero_shifts_exactly_the_positions_where_the_policys_choice_is_no_candidate(seed, threshold):
    samples = run(threshold, seed=seed, beta=0.0)
    own = samples.candidates.policy_choice
    outside = ~(samples.candidates.ids == own[..., None]).any(axis=-1) & samples.junction
    np.testing.assert_array_equal(samples.shifted, outside)
    kept = is_reply(samples) & ~outside
    np.testing.assert_array_equal(samples.tokens[kept], own[kept])
    assert 0 < outside.sum() < kept.sum()


@pytest.mark.parametrize("knobs", [{}, {"top_p": 0.7, "temperature": 0.8}], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_beta_zero_is_plain_decoding_everywhere_if_all_tokens_come_from_the_candidates(seed, knobs):
    dense, sparse, never = (
        run(threshold, seed=seed, beta=0.0, unsteered="candidates", **knobs)
        for threshold in (-np.inf, THRESHOLD, np.inf)
    )
    for samples in (dense, sparse):
        np.testing.assert_array_equal(samples.tokens, never.tokens)
        np.testing.assert_array_equal(samples.lengths, never.lengths)
        np.testing.assert_allclose(samples.logprob, never.logprob, rtol=1e-4, atol=1e-5)
        assert not samples.shifted.any()
    assert (never.candidates.ids == never.tokens[..., None]).any(axis=-1)[is_reply(never)].all()


def test_one_candidate_is_greedy_decoding_whatever_the_values():
    one, greedy = run(-np.inf, num_candidates=1), run(np.inf, temperature=0.0)
    np.testing.assert_array_equal(one.tokens, greedy.tokens)
    np.testing.assert_array_equal(one.finish_reason, greedy.finish_reason)
    np.testing.assert_array_equal(one.junction, is_reply(one))
    np.testing.assert_array_equal(one.logprob[is_reply(one)], 0)
    own = one.candidates.policy_choice
    np.testing.assert_array_equal(one.shifted, (own != one.tokens) & is_reply(one))
    assert one.shifted.any()


@pytest.mark.parametrize("threshold", [-np.inf, THRESHOLD, np.inf])
def test_temperature_zero_ignores_the_seed(threshold):
    one, other = run(threshold, temperature=0.0, seed=1), run(threshold, temperature=0.0, seed=2)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert not np.array_equal(run(threshold, seed=1).tokens, run(threshold, seed=2).tokens)


@pytest.mark.long
def test_the_two_heads_agree_where_they_read_one_table():
    policy, value = models()
    config, model = policy.config, jax.tree.map(jnp.copy, policy.params["model"])
    for layer in model["layers"].values():
        layer["self_attn"]["o_proj"]["weight"] *= 0
        layer["mlp"]["down_proj"]["weight"] *= 0
    # Nothing is added to the embeddings, so the hidden state at a candidate is a function of its id.
    x = model["embed_tokens"]["weight"]
    rms = jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + config.rms_norm_eps)
    scalar = value.params["value_head"]
    table = value_head(scalar, x / rms * model["norm"]["weight"])
    vocab = {
        "down": {"weight": jnp.zeros((3, config.hidden_size))},
        "up": {"weight": jnp.zeros((config.vocab_size, 3)), "bias": table},
    }
    adapter = jax.tree.map(jnp.zeros_like, value.params["lora"])
    replies = []
    for head, kind, rank in ((scalar, "scalar", None), (vocab, "vocab", 3)):
        params = SteeringParams(policy.params | {"model": model}, {"lora": adapter, "value_head": head})
        sampler = config_of(ValueConfig(config, kind, rank, value.config.lora))
        key = jax.random.key(0, impl="threefry2x32")
        samples = sample(params, prompt(), THRESHOLD, rng_key=key, config=sampler)
        replies.append(jax.tree.map(np.asarray, samples))
    one, other = replies
    for name in ("tokens", "junction", "shifted", "lengths", "finish_reason", "policy_tokens"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("value", "logprob", "entropy"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.candidates.values, other.candidates.values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.value[one.junction], table[one.tokens[one.junction]], rtol=1e-4, atol=1e-5)
    assert one.shifted.any()


# Gates


@functools.cache
def features(n: int = 64, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    return Features(
        index=jnp.asarray(rng.integers(0, 6, n)),
        entropy=jnp.asarray(rng.uniform(0, 1.4, n), jnp.float32),
        previous_entropy=jnp.asarray(rng.uniform(0, 1.4, n), jnp.float32),
        top_probability=jnp.asarray(rng.uniform(0, 1, n), jnp.float32),
        logit_gap=jnp.asarray(rng.uniform(0, 3, n), jnp.float32),
        uniform=jnp.asarray(rng.uniform(0, 1, n), jnp.float32),
        threshold=jnp.full(n, 0.7, jnp.float32),
        last_token=jnp.asarray(rng.integers(0, 3, n)),
    )


LEAVES = [
    Entropy(),
    EntropyRatio(0.1),
    Position(3),
    Bernoulli(0.4),
    TopProbability(0.5),
    LogitGap(1.0),
    Linear(-1.0, 1.0, -0.5, 1.0, -0.3, 0.2),
    Budget(0.3),
    Always(),
    Never(),
    After((1, 1, 2)),
]


def verdicts(gate: Gate, steps: int = 5) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of 64 rows, step after step; and the last state."""
    state = gate.init(features().threshold)
    opens = []
    for step in range(steps):
        seen = features(seed=step)
        traced = jax.tree.map(lambda x: jnp.full(64, x, jnp.float32), gate)
        is_open = traced.decide(seen, state)
        state = traced.advance(seen, state, is_open)
        opens.append(np.asarray(is_open))
    return opens, [np.asarray(x) for x in jax.tree.leaves(state)]


def assert_same_gates(one: Gate, other: Gate) -> None:
    jax.tree.map(np.testing.assert_array_equal, verdicts(one), verdicts(other))


@pytest.mark.parametrize("a", LEAVES, ids=repr)
def test_a_gate_negated_twice_is_itself_and_once_is_not(a):
    assert_same_gates(~~a, a)
    for once, itself in zip(verdicts(~a)[0], verdicts(a)[0], strict=True):
        np.testing.assert_array_equal(once, ~itself)


@pytest.mark.parametrize("b", LEAVES, ids=repr)
@pytest.mark.parametrize("a", LEAVES, ids=repr)
def test_gates_obey_de_morgans_laws(a, b):
    assert_same_gates(~(a & b), ~a | ~b)
    assert_same_gates(~(a | b), ~a & ~b)
    both, either = verdicts(a & b)[0], verdicts(a | b)[0]
    for one, other, meet, join in zip(verdicts(a)[0], verdicts(b)[0], both, either, strict=True):
        np.testing.assert_array_equal(meet, one & other)
        np.testing.assert_array_equal(join, one | other)


def test_the_sampler_obeys_de_morgan_and_double_negation():
    assert_same_replies(run(gate=~(~Entropy() & ~~Always())), run())


# Budget


@functools.partial(jax.jit, static_argnames="config")
def final_state(params, prompts, numbers, schedule, config):
    return finish(params, start(params, prompts, numbers, config), schedule, config)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.75, 1.0])
@pytest.mark.parametrize("min_waiting", [1, ROWS])
def test_a_budgets_share_misses_its_rate_by_what_its_threshold_has_moved(rate, min_waiting):
    policy, value = models()
    config = config_of(value.config, gate=Budget(0.5)).resolve(ROWS)
    begin = np.linspace(-1, 2, ROWS).astype(np.float32)
    knobs = Knobs(stop_ids=np.zeros(0, int), gate=Budget(rate), schedule=Burst(min_waiting, ROWS))
    numbers = make_row_params(begin, jax.random.key(0, impl="threefry2x32"), knobs, ROWS, config)
    prompts = jax.tree.map(jnp.asarray, prompt())
    schedule = make_schedule(knobs.schedule, config.schedule)
    state = final_state(SteeringParams(policy.params, value.params), prompts, numbers, schedule, config)
    (end,) = jax.tree.leaves(state.gate)
    np.testing.assert_array_equal(state.lengths, T)
    share = np.asarray(state.record.junction).mean(axis=-1)
    np.testing.assert_allclose(share - rate, (end - begin) / (BUDGET_STEP * T), atol=1e-6)

    q, entropy = begin.copy(), np.asarray(state.record.entropy)
    for t in range(T):
        np.testing.assert_array_equal(state.record.junction[:, t], entropy[:, t] >= q)
        q += np.float32(BUDGET_STEP) * (np.asarray(state.record.junction[:, t]) - np.float32(rate))
