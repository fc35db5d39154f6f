"""Meshes, parameters and batches that do not fit are refused before anything is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.parallel.mesh import make_mesh, shard_params
from tests.support.checkpoints import (
    random_tokens,
    tiny_reward_model,
    tiny_value_model,
)
from tests.support.refusals import refused


def test_mesh_must_have_as_many_places_as_there_are_devices():
    with refused(ValueError, "'data': 2", "'fsdp': 2", "'tensor': 3", "needs 12 devices", "got 8"):
        make_mesh(2, 2, 3)
    with refused(ValueError, "needs 4 devices", "got 2"):
        make_mesh(4, devices=jax.devices()[:2])


@pytest.mark.parametrize("name", ["rotary", "q_proj_extra", "lm_head"])
def test_parameter_without_a_partition_rule_is_refused(name):
    params = {"model": {"layers": {0: {name: {"weight": jnp.zeros((8, 4))}}}}}
    full = f"model.layers.0.{name}.weight"
    with refused(ValueError, f"{full!r} of shape (8, 4)", "PARTITION_RULES"):
        shard_params(params, make_mesh(data=8))


BAD_BATCHES = {
    "one row without its axis": ([1, 2, 3], [3], ("tokens [B, L]", "(3,)")),
    "three axes": ([[[1]]], [1], ("tokens [B, L]", "(1, 1, 1)")),
    "lengths of other rows": ([[1, 2]], [1, 2], ("lengths [B]", "(1, 2) and (2,)")),
    "one length for all": ([[1, 2]], 2, ("lengths [B]", "()")),
    "float tokens": ([[1.0, 2.0]], [2], ("tokens must be integers", "float64")),
    "float lengths": ([[1, 2]], [2.0], ("lengths must be integers", "float64")),
    "boolean tokens": ([[True, False]], [2], ("tokens must be integers", "bool")),
    "no rows": (np.zeros((0, 3), int), np.zeros(0, int), ("1 .. 3", "got []")),
    "no tokens": (np.zeros((1, 0), int), [0], ("lengths must lie in", "got [0]")),
    "length 0": ([[1, 2], [1, 2]], [2, 0], ("lengths must lie in 1 .. 2", "got [2, 0]")),
    "length beyond the row": ([[1, 2]], [3], ("lengths must lie in 1 .. 2", "got [3]")),
    "id beyond the vocabulary": ([[1, 64, 99]], [3], ("0 .. 63", "the vocabulary", "got [64, 99]")),
    "negative id": ([[1, -1]], [2], ("0 .. 63", "got [-1]")),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_batch_that_does_not_fit_is_refused(policy, name):
    tokens, lengths, telling = BAD_BATCHES[name]
    for call in (policy.logits, tiny_value_model(policy).values, tiny_reward_model().score):
        with refused(ValueError, *telling):
            call(tokens, lengths)


def test_what_stands_at_padding_is_not_checked_and_does_not_matter(policy):
    tokens = random_tokens(policy.config, 2, 5)
    spoiled = tokens.copy()
    spoiled[1, 3:] = [-100, 10**6]
    expected = np.asarray(policy.logits(tokens, [5, 3]))
    actual = np.asarray(policy.logits(spoiled, [5, 3]))
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1, :3], expected[1, :3])


def test_prompts_need_a_tokenizer(policy):
    messages = [{"role": "user", "content": "Hello"}]
    answered = [*messages, {"role": "assistant", "content": "Good morning"}]
    with refused(ValueError, "tiny was loaded from a folder without a tokenizer", "pass token ids"):
        policy.prompt_ids(messages)
    with refused(ValueError, "without a tokenizer"):
        tiny_value_model(policy).prompt_ids(messages)
    with refused(ValueError, "without a tokenizer"):
        tiny_reward_model().conversation_ids(answered)
