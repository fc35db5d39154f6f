"""The key/value cache: one pair of arrays a layer, written at any row and column, then attended to.

A *column* is a place in a row of the cache; it need not be the token's position. Rows are ragged: what a
row may see is decided by the mask of the pass that reads, never by the cache, so a column that is not yet
filled, or is filled with a rejected candidate, costs nothing but its place.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sia_jax.models.config import ModelConfig
from sia_jax.parallel.rows import split_heads

Layout = Literal["BKHS", "BSKH"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer.

    Two layouts. "BKHS" is two plain batched products: keys [B, K, H, S] and values [B, K, S, H]. "BSKH", both
    [B, S, K, H], is the order in which fused attention kernels take them. Under "BKHS", `zeros` leaves axes B
    and K of size one out of the arrays: XLA strips them from the operands of a product, and what it has
    stripped it can no longer update in place, so that a loop at batch 1 would copy every layer's cache twice
    a step.
    """

    keys: tuple[Array, ...]  # per layer, see above
    values: tuple[Array, ...]
    layout: Layout = field(metadata={"static": True})
    without_rows: bool = field(metadata={"static": True})  # axis B is left out, and is one
    without_heads: bool = field(metadata={"static": True})  # axis K is left out, and is one

    @staticmethod
    def zeros(
        config: ModelConfig, batch: int, columns: int, dtype: Any, layout: Layout | None = None
    ) -> "KVCache":
        """An empty cache of `columns` columns a row; the layout defaults to the backend's."""
        layout = layout or default_layout()
        b, k, h, s = batch, config.num_kv_heads, config.head_dim, columns
        without_rows, without_heads = (layout == "BKHS" and size == 1 for size in (b, k))
        if layout == "BKHS":
            lead = (() if without_rows else (b,)) + (() if without_heads else (k,))
            key_shape, value_shape = (*lead, h, s), (*lead, s, h)
        else:
            key_shape = value_shape = (b, s, k, h)
        return KVCache(
            keys=tuple(jnp.zeros(key_shape, dtype) for _ in range(config.num_layers)),
            values=tuple(jnp.zeros(value_shape, dtype) for _ in range(config.num_layers)),
            layout=layout,
            without_rows=without_rows,
            without_heads=without_heads,
        )

    @property
    def batch(self) -> int:
        """B, the rows; under `shard_map` those of the shard."""
        return 1 if self.without_rows else self.keys[0].shape[0]

    @property
    def kv_heads(self) -> int:
        """K, the key/value heads."""
        axis = self.heads_axis
        return 1 if axis is None else self.keys[0].shape[axis]

    @property
    def heads_axis(self) -> int | None:
        """Where axis K is in the arrays; None where it is left out."""
        if self.layout == "BSKH":
            return 2
        return None if self.without_heads else 0 if self.without_rows else 1

    @property
    def columns(self) -> int:
        """S, the places of a row."""
        return self.keys[0].shape[-1 if self.layout == "BKHS" else 1]

    def write(
        self,
        layer: int,
        keys: Float[Array, "*lead K H"],
        values: Float[Array, "*lead K H"],
        rows: Int[Array, "*lead"],
        columns: Int[Array, "*lead"],
    ) -> "KVCache":
        """Put each token's key and value at (row, column); one outside 0 .. B-1 or 0 .. S-1 drops the token.

        One scatter a layer, which XLA does in place inside a loop. Two tokens must not share a place.
        """
        return self._replace(
            layer,
            _scatter(self.keys[layer], keys, rows, columns, self, column_last=self.layout == "BKHS"),
            _scatter(self.values[layer], values, rows, columns, self, column_last=False),
        )

    def split_over_tensor(self) -> "KVCache":
        """The same with the heads split over "tensor", where rows are split over the rest of a mesh."""
        if self.without_heads:
            return self
        axis = -2 if self.layout == "BSKH" else -3
        return replace(
            self,
            keys=tuple(split_heads(x, axis) for x in self.keys),
            values=tuple(split_heads(x, axis) for x in self.values),
        )

    def write_prefix(
        self, layer: int, keys: Float[Array, "B T K H"], values: Float[Array, "B T K H"]
    ) -> "KVCache":
        """Put a whole block into columns [0, T) of every row: one slice update, for prefill."""
        length = keys.shape[1]
        if self.layout == "BKHS":
            lead = self.keys[layer].shape[:-2]
            block_keys = keys.transpose(0, 2, 3, 1).reshape(*lead, keys.shape[-1], length)
            block_values = values.transpose(0, 2, 1, 3).reshape(*lead, length, values.shape[-1])
            new_keys = self.keys[layer].at[..., :length].set(block_keys)
            new_values = self.values[layer].at[..., :length, :].set(block_values)
        else:
            new_keys = self.keys[layer].at[:, :length].set(keys)
            new_values = self.values[layer].at[:, :length].set(values)
        return self._replace(layer, new_keys, new_values)

    def write_rows(
        self,
        layer: int,
        keys: Float[Array, "N T K H"],
        values: Float[Array, "N T K H"],
        rows: Int[Array, " N"],
        *,
        clear: bool = False,
    ) -> "KVCache":
        """Put blocks into columns [0, T) of these rows; one outside 0 .. B-1 drops its block.

        The rest of their values is zero then: what a row has left may be NaN, and a column that nobody sees
        weighs 0, of which NaN makes NaN. (Scores of keys are taken out by the mask itself.)
        With `clear` the rest of the keys is zero too, for a kernel that adds its mask to the scores.
        """
        if self.layout == "BKHS":
            keys, values = keys.transpose(0, 2, 3, 1), values.transpose(0, 2, 1, 3)
        if self.without_heads:
            keys, values = keys[:, 0], values[:, 0]
        column_last = self.layout == "BKHS"
        if clear:
            keys = _up_to(keys, self.columns, -1 if column_last else 1)
        new_keys = _put_blocks(self.keys[layer], keys, rows, self, column_last)
        values = _up_to(values, self.columns, -2 if column_last else 1)
        new_values = _put_blocks(self.values[layer], values, rows, self, column_last=False)
        return self._replace(layer, new_keys, new_values)

    def beginnings(
        self, layer: int, rows: Int[Array, " N"], lengths: Int[Array, " N"], *, clear: bool = False
    ) -> "KVCache":
        """Copies of these rows of a layer, as a cache of one, whose values are zero from column `lengths` on.

        There a row may have left a NaN, see `write_rows`, and its `clear`. Of a row outside 0 .. B-1 comes
        some other's copy.
        """
        inside = jnp.clip(rows, 0, self.batch - 1)

        def taken(array: Array) -> Array:
            return jnp.broadcast_to(array, (len(rows), *array.shape)) if self.without_rows else array[inside]

        def held(array: Array, axis: int) -> Array:
            shape = [1] * array.ndim
            shape[0], shape[axis] = len(rows), self.columns
            return (jnp.arange(self.columns) < lengths[:, None]).reshape(shape)

        column_last = self.layout == "BKHS"
        values = taken(self.values[layer])
        of_values = held(values, -2 if column_last else 1)
        keys = taken(self.keys[layer])
        if clear:
            keys = jnp.where(held(keys, -1 if column_last else 1), keys, 0)
        return replace(self, keys=(keys,), values=(jnp.where(of_values, values, 0),), without_rows=False)

    def replace_rows(self, layer: int, one: "KVCache", rows: Int[Array, " N"]) -> "KVCache":
        """Put rows that `beginnings` took back in place of these; one outside 0 .. B-1 is dropped."""
        column_last = self.layout == "BKHS"
        return self._replace(
            layer,
            _put_blocks(self.keys[layer], one.keys[0], rows, self, column_last),
            _put_blocks(self.values[layer], one.values[0], rows, self, column_last=False),
        )

    def with_row_axis(self) -> "KVCache":
        """The same with axis B in its arrays, also where it is one."""
        if not self.without_rows:
            return self
        return replace(
            self,
            keys=tuple(x[None] for x in self.keys),
            values=tuple(x[None] for x in self.values),
            without_rows=False,
        )

    def without_row_axis(self) -> "KVCache":
        """The same as `zeros` makes it: without axis B in its arrays where that is one, under "BKHS"."""
        if self.layout != "BKHS" or self.batch != 1 or self.without_rows:
            return self
        return replace(
            self,
            keys=tuple(x[0] for x in self.keys),
            values=tuple(x[0] for x in self.values),
            without_rows=True,
        )

    def move(
        self, rows: Int[Array, "*lead"], source: Int[Array, "*lead"], target: Int[Array, "*lead"]
    ) -> "KVCache":
        """Copy column `source` of each row to column `target`, in every layer; a target outside: not."""
        cache = self
        for layer in range(len(self.keys)):
            keys = _gather(self.keys[layer], rows, source, self, column_last=self.layout == "BKHS")
            values = _gather(self.values[layer], rows, source, self, column_last=False)
            cache = cache.write(layer, keys, values, rows, target)
        return cache

    def layer(self, index: int) -> "KVCache":
        """A cache of one layer, that of this index."""
        return replace(self, keys=(self.keys[index],), values=(self.values[index],))

    def with_layer(self, index: int, one: "KVCache") -> "KVCache":
        """The same, but that layer `index` is the layer of `one`."""
        return self._replace(index, one.keys[0], one.values[0])

    def _replace(self, layer: int, keys: Array, values: Array) -> "KVCache":
        return replace(
            self,
            keys=(*self.keys[:layer], keys, *self.keys[layer + 1 :]),
            values=(*self.values[:layer], values, *self.values[layer + 1 :]),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CachePair:
    """The caches of two models over one set of weights, for a pass that holds tokens of both."""

    policy: KVCache
    value: KVCache

    def layer(self, index: int) -> "CachePair":
        """Caches of one layer each, that of this index."""
        return CachePair(self.policy.layer(index), self.value.layer(index))

    def with_layer(self, index: int, one: "CachePair") -> "CachePair":
        """The same, but that layer `index` of each is the layer of `one`."""
        return CachePair(self.policy.with_layer(index, one.policy), self.value.with_layer(index, one.value))


def default_layout() -> Layout:
    """ "BSKH" on a GPU; "BKHS" elsewhere, where it is the faster one."""
    return "BSKH" if jax.default_backend() == "gpu" else "BKHS"


def _scatter(
    array: Array, update: Array, rows: Array, columns: Array, cache: KVCache, column_last: bool
) -> Array:
    """array[row, :, ..., column] = update for tokens [*lead], whichever of the axes B and K are left out."""
    update = update.astype(array.dtype)
    if cache.layout == "BSKH":
        return array.at[rows, columns].set(update, mode="drop", wrap_negative_indices=False)
    if cache.without_heads:
        update = update[..., 0, :]
    before = (slice(None),) * (array.ndim - (1 if column_last else 2) - (not cache.without_rows))
    if not cache.without_rows:
        index = (rows, *before, columns)
    else:
        # Without a row index, indexing leaves the token axes where the column axis was, not in front.
        index = (*before, jnp.where(rows == 0, columns, cache.columns))
        update = jnp.moveaxis(update, range(columns.ndim), range(len(before), len(before) + columns.ndim))
    return array.at[index].set(update, mode="drop", wrap_negative_indices=False)


def _up_to(blocks: Array, columns: int, axis: int) -> Array:
    """Blocks of as many columns as a row has, the rest of them zero."""
    room = [(0, 0)] * blocks.ndim
    room[axis] = (0, columns - blocks.shape[axis])
    return jnp.pad(blocks, room)


def _put_blocks(array: Array, blocks: Array, rows: Array, cache: KVCache, column_last: bool) -> Array:
    """array[rows, ..., :T] = blocks, which are laid out as the array is; a row outside drops its block."""
    column_axis = 1 if cache.layout == "BSKH" else blocks.ndim - (1 if column_last else 2)
    prefix = (*[slice(None)] * (column_axis - 1), slice(0, blocks.shape[column_axis]))  # of a row
    blocks = blocks.astype(array.dtype)
    if not cache.without_rows:
        return array.at[(rows, *prefix)].set(blocks, mode="drop", wrap_negative_indices=False)
    ours = rows == 0  # the one row: a block that is for it goes over what is there
    return array.at[prefix].set(jnp.where(jnp.any(ours), blocks[jnp.argmax(ours)], array[prefix]))


def _gather(array: Array, rows: Array, columns: Array, cache: KVCache, column_last: bool) -> Array:
    """[*lead, K, H] of the tokens at (row, column); the mirror image of `_scatter`."""
    if cache.layout == "BSKH":
        return array[rows, columns]
    before = (slice(None),) * (array.ndim - (1 if column_last else 2) - (not cache.without_rows))
    if not cache.without_rows:
        taken = array[(rows, *before, columns)]
    else:
        taken = array[(*before, columns)]
        taken = jnp.moveaxis(taken, range(len(before), len(before) + columns.ndim), range(columns.ndim))
    return taken.reshape(*columns.shape, cache.kv_heads, -1)
