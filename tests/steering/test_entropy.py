"""Entropies against the sum written out."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sia_jax.steering.entropy import candidate_entropy, vocabulary_entropy

ENTROPIES = [candidate_entropy, vocabulary_entropy]


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_it_is_minus_the_mean_logarithm(entropy) -> None:
    masses = np.array([[0.5, 0.25, 0.25], [0.9, 0.05, 0.05]])
    found = entropy(jnp.log(jnp.asarray(masses)))
    np.testing.assert_allclose(found, stats.entropy(masses, axis=-1), rtol=1e-6)


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize(
    ("logits", "expected"),
    [([0.0] * 8, np.log(8)), ([50.0, 0, 0, -np.inf], 0.0), ([1e4, 1e4, -np.inf, -np.inf], np.log(2))],
    ids=["even", "certain", "large and out"],
)
def test_its_ends(entropy, logits: list[float], expected: float) -> None:
    np.testing.assert_allclose(entropy(jnp.array(logits)), expected, atol=1e-6)


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_an_offset_of_all_logits_is_not_felt(entropy) -> None:
    logits = jnp.array([3.0, 1.0, -2.0])
    np.testing.assert_allclose(entropy(logits + 64), entropy(logits), rtol=1e-6)
