"""Attention in blocks: the equation's numbers and gradients, and nothing computed that nobody sees."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.models.block_attention import block_attention, find_first_blocks

pytestmark = pytest.mark.optimised

BLOCK = 4
SEGMENTS = {
    "one a row": None,
    "packed, with padding": [[1] * 5 + [2] * 6 + [3] * 3, [1] * 9 + [0] * 5],
    "of single tokens, and a row of padding": [[*range(1, 15)], [0] * 14],
    "beginning at blocks": [[1] * 4 + [2] * 8 + [3] * 2, [1] * 12 + [2] * 2],
}
Operands = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(params=SEGMENTS)
def segments(request: pytest.FixtureRequest) -> np.ndarray | None:
    given = SEGMENTS[request.param]
    return None if given is None else np.array(given, np.int32)


@pytest.fixture(scope="module")
def operands() -> Operands:
    rng = np.random.default_rng(0)
    shapes = [(2, 14, 4, 8), (2, 14, 2, 8), (2, 14, 2, 8)]
    return tuple(rng.normal(size=shape) for shape in shapes)  # type: ignore[return-value]


def equation(operands: Operands, segments: np.ndarray | None) -> np.ndarray:
    """softmax(q k / sqrt(H)) v in float64, token by token; 0 at padding."""
    queries, keys, values = operands
    result = np.zeros(queries.shape)
    for b, t, n in np.ndindex(queries.shape[:3]):
        own = np.ones(t + 1, bool) if segments is None else segments[b, : t + 1] == segments[b, t]
        if segments is not None and segments[b, t] == 0:
            continue
        seen = np.flatnonzero(own)
        head = n // (queries.shape[2] // keys.shape[2])
        scores = keys[b, seen, head] @ queries[b, t, n] / np.sqrt(queries.shape[-1])
        weights = np.exp(scores - scores.max())
        result[b, t, n] = weights / weights.sum() @ values[b, seen, head]
    return result


def attend(operands: Any, segments: np.ndarray | None) -> jax.Array:
    ids = None if segments is None else jnp.asarray(segments)
    first = None if ids is None else find_first_blocks(ids, BLOCK)
    return block_attention(*(jnp.asarray(x, jnp.float32) for x in operands), ids, first, BLOCK)


def test_it_is_the_equation_whatever_the_segments(operands: Operands, segments: np.ndarray | None) -> None:
    np.testing.assert_allclose(attend(operands, segments), equation(operands, segments), atol=1e-6)


def test_gradients_are_the_slopes_of_the_equation(operands: Operands, segments: np.ndarray | None) -> None:
    rng = np.random.default_rng(1)
    weights = rng.normal(size=operands[0].shape)

    def loss(*given: jax.Array) -> jax.Array:
        return jnp.sum(attend(given, segments) * weights)

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*operands)
    for place, gradient in enumerate(gradients):
        direction, step = rng.normal(size=operands[place].shape), 1e-5
        there, back = (
            (equation(_moved(operands, place, sign * step * direction), segments) * weights).sum()
            for sign in (1, -1)
        )
        slope = (there - back) / (2 * step)
        found = float((np.asarray(gradient, np.float64) * direction).sum())
        assert found == pytest.approx(slope, rel=1e-5, abs=1e-5)


def test_blocks_that_no_query_sees_are_not_read(operands: Operands) -> None:
    segments = np.array([[1] * 8 + [2] * 6, [1] * 8 + [2] * 6], np.int32)
    spoilt = tuple(np.where(np.arange(14)[:, None, None] < 8, np.nan, x) for x in operands)
    attended = np.asarray(attend(spoilt, segments))
    # A NaN in a block that is read spreads even where the mask forbids it: 0 * NaN is NaN.
    assert np.isfinite(attended[:, 8:]).all()
    assert np.isnan(attended[:, :8]).all()


def test_the_first_block_is_that_of_the_segment_that_begins_first_in_any_row() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        rows = [np.sort(rng.integers(1, 6, 14)) for _ in range(3)]
        for row in rows:
            row[rng.integers(1, 15) :] = 0
        ids = np.stack(rows)
        expected = []
        for i in range(4):
            tokens = [(b, t) for b in range(3) for t in range(4 * i, min(4 * i + 4, 14)) if ids[b, t]]
            begins = [int(np.argmax(ids[b] == ids[b, t])) // 4 for b, t in tokens]
            expected.append(min(begins, default=i + 1))
        assert find_first_blocks(jnp.asarray(ids), 4).tolist() == expected


def test_the_compiled_program_holds_no_scores_of_a_whole_row() -> None:
    rows = jax.ShapeDtypeStruct((1, 512, 2, 8), jnp.float32)

    def loss(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.sum(block_attention(queries, keys, values, None, None, 64) ** 2)

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(rows, rows, rows).compile()
    assert "512,512" not in compiled.as_text()


def _moved(operands: Operands, place: int, by: np.ndarray) -> Any:
    return tuple(x + by if i == place else x for i, x in enumerate(operands))
