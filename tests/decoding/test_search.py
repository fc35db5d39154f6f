"""Best-of-N: which reply is chosen, by what, and what becomes of numbers that are not finite."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.decoding import search
from sia_jax.decoding.search import BestOfN, last_values
from tests.support.checkpoints import assert_close, tiny_policy, tiny_value_model
from tests.support.marks import long

PROMPTS, VALUE_PROMPTS = [[5, 9, 12], [7, 3, 40, 41]], [[6, 5, 9], [8, 7, 3, 40, 41]]
N = 3
INF, NAN = float("inf"), float("nan")


def setting(head: str = "scalar") -> tuple[sia_jax.ValueModel, dict[str, Any]]:
    """A value model over a policy, and the arguments of `best_of_n`: replies of different lengths."""
    policy = tiny_policy(num_layers=1, eos_token_ids=tuple(range(12)))
    value = tiny_value_model(policy, head=head)
    config = sia_jax.SamplerConfig(policy=policy.config, value=value.config, max_new_tokens=6, branches=N)
    return value, {
        "params": sia_jax.SteeringParams(policy.params, value.params),
        "prompt": sia_jax.Prompt.pack(PROMPTS, VALUE_PROMPTS),
        "threshold": INF,
        "rng_key": jax.random.key(3),
        "config": config,
    }


def best(**changes: Any) -> BestOfN:
    return sia_jax.best_of_n(**(setting()[1] | changes))


@pytest.mark.parametrize("head", ["scalar", long("vocab")])
def test_without_a_score_the_largest_value_of_a_last_token_wins(head: str) -> None:
    value, arguments = setting(head)
    found = sia_jax.best_of_n(**arguments)
    tokens, lengths = np.asarray(found.samples.tokens), np.asarray(found.samples.lengths)
    assert len(set(lengths.tolist())) > 1
    expected = []
    for row in range(2 * N):
        text = [*VALUE_PROMPTS[row // N], *tokens[row, : lengths[row]].tolist()]
        values = np.asarray(value.values(np.array([text], np.int32), [len(text)]))[0]
        # A vocab head gives the value of a token from the prefix before it.
        expected.append(values[len(text) - 1] if head == "scalar" else values[len(text) - 2, text[-1]])
    assert_close(found.scores.reshape(-1), np.array(expected))
    assert found.best.tolist() == np.array(expected).reshape(2, N).argmax(axis=1).tolist()
    for row, branch in enumerate(found.best.tolist()):
        np.testing.assert_array_equal(found.replies.tokens[row], tokens[N * row + branch])
        assert found.replies.lengths[row] == lengths[N * row + branch]


def test_the_replies_are_those_of_sample() -> None:
    _, arguments = setting()
    samples = sia_jax.sample(**arguments)
    np.testing.assert_array_equal(best().samples.tokens, samples.tokens)


def test_a_score_is_given_the_prompts_and_all_replies_and_ties_go_to_the_first() -> None:
    def score(prompt: sia_jax.Prompt, samples: sia_jax.Samples) -> list[float]:
        assert (prompt.rows, samples.tokens.shape[0]) == (2, 2 * N)
        return [1, 2, 2, -INF, -INF, -5]

    found = best(score=score)
    assert found.best.tolist() == [1, 2]
    assert found.scores.tolist() == [[1, 2, 2], [-INF, -INF, -5]]


def with_failed(monkeypatch: pytest.MonkeyPatch, rows: list[int]) -> None:
    """Replies that ended because a number was not finite."""
    original = search.sample

    def sample(*args: Any, **options: Any) -> sia_jax.Samples:
        samples = original(*args, **options)
        reasons = samples.finish_reason.at[jnp.array(rows)].set(int(sia_jax.FinishReason.NON_FINITE))
        return replace(samples, finish_reason=reasons)

    monkeypatch.setattr(search, "sample", sample)


def test_a_failed_reply_comes_last_whatever_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    with_failed(monkeypatch, [0, 3, 4])
    found = best(score=lambda prompt, samples: [9, -INF, -INF, NAN, 5, -3])
    assert found.best.tolist() == [1, 2]
    assert found.scores.tolist() == [[-INF, -INF, -INF], [-INF, -INF, -3]]


def test_where_all_have_failed_the_first_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    with_failed(monkeypatch, [0, 1, 2])
    assert best().best.tolist()[0] == 0


@pytest.mark.parametrize("number", [NAN, INF])
def test_a_value_that_is_not_finite_counts_against_its_own_reply(
    monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    """The value model sees unsteered replies for the first time when they are finished."""
    monkeypatch.setattr(search, "last_values", lambda *_: jnp.array([1.0, number, 0.5, number, -2.0, -1.0]))
    assert best().best.tolist() == [0, 2]


def test_scores_that_cannot_choose_are_refused() -> None:
    with pytest.raises(ValueError, match=r"score must not return NaN.*; -inf is for a reply that is to"):
        best(score=lambda prompt, samples: [0, 1, NAN, 0, 0, 0])
    with pytest.raises(ValueError, match=r"one number a reply, \[6\], got shape \(2,\)"):
        best(score=lambda prompt, samples: [0, 1])
    params = setting()[1]["params"]
    with pytest.raises(ValueError, match="needs a score or a value model"):
        best(params=sia_jax.SteeringParams(params.policy, None))


def test_values_of_replies_are_compiled_once_for_any_sampler() -> None:
    _, arguments = setting()
    found = sia_jax.best_of_n(**arguments)
    before = search._last_values._cache_size()
    steering = sia_jax.SteeringConfig(num_candidates=3, beta=2.0)
    other = replace(arguments["config"], steering=steering)
    values = last_values(arguments["params"], arguments["prompt"], found.samples, other)
    np.testing.assert_array_equal(values.reshape(2, N), found.scores)
    assert search._last_values._cache_size() == before
