"""Our networks give the numbers of transformers and peft: live, for many shapes and seeds, by every path."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

import sia_jax
from sia_jax.checkpoints.config_json import parse_config
from sia_jax.models.rope import inverse_frequencies
from tests.support import compare, reference
from tests.support.compare import RUNS, TOLERANCE, Arrays, Pairs, relative_errors
from tests.support.reference import LLAMA3, Shape

WIDER_LLAMA3 = {**LLAMA3, "factor": 3.0, "low_freq_factor": 1.5, "original_max_position_embeddings": 50}

# Groups of 1 to 4, one to three key/value heads; each with a cache layout and batch size of its own, because
# every such pair is another program. The golden cases have more shapes.
POLICIES = {
    "qwen3, groups of 1": (
        Shape("qwen3", 101, 24, 36, layers=3, heads=2, head_dim=8, tied=True),
        "BSKH, batch 3",
    ),
    "qwen3, groups of 4": (Shape("qwen3", 137, 40, 28, heads=4, kv_heads=1), "BKHS, batch 1"),
    "qwen3, groups of 2": (Shape("qwen3", 119, 64, 44, heads=6, kv_heads=3, theta=5e6), "BKHS, batch 3"),
    "llama, groups of 1": (
        Shape("llama", 103, 48, 36, heads=3, kv_heads=3, tied=True, theta=1e5, scaling=LLAMA3),
        "BSKH, batch 1",
    ),
    "llama, groups of 4": (
        Shape("llama", 149, 24, 44, heads=4, kv_heads=1, theta=5e5, scaling=WIDER_LLAMA3),
        "BKHS, batch 3",
    ),
    "llama, groups of 3": (
        Shape("llama", 127, 36, 28, heads=6, head_dim=8, tied=True, theta=5e5),
        "BKHS, batch 1",
    ),
}
SEEDS = (0, 1, 2)
FAR = (3000, 20_000, 120_000)
"""By seed, how far the second run of a block is from its context."""

ONE_RUN = {"BKHS, batch 3": RUNS["BKHS, batch 3"]}
QWEN3 = POLICIES["qwen3, groups of 2"][0]
LLAMA = POLICIES["llama, groups of 1"][0]


def assert_equal_within_tolerance(pairs: Pairs) -> None:
    errors = relative_errors(pairs)
    assert errors
    assert all(error <= TOLERANCE for error in errors.values()), errors
    assert all(np.ptp(expected) > 3 for _, expected in pairs.values() if expected.size > 10)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_logits_equal_those_of_transformers_by_every_path(name, seed, tmp_path):
    shape, run = POLICIES[name]
    reference.save_policy(tmp_path, shape, seed, max_shard_size="50KB" if seed == 1 else "5GB")
    arrays = reference.policy_case(tmp_path, reference.random_inputs(shape, seed, far=FAR[seed])).arrays
    network, runs = compare.network_of(sia_jax.load_policy(tmp_path)), {run: RUNS[run]}
    assert_equal_within_tolerance(compare.full_pairs(network, arrays, runs))
    assert_equal_within_tolerance(compare.decode_pairs(network, arrays, runs))
    forms = ("flat",) if name.endswith("groups of 1") else ("padded",)
    assert_equal_within_tolerance(compare.block_pairs(network, arrays, runs, forms))


@pytest.mark.parametrize("seed", SEEDS)
def test_values_over_a_policy_equal_those_of_peft_by_every_path(seed, tmp_path):
    base, folder = tmp_path / "base", tmp_path / "value"
    reference.save_policy(base, QWEN3, seed)
    reference.save_value_model(folder, base, seed)
    arrays = reference.value_case(folder, base, reference.random_inputs(QWEN3, seed, far=FAR[seed])).arrays
    on_the_way = compare.network_of(sia_jax.load_value_model(folder, sia_jax.load_policy(base)))
    assert_equal_within_tolerance(compare.full_pairs(on_the_way, arrays, ONE_RUN))
    assert_equal_within_tolerance(compare.decode_pairs(on_the_way, arrays, ONE_RUN))
    assert_equal_within_tolerance(compare.block_pairs(on_the_way, arrays, ONE_RUN))
    merged = compare.network_of(sia_jax.load_value_model(folder, base))
    assert_equal_within_tolerance(compare.full_pairs(merged, arrays, ONE_RUN))


@pytest.mark.parametrize("seed", SEEDS)
def test_values_over_a_reward_model_equal_those_of_peft(seed, tmp_path):
    base, folder = tmp_path / "base", tmp_path / "value"
    reference.save_reward_model(base, LLAMA, seed)
    reference.save_value_model(folder, base, seed)
    arrays = reference.value_case(folder, base, reference.random_inputs(LLAMA, seed)).arrays
    merged = compare.network_of(sia_jax.load_value_model(folder, base))
    assert_equal_within_tolerance(compare.full_pairs(merged, arrays, ONE_RUN))


@pytest.mark.parametrize("shape", [QWEN3, LLAMA], ids=["qwen3", "llama"])
@pytest.mark.parametrize("seed", SEEDS)
def test_rewards_equal_those_of_transformers_in_a_padded_batch(shape, seed, tmp_path):
    reference.save_reward_model(tmp_path, shape, seed)
    inputs = reference.random_rows(shape, seed, (41, 33, 29, 24, 20, 17, 12, 9, 6, 3, 2, 1))
    arrays = reference.reward_case(tmp_path, inputs).arrays
    assert_equal_within_tolerance(compare.reward_pairs(sia_jax.load_reward_model(tmp_path), arrays))


@pytest.mark.parametrize("shape", [QWEN3, LLAMA], ids=["qwen3", "llama"])
def test_sequences_longer_than_a_chunk_of_queries_equal_those_of_transformers(shape, tmp_path):
    reference.save_policy(tmp_path, shape, seed=7)
    inputs = reference.random_inputs(shape, 7, lengths=(700, 530, 3), context_lengths=(690, 530, 1))
    arrays = reference.policy_case(tmp_path, inputs).arrays
    network = compare.network_of(sia_jax.load_policy(tmp_path))
    assert_equal_within_tolerance(compare.full_pairs(network, arrays, ONE_RUN))
    if shape.family == "qwen3":
        assert_equal_within_tolerance(compare.packed_pairs(network, arrays))


# bfloat16: weights that are bfloat16, so that all of the error is the networks' own.


def assert_as_close_as_the_reference(pairs: Pairs, arrays: Arrays, name: str) -> None:
    for ours, expected in pairs.values():
        errors = np.abs(ours - expected)
        assert errors.max() <= 3 * arrays[f"bf16_max_{name}"], name
        # The largest error is chance, the mean is less so.
        assert errors.mean() <= 1.5 * arrays[f"bf16_mean_{name}"], name
        assert errors.max() > 10 * TOLERANCE * np.abs(expected).max(), "this is not bfloat16"


@pytest.mark.parametrize("shape", [QWEN3, LLAMA], ids=["qwen3", "llama"])
@pytest.mark.parametrize("seed", SEEDS)
def test_bfloat16_logits_are_as_close_to_float32_as_those_of_transformers(shape, seed, tmp_path):
    reference.save_policy(tmp_path, shape, seed, dtype="bfloat16")
    arrays = reference.policy_case(tmp_path, reference.random_inputs(shape, seed)).arrays
    network = compare.network_of(sia_jax.load_policy(tmp_path))
    assert_as_close_as_the_reference(compare.full_pairs(network, arrays, ONE_RUN), arrays, "rows")
    if shape.family == "qwen3":
        assert_as_close_as_the_reference(compare.decode_pairs(network, arrays, ONE_RUN), arrays, "rows")


@pytest.mark.parametrize("seed", SEEDS)
def test_bfloat16_values_with_the_adapter_merged_are_as_close_to_float32_as_those_of_peft(seed, tmp_path):
    base, folder = tmp_path / "base", tmp_path / "value"
    reference.save_policy(base, QWEN3, seed, dtype="bfloat16")
    reference.save_value_model(folder, base, seed)
    arrays = reference.value_case(folder, base, reference.random_inputs(QWEN3, seed), merged=True).arrays
    network = compare.network_of(sia_jax.load_value_model(folder, base))
    assert_as_close_as_the_reference(compare.full_pairs(network, arrays, ONE_RUN), arrays, "rows")


@pytest.mark.parametrize("seed", SEEDS)
def test_bfloat16_rewards_are_as_close_to_float32_as_those_of_transformers(seed, tmp_path):
    reference.save_reward_model(tmp_path, LLAMA, seed, dtype="bfloat16")
    inputs = reference.random_rows(LLAMA, seed, (41,) * 48)
    arrays = reference.reward_case(tmp_path, inputs).arrays
    pairs = compare.reward_pairs(sia_jax.load_reward_model(tmp_path), arrays)
    assert_as_close_as_the_reference(pairs, arrays, "scores")


# Rotary frequencies of the published models


def published(family: str, **changes: object) -> dict:
    """The config.json of a published model, as transformers 4 wrote it; only the sizes matter little here."""
    raw = {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 1,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
    }
    if family == "llama":
        raw |= {
            "architectures": ["LlamaForCausalLM"],
            "rope_theta": 500000.0,
            "rope_scaling": {
                "factor": changes.pop("factor"),
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
        }
    else:
        raw |= {"architectures": ["Qwen3ForCausalLM"], "rope_scaling": None, "head_dim": 128}
    return raw | changes


PUBLISHED = {
    "Llama-3.2-1B": published("llama", factor=32.0, head_dim=64),
    "Llama-3.2-3B": published("llama", factor=32.0, hidden_size=3072, num_attention_heads=24, head_dim=128),
    "Llama-3.1-8B": published("llama", factor=8.0, hidden_size=4096),
    "Qwen3": published("qwen3", rope_theta=1000000),
    "Qwen3-2507": published("qwen3", rope_theta=5000000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_rotary_frequencies_of_published_models_are_those_of_transformers_bit_for_bit(name):
    # The vectorised pow of torch has other last bits on other CPUs; see tests.support.reference.
    assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    raw = PUBLISHED[name]
    if name.startswith("Llama"):
        theirs = LlamaRotaryEmbedding(transformers.LlamaConfig(**raw)).inv_freq
    else:
        theirs = Qwen3RotaryEmbedding(transformers.Qwen3Config(**raw)).inv_freq
    config = parse_config(raw).model
    np.testing.assert_array_equal(inverse_frequencies(config.rope, config.head_dim), theirs.numpy())


@pytest.mark.parametrize(
    ("name", "counts", "every_eighth"),
    [
        ("Llama-3.2-1B", (15, 3, 14), [1.0, 3.760603e-02, 4.295567e-04, 1.661967e-06]),
        (
            "Llama-3.2-3B",
            (29, 6, 29),
            [1.0, 0.1939228, 0.03760603, 0.007292665, 4.295567e-04, 8.570256e-06, 1.661967e-06, 3.222933e-07],
        ),
        (
            "Llama-3.1-8B",
            (29, 6, 29),
            [1.0, 0.1939228, 0.03760603, 0.007292665, 5.248460e-04, 3.428102e-05, 6.64787e-06, 1.289173e-06],
        ),
    ],
)
def test_scaling_keeps_smooths_and_divides_as_many_frequencies_as_in_llama_3(name, counts, every_eighth):
    config = parse_config(PUBLISHED[name]).model
    scaled = inverse_frequencies(config.rope, config.head_dim)
    ratio = scaled / inverse_frequencies(replace(config.rope, scaling=None), config.head_dim)
    kept, divided = ratio == 1, ratio == np.float32(1 / config.rope.scaling.factor)
    assert (kept.sum(), (~kept & ~divided).sum(), divided.sum()) == counts
    np.testing.assert_allclose(scaled[::8], every_eighth, rtol=5e-7)
    if name == "Llama-3.2-1B":
        np.testing.assert_allclose(ratio[15:18], [0.60557, 0.30374, 0.10345], atol=5e-6)
