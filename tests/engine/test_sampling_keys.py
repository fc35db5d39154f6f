"""Keys on the host are those of JAX."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sia_jax.engine.sampling_keys import fold_in, key_of_seed, words_of

WORDS = st.integers(0, 2**32 - 1)


@given(seed=WORDS, data=st.lists(WORDS, min_size=1, max_size=4))
def test_keys_of_seeds_and_folded_ones_have_the_words_of_jax(seed: int, data: list[int]) -> None:
    key = jax.random.key(np.uint32(seed), impl="threefry2x32")
    np.testing.assert_array_equal(key_of_seed(seed), jax.random.key_data(key))
    expected = [jax.random.key_data(jax.random.fold_in(key, np.uint32(one))) for one in data]
    np.testing.assert_array_equal(fold_in(words_of(key), np.array(data)), expected)
    again = jax.random.fold_in(jax.random.fold_in(key, np.uint32(data[0])), np.uint32(data[-1]))
    np.testing.assert_array_equal(
        fold_in(fold_in(key_of_seed(seed), np.array(data[:1]))[0], np.array(data[-1:]))[0],
        jax.random.key_data(again),
    )


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("a", TypeError),
        (3, TypeError),
        (np.zeros(2, np.uint32), TypeError),
        (jax.random.key(0, impl="rbg"), TypeError),
        (jax.random.split(jax.random.key(0, impl="threefry2x32")), ValueError),
    ],
)
def test_what_is_no_key_is_refused(key: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="key must be"):
        words_of(key)
