"""Which ids may be drawn, on rows that fit on a line: candidates, top_k, top_p, min_p."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from sia_jax.steering.filters import largest, likeliest, survivors

# Of row 0 softmax is [0.1, 0.4, 0.1, 0.4], of row 1 [0.6, 0.2, 0.1, 0.1].
MASSES = np.array([[0.1, 0.4, 0.1, 0.4], [0.6, 0.2, 0.1, 0.1]])
LOGITS = jnp.asarray(np.log(MASSES), jnp.float32)


@functools.partial(jax.jit, static_argnames="candidates")
def held(candidates: int, logits: Array, *numbers: Array) -> Array:
    best, ids = largest(logits, candidates)
    return survivors(logits, best, ids, *numbers).holds(logits, jnp.arange(logits.shape[-1]))


def members(
    *,
    candidates: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    logits: Array = LOGITS,
) -> list[str]:
    """The surviving ids of each row, as text."""
    real = [jnp.full(len(logits), x, jnp.float32) for x in (temperature, top_p, min_p)]
    numbers = real[0], jnp.full(len(logits), top_k, jnp.int32), *real[1:]
    rows = np.asarray(held(candidates, logits, *numbers))
    return ["".join(str(i) for i in np.flatnonzero(row)) for row in rows]


def test_candidates_come_in_order_and_ties_by_the_lower_id() -> None:
    _, ids = largest(LOGITS, 3)
    np.testing.assert_array_equal(ids, [[1, 3, 0], [0, 1, 2]])


@pytest.mark.parametrize("repeated", [1, 400])  # of few ids, and of so many that they are sought by blocks
def test_the_likeliest_ids_know_one_zero_and_none_that_cannot_be(repeated: int) -> None:
    m = jnp.tile(jnp.array([[-0.0, 0.0, -jnp.inf, -1.0]]), (1, repeated))
    m = jnp.pad(m, ((0, 0), (0, -m.shape[1] % 128 if repeated > 1 else 0)), constant_values=-jnp.inf)
    logits, ids = jax.jit(likeliest, static_argnums=1)(m, 4)
    expected = [0, 1, 3, -1] if repeated == 1 else [0, 1, 4, 5]
    np.testing.assert_array_equal(ids, [expected])
    np.testing.assert_array_equal(logits, np.where(np.array(expected) < 0, -np.inf, m[:, expected]))


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
    assert members(candidates=4, temperature=0.0, top_k=1, top_p=0.1, min_p=0.9) == ["0123", "0123"]


@pytest.mark.parametrize("candidates", [1, 2, 4])
@pytest.mark.parametrize(
    ("min_p", "kept"),
    [
        (0.0, ["0123"] * 2),
        (0.16, ["0123"] * 2),
        (0.2, ["0123", "01"]),
        (0.3, ["13", "01"]),
        (1.0, ["13", "0"]),
    ],
)
def test_min_p_keeps_what_has_its_share_of_the_best(candidates: int, min_p: float, kept: list[str]) -> None:
    assert members(candidates=candidates, min_p=min_p) == kept


def test_min_p_is_of_the_distribution_at_its_temperature() -> None:
    # At T = 2 the shares are roots: of row 0 1/2 and 1, of row 1 1, 0.577, 0.408.
    assert members(candidates=4, temperature=2.0, min_p=0.45) == ["0123", "01"]


def test_min_p_and_the_filters_before_it_leave_what_both_keep() -> None:
    # Of row 0 top_k 1 has cut id 3, which is as likely as the best; of row 1 min_p cuts more than top_k.
    assert members(candidates=4, top_k=1, min_p=0.9) == ["1", "0"]
    assert members(candidates=4, top_k=3, min_p=0.3) == ["13", "01"]
    assert members(candidates=4, top_p=0.85, min_p=0.1) == ["013", "012"]


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e9, -1e9])
def test_min_p_does_not_feel_what_all_logits_share(offset: float) -> None:
    # Logits of a grid as coarse as float32 is at 1e9; at T = 50 a tenth lies 115 below the best.
    logits = jnp.asarray([[-192.0, 0.0, -128.0, -64.0]], jnp.float32) + jnp.float32(offset)
    assert members(candidates=2, temperature=50.0, min_p=0.1, logits=logits) == ["13"]
    assert members(candidates=2, temperature=1e-30, min_p=1e-30, logits=logits) == ["1"]


def kept_by_hand(l: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """The three filters one after the other, each on the distribution that the one before has left."""
    order = np.lexsort((np.arange(len(l)), -l))
    order = order[: top_k or len(l)]
    mass = np.exp((l[order] - l[order[0]]) / temperature)
    if top_p < 1:
        order = order[: int(np.argmax(np.cumsum(mass / mass.sum()) >= top_p)) + 1]
    mass = np.exp((l[order] - l[order[0]]) / temperature)
    mass /= mass.sum()
    kept = np.zeros(len(l), bool)
    kept[order[mass >= min_p * mass[0]]] = True
    return kept


@pytest.mark.parametrize("candidates", [1, 5, 40])
def test_any_filters_are_those_of_brute_force(candidates: int) -> None:
    rng = np.random.default_rng(0)
    rows, v = 200, 40
    logits = rng.normal(0, 3, (rows, v)).astype(np.float32)
    logits[::3] = np.round(logits[::3]) + 0.0  # with ties, and one zero
    temperature = rng.uniform(0.2, 3, rows).astype(np.float32)
    top_k = rng.integers(0, 12, rows).astype(np.int32)
    top_p = np.where(rng.random(rows) < 0.4, 1, rng.uniform(0.1, 1, rows)).astype(np.float32)
    min_p = np.where(rng.random(rows) < 0.2, 0, rng.uniform(0, 1, rows) ** 3).astype(np.float32)
    found = held(candidates, jnp.asarray(logits), *map(jnp.asarray, (temperature, top_k, top_p, min_p)))
    wanted = [
        kept_by_hand(*row)
        for row in zip(
            logits.astype(float), *(x.tolist() for x in (temperature, top_k, top_p, min_p)), strict=True
        )
    ]
    np.testing.assert_array_equal(found, wanted)
    # What is tested does happen.
    sizes = np.sum(wanted, axis=1)
    assert len(set(sizes.tolist())) > 8
