"""The official decoder's formula, computed by torch from whole prefixes, against `sample` with its caches.

The formula, from the project's design and reading of the official code: at every token both models read
the whole sequence again. The ten largest logits are the candidates; their softmax, before any temperature,
has the entropy that is compared with the threshold; if it is reached, the value model reads its own prompt,
the reply and each candidate in turn, and `logit + beta * value` takes the place of the logit; the token is
drawn from the softmax of the candidates' scores over the temperature, on unsteered tokens too.
"""

from dataclasses import dataclass

import jax
import numpy as np
import pytest
import torch

import sia_jax
from tests.support import reference

SHAPE = reference.Shape("qwen3", tied=True)
ROWS, NEW_TOKENS, CANDIDATES = 6, 56, 10
THRESHOLD = 1.85  # the official 1.0 is for trained policies: these are uncertain nearly everywhere


@dataclass(frozen=True)
class Step:
    """One position of one row."""

    candidate_ids: np.ndarray
    entropy: float
    is_junction: bool
    scores: np.ndarray


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("official")
    reference.save_policy(root / "policy", SHAPE, seed=3)
    reference.save_value_model(root / "value", root / "policy", seed=4)
    return root


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 12, (2, ROWS))
    return [[rng.integers(5, SHAPE.vocab, n).tolist() for n in row] for row in lengths]


@pytest.fixture(scope="module", params=[0.0, 1.0], ids=["argmax", "sampled"])
def samples(request, folders, prompts):
    policy = sia_jax.load_policy(folders / "policy")
    value = sia_jax.load_value_model(folders / "value", backbone=folders / "policy")
    config = sia_jax.SamplerConfig(
        policy=policy.config,
        value=value.config,
        steering=sia_jax.SteeringConfig.official(),
        max_new_tokens=NEW_TOKENS,
        record="candidates",
    )
    replies = sia_jax.sample(
        sia_jax.SteeringParams(policy.params, value.params),
        sia_jax.Prompt.pack(*prompts),
        THRESHOLD,
        rng_key=jax.random.key(0, impl="threefry2x32"),
        config=config,
        knobs=sia_jax.Knobs(temperature=request.param, stop_ids=np.zeros(0, np.int32)),
    )
    return request.param, jax.tree.map(np.asarray, replies)


@pytest.fixture(scope="module")
def official(folders):
    """(policy ids so far, value ids so far) -> Step, by torch, without any cache."""
    logits = reference.policy_outputs(folders / "policy")
    values = reference.value_outputs(folders / "value", folders / "policy", merged=True)

    def step(policy_ids: list[int], value_ids: list[int]) -> Step:
        last = torch.from_numpy(logits(np.array(policy_ids), None, None)[-1])
        top = torch.topk(last, CANDIDATES)
        distribution = torch.distributions.Categorical(probs=torch.softmax(top.values, dim=-1))
        entropy = float(distribution.entropy())
        scores = top.values.numpy()
        if entropy >= THRESHOLD:
            rewards = [values(np.array([*value_ids, int(a)]), None, None)[-1] for a in top.indices]
            scores = scores + np.array(rewards)
        return Step(top.indices.numpy(), entropy, entropy >= THRESHOLD, scores)

    return step


@pytest.fixture(scope="module")
def steps(samples, official, prompts):
    """What the official formula says at every position of the replies."""
    _, replies = samples
    return [
        [
            official(
                [*prompts[0][row], *replies.tokens[row, :t].tolist()],
                [*prompts[1][row], *replies.tokens[row, :t].tolist()],
            )
            for t in range(NEW_TOKENS)
        ]
        for row in range(ROWS)
    ]


def test_candidates_entropy_gate_and_scores_are_those_of_the_official_formula(samples, steps):
    _, replies = samples
    candidates = replies.candidates
    junctions, largest_error = 0, 0.0
    for row, row_steps in enumerate(steps):
        for t, step in enumerate(row_steps):
            assert candidates.ids[row, t].tolist() == step.candidate_ids.tolist()
            assert bool(replies.junction[row, t]) == step.is_junction
            scores = candidates.logits[row, t]
            if step.is_junction:
                scores = scores + candidates.values[row, t]
            errors = np.abs([replies.entropy[row, t] - step.entropy, *(scores - step.scores)])
            largest_error = max(largest_error, float(errors.max()))
            junctions += step.is_junction
    assert largest_error < 1e-4
    assert ROWS * NEW_TOKENS * 2 >= 500  # over the two temperatures
    assert 50 <= junctions <= ROWS * NEW_TOKENS - 50  # and so at least 100 over the two


def test_every_token_is_one_of_the_candidates_and_at_temperature_zero_the_official_best(samples, steps):
    temperature, replies = samples
    for row, row_steps in enumerate(steps):
        for t, step in enumerate(row_steps):
            token = int(replies.tokens[row, t])
            assert token in step.candidate_ids
            if temperature == 0:
                assert token == step.candidate_ids[int(np.argmax(step.scores))]


def test_drawn_probabilities_are_the_softmax_of_the_official_scores(samples, steps):
    temperature, replies = samples
    for row, row_steps in enumerate(steps):
        for t, step in enumerate(row_steps):
            place = step.candidate_ids.tolist().index(int(replies.tokens[row, t]))
            log_p = torch.log_softmax(torch.from_numpy(step.scores), dim=-1)[place].item()
            expected = log_p if temperature > 0 else 0.0
            assert replies.logprob[row, t] == pytest.approx(expected, abs=1e-4)
