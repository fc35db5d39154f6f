"""Log-probabilities of given tokens, against the float64 network and against what was sampled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.decoding.score import score, score_with_top
from tests.support.checkpoints import tiny_policy
from tests.support.oracle import NumpyModel

REAL = 50


@pytest.mark.parametrize("length", [1, 2, 33, 70])
def test_scores_are_the_log_softmax_of_the_float64_network_over_real_ids(length):
    policy = tiny_policy(num_layers=1, max_position_embeddings=128)
    config = sia_jax.SamplerConfig(policy.config, num_tokens=REAL)
    rng = np.random.default_rng(length)
    tokens = rng.integers(0, REAL, (3, length)).astype(np.int32)
    lengths = np.array([length, max(1, length - 1), max(1, length // 2)], np.int32)
    found = np.asarray(score(policy.params, jnp.asarray(tokens), jnp.asarray(lengths), config=config))
    model = NumpyModel(policy.params, policy.config)
    for row, n in enumerate(lengths):
        for t in range(1, n):
            logits = model.logits(tokens[row, :t].tolist())[:REAL]
            expected = logits[tokens[row, t]] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
            np.testing.assert_allclose(found[row, t], expected, rtol=1e-4, atol=1e-5)
        assert np.isnan(found[row, 0])
        assert np.isnan(found[row, n:]).all()


def test_the_likeliest_ids_of_every_place_are_those_of_the_float64_network_and_no_id_without_a_token():
    policy = tiny_policy(num_layers=1, vocab_size=256, max_position_embeddings=128)  # several blocks of ids
    config = sia_jax.SamplerConfig(policy.config, num_tokens=REAL)
    tokens = np.random.default_rng(0).integers(0, REAL, (2, 40)).astype(np.int32)
    given = (policy.params, jnp.asarray(tokens), jnp.array([40, 3]))
    logprobs, found = jax.device_get(score_with_top(*given, config=config, top=REAL + 2))
    np.testing.assert_array_equal(logprobs, score(*given, config=config))
    model = NumpyModel(policy.params, policy.config)
    for row, t in [(0, 1), (0, 7), (0, 33), (0, 39), (1, 2)]:
        logits = model.logits(tokens[row, :t].tolist())[:REAL]
        expected = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        order = np.argsort(-expected, kind="stable")
        np.testing.assert_array_equal(found.ids[row, t], [*order, -1, -1])
        np.testing.assert_allclose(found.logprobs[row, t, :REAL], expected[order], rtol=1e-4, atol=1e-5)
        assert (found.logprobs[row, t, REAL:] == -np.inf).all()
    for row, t in [(0, 0), (1, 0), (1, 3), (1, 39)]:
        assert (found.ids[row, t] == -1).all()
        assert np.isnan(found.logprobs[row, t]).all()


def test_of_equals_the_lower_id_comes_first_at_every_place():
    policy = tiny_policy(num_layers=1)
    flat = policy.params | {"lm_head": jax.tree.map(jnp.zeros_like, policy.params["lm_head"])}
    config = sia_jax.SamplerConfig(policy.config)
    _, found = score_with_top(flat, jnp.array([[5, 6, 7]]), jnp.array([3]), config=config, top=4)
    np.testing.assert_array_equal(found.ids[0, 1:], [[0, 1, 2, 3]] * 2)


def test_a_replys_scores_are_the_log_probabilities_that_it_was_recorded_with():
    policy = tiny_policy(num_layers=1)
    config = sia_jax.SamplerConfig(policy.config, max_new_tokens=10)
    prompt = sia_jax.Prompt.pack([[5, 6, 7], [9]])
    key = jax.random.key(3, impl="threefry2x32")
    samples = sia_jax.sample(
        sia_jax.SteeringParams(policy.params), prompt, np.inf, rng_key=key, config=config
    )
    for row, begin in enumerate([3, 1]):
        n = int(samples.lengths[row])
        whole = np.concatenate([prompt.policy_ids[row, :begin], samples.tokens[row, :n]])[None]
        found = score(policy.params, jnp.asarray(whole), jnp.array([begin + n]), config=config)
        np.testing.assert_allclose(found[0, begin:], samples.policy_logprob[row, :n], rtol=1e-4, atol=1e-5)
