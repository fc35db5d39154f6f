"""Each processor on logits that fit on a line."""

import jax.numpy as jnp
import numpy as np

from sia_jax.steering import processors

INF = np.inf
LOGITS = jnp.array([[2.0, -1.0, 0.0, 4.0], [1.0, 1.0, -3.0, 0.5]], jnp.float32)


def test_ids_without_a_token_and_banned_ones_are_out() -> None:
    banned = jnp.array([[0, -1], [-1, 2]])
    found = processors.mask_ids(LOGITS, 3, banned)
    np.testing.assert_array_equal(found, [[-INF, -1, 0, -INF], [1, 1, -INF, -INF]])


def test_ranges_without_a_token_are_out() -> None:
    found = processors.mask_ids(LOGITS, 4, jnp.full((2, 1), -1), unused_ids=[(1, 3)])
    np.testing.assert_array_equal(found, [[2, -INF, -INF, 4], [1, -INF, -INF, 0.5]])


def test_a_bias_adds_up_and_minus_one_biases_nothing() -> None:
    ids, bias = jnp.array([[1, 1], [-1, 3]]), jnp.array([[0.5, 0.25], [9, -1]], jnp.float32)
    found = processors.add_bias(LOGITS, ids, bias)
    np.testing.assert_array_equal(found, [[2, -0.25, 0, 4], [1, 1, -3, -0.5]])


def test_a_repeated_id_is_divided_if_positive_and_multiplied_if_not() -> None:
    seen = jnp.array([[True, True, True, False], [False, True, True, False]])
    found = processors.repetition_penalty(LOGITS, seen, jnp.array([2.0, 1.0], jnp.float32))
    np.testing.assert_array_equal(found, [[1, -2, 0, 4], LOGITS[1]])


def test_presence_counts_once_and_frequency_each_time() -> None:
    counts = jnp.array([[0, 1, 3, 0], [2, 0, 0, 0]])
    presence, frequency = jnp.array([0.5, 0.0], jnp.float32), jnp.array([0.25, 0.5], jnp.float32)
    found = processors.count_penalties(LOGITS, counts, presence, frequency)
    np.testing.assert_array_equal(found, [[2, -1.75, -1.25, 4], [0, 1, -3, 0.5]])


def test_stop_ids_are_out_until_the_reply_is_long_enough() -> None:
    index, shortest = jnp.array([2, 3]), jnp.array([3, 3])
    found = processors.minimum_length(LOGITS, index, shortest, jnp.array([[3, -1], [3, 0]]))
    np.testing.assert_array_equal(found, [[2, -1, 0, -INF], LOGITS[1]])
