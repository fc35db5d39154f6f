"""Rows that fit, and seconds of a chip that a reply takes, against arithmetic by hand from Qwen3's shapes."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.costs.roofline import decode_step_cost
from sia_jax.costs.sampler import SamplerMemory
from sia_jax.costs.shapes import REAL_SHAPES
from sia_jax.costs.work import (
    CHIPS,
    Copy,
    Lengths,
    abstract_trees,
    fitting_copy,
    labelling_seconds,
    memory_of_a_row,
    sampling_seconds,
    training_seconds,
)
from sia_jax.models.config import ValueConfig
from sia_jax.models.lora import LoraConfig
from sia_jax.models.transformer import abstract_model
from sia_jax.models.value_model import abstract_value
from sia_jax.types import flatten_names

SMALL = REAL_SHAPES["1.7B"]
ADAPTER = ValueConfig(SMALL, lora=LoraConfig())
LENGTHS = Lengths(256, 512)
H100, V5E = CHIPS

# Qwen3-1.7B by hand: layers, widths, heads, ids.
L, D, F, N, K, H, V = 28, 2048, 6144, 16, 8, 128, 151936
LAYER = 2 * D * N * H + 2 * D * K * H + 3 * D * F
ENTRY = 2 * L * K * H * 2  # bytes of the keys and values of one token


def step_seconds(rows: int, columns: float) -> float:
    moved = 2 * (L * LAYER + V * D + rows * D) + ENTRY * rows * (columns + 1)
    flops = 2 * rows * (L * (LAYER + 2 * columns * N * H) + V * D)
    return float(np.max([moved / 3.35e12, flops / 989e12]))


def test_a_step_of_qwen3_1_7b_moves_the_bytes_that_are_counted_by_hand():
    weights, caches = 2 * (L * LAYER + V * D + 64 * D), ENTRY * 64 * 513
    assert decode_step_cost(SMALL, 64, 512, 2).bytes == weights + caches
    assert round((weights + caches) / 1e9, 2) == 7.21  # as docs/decoding.md says


def test_the_rows_that_fit_an_h100_are_those_counted_by_hand():
    trees = abstract_trees(SMALL, ADAPTER)
    norms = L * (2 * D + 2 * H) + D
    weights, caches, ids = 2 * (L * LAYER + V * D + norms), ENTRY * 768, 5 * V
    alone = memory_of_a_row(SMALL, None, (trees[0], None), LENGTHS)
    assert fitting_copy(alone, H100, 0.9, 10_000) == Copy(1, int((72e9 - weights) // (caches + ids)))

    adapter = L * 16 * ((D + N * H) + 2 * (D + K * H) + (N * H + D))
    beside = weights + 4 * (adapter + D + 1)  # float32, with the value head's weight and bias
    both = ENTRY * (768 + 784)  # the value model's with the ten candidates, in multiples of 16
    steered = memory_of_a_row(SMALL, ADAPTER, trees, LENGTHS)
    assert fitting_copy(steered, H100, 0.9, 10_000) == Copy(1, int((72e9 - beside) // (both + ids)))
    assert fitting_copy(steered, H100, 0.9, 100) == Copy(1, 100)
    assert fitting_copy(steered, V5E, 0.9, 100) == Copy(1, int((14.4e9 - beside) // (2 * both + ids)))


def test_models_that_one_chip_does_not_hold_are_split_over_the_fewest_that_do():
    memory = SamplerMemory(weights=38_000_000_000, gathered=0, caches=200_000_000, ids=1_000_000)
    assert fitting_copy(memory, V5E, 0.9, 512) == Copy(4, 48)  # (57.6 - 38) GB / (2 x 200 + 4 x 1) MB
    assert fitting_copy(memory, H100, 0.9, 512) == Copy(1, 169)  # (72 - 38) GB / 201 MB
    with pytest.raises(
        ValueError, match=r"38.0 GB of weights and a row must fit 20% of the 16 GB of 8 chips"
    ):
        fitting_copy(memory, V5E, 0.2, 512)


def test_the_trees_of_alike_layers_are_those_that_are_traced_layer_by_layer():
    tiny = replace(REAL_SHAPES["tiny"], num_layers=3, tie_word_embeddings=False)
    for value in (ValueConfig(tiny), ValueConfig(tiny, lora=LoraConfig())):
        policy_tree, value_tree = abstract_trees(tiny, value)
        head = policy_tree["lm_head"]["weight"]
        assert (head.shape, head.dtype) == ((tiny.vocab_size, tiny.hidden_size), jnp.bfloat16)
        traced = {"model": abstract_model(tiny, jnp.bfloat16)}
        for made, whole in ((policy_tree, traced), (value_tree, abstract_value(value, jnp.bfloat16))):
            told = {name: (x.shape, x.dtype) for name, x in flatten_names(made).items()}
            told.pop("lm_head.weight", None)
            assert told == {name: (x.shape, x.dtype) for name, x in flatten_names(whole).items()}


def test_a_million_replies_of_8_h100_take_the_hours_that_are_counted_by_hand():
    rows = 512
    prefill = 2 * rows * 256 * L * (LAYER + 2 * 128.5 * N * H) / 989e12
    hours = 1e6 * (prefill + 512 * step_seconds(rows, 512)) / rows / 8 / 3600
    counted = sampling_seconds(SMALL, None, 0.0, LENGTHS, Copy(1, rows), H100)
    np.testing.assert_allclose(1e6 * counted / 8 / 3600, hours, rtol=1e-6)
    assert round(hours, 2) == 0.37


def test_what_chips_of_a_copy_have_adds_up_and_steering_costs():
    one = sampling_seconds(SMALL, None, 0.0, LENGTHS, Copy(1, 32), H100)
    two = sampling_seconds(SMALL, None, 0.0, LENGTHS, Copy(2, 32), H100)
    np.testing.assert_allclose(one, two, rtol=1e-9)
    sparse, dense = (
        sampling_seconds(SMALL, ADAPTER, ratio, LENGTHS, Copy(1, 32), H100) for ratio in (0.2, 1.0)
    )
    assert one < sparse < dense


def test_labels_and_training_are_flops_over_the_peak():
    forward = 2 * 768 * L * (LAYER + 2 * 384.5 * N * H)
    np.testing.assert_allclose(labelling_seconds(SMALL, LENGTHS, H100), (forward + 2 * D) / 989e12, rtol=1e-9)
    # Forward, once more for what was not kept, and back to the activations.
    np.testing.assert_allclose(training_seconds(ADAPTER, LENGTHS, V5E), 3 * forward / 197e12, rtol=1e-9)


def test_the_share_that_others_reach_falls_with_the_rows():
    """Qwen3-14B under vLLM: 18.94 ms a token at 64 rows is 52% of the bandwidth's limit, and 5,760 tokens/s
    at 253 rows a third, if rows hold as many ids."""
    layer = 2 * 5120 * 128 * 40 + 2 * 5120 * 128 * 8 + 3 * 5120 * 17408
    weights, entry = 2 * (40 * layer + 151936 * 5120), 2 * 2 * 40 * 8 * 128
    columns = (0.52 * 18.94e-3 * 3.35e12 - weights) / 64 / entry
    share = (weights + 253 * columns * entry) / 3.35e12 / (253 / 5760)
    assert 350 < columns < 600
    assert 0.30 < share < 0.36
