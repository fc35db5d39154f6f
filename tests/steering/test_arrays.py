"""A function that runs only if asked for, and one element of each row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.steering.arrays import pick, run_if


@pytest.mark.parametrize("asked", [False, True])
def test_a_function_changes_what_it_is_asked_for(asked: bool) -> None:
    x = {"a": jnp.arange(3.0), "b": jnp.ones((), jnp.int32)}
    found = jax.jit(lambda asked, x: run_if(asked, lambda x: jax.tree.map(lambda a: a + 1, x), x))(asked, x)
    for name, leaf in x.items():
        np.testing.assert_array_equal(found[name], leaf + asked)


@pytest.mark.parametrize("asked", [False, True])
def test_what_is_not_asked_for_is_not_computed(asked: bool) -> None:
    runs: list[int] = []

    def f(x: jax.Array) -> jax.Array:
        jax.debug.callback(lambda: runs.append(1))
        return x + 1

    jax.block_until_ready(jax.jit(lambda asked, x: run_if(asked, f, x))(asked, jnp.zeros(2)))
    jax.effects_barrier()
    assert len(runs) == asked


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_each_row_gives_its_own_element(shape: tuple[int, ...]) -> None:
    x, index = np.arange(np.prod(shape)).reshape(shape), np.array([4, 0, 2, 2])
    np.testing.assert_array_equal(pick(jnp.asarray(x), jnp.asarray(index)), x[np.arange(4), index])
