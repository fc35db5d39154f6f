"""More of rows that hold a beginning, against a plain softmax over what each row then holds."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.models.attention import ExtendAttention, PrefillAttention
from sia_jax.models.cache import KVCache
from sia_jax.models.transformer import forward
from tests.models.test_cache import (
    COLUMNS,
    as_plain,
    every_shape,
    filled,
    plain_attention,
    random_pair,
    shape_config,
)
from tests.support.checkpoints import assert_close, random_tokens, tiny_policy

T = 3
extend = jax.jit(lambda attend, *arguments: attend(1, *arguments))


def spoilt(cache: KVCache, row: int, start: int) -> KVCache:
    """The same with NaN in what a row has left from a column on, in layer 1."""
    keys, values = cache.with_row_axis().keys[1], cache.with_row_axis().values[1]
    if cache.layout == "BKHS":
        keys, values = keys.at[row, ..., start:].set(jnp.nan), values.at[row, ..., start:, :].set(jnp.nan)
    else:
        keys, values = keys.at[row, start:].set(jnp.nan), values.at[row, start:].set(jnp.nan)
    one = replace(cache.layer(1), keys=(keys,), values=(values,), without_rows=False)
    return cache.with_layer(1, one.without_row_axis() if cache.without_rows else one)


@every_shape
def test_a_block_sees_its_rows_beginning_and_itself_and_nothing_of_what_was_left(layout, batch, kv_heads):
    rng = np.random.default_rng(0)
    cache, plain = filled(rng, layout, batch, kv_heads)
    rows, starts = [batch - 1, batch, -1], [2, 0, 1]
    if batch == 3:
        rows[1], starts[1] = 0, 5  # the last token does not fit
    cache = spoilt(cache, batch - 1, 2)
    queries = rng.standard_normal((3, T, 2 * kv_heads, 4)).astype(np.float32)
    keys, values = random_pair(rng, shape_config(kv_heads), 3, T)
    attend = ExtendAttention(jnp.array(rows), jnp.array(starts), block=2)
    attended, after = extend(attend, queries, keys, values, cache)
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        if not 0 <= row < batch:
            continue
        count = min(T, COLUMNS - start)
        place = slice(start, start + count)
        plain.keys[1][row, place], plain.values[1][row, place] = keys[i, :count], values[i, :count]
        plain.values[1][row, start + count :] = 0
        sees = np.arange(COLUMNS) <= start + np.arange(count)[:, None]
        held = plain.keys[1][row][None], plain.values[1][row][None]
        assert_close(attended[i, :count], plain_attention(queries[i, :count][None], *held, sees[None])[0])
    found = as_plain(after, 1)
    np.testing.assert_array_equal(found[1], plain.values[1])
    for row in range(batch):
        start = (
            2 + T if row == batch - 1 else COLUMNS
        )  # keys that were left may stay: the mask takes them out
        np.testing.assert_array_equal(found[0][row, :start], plain.keys[1][row, :start])
    for one, other in zip(as_plain(after, 0), as_plain(cache, 0), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("block", [None, 2])
@pytest.mark.parametrize("layout", ["BKHS", "BSKH"])
def test_a_prompt_in_two_passes_is_that_in_one(layout, block):
    policy = tiny_policy(num_layers=2)
    tokens = random_tokens(policy.config, 3, 9)
    run = jax.jit(forward, static_argnames="config")
    cache = KVCache.zeros(policy.config, 3, 12, jnp.float32, layout)
    places = jnp.broadcast_to(jnp.arange(9), (3, 9))

    def read(tokens, places, cache, attend):
        return run(policy.params["model"], tokens, places, cache, attend, config=policy.config)

    once, _ = read(tokens, places, cache, PrefillAttention(block=block))
    starts = np.array([4, 6, 1])
    _, cache = read(tokens[:, :6], places[:, :6], cache, PrefillAttention(block=block))
    more = np.array([[*row[start:], *[0] * start][:8] for row, start in zip(tokens, starts, strict=True)])
    attend = ExtendAttention(jnp.arange(3), jnp.array(starts), block)
    twice, _ = read(more, starts[:, None] + np.arange(8), cache, attend)
    for row, start in enumerate(starts):
        assert_close(twice[row, : 9 - start], once[row, start:])
