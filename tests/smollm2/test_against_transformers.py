"""SmolLM2-135M-Instruct here and in transformers: the same logits, and greedy replies equal up to margins.

`python -m tests.smollm2.bring` brings the model; the file is in none of the default runs of the tests.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import sia_jax
from tests.smollm2.bring import FOLDER

ROOT = Path(__file__).parents[2]
LENGTH = 64
"""Tokens of a greedy reply."""
MARGIN = 1e-3
"""Nats between the two likeliest ids, within which float32 programs may differ; logits agree to 1e-4."""


@pytest.fixture(scope="module")
def policy() -> sia_jax.Policy:
    return sia_jax.load_policy(ROOT / FOLDER)


@pytest.fixture(scope="module")
def theirs() -> Any:
    model = AutoModelForCausalLM.from_pretrained(ROOT / FOLDER, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="module")
def prompts(policy: sia_jax.Policy) -> list[list[int]]:
    lines = (ROOT / "configs/smollm2/validation.jsonl").read_text(encoding="utf-8").splitlines()[:20]
    texts = [json.loads(line)["prompt"] for line in lines]
    return [list(policy.prompt_ids([{"role": "user", "content": text}])) for text in texts]


def logits_of(model: Any, ids: list[int]) -> np.ndarray:
    """[L, V] of transformers."""
    with torch.no_grad():
        return np.asarray(model(torch.tensor([ids])).logits[0])


def test_logits_agree(policy: sia_jax.Policy, theirs: Any, prompts: list[list[int]]) -> None:
    """With transformers in float64 everywhere, of which its own float32 is some 6e-5 off; and with that at
    the last token, from which a reply is drawn."""
    exact = AutoModelForCausalLM.from_pretrained(ROOT / FOLDER, dtype=torch.float64).eval()
    for ids in prompts[:8]:
        ours = np.asarray(policy.logits([ids], [len(ids)]))[0]
        np.testing.assert_allclose(ours, logits_of(exact, ids), rtol=0, atol=1e-4)
        np.testing.assert_allclose(ours[-1], logits_of(theirs, ids)[-1], rtol=0, atol=1e-4)


def test_greedy_replies_are_equal_up_to_the_first_place_that_is_near(
    policy: sia_jax.Policy, theirs: Any, prompts: list[list[int]]
) -> None:
    config = sia_jax.SamplerConfig(policy=policy.config, max_new_tokens=LENGTH)
    params = sia_jax.SteeringParams(policy.params, None)
    samples = sia_jax.sample(
        params,
        sia_jax.Prompt.pack(prompts),
        float("inf"),
        rng_key=jax.random.key(0),
        config=config,
        knobs=sia_jax.Knobs(temperature=0.0),
    )
    equal = 0
    for row, ids in enumerate(prompts):
        ours = np.asarray(samples.tokens[row, : int(samples.lengths[row])]).tolist()
        with torch.no_grad():
            whole = theirs.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=LENGTH,
                do_sample=False,
                pad_token_id=policy.config.eos_token_ids[0],
            )[0, len(ids) :].tolist()
        differing = [t for t, (a, b) in enumerate(zip(ours, whole, strict=False)) if a != b]
        if not differing:
            assert ours == whole
            equal += len(ours)
            continue
        place = differing[0]
        best = np.sort(logits_of(theirs, [*ids, *ours[:place]])[-1])[-2:]
        assert best[1] - best[0] < MARGIN, (row, place)
        equal += place
    assert equal > 0.9 * sum(int(length) for length in samples.lengths)
