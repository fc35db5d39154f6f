"""What is timed as a network's products are all of its products, and nothing else that counts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.benchmarks.network_parts import Unmixed, products
from sia_jax.costs.roofline import PassCost, pass_cost
from sia_jax.costs.shapes import SHAPES, Models
from sia_jax.models.transformer import forward

CONFIG = SHAPES["tiny"]
LAYER = 2 * 64 * (4 * 16 + 2 * 16) + 3 * 64 * 128  # q, o; k, v; gate, up, down


def _model() -> Any:
    return Models.random(CONFIG).policy["model"]


def _unmixed(model: Any, x: jax.Array) -> jax.Array:
    ids = jnp.argmax(x, axis=-1)
    return forward(model, ids, jnp.zeros_like(ids), None, Unmixed(), config=CONFIG)[0]


@pytest.mark.parametrize("run", [products, _unmixed])
def test_every_weight_of_a_layer_has_a_share_in_the_result(run: Callable[..., jax.Array]) -> None:
    x = jax.random.normal(jax.random.key(0), (3, 1, 64))
    slopes = jax.grad(lambda model: jnp.sum(run(model, x) ** 2))(_model())["layers"]
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        assert np.any(slopes[1]["self_attn"][name]["weight"])
    for name in ("gate_proj", "up_proj", "down_proj"):
        assert np.any(slopes[1]["mlp"][name]["weight"])


@pytest.mark.parametrize("run", [products, _unmixed])
def test_the_multiplications_are_those_that_the_floor_counts(run: Callable[..., jax.Array]) -> None:
    x = jax.random.normal(jax.random.key(0), (3, 1, 64))
    counted = _product_flops(jax.make_jaxpr(run)(_model(), x).jaxpr)
    assert counted == 2 * 3 * 2 * LAYER
    assert counted == pass_cost(CONFIG, 3, columns_seen=0, columns_read=0).flops


def _product_flops(jaxpr: Any) -> int:
    """Two for each multiply-add of the products in it, and in what it calls."""
    found = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            depth = np.prod([shape[axis] for axis in contracted], dtype=int)
            found += 2 * int(depth) * equation.outvars[0].aval.size
        for inner in equation.params.values():
            if hasattr(inner, "jaxpr"):
                found += _product_flops(inner.jaxpr)
    return found


def test_the_cost_of_a_part_and_of_the_rest_add_up() -> None:
    whole = pass_cost(CONFIG, 3, columns_seen=5, columns_read=15, head_rows=3)
    part = pass_cost(CONFIG, 3, columns_seen=0, columns_read=0, head_rows=3)
    # 15 columns of two layers, keys and values of two heads of 16; scores and mixing of four heads.
    assert whole - part == PassCost(0, 15 * 2 * 2 * 2 * 16 * 4, 2 * 3 * 2 * 2 * 5 * 4 * 16)
