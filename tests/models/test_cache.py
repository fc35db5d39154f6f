"""The cache against plain NumPy arrays, and the ways of attending against a plain softmax."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.models import attention
from sia_jax.models.attention import CachedAttention, CausalAttention, FlatAttention, attend_to_cache
from sia_jax.models.cache import KVCache
from sia_jax.models.config import ModelConfig
from sia_jax.models.passes import bucket_length, decode_block, decode_step, hidden_states, prefill
from sia_jax.models.transformer import forward
from tests.support.checkpoints import assert_close, random_tokens, tiny_config, tiny_policy

COLUMNS = 7
run_full = jax.jit(hidden_states, static_argnames="config")
run_prefill = jax.jit(prefill, static_argnames="config")
run_step = jax.jit(decode_step, static_argnames="config")
run_block = jax.jit(decode_block, static_argnames="config")
run_forward = jax.jit(forward, static_argnames="config")
write = jax.jit(KVCache.write, static_argnums=1)
write_rows = jax.jit(KVCache.write_rows, static_argnums=1)
move = jax.jit(KVCache.move)
every_shape = pytest.mark.parametrize(
    ("layout", "batch", "kv_heads"),
    [(layout, batch, kv_heads) for layout in ("BKHS", "BSKH") for batch in (1, 3) for kv_heads in (1, 2)],
)


@dataclass
class PlainCache:
    """What a cache holds, as one [B, S, K, H] array a layer, written in loops."""

    keys: dict[int, np.ndarray]
    values: dict[int, np.ndarray]

    @staticmethod
    def zeros(config: ModelConfig, batch: int, columns: int) -> "PlainCache":
        shape = (batch, columns, config.num_kv_heads, config.head_dim)
        layers = range(config.num_layers)
        return PlainCache(*({i: np.zeros(shape, np.float32) for i in layers} for _ in range(2)))

    def write(self, layer, keys, values, rows, columns) -> None:
        for place in np.ndindex(rows.shape):
            row, column = rows[place], columns[place]
            if row < len(self.keys[layer]) and column < self.keys[layer].shape[1]:
                self.keys[layer][row, column] = keys[place]
                self.values[layer][row, column] = values[place]

    def move(self, rows, source, target) -> None:
        for layer in self.keys:
            keys, values = self.keys[layer][rows, source], self.values[layer][rows, source]
            self.write(layer, keys, values, rows, target)


def shape_config(kv_heads: int) -> ModelConfig:
    return tiny_config(num_kv_heads=kv_heads, num_heads=2 * kv_heads, head_dim=4)


def as_plain(cache: KVCache, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values of a layer, [B, S, K, H] whatever the layout."""
    keys, values = np.asarray(cache.keys[layer]), np.asarray(cache.values[layer])
    if cache.layout == "BKHS":
        lead = (cache.batch, cache.kv_heads)
        keys = keys.reshape(*lead, -1, cache.columns).transpose(0, 3, 1, 2)
        values = values.reshape(*lead, cache.columns, -1).transpose(0, 2, 1, 3)
    return keys, values


def assert_holds(cache: KVCache, plain: PlainCache) -> None:
    for layer in plain.keys:
        keys, values = as_plain(cache, layer)
        np.testing.assert_array_equal(keys, plain.keys[layer])
        np.testing.assert_array_equal(values, plain.values[layer])


def random_pair(rng: np.random.Generator, config: ModelConfig, *lead: int) -> tuple[np.ndarray, np.ndarray]:
    shape = (*lead, config.num_kv_heads, config.head_dim)
    return tuple(rng.standard_normal(shape).astype(np.float32) for _ in range(2))


def filled(rng: np.random.Generator, layout, batch: int, kv_heads: int) -> tuple[KVCache, PlainCache]:
    """A cache and its plain twin whose every place holds another number."""
    config = shape_config(kv_heads)
    cache = KVCache.zeros(config, batch, COLUMNS, jnp.float32, layout)
    plain = PlainCache.zeros(config, batch, COLUMNS)
    for layer in plain.keys:
        plain.keys[layer], plain.values[layer] = random_pair(rng, config, batch, COLUMNS)
    keys, values = plain.keys.values(), plain.values.values()
    if layout == "BKHS":
        keys, values = [x.transpose(0, 2, 3, 1) for x in keys], [x.transpose(0, 2, 1, 3) for x in values]
    return replace(
        cache,
        keys=tuple(jnp.asarray(x.reshape(cache.keys[0].shape)) for x in keys),
        values=tuple(jnp.asarray(x.reshape(cache.values[0].shape)) for x in values),
    ), plain


def test_axes_of_size_one_are_left_out_of_the_product_layout_only():
    config = shape_config(1)
    alone = KVCache.zeros(config, 1, COLUMNS, jnp.float32, "BKHS")
    assert alone.keys[0].shape == (4, COLUMNS)
    assert alone.values[0].shape == (COLUMNS, 4)
    many = KVCache.zeros(shape_config(2), 3, COLUMNS, jnp.float32, "BKHS")
    assert many.keys[0].shape == (3, 2, 4, COLUMNS)
    assert many.values[0].shape == (3, 2, COLUMNS, 4)
    fused = KVCache.zeros(config, 1, COLUMNS, jnp.float32, "BSKH")
    assert fused.keys[0].shape == fused.values[0].shape == (1, COLUMNS, 1, 4)
    assert alone.columns == many.columns == fused.columns == COLUMNS
    assert len(alone.keys) == len(alone.values) == config.num_layers


@every_shape
def test_every_place_of_every_layer_keeps_what_was_written_to_it(layout, batch, kv_heads):
    rng = np.random.default_rng(0)
    config = shape_config(kv_heads)
    cache = KVCache.zeros(config, batch, COLUMNS, jnp.float32, layout)
    plain = PlainCache.zeros(config, batch, COLUMNS)
    rows, columns = np.indices((batch, COLUMNS))
    for layer in plain.keys:
        pair = random_pair(rng, config, batch, COLUMNS)
        cache = write(cache, layer, *pair, rows, columns)
        plain.write(layer, *pair, rows, columns)
        assert_holds(cache, plain)


@every_shape
def test_blocks_go_to_the_rows_that_are_named_and_to_no_other(layout, batch, kv_heads):
    rng = np.random.default_rng(2)
    cache, plain = filled(rng, layout, batch, kv_heads)
    for rows in ([batch - 1, batch, batch + 3], [batch, 0, batch]):
        for layer in plain.keys:
            keys, values = random_pair(rng, shape_config(kv_heads), 3, 4)
            cache = write_rows(cache, layer, keys, values, jnp.array(rows))
            for block, row in enumerate(rows):
                if row < batch:
                    plain.keys[layer][row, :4], plain.values[layer][row, :4] = keys[block], values[block]
                    plain.values[layer][row, 4:] = 0  # what a row has left may be NaN
    assert_holds(cache, plain)


@every_shape
def test_outside_a_program_a_cache_has_its_axis_of_rows_and_inside_it_is_as_zeros_makes_it(
    layout, batch, kv_heads
):
    cache, plain = filled(np.random.default_rng(3), layout, batch, kv_heads)
    outside = cache.with_row_axis()
    assert {x.shape[0] for x in (*outside.keys, *outside.values)} == {batch}
    assert_holds(outside, plain)
    inside = outside.without_row_axis()
    assert jax.tree.structure(inside) == jax.tree.structure(cache)
    assert [x.shape for x in inside.keys] == [x.shape for x in cache.keys]
    assert_holds(inside, plain)


@every_shape
def test_writes_to_columns_of_s_or_more_and_to_rows_of_b_or_more_are_dropped(layout, batch, kv_heads):
    rng = np.random.default_rng(1)
    cache, plain = filled(rng, layout, batch, kv_heads)
    rows = np.array([0, batch - 1, 0, batch, batch + 1])
    columns = np.array([COLUMNS, COLUMNS + 5, 2, 3, COLUMNS])
    pair = random_pair(rng, shape_config(kv_heads), len(rows))
    cache, before = write(cache, 1, *pair, rows, columns), cache
    plain.write(1, *pair, rows, columns)
    assert_holds(cache, plain)
    np.testing.assert_array_equal(as_plain(cache, 1)[0][0, 2], pair[0][2])
    assert not np.array_equal(as_plain(before, 1)[0], as_plain(cache, 1)[0])  # and `before` is as it was


@every_shape
def test_prefix_is_written_to_the_first_columns_of_one_layer(layout, batch, kv_heads):
    rng = np.random.default_rng(2)
    cache, plain = filled(rng, layout, batch, kv_heads)
    keys, values = random_pair(rng, shape_config(kv_heads), batch, 4)
    cache = jax.jit(KVCache.write_prefix, static_argnums=1)(cache, 1, keys, values)
    plain.keys[1][:, :4], plain.values[1][:, :4] = keys, values
    assert_holds(cache, plain)


@every_shape
def test_move_copies_a_column_in_every_layer_as_if_all_moves_were_at_once(layout, batch, kv_heads):
    cache, plain = filled(np.random.default_rng(3), layout, batch, kv_heads)
    rows = np.tile(np.arange(batch)[:, None], (1, 3))
    source, target = np.array([[1, 4, 6]] * batch), np.array([[4, 1, COLUMNS]] * batch)  # a swap, and a drop
    cache = move(cache, rows, source, target)
    plain.move(rows, source, target)
    assert_holds(cache, plain)


@every_shape
def test_any_sequence_of_writes_and_moves_is_that_of_plain_arrays(layout, batch, kv_heads):
    rng = np.random.default_rng(5)
    config = shape_config(kv_heads)
    cache, plain = filled(rng, layout, batch, kv_heads)
    for step in range(6):
        # distinct columns a row: two tokens must not share a place
        columns = np.stack([rng.permutation(COLUMNS + 2)[:3] for _ in range(batch)])
        rows = np.tile(np.arange(batch)[:, None], (1, 3))
        layer = step % config.num_layers
        pair = random_pair(rng, config, batch, 3)
        cache = write(cache, layer, *pair, rows, columns)
        plain.write(layer, *pair, rows, columns)
        source = rng.integers(0, COLUMNS, (batch, 3))
        cache = move(cache, rows, source, columns)
        plain.move(rows, source, columns)
    assert_holds(cache, plain)


def test_what_is_written_takes_the_dtype_of_the_cache():
    cache = KVCache.zeros(shape_config(2), 3, COLUMNS, jnp.bfloat16, "BKHS")
    keys = np.full((3, 2, 4), 1 + 2**-10, np.float32)
    written = cache.write(0, keys, keys, np.arange(3), np.arange(3))
    assert written.keys[0].dtype == written.values[0].dtype == jnp.bfloat16
    assert as_plain(written, 0)[0][2, 2, 0, 0] == 1


def plain_attention(queries, keys, values, mask) -> np.ndarray:
    """softmax(q k / sqrt(H)) v in float64; [B, T, N, H], twice [B, S, K, H], [B, T, S] -> [B, T, N, H]."""
    queries, keys, values = (np.asarray(x, np.float64) for x in (queries, keys, values))
    groups = queries.shape[2] // keys.shape[2]
    keys, values = (np.repeat(x, groups, axis=2) for x in (keys, values))
    scores = np.einsum("btnh,bsnh->bnts", queries, keys) / np.sqrt(queries.shape[-1])
    scores = np.where(np.asarray(mask)[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bnts,bsnh->btnh", weights / weights.sum(-1, keepdims=True), values)


@every_shape
def test_attention_to_the_cache_is_the_softmax_under_the_mask(layout, batch, kv_heads):
    rng = np.random.default_rng(6)
    cache, plain = filled(rng, layout, batch, kv_heads)
    queries = rng.standard_normal((batch, 3, 2 * kv_heads, 4)).astype(np.float32)
    mask = rng.random((batch, 3, COLUMNS)) < 0.5
    mask[..., 0] |= ~mask.any(-1)
    attended = jax.jit(attend_to_cache, static_argnums=2)(queries, cache, 1, mask)
    assert_close(attended, plain_attention(queries, plain.keys[1], plain.values[1], mask))


@pytest.mark.parametrize("layout", ["BKHS", "BSKH"])
def test_token_that_sees_nothing_gets_a_finite_result(layout):
    rng = np.random.default_rng(7)
    cache, _ = filled(rng, layout, 3, 2)
    queries = jnp.asarray(rng.standard_normal((3, 2, 4, 4)), jnp.float32)
    assert np.isfinite(attend_to_cache(queries, cache, 0, jnp.zeros((3, 2, COLUMNS), bool))).all()


@pytest.mark.parametrize("length", [8, 11])
@pytest.mark.parametrize("packed", [False, True])
def test_causal_attention_in_blocks_is_that_of_the_whole(monkeypatch, length, packed):
    rng = np.random.default_rng(8)
    queries = jnp.asarray(rng.standard_normal((2, length, 4, 8)), jnp.float32)
    keys, values = (jnp.asarray(rng.standard_normal((2, length, 2, 8)), jnp.float32) for _ in range(2))
    segments = np.sort(rng.integers(1, 4, (2, length)), axis=1) if packed else np.ones((2, length), int)
    attend = CausalAttention(jnp.asarray(segments) if packed else None)

    def run():  # jitted anew: the size of a block is read when the program is traced
        return jax.jit(lambda *operands: attend(0, *operands, None)[0])(queries, keys, values)

    whole = run()
    monkeypatch.setattr(attention, "BLOCK", {"cpu": 4})
    in_blocks = run()

    mask = np.tri(length, dtype=bool) & (segments[:, :, None] == segments[:, None, :])
    assert_close(whole, plain_attention(queries, keys, values, mask))
    assert_close(in_blocks, whole, 1e-6)


def test_packed_sequences_are_as_if_each_were_alone():
    policy = tiny_policy("qwen3")
    first, second = random_tokens(policy.config, 2, 5)
    packed = jnp.asarray(np.concatenate([first, second[:3]])[None])
    together = run_full(
        policy.params["model"],
        packed,
        config=policy.config,
        segment_ids=jnp.asarray([[1] * 5 + [2] * 3]),
        positions=jnp.asarray([[*range(5), *range(3)]]),
    )
    assert_close(together[0, :5], alone(policy, first))
    assert_close(together[0, 5:], alone(policy, second[:3]))


LENGTHS = np.array([3, 6, 1])
PROMPT = 6


def prefill_rows(policy, layout, padding: int, columns: int = 10):
    """Prompts of LENGTHS tokens, with `padding` as the id of what is no token."""
    tokens = random_tokens(policy.config, 3, PROMPT)
    tokens = np.where(np.arange(PROMPT) < LENGTHS[:, None], tokens, padding)
    cache = KVCache.zeros(policy.config, 3, columns, jnp.float32, layout)
    hidden, cache = run_prefill(
        policy.params["model"], jnp.asarray(tokens), jnp.asarray(LENGTHS), cache, config=policy.config
    )
    return tokens, hidden, cache


def alone(policy, tokens) -> np.ndarray:
    """[L, D] hidden states of one sequence in a pass of its own, without a cache."""
    padded = np.zeros((1, 16), np.int32)  # one program for all lengths
    padded[0, : len(tokens)] = tokens
    return np.asarray(run_full(policy.params["model"], padded, config=policy.config))[0, : len(tokens)]


@pytest.mark.parametrize("layout", ["BKHS", "BSKH"])
def test_prefill_and_steps_give_what_each_row_gives_alone(layout):
    policy = tiny_policy("qwen3")
    tokens, hidden, cache = prefill_rows(policy, layout, padding=0)
    rows = [list(tokens[i, :n]) for i, n in enumerate(LENGTHS)]
    assert_close(hidden, np.stack([alone(policy, row)[-1] for row in rows]))
    for step in range(3):
        new = random_tokens(policy.config, 1, 3, seed=10 + step)[0]
        hidden, cache = run_step(
            policy.params["model"], jnp.asarray(new), jnp.asarray(LENGTHS + step), cache, config=policy.config
        )
        rows = [[*row, token] for row, token in zip(rows, new, strict=True)]
        assert_close(hidden, np.stack([alone(policy, row)[-1] for row in rows]))


@pytest.mark.parametrize("layout", ["BKHS", "BSKH"])
def test_padding_of_a_prompt_is_never_seen(layout):
    policy = tiny_policy("qwen3")
    new = jnp.asarray(random_tokens(policy.config, 1, 3, seed=10)[0])
    results = []
    for padding in (0, 41):
        _, hidden, cache = prefill_rows(policy, layout, padding)
        stepped, _ = run_step(policy.params["model"], new, jnp.asarray(LENGTHS), cache, config=policy.config)
        results.append((np.asarray(hidden), np.asarray(stepped), as_plain(cache, 1)[0]))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert not np.array_equal(results[0][2], results[1][2])  # the padding did write its columns


def candidate_mask(columns: int, span: int, candidates: int) -> np.ndarray:
    """[B, T, S]: LENGTHS tokens, then `span` causal tokens, then candidates that do not see each other."""
    mask = np.zeros((3, span + candidates, columns), bool)
    for row, length in enumerate(LENGTHS):
        for i in range(span + candidates):
            mask[row, i, : length + min(i + 1, span)] = True
            mask[row, i, length + i] = True
    return mask


@pytest.mark.parametrize("layout", ["BKHS", "BSKH"])
def test_candidates_under_a_tree_mask_do_not_see_each_other(layout):
    policy = tiny_policy("qwen3")
    tokens, _, cache = prefill_rows(policy, layout, padding=0)
    new = random_tokens(policy.config, 3, 4, seed=11)  # two tokens of a span, then two candidates
    columns = LENGTHS[:, None] + np.arange(4)
    positions = LENGTHS[:, None] + np.array([0, 1, 2, 2])
    hidden, cache = run_block(
        policy.params["model"],
        *(jnp.asarray(x) for x in (new, positions, columns, candidate_mask(10, 2, 2))),
        cache,
        config=policy.config,
    )
    for row, length in enumerate(LENGTHS):
        span = [*tokens[row, :length], *new[row, :2]]
        expected = [*alone(policy, span)[-2:], *(alone(policy, [*span, a])[-1] for a in new[row, 2:])]
        assert_close(hidden[row], np.stack(expected))

    # The second candidate is taken: its column moves to its place, and the next token sees it there.
    rows = jnp.arange(3)
    cache = cache.move(rows, jnp.asarray(LENGTHS + 3), jnp.asarray(LENGTHS + 2))
    after = jnp.full(3, 7)
    stepped, _ = run_step(
        policy.params["model"], after, jnp.asarray(LENGTHS + 3), cache, config=policy.config
    )
    for row, length in enumerate(LENGTHS):
        reply = [*tokens[row, :length], *new[row, :2], new[row, 3], 7]
        assert_close(stepped[row], alone(policy, reply)[-1])


@pytest.mark.parametrize("layout", ["BKHS", "BSKH"])
def test_flat_axis_of_ragged_rows_gives_what_padded_blocks_give(layout):
    policy = tiny_policy("qwen3")
    _, _, cache = prefill_rows(policy, layout, padding=0)
    brought = np.array([2, 1, 3])  # tokens that each row brings
    new = random_tokens(policy.config, 3, 3, seed=12)
    slots = np.tile(np.arange(3), (3, 1))
    columns = LENGTHS[:, None] + slots
    mask = np.arange(10) <= columns[:, :, None]
    padded_columns = np.where(slots < brought[:, None], columns, 10)
    block, block_cache = run_block(
        policy.params["model"],
        *(jnp.asarray(x) for x in (new, columns, padded_columns, mask)),
        cache,
        config=policy.config,
    )

    order = [(2, 0), (0, 0), (0, 1), (2, 1), (1, 0), (2, 2)]  # any order, with two empty places
    rows = np.array([row for row, _ in order] + [3, 3])
    flat_slots = np.array([slot for _, slot in order] + [0, 0])
    index = (np.minimum(rows, 2), flat_slots)
    attend = FlatAttention(*(jnp.asarray(x) for x in (rows, flat_slots, columns[index], mask)))
    flat, flat_cache = run_forward(
        policy.params["model"],
        jnp.asarray(new[index]),
        jnp.asarray(columns[index]),
        cache,
        attend,
        config=policy.config,
    )
    for place, (row, slot) in enumerate(order):
        assert_close(flat[place], block[row, slot])
    for layer in range(policy.config.num_layers):
        for actual, expected in zip(as_plain(flat_cache, layer), as_plain(block_cache, layer), strict=True):
            assert_close(actual, expected)


def test_empty_places_of_a_flat_axis_write_nothing():
    config = shape_config(2)
    rng = np.random.default_rng(9)
    cache, plain = filled(rng, "BKHS", 1, 2)
    pair = random_pair(rng, config, 4)
    queries = jnp.asarray(rng.standard_normal((4, 4, 4)), jnp.float32)
    attend = FlatAttention(
        rows=jnp.full(4, 1),
        slots=jnp.zeros(4, int),
        columns=jnp.arange(4),
        mask=jnp.ones((1, 2, COLUMNS), bool),
    )
    attended, cache = attend(0, queries, *(jnp.asarray(x) for x in pair), cache)
    assert_holds(cache, plain)
    assert not np.asarray(attended).any()


def test_cached_block_drops_tokens_whose_column_is_s_or_more():
    rng = np.random.default_rng(10)
    cache, plain = filled(rng, "BSKH", 3, 2)
    pair = random_pair(rng, shape_config(2), 3, 2)
    columns = np.array([[2, COLUMNS], [COLUMNS + 1, 0], [1, 3]])
    queries = jnp.asarray(rng.standard_normal((3, 2, 4, 4)), jnp.float32)
    attend = CachedAttention(jnp.asarray(columns), jnp.ones((3, 2, COLUMNS), bool))
    _, cache = attend(0, queries, *(jnp.asarray(x) for x in pair), cache)
    plain.write(0, *pair, np.tile(np.arange(3)[:, None], (1, 2)), columns)
    assert_holds(cache, plain)


def test_buckets_are_few_and_hold_little_padding():
    buckets = [bucket_length(length) for length in range(1, 4097)]
    assert all(bucket >= length for length, bucket in enumerate(buckets, start=1))
    assert buckets == sorted(buckets)
    assert buckets[15] == 16
    assert all(2 * bucket <= 3 * length for length, bucket in enumerate(buckets, start=1) if length > 16)
    assert len(set(buckets)) <= 17
    assert all(bucket_length(bucket) == bucket for bucket in set(buckets))
