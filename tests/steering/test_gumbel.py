"""Keyed random numbers, and the two places that they choose."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from sia_jax.steering import gumbel

KEYS = jax.random.key_data(jax.random.split(jax.random.key(0, impl="threefry2x32"), 2))


def draws(index: int, ids: np.ndarray) -> np.ndarray:
    token, _ = gumbel.position_keys(KEYS, jnp.array([index, index]))
    return np.asarray(gumbel.uniform(token, jnp.asarray(ids)))


def test_a_number_belongs_to_its_request_position_and_id_and_to_no_place_in_a_batch() -> None:
    numbers = draws(3, np.array([[7, 8, 9], [7, 8, 9]]))
    assert len(np.unique(numbers)) == 6
    np.testing.assert_array_equal(draws(3, np.array([[9, 7], [8, 7]]))[:, 1], numbers[:, 0])
    assert not np.intersect1d(draws(4, np.array([[7, 8, 9], [7, 8, 9]])), numbers).size


def test_token_and_gate_have_keys_of_their_own() -> None:
    token, gate = gumbel.position_keys(KEYS, jnp.array([0, 0]))
    ids = jnp.arange(4)[None].repeat(2, 0)
    assert not np.intersect1d(gumbel.uniform(token, ids), gumbel.uniform(gate, ids)).size


def test_the_numbers_are_uniform_between_zero_and_one_without_the_ends() -> None:
    numbers = draws(0, np.arange(20_000).reshape(2, -1)).ravel()
    assert numbers.min() > 0
    assert numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3


def test_gumbel_is_minus_log_minus_log() -> None:
    np.testing.assert_allclose(gumbel.gumbel(jnp.array([0.5, np.exp(-1)])), [0.36651292, 0], atol=1e-6)


def test_the_lowest_id_wins_a_tie() -> None:
    scores, ids = jnp.array([[1.0, 3, 3], [-jnp.inf, 0, -1]]), jnp.array([[5, 9, 4], [1, 2, 3]])
    place, token = gumbel.lowest_best(scores, ids)
    np.testing.assert_array_equal(place, [2, 1])
    np.testing.assert_array_equal(token, [4, 2])


def test_a_place_is_the_first_whose_cumulative_mass_exceeds_its_share() -> None:
    masses = jnp.array([[0.0, 1, 0, 3], [2, 2, 0, 0]])
    for share, expected in [(0.01, [1, 0]), (0.24, [1, 0]), (0.26, [3, 0]), (0.6, [3, 1]), (0.99, [3, 1])]:
        np.testing.assert_array_equal(gumbel.place_in(masses, jnp.full(2, share)), expected)


def test_a_place_in_a_later_block_is_found() -> None:
    masses = jnp.zeros((1, 300)).at[0, jnp.array([5, 290])].set(1.0)
    assert gumbel.place_in(masses, jnp.array([0.4])) == 5
    assert gumbel.place_in(masses, jnp.array([0.6])) == 290
