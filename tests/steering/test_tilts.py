"""Each tilt on values that fit on a line."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.steering.config import SteeringConfig
from sia_jax.steering.parts import PerRow
from sia_jax.steering.tilts import (
    Additive,
    Advantage,
    Centred,
    Clipped,
    Junction,
    Standardised,
    Tilt,
    expected_value,
    mean_value,
)

VALUES = jnp.array([[1.0, 3.0, 8.0], [0.0, 4.0, 2.0]])
BETA = jnp.array([2.0, 0.5])
ALLOWED = jnp.array([[True, True, False], [True, True, True]])  # of row 0 the largest may not be chosen
LOGITS = jnp.log(jnp.array([[1.0, 3.0, 5.0], [2.0, 1.0, 1.0]]))
PREFIX = jnp.array([2.0, 1.0])
AT = Junction(BETA, LOGITS, ALLOWED, PREFIX)
TILTS = [
    Additive(),
    Centred(),
    Advantage(),
    Standardised(),
    Clipped(0.5),
    Clipped(1.5, of=Advantage()),
    Clipped(0.5, of=Standardised()),
]


def rows_of(tilt: Tilt) -> Tilt:
    """The tilt with its numbers as a call has them: float32 [B]."""
    return jax.tree.map(lambda x: jnp.full(2, x, jnp.float32), tilt)


def tilted(
    tilt: Tilt, *, relative: bool = False, values: jax.Array = VALUES, at: Junction = AT
) -> np.ndarray:
    tilt = rows_of(tilt)
    return np.asarray((tilt.relative if relative else tilt)(values, at))


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
        np.testing.assert_array_equal(tilted(tilt, values=values), np.zeros((2, 3)))


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


@pytest.mark.parametrize("tilt", [Additive(), Centred(), Advantage()], ids=repr)
def test_an_offset_of_all_values_takes_no_digits(tilt: Tilt) -> None:
    offset = 2.0**20  # a power of two, which the values of small whole numbers bear exactly
    found = tilt.relative(VALUES + offset, dataclasses.replace(AT, prefix_value=PREFIX + offset))
    np.testing.assert_array_equal(np.asarray(found)[ALLOWED], tilted(tilt, relative=True)[ALLOWED])


@pytest.mark.parametrize("tilt", TILTS, ids=repr)
def test_what_may_not_be_chosen_changes_nothing(tilt: Tilt) -> None:
    other = tilted(tilt, values=VALUES.at[0, 2].set(-1e6))
    np.testing.assert_array_equal(other[ALLOWED], tilted(tilt)[ALLOWED])


def test_an_advantage_is_what_a_token_adds_to_its_prefix() -> None:
    np.testing.assert_array_equal(tilted(Advantage()), [[-2, 2, 12], [-0.5, 1.5, 0.5]])


def test_a_bound_cuts_advantages_where_it_would_cut_all_values_alike() -> None:
    values, at = VALUES + 100, dataclasses.replace(AT, prefix_value=PREFIX + 100)
    np.testing.assert_array_equal(
        tilted(Clipped(1.0, of=Advantage()), values=values, at=at), [[-1, 1, 1], [-0.5, 1, 0.5]]
    )
    np.testing.assert_array_equal(tilted(Clipped(1.0), values=values, at=at), np.ones((2, 3)))


@pytest.mark.parametrize("prefix", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tilt", TILTS, ids=repr)
def test_advantages_alone_feel_a_prefix_value_that_is_no_number(tilt: Tilt, prefix: float) -> None:
    at = dataclasses.replace(AT, prefix_value=jnp.array([prefix, 1.0]), beta=BETA * jnp.array([0.0, 1.0]))
    found, expected = tilted(tilt, at=at), tilted(tilt, at=dataclasses.replace(at, prefix_value=PREFIX))
    reads = "Advantage" in repr(tilt)
    np.testing.assert_array_equal(np.isfinite(found), [[not reads] * 3, [True] * 3])
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_prompt_s_value_is_the_mean_and_a_vocabulary_head_s_the_policy_s_own() -> None:
    np.testing.assert_allclose(mean_value(VALUES, ALLOWED), [2, 2], rtol=1e-6)
    np.testing.assert_allclose(
        expected_value(VALUES, LOGITS, ALLOWED), [0.25 * 1 + 0.75 * 3, 0.25 * 4 + 0.25 * 2], rtol=1e-6
    )
    offset = 2.0**20
    np.testing.assert_array_equal(mean_value(VALUES + offset, ALLOWED), [2 + offset, 2 + offset])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Surprising(Tilt):
    """beta (V - share l): values less a share of what the policy thinks itself."""

    share: PerRow

    def __call__(self, values: jax.Array, at: Junction) -> jax.Array:
        return at.beta[:, None] * (values - self.share[:, None] * at.logits)


def test_a_tilt_of_one_s_own_works_like_the_others() -> None:
    expected = np.asarray(BETA)[:, None] * (np.asarray(VALUES) - 0.5 * np.asarray(LOGITS))
    np.testing.assert_allclose(tilted(Surprising(0.5)), expected, rtol=1e-6)
    bounded = SteeringConfig(tilt=Clipped(1.0, of=Surprising(0.5))).tilt
    np.testing.assert_allclose(tilted(bounded), np.clip(expected, -1, 1), rtol=1e-6)


@pytest.mark.parametrize("bound", [1.5, 2, np.float32(1.5), np.int64(2)])
def test_the_limit_of_a_configuration_is_a_number_under_anybody_s_jit(bound: float) -> None:
    tilt = Clipped(3.0, of=Clipped(bound, of=Advantage()))
    assert jax.eval_shape(lambda: jnp.zeros(int(float(tilt.limit())))).shape == (int(bound),)
    assert (tilt.bounded, tilt.separable, tilt.reads_prefix_value) == (True, True, True)


def test_the_limit_of_rows_is_the_nearest_bound_and_of_what_has_none_infinite() -> None:
    rows = Clipped(jnp.array([1.0, 4.0]), of=Clipped(jnp.array([2.0, 3.0])))
    np.testing.assert_array_equal(rows.limit(), [1, 3])
    assert Additive().limit() == math.inf
    assert not Additive().bounded
    assert not Clipped(1.0, of=Standardised()).separable
    assert not Surprising(0.5).separable
