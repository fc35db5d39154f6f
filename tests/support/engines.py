"""A tiny pair with a tokenizer, random requests for it, and what `sample` replies to each of them alone."""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sia_jax
from sia_jax.decoding.state import FinishReason
from sia_jax.engine.engine import Engine
from sia_jax.engine.job import Terms, make_job, stacked
from sia_jax.engine.reply import Reply, read_replies
from sia_jax.engine.request import Request
from sia_jax.steering.numbers import NUMBERS
from tests.support.checkpoints import tiny_policy, tiny_value_model
from tests.support.living import assert_same_top
from tests.support.tokenizers import save_qwen3_tokenizer

LENGTH = 64
"""Tokens of the rows."""
LONGEST = 24
"""Ids of the longest prompt, and new tokens of the longest reply but a few."""
STEERING = sia_jax.SteeringConfig(num_candidates=4)
_SIZES = {"hidden_size": 32, "intermediate_size": 40, "num_heads": 4, "num_kv_heads": 2, "num_layers": 1}


@functools.cache
def tokenizer() -> Any:
    """Byte-level, of 346 tokens."""
    with tempfile.TemporaryDirectory() as folder:
        return save_qwen3_tokenizer(Path(folder))


@functools.cache
def pair() -> tuple[sia_jax.Policy, sia_jax.ValueModel]:
    """A policy that is now sure and now not, and a value model over it."""
    known = tokenizer()
    policy = tiny_policy(vocab_size=352, tokenizer=known, num_tokens=346, **_SIZES)
    return policy, tiny_value_model(policy)


def make_engine(models: tuple[sia_jax.Policy, sia_jax.ValueModel] | None = None, **options: Any) -> Engine:
    """An engine of the pair; whatever is not said, all tests share, and so its programs."""
    policy, value = models or pair()
    defaults: dict[str, Any] = {"rows": 8, "lengths": (LENGTH,), "steps": 8, "steering": STEERING}
    return Engine(policy, value, **defaults | {"max_stop_ids": 4, "max_logit_bias": 2} | options)


def random_requests(count: int, seed: int = 0) -> list[Request]:
    """Requests of all kinds, no two alike."""
    rng = np.random.default_rng(seed)
    return [random_request(rng, number) for number in range(count)]


def random_request(rng: np.random.Generator, seed: int) -> Request:
    """One, whose seed is `seed`."""
    numbers: dict[str, Any] = {}
    if rng.random() < 0.5:
        numbers["temperature"] = float(rng.choice([0.0, 0.5, 1.3]))
    if rng.random() < 0.3:
        numbers["top_k"] = int(rng.integers(1, 40))
    if rng.random() < 0.3:
        numbers["top_p"] = float(rng.uniform(0.3, 1))
    if rng.random() < 0.3:
        numbers["presence_penalty"] = float(rng.uniform(0, 2))
    if rng.random() < 0.3:
        numbers["beta"] = float(rng.uniform(0.2, 3))
    if rng.random() < 0.3:
        numbers["min_new_tokens"] = int(rng.integers(1, 5))
    if rng.random() < 0.2:
        numbers["logit_bias"] = {int(rng.integers(0, 346)): float(rng.uniform(-3, 8))}
    if rng.random() < 0.5:
        numbers["stop"] = [str(x) for x in rng.choice([*"aeirst n", "th", "er", "\ufffd"], 2, replace=False)]
    policy_ids, value_ids = (rng.integers(0, 346, rng.integers(1, LONGEST + 1)).tolist() for _ in range(2))
    return Request(
        prompt_ids=policy_ids,
        value_ids=value_ids,
        threshold=float(rng.choice([-np.inf, 0.7, 1.0, np.inf])),
        max_new_tokens=int(rng.integers(5, LENGTH - LONGEST + 1)),
        seed=seed,
        **numbers,
    )


def sampled(
    engine: Engine, requests: Sequence[Request], at_once: int = 32, longest: int = LONGEST
) -> list[Reply]:
    """The replies of `sample`, a batch of requests at a time, in one program that is none of the engine's."""
    terms = engine._terms
    config = replace(terms.config, max_new_tokens=LENGTH - 1, schedule=None)
    params = sia_jax.SteeringParams(terms.policy.params, None if terms.value is None else terms.value.params)
    found: list[Reply] = []
    for start in range(0, len(requests), at_once):
        batch = list(requests[start : start + at_once])
        filled = [*batch, *[batch[0]] * (at_once - len(batch))]
        found += _sampled(params, config, terms, filled, longest)[: len(batch)]
    return found


def _sampled(
    params: sia_jax.SteeringParams,
    config: sia_jax.SamplerConfig,
    terms: Terms,
    requests: Sequence[Request],
    longest: int,
) -> list[Reply]:
    jobs = [make_job(request, terms) for request in requests]
    prompt = sia_jax.Prompt.pack(
        [job.policy_ids for job in jobs],
        [job.value_ids for job in jobs],
        policy_length=longest,
        value_length=longest,
    )
    numbers = stacked([job.numbers for job in jobs])
    fields: Mapping[str, Any] = {
        name: getattr(numbers, name)
        for name in (*NUMBERS, "max_new_tokens", "stop_ids", "banned_ids", "bias_ids", "bias")
    }
    keys = jax.random.wrap_key_data(jnp.stack([job.keys[0] for job in jobs]), impl="threefry2x32")
    samples = sia_jax.sample(
        params, prompt, numbers.threshold, rng_key=keys, config=config, knobs=sia_jax.Knobs(**fields)
    )
    samples = jax.device_get(samples)
    found = []
    for i, job in enumerate(jobs):
        one = jax.tree.map(lambda x: x[i : i + 1] if x.ndim else x, samples)  # noqa: B023
        own = sia_jax.Prompt(*(getattr(prompt, f)[i : i + 1] for f in prompt.__dataclass_fields__))
        found += read_replies(one, own, config, tokenizer(), job.stops, job.min_new_tokens)
    return found


def assert_same(found: Reply, expected: Reply, *, exact: bool = False) -> None:
    """Text, tokens, flags and counts are equal, and numbers agree, as those of two programs do."""
    assert found.finish_reason == expected.finish_reason
    assert found.text == expected.text
    assert found.stop_string == expected.stop_string
    assert found.usage == expected.usage
    for name in ("tokens", "junction", "shifted"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for name in ("entropy", "policy_logprob", "logprob", "value"):
        one, other = getattr(found, name), getattr(expected, name)
        if exact:
            assert one.tobytes() == other.tobytes(), name
        else:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=name)
    assert_same_top(found.top, expected.top, len(expected.tokens), exact=exact)


def differ(found: Reply, expected: Reply) -> bool:
    """Whether they are not the same."""
    try:
        assert_same(found, expected)
    except AssertionError:
        return True
    return False


def is_beginning(found: Reply, expected: Reply) -> bool:
    """Whether a cancelled reply is the beginning of a whole one."""
    assert found.finish_reason in (FinishReason.CANCELLED, FinishReason.DEADLINE)
    t = len(found.tokens)
    return found.tokens.tolist() == expected.tokens[:t].tolist() and expected.text.startswith(
        found.text.rstrip("\ufffd")
    )
