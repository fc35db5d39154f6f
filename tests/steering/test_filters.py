"""Which ids may be drawn, on rows that fit on a line: candidates, top_k, top_p."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from sia_jax.steering.filters import largest, survivors

# Of row 0 softmax is [0.1, 0.4, 0.1, 0.4], of row 1 [0.6, 0.2, 0.1, 0.1].
MASSES = np.array([[0.1, 0.4, 0.1, 0.4], [0.6, 0.2, 0.1, 0.1]])
LOGITS = jnp.asarray(np.log(MASSES), jnp.float32)


@functools.partial(jax.jit, static_argnames="candidates")
def held(candidates: int, temperature: Array, top_k: Array, top_p: Array) -> Array:
    logits, ids = largest(LOGITS, candidates)
    return survivors(LOGITS, logits, ids, temperature, top_k, top_p).holds(LOGITS, jnp.arange(4))


def members(*, candidates: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> list[str]:
    """The surviving ids of each row, as text."""
    numbers = jnp.full(2, temperature), jnp.full(2, top_k, jnp.int32), jnp.full(2, top_p)
    rows = np.asarray(held(candidates, *numbers))
    return ["".join(str(i) for i in np.flatnonzero(row)) for row in rows]


def test_candidates_come_in_order_and_ties_by_the_lower_id() -> None:
    _, ids = largest(LOGITS, 3)
    np.testing.assert_array_equal(ids, [[1, 3, 0], [0, 1, 2]])


@pytest.mark.parametrize("candidates", [1, 2, 4])
def test_nothing_is_cut_unless_asked_for(candidates: int) -> None:
    assert members(candidates=candidates) == ["0123", "0123"]


# Whether the last survivor is among the candidates, or is searched for in the vocabulary.
@pytest.mark.parametrize("candidates", [1, 2, 4])
@pytest.mark.parametrize(
    ("top_k", "kept"), [(1, ["1", "0"]), (2, ["13", "01"]), (3, ["013", "012"]), (4, ["0123", "0123"])]
)
def test_top_k_keeps_so_many_and_of_a_tie_the_lower_ids(candidates: int, top_k: int, kept: list[str]) -> None:
    assert members(candidates=candidates, top_k=top_k) == kept


@pytest.mark.parametrize("candidates", [1, 2, 4])
@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.35, ["1", "0"]), (0.7, ["13", "01"]), (0.85, ["013", "012"]), (1.0, ["0123"] * 2)]
)
def test_top_p_keeps_the_fewest_that_reach_it(candidates: int, top_p: float, kept: list[str]) -> None:
    assert members(candidates=candidates, top_p=top_p) == kept


def test_top_p_is_of_what_top_k_has_left() -> None:
    # Of row 1 top_k 2 leaves [0.75, 0.25]: 0.7 is reached by the first.
    assert members(candidates=4, top_k=2, top_p=0.7) == ["13", "0"]


def test_top_p_is_of_the_distribution_at_its_temperature() -> None:
    # At T = 1/2 masses are squared: row 1 is [0.857, 0.095, 0.024, 0.024].
    assert members(candidates=4, temperature=0.5, top_p=0.85) == ["13", "0"]


def test_at_temperature_zero_all_ids_are_kept() -> None:
    assert members(candidates=4, temperature=0.0, top_k=1, top_p=0.1) == ["0123", "0123"]
