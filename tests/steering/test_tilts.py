"""Each tilt on values that fit on a line."""

import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.steering.tilts import Additive, Centred, Clipped, Standardised, Tilt

VALUES = jnp.array([[1.0, 3.0, 8.0], [0.0, 4.0, 2.0]])
BETA = jnp.array([2.0, 0.5])
ALLOWED = jnp.array([[True, True, False], [True, True, True]])  # of row 0 the largest may not be chosen
TILTS = [Additive(), Centred(), Standardised(), Clipped(0.5), Clipped(0.5, of=Standardised())]


def tilted(tilt: Tilt, *, relative: bool = False) -> np.ndarray:
    numbers = tuple(jnp.full(2, number) for number in tilt.numbers)
    found = (tilt.relative if relative else tilt)(VALUES, BETA, ALLOWED, numbers)
    return np.asarray(found)


def test_an_additive_tilt_is_beta_times_the_value() -> None:
    np.testing.assert_array_equal(tilted(Additive()), [[2, 6, 16], [0, 2, 1]])


def test_a_centred_tilt_takes_off_the_mean_of_what_may_be_chosen() -> None:
    np.testing.assert_array_equal(tilted(Centred())[0, :2], [-2, 2])
    np.testing.assert_array_equal(tilted(Centred())[1], [-1, 1, 0])


def test_a_standardised_tilt_has_deviation_beta() -> None:
    np.testing.assert_allclose(tilted(Standardised())[0, :2], [-2, 2])
    np.testing.assert_allclose(tilted(Standardised())[1], np.array([-1, 1, 0]) * 0.5 * np.sqrt(1.5))


def test_equal_values_tilt_nothing() -> None:
    values = jnp.full((2, 3), 7.0)
    for tilt in (Centred(), Standardised()):
        np.testing.assert_array_equal(tilt(values, BETA, ALLOWED), np.zeros((2, 3)))


def test_a_clipped_tilt_moves_no_logit_further_than_its_bound() -> None:
    np.testing.assert_array_equal(tilted(Clipped(1.5)), [[1.5, 1.5, 1.5], [0, 1.5, 1]])
    np.testing.assert_allclose(tilted(Clipped(1.5, of=Standardised()))[0, :2], [-1.5, 1.5])


@pytest.mark.parametrize("tilt", TILTS, ids=repr)
def test_relative_to_the_largest_that_may_be_chosen_the_law_is_the_same(tilt: Tilt) -> None:
    allowed, whole, relative = np.asarray(ALLOWED), tilted(tilt), tilted(tilt, relative=True)
    for row in range(2):
        of_row = relative[row, allowed[row]]
        assert of_row.max() == 0
        np.testing.assert_allclose(
            of_row, whole[row, allowed[row]] - whole[row, allowed[row]].max(), atol=1e-6
        )


@pytest.mark.parametrize("tilt", [Additive(), Centred()], ids=repr)
def test_an_offset_of_all_values_takes_no_digits(tilt: Tilt) -> None:
    offset = 2.0**20  # a power of two, which the values of small whole numbers bear exactly
    found = tilt.relative(VALUES + offset, BETA, ALLOWED)
    np.testing.assert_array_equal(np.asarray(found)[ALLOWED], tilted(tilt, relative=True)[ALLOWED])


@pytest.mark.parametrize("tilt", TILTS, ids=repr)
def test_what_may_not_be_chosen_changes_nothing(tilt: Tilt) -> None:
    numbers = tuple(jnp.full(2, number) for number in tilt.numbers)
    other = tilt(VALUES.at[0, 2].set(-1e6), BETA, ALLOWED, numbers)
    np.testing.assert_array_equal(np.asarray(other)[ALLOWED], tilted(tilt)[ALLOWED])
