"""Attention: one function of queries, keys, values and a mask, and the ways a pass may use it.

The network hands every layer's new queries, keys and values to an `Attend`, which decides what is written
to the cache and what is seen. Everything else in the network works on tokens alone, so the same network
runs padded blocks [B, T], single steps [B, 1] and flat axes of token places [T].
"""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from sia_jax.models.block_attention import block_attention, find_first_blocks
from sia_jax.models.cache import CachePair, KVCache
from sia_jax.models.fused_attention import Kernel, fused_attention
from sia_jax.models.product import einsum_float32

BLOCK = {"cpu": 64}
"""`block_length` by platform; 512 elsewhere. Of 64 the scores stay in a CPU's caches, and packed rows are
least often computed where nothing is seen."""


@runtime_checkable
class Attend(Protocol):
    """How a pass attends: writes what it must to the cache, then attends. A pytree."""

    def __call__(
        self, layer: int, queries: Array, keys: Array, values: Array, cache: Any
    ) -> tuple[Array, Any]:
        """queries [..., N, H], keys and values [..., K, H] of the pass's tokens -> ([..., N, H], cache).

        `layer` is the layer's number in this cache, which may hold one layer alone; nothing else may depend
        on it, for what is traced of one layer is used of others. A cache that is no KVCache, but a pytree
        that this way of attending understands, is handed on whole.
        """
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CausalAttention:
    """A full pass without a cache: tokens [B, L] see themselves and what is before them in their segment."""

    segment_ids: Int[Array, "B L"] | None = None  # packed sequences from 1, 0: padding; None: one a row
    first: Int[Array, " I"] | None = None  # `find_first_blocks` of them; None: every layer finds them again
    block: int | None = field(default=None, metadata={"static": True})  # None: `block_length()`

    def __call__(
        self, layer: int, queries: Array, keys: Array, values: Array, cache: KVCache | None
    ) -> tuple[Array, KVCache | None]:
        """See `Attend`; the cache passes through untouched."""
        return _causal(queries, keys, values, self.segment_ids, self.first, self.block), cache


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PrefillAttention:
    """The first pass of a row: a block [B, T], written to columns [0, T), sees itself causally.

    Rows are padded on the right. Padding writes its columns too; nothing sees them before a real token
    overwrites them. With `branches`, the cache has so many rows for each of the block's, side by side. With
    `rows` the blocks go to these rows of the cache, and the others stay as they are.
    """

    rows: Int[Array, " B"] | None = None  # the cache's row of each block, outside: nowhere; None: in order
    branches: int = field(default=1, metadata={"static": True})
    block: int | None = field(default=None, metadata={"static": True})  # None: `block_length()`
    kernel: Kernel | None = field(default=None, metadata={"static": True})  # None: our own products

    def __call__(
        self, layer: int, queries: Array, keys: Array, values: Array, cache: KVCache | None
    ) -> tuple[Array, KVCache | None]:
        """See `Attend`."""
        assert cache is not None
        if self.kernel is None:
            attended = _causal(queries, keys, values, block=self.block)
        else:
            attended = fused_attention(queries, keys, values, self.kernel, causal=True)
        if self.branches > 1:
            keys, values = (jnp.repeat(x, self.branches, axis=0) for x in (keys, values))
        if self.rows is not None:
            return attended, cache.write_rows(layer, keys, values, self.rows, clear=self.kernel is not None)
        return attended, cache.write_prefix(layer, keys, values)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ExtendAttention:
    """More of rows that hold a beginning: a block [N, T] sees that of its row, and itself causally.

    Block i belongs to row `rows[i]` and comes after its first `starts[i]` columns, token t in column
    starts[i] + t; what does not fit is dropped. Of a row with 3 columns to keep, given 2 tokens and 1 of
    padding:

        token    a    b    padding
        column   3    4    5
        sees    0-3  0-4   0-5

    What the row had left behind its beginning is overwritten, or its values are zero. Rows are padded on the
    right, as in `PrefillAttention`, and other rows of the cache stay as they are.
    """

    rows: Int[Array, " N"]  # none twice; outside 0 .. B-1: nowhere
    starts: Int[Array, " N"]
    block: int | None = field(default=None, metadata={"static": True})  # None: `block_length()`
    kernel: Kernel | None = field(default=None, metadata={"static": True})  # None: our own products

    def __call__(
        self, layer: int, queries: Array, keys: Array, values: Array, cache: KVCache | None
    ) -> tuple[Array, KVCache | None]:
        """See `Attend`."""
        assert cache is not None
        count, length = queries.shape[:2]
        columns = self.starts[:, None] + jnp.arange(length)
        owners = jnp.broadcast_to(jnp.arange(count)[:, None], columns.shape)
        own = cache.beginnings(layer, self.rows, self.starts, clear=self.kernel is not None)
        own = own.write(0, keys, values, owners, columns)
        block = self.block or block_length()

        def attend(queries: Array, columns: Array) -> Array:
            mask = jnp.arange(own.columns) <= columns[..., None]
            return attend_to_cache(queries, own, 0, mask, kernel=self.kernel)

        def split(x: Array) -> Array:  # [N, T, ...] -> [I, N, block, ...]
            padded = jnp.pad(x, [(0, 0), (0, -length % block)] + [(0, 0)] * (x.ndim - 2))
            return padded.reshape(count, -1, block, *x.shape[2:]).swapaxes(0, 1)

        if length <= block:
            attended = attend(queries, columns)
        else:  # some queries at a time: the scores of all would be T rows of the cache's length, a head
            attended = jax.lax.map(lambda part: attend(*part), (split(queries), split(columns)))
            attended = attended.swapaxes(0, 1).reshape(count, -1, *queries.shape[2:])[:, :length]
        return attended, cache.replace_rows(layer, own, self.rows)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CachedAttention:
    """A later pass: a block [B, T] is written to its columns and sees the cache under any mask.

    With T = 1 and mask = columns up to the token's own, this is a decoding step; with a tree mask it is
    a span of tokens followed by candidates that do not see each other.
    """

    columns: Int[Array, "B T"]  # where each token is written; S or more: nowhere
    mask: Bool[Array, "B T S"]  # what each token sees, its own column included
    seen: Int[Array, " B"] | None = None  # of a mask of first columns: how many; a kernel takes them for it
    kernel: Kernel | None = field(default=None, metadata={"static": True})  # None: our own products

    def __call__(
        self, layer: int, queries: Array, keys: Array, values: Array, cache: KVCache | None
    ) -> tuple[Array, KVCache | None]:
        """See `Attend`. Written first: attending to [cache | block] makes XLA copy the cache."""
        assert cache is not None
        rows = jnp.broadcast_to(jnp.arange(cache.batch)[:, None], self.columns.shape)
        cache = cache.write(layer, keys, values, rows, self.columns)
        attended = attend_to_cache(queries, cache, layer, self.mask, seen=self.seen, kernel=self.kernel)
        return attended, cache


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FlatAttention:
    """A pass over a flat axis of token places [T]: only here do tokens belong to rows.

    Place i is token `slots[i]` of the block that row `rows[i]` brings; a place that is empty has rows[i] = B.
    Projections and MLP cost what the flat axis holds; the scores are padded to Q tokens in each of B rows.

    With `slot_rows` only J rows of the cache take part: `rows` and the mask's first axis then count these J.
    """

    rows: Int[Array, " T"]
    slots: Int[Array, " T"]
    columns: Int[Array, " T"]
    mask: Bool[Array, "B Q S"]  # by row and slot; Q = the most tokens that a row may bring
    slot_rows: Int[Array, " J"] | None = None  # the cache's row of each of the J; None: all B take part
    kernel: Kernel | None = field(default=None, metadata={"static": True})  # None: our own products

    def __call__(
        self, layer: int, queries: Array, keys: Array, values: Array, cache: KVCache | None
    ) -> tuple[Array, KVCache | None]:
        """See `Attend`."""
        assert cache is not None
        count = self.mask.shape[0]
        columns = jnp.where(self.rows < count, self.columns, cache.columns)
        owners = self.rows if self.slot_rows is None else self.slot_rows[jnp.minimum(self.rows, count - 1)]
        cache = cache.write(layer, keys, values, owners, columns)
        block_shape = (*self.mask.shape[:2], *queries.shape[1:])
        block = jnp.zeros(block_shape, queries.dtype)
        block = block.at[self.rows, self.slots].set(queries, mode="drop", wrap_negative_indices=False)
        attended = attend_to_cache(block, cache, layer, self.mask, self.slot_rows, kernel=self.kernel)
        places = attended.at[self.rows, self.slots]
        return places.get(mode="fill", fill_value=0, wrap_negative_indices=False), cache


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PairAttention:
    """A pass over tokens of two models, one after the other on a flat axis, each with a cache of its own.

        tokens    p p p p   q q q q q q   v v v v v v v v
        cache     policy    policy        value
                  [B]       [G]           [F]

    p: the next token of every row. q: candidates that the policy reads ahead; there may be none. v: spans and
    candidates of the value model.
    """

    policy: CachedAttention  # of B tokens, one a row
    ahead: FlatAttention | None
    value: FlatAttention

    def __call__(
        self, layer: int, queries: Array, keys: Array, values: Array, cache: CachePair
    ) -> tuple[Array, CachePair]:
        """See `Attend`."""
        rows = self.policy.columns.shape[0]
        ends = [rows, rows if self.ahead is None else rows + len(self.ahead.rows)]
        q, k, v = (jnp.split(x, ends) for x in (queries, keys, values))
        stepped, policy = self.policy(layer, q[0][:, None], k[0][:, None], v[0][:, None], cache.policy)
        found = [stepped[:, 0]]
        if self.ahead is not None:
            attended, policy = self.ahead(layer, q[1], k[1], v[1], policy)
            found.append(attended)
        attended, value = self.value(layer, q[2], k[2], v[2], cache.value)
        assert policy is not None
        assert value is not None
        return jnp.concatenate([*found, attended]), CachePair(policy, value)


def attend_to_cache(
    queries: Float[Array, "B T N H"],
    cache: KVCache,
    layer: int,
    mask: Bool[Array, "B T S"],
    rows: Int[Array, " B"] | None = None,
    *,
    seen: Int[Array, " B"] | None = None,
    kernel: Kernel | None = None,
) -> Float[Array, "B T N H"]:
    """softmax(q k / sqrt(H)) v over a layer of the cache, where `mask` allows; in the queries' dtype.

    `rows` are those of the cache that the queries belong to; None: all, in order. A `kernel` needs the layout
    "BSKH", and takes `seen`, the number of first columns that the mask is of, in the mask's place.
    """
    keys, values = cache.keys[layer], cache.values[layer]
    if rows is not None and not cache.without_rows:
        keys, values = keys[rows], values[rows]
    if kernel is not None:
        assert cache.layout == "BSKH"
        return fused_attention(queries, keys, values, kernel, seen=seen, mask=mask if seen is None else None)
    if cache.layout == "BSKH":
        return _attend(queries, keys, values, mask)
    b, t, n, h = queries.shape
    k = cache.kv_heads
    groups, lead = n // k, keys.shape[:-2]
    if t == 1:
        # One product a group, of a vector with each head's keys: XLA has no good kernel for a matrix of so
        # few rows, and read long caches at half the speed.
        each = queries.reshape(*lead, groups, h)
        parts = [_attend_vector(each[..., g, :], keys, values, mask, cache) for g in range(groups)]
        return jnp.stack(parts, axis=-2).reshape(queries.shape).astype(queries.dtype)
    grouped = queries.reshape(b, t, k, groups, h).swapaxes(1, 2).reshape(*lead, t * groups, h)
    scores = einsum_float32("...qh,...hs->...qs", grouped, keys).reshape(b, k, t, groups, -1)
    weights = _masked_softmax(scores, mask[:, None, :, None], h).astype(values.dtype)
    attended = einsum_float32("...qs,...sh->...qh", weights.reshape(*lead, t * groups, -1), values)
    return attended.reshape(b, k, t, groups, h).swapaxes(1, 2).reshape(b, t, n, h).astype(queries.dtype)


def _attend_vector(
    queries: Float[Array, "*lead H"], keys: Array, values: Array, mask: Bool[Array, "B 1 S"], cache: KVCache
) -> Float[Array, "*lead H"]:
    """Attention of one query a row and key head, over keys [*lead, H, S] and values [*lead, S, H]."""
    scores = einsum_float32("...h,...hs->...s", queries, keys) * queries.shape[-1] ** -0.5
    seen = mask.reshape(
        *(() if cache.without_rows else (-1,)), *(() if cache.without_heads else (1,)), mask.shape[-1]
    )
    scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    mixed = einsum_float32("...s,...sh->...h", weights.astype(values.dtype), values)
    return mixed / jnp.sum(weights, axis=-1, keepdims=True)


def _attend(
    queries: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    mask: Bool[Array, "#B T S"],
) -> Float[Array, "B T N H"]:
    """softmax(q k / sqrt(H)) v where `mask` allows."""
    b, t, n, h = queries.shape
    k = keys.shape[2]
    grouped = queries.reshape(b, t, k, n // k, h)
    scores = einsum_float32("btkgh,bskh->bkgts", grouped, keys)
    weights = _masked_softmax(scores, mask[:, None, None], h).astype(values.dtype)
    attended = einsum_float32("bkgts,bskh->btkgh", weights, values)
    return attended.reshape(queries.shape).astype(queries.dtype)


def block_length(mesh: Mesh | None = None) -> int:
    """Queries, and keys, of a block of a long pass, on the devices of a mesh; None: on JAX's own."""
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return BLOCK.get(platform, 512)


def _causal(
    queries: Float[Array, "B L N H"],
    keys: Float[Array, "B L K H"],
    values: Float[Array, "B L K H"],
    segment_ids: Int[Array, "B L"] | None = None,
    first: Int[Array, " I"] | None = None,
    block: int | None = None,
) -> Float[Array, "B L N H"]:
    """Causal attention of a block of tokens to itself: at once if it is short, else in smaller blocks."""
    length, block = queries.shape[1], block or block_length()
    if length > block:
        if segment_ids is not None and first is None:
            first = find_first_blocks(segment_ids, block)
        return block_attention(queries, keys, values, segment_ids, first, block)
    mask = jnp.tri(length, dtype=bool)[None]
    if segment_ids is not None:
        mask = mask & (segment_ids[:, :, None] == segment_ids[:, None, :])
    return _attend(queries, keys, values, mask)


def _masked_softmax(scores: Array, mask: Array, head_dim: int) -> Array:
    """float32 softmax of scores / sqrt(H) where the mask holds; a row without any is uniform, not NaN."""
    scaled = scores.astype(jnp.float32) * head_dim**-0.5
    return jax.nn.softmax(jnp.where(mask, scaled, jnp.finfo(jnp.float32).min), axis=-1)
