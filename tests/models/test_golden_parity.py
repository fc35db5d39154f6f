"""Our networks give the numbers of transformers and peft, as stored in tests/golden, by every path."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import sia_jax
from sia_jax.models import attention, rope, transformer
from sia_jax.models.lora import LoraConfig
from tests.support import compare
from tests.support.compare import (
    GOLDEN,
    RUNS,
    TOLERANCE,
    Network,
    Pairs,
    Run,
    block_pairs,
    decode_pairs,
    full_pairs,
    half_adapted_pairs,
    packed_pairs,
    relative_errors,
    reward_pairs,
)

# Every run compiles programs of its own, so each case has one or two of the four. "BKHS" leaves axes of size
# one out, so the case with a single key/value head has both batch sizes in it, as has one with several.
POLICIES = {
    "qwen3-tied": ("BKHS, batch 3", "BKHS, batch 1"),
    "qwen3-untied": ("BSKH, batch 3",),
    "llama-tied": ("BKHS, batch 3", "BKHS, batch 1"),
    "llama-untied": ("BSKH, batch 1",),
}
ONE_RUN = ("BKHS, batch 3",)


def select_runs(names: Iterable[str] = ONE_RUN) -> dict[str, Run]:
    return {name: RUNS[name] for name in names}


def load_policy(case: str, dtype: str = "float32") -> Network:
    return compare.network_of(sia_jax.load_policy(GOLDEN / case, dtype=dtype))


def load_value_model(case: str, *, over_policy: bool = False) -> Network:
    base = compare.base_of(GOLDEN / case)
    backbone = sia_jax.load_policy(base) if over_policy else base
    return compare.network_of(sia_jax.load_value_model(GOLDEN / case, backbone))


def assert_equal_within_tolerance(pairs: Pairs) -> None:
    errors = relative_errors(pairs)
    assert errors
    assert all(error <= TOLERANCE for error in errors.values()), errors


@pytest.mark.parametrize("case", POLICIES)
def test_logits_of_full_passes_single_steps_and_tree_blocks_equal_those_of_transformers(case):
    policy, arrays = load_policy(case), compare.load_arrays(case)
    runs = select_runs(POLICIES[case])
    assert_equal_within_tolerance(full_pairs(policy, arrays, runs))
    assert_equal_within_tolerance(decode_pairs(policy, arrays, runs))
    assert_equal_within_tolerance(block_pairs(policy, arrays, runs))


@pytest.mark.parametrize("case", ["qwen3-untied", "llama-tied"])
def test_logits_of_packed_sequences_equal_those_of_each_sequence_alone(case):
    assert_equal_within_tolerance(packed_pairs(load_policy(case), compare.load_arrays(case)))


def test_values_with_the_adapter_merged_equal_those_of_peft():
    value = load_value_model("qwen3-value")
    assert_equal_within_tolerance(full_pairs(value, compare.load_arrays("qwen3-value"), select_runs()))


def test_values_with_the_adapter_on_the_way_equal_those_of_peft():
    value, arrays = load_value_model("qwen3-value", over_policy=True), compare.load_arrays("qwen3-value")
    assert_equal_within_tolerance(full_pairs(value, arrays, select_runs()))
    assert_equal_within_tolerance(decode_pairs(value, arrays, select_runs()))
    assert_equal_within_tolerance(block_pairs(value, arrays, select_runs()))


def test_an_adapter_acts_on_its_own_tokens_of_a_flat_pass_alone():
    value, arrays = load_value_model("qwen3-value", over_policy=True), compare.load_arrays("qwen3-value")
    assert_equal_within_tolerance(half_adapted_pairs(value, arrays))


def test_values_over_a_reward_model_equal_those_of_peft():
    value = load_value_model("llama-value")
    assert_equal_within_tolerance(full_pairs(value, compare.load_arrays("llama-value"), select_runs()))


def test_rewards_equal_those_of_transformers():
    reward = sia_jax.load_reward_model(GOLDEN / "llama-reward")
    assert_equal_within_tolerance(reward_pairs(reward, compare.load_arrays("llama-reward")))


@pytest.mark.parametrize("case", [*POLICIES, "qwen3-value", "llama-value", "llama-reward"])
def test_expected_outputs_spread_by_several_units(case):
    arrays = compare.load_arrays(case)
    outputs = [arrays[name] for name in ("rows", "block", "far", "scores") if name in arrays]
    assert all(np.ptp(output) > 4 for output in outputs)
    # The tolerance is relative to the largest output, which must not stand alone.
    assert all(np.abs(output).max() < 6 * output.std() for output in outputs)


@pytest.mark.parametrize("case", ["llama-tied", "llama-value"])
def test_cases_with_scaled_frequencies_go_beyond_the_original_context(case):
    arrays = compare.load_arrays(case)
    backbone = load_policy(case) if case in POLICIES else load_value_model(case)
    original = backbone.config.rope.scaling.original_max_position_embeddings
    assert arrays["lengths"].max() > original
    assert arrays["far_positions"].min() > original


@pytest.mark.parametrize("case", ["qwen3-tied", "llama-tied"])
def test_bfloat16_logits_are_as_close_to_float32_as_those_of_transformers(case):
    policy, arrays = load_policy(case, "bfloat16"), compare.load_arrays(case)
    pairs = full_pairs(policy, arrays, select_runs())
    if case == "qwen3-tied":  # whose weights are bfloat16
        pairs |= decode_pairs(policy, arrays, select_runs())
    for ours, expected in pairs.values():
        errors = np.abs(ours - expected)
        assert errors.max() <= 3 * arrays["bf16_max_rows"]
        # Of thousands of logits the largest error is chance; the mean is not.
        assert errors.mean() <= 1.5 * arrays["bf16_mean_rows"]
        assert errors.max() > 10 * TOLERANCE * np.abs(expected).max()  # it is bfloat16


# Mutations: the comparison above must see each of them.


def default_theta(monkeypatch):
    original = rope.inverse_frequencies
    monkeypatch.setattr(
        rope, "inverse_frequencies", lambda config, head_dim: original(replace(config, theta=1e4), head_dim)
    )


def interleaved_rotary_pairs(monkeypatch):
    def rotate(x, cos, sin):
        a, b = x[..., 0::2], x[..., 1::2]
        cos, sin = (jnp.split(y, 2, axis=-1)[1] for y in (cos, sin))
        return jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)

    monkeypatch.setattr(rope, "rotate", rotate)


def no_query_and_key_norm(monkeypatch):
    original = transformer.RMSNorm.__call__
    head_dim = 8  # of qwen3-untied
    monkeypatch.setattr(
        transformer.RMSNorm,
        "__call__",
        lambda self, x: x if self.weight.shape == (head_dim,) else original(self, x),
    )


def interleaved_kv_heads(monkeypatch):
    """Query head n reads key/value head n % K in place of n // (N / K)."""

    def mutate(attend_class):
        original = attend_class.__call__

        def attend(self, layer, queries, keys, values, cache):
            order = np.argsort(np.arange(queries.shape[-2]) % keys.shape[-2], kind="stable")
            attended, cache = original(self, layer, queries[..., order, :], keys, values, cache)
            return attended[..., np.argsort(order), :], cache

        monkeypatch.setattr(attend_class, "__call__", attend)

    for attend_class in (
        attention.CausalAttention,
        attention.PrefillAttention,
        attention.CachedAttention,
        attention.FlatAttention,
    ):
        mutate(attend_class)


def one_position_off_by_one(monkeypatch):
    original = rope.rotary_angles
    monkeypatch.setattr(
        rope,
        "rotary_angles",
        lambda positions, frequencies: original(positions + (positions == 7), frequencies),
    )


def doubled_lora_scale(monkeypatch):
    original = LoraConfig.scale
    monkeypatch.setattr(LoraConfig, "scale", lambda self, path: 2 * original(self, path))


MUTATIONS = {
    default_theta: ("llama-tied", (full_pairs,)),
    interleaved_rotary_pairs: ("llama-untied", (full_pairs,)),
    no_query_and_key_norm: ("qwen3-untied", (full_pairs,)),
    interleaved_kv_heads: ("qwen3-untied", (full_pairs, decode_pairs)),
    one_position_off_by_one: ("llama-untied", (full_pairs, decode_pairs, block_pairs)),
    doubled_lora_scale: ("qwen3-value", (full_pairs,)),
}
"""Each with a case that shows it and the comparisons that must see it; every comparison has one to see."""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_the_comparison_fails_under_a_mutation(mutation, monkeypatch):
    case, comparisons = MUTATIONS[mutation]
    assert all(error <= TOLERANCE for error in errors_of(case, comparisons).values())

    mutation(monkeypatch)
    # Compiled programs are looked up by the static config: one of its own makes sure that the mutated code is
    # traced, and that no other test meets its programs. The network does not depend on this number.
    own = 1.0 + [*MUTATIONS].index(mutation)
    errors = errors_of(case, comparisons, initializer_range=own)
    assert all(error > 1000 * TOLERANCE for error in errors.values()), errors


def errors_of(case: str, comparisons: Iterable[Callable[..., Pairs]], **changes: float) -> dict[str, float]:
    """Relative errors with a changed config; of a value model, with the adapter merged and on the way."""
    arrays = compare.load_arrays(case)
    runs = select_runs(POLICIES.get(case, ONE_RUN)[:1])
    if case in POLICIES:
        policy = sia_jax.load_policy(GOLDEN / case, dtype="float32")
        loaded = {"policy": replace(policy, config=replace(policy.config, **changes))}
    else:
        base = compare.base_of(GOLDEN / case)
        loaded = {}
        for form, backbone in (("merged", base), ("on the way", sia_jax.load_policy(base))):
            value = sia_jax.load_value_model(GOLDEN / case, backbone)
            changed = replace(value.config.backbone, **changes)
            loaded[form] = replace(value, config=replace(value.config, backbone=changed))
    return {
        f"{form}, {name}": error
        for form, model in loaded.items()
        for pairs in comparisons
        for name, error in relative_errors(pairs(compare.network_of(model), arrays, runs)).items()
    }
