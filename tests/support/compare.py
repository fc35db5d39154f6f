"""Our networks on the inputs of a case, beside what transformers and peft computed; without torch.

Every function returns pairs (ours, theirs) by the name of the path that was run, so that a test may ask for
relative errors, or in bfloat16 for absolute ones. `arrays` is what `tests.support.reference` makes, or the
expected.npz of a golden case.
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sia_jax
from sia_jax.models import passes
from sia_jax.models.attention import FlatAttention
from sia_jax.models.cache import KVCache, Layout
from sia_jax.models.config import ModelConfig
from sia_jax.models.heads import lm_head, value_head
from sia_jax.models.lora import Adapter
from sia_jax.models.transformer import forward
from sia_jax.types import Params

TOLERANCE = 1e-4
"""Largest relative error in float32."""

GOLDEN = Path(__file__).parents[1] / "golden"

Arrays = Mapping[str, np.ndarray]
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]
Run = tuple[Layout, tuple[int, ...]]
"""(layout of the cache, rows of the case that make up the batch)."""

RUNS: dict[str, Run] = {
    f"{layout}, batch {len(rows)}": (layout, rows)
    for layout in ("BKHS", "BSKH")
    for rows in ((0, 1, 2), (0,))
}
"""Both layouts, with three rows and with one."""


@dataclass(frozen=True)
class Network:
    """A policy or a value model: what it offers for whole batches, and its parts for the passes beneath."""

    outputs: Callable[[Any, Any], jax.Array]
    model: Params
    config: ModelConfig
    head: Callable[[jax.Array], jax.Array]
    adapter: Adapter | None = None


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """max |ours - theirs| / max |theirs|; NaN if there is one, which no comparison passes."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def relative_errors(pairs: Pairs) -> dict[str, float]:
    """`relative_error` by name."""
    return {name: relative_error(*pair) for name, pair in pairs.items()}


def load_arrays(case: str) -> dict[str, np.ndarray]:
    """expected.npz of a golden case."""
    with np.load(GOLDEN / case / "expected.npz") as stored:
        return dict(stored)


def base_of(value_folder: Path) -> Path:
    """The folder of an official value model's base: the path that it records, or else that sibling."""
    recorded = json.loads((value_folder / "model_config.json").read_text())["base_model_path"]
    return value_folder.parent / recorded


def network_of(loaded: sia_jax.Policy | sia_jax.ValueModel) -> Network:
    """A policy with its lm_head, or a value model, merged or over a policy, with its head."""
    if isinstance(loaded, sia_jax.Policy):
        head = functools.partial(lm_head, loaded.params)
        return Network(loaded.logits, loaded.params["model"], loaded.config, head)
    head = functools.partial(value_head, loaded.params["value_head"])
    backbone, lora = loaded.config.backbone, loaded.config.lora
    if loaded.base is None:
        return Network(loaded.values, loaded.params["model"], backbone, head)
    return Network(loaded.values, loaded.base, backbone, head, Adapter(loaded.params["lora"], lora))


def reward_pairs(reward: sia_jax.RewardModel, arrays: Arrays) -> Pairs:
    """Scores of the ragged batch."""
    return {"score": (np.asarray(reward.score(arrays["tokens"], arrays["lengths"])), arrays["scores"])}


def full_pairs(network: Network, arrays: Arrays, runs: Mapping[str, Run] = RUNS) -> Pairs:
    """`Policy.logits` or `ValueModel.values` of ragged batches."""
    pairs = {}
    for rows in dict.fromkeys(rows for _, rows in runs.values()):
        padded = network.outputs(arrays["tokens"][list(rows)], arrays["lengths"][list(rows)])
        ours = _ragged(np.asarray(padded), arrays["lengths"][list(rows)])
        pairs[f"full, batch {len(rows)}"] = ours, _expected(arrays, "rows", rows)
    return pairs


def decode_pairs(network: Network, arrays: Arrays, runs: Mapping[str, Run] = RUNS) -> Pairs:
    """Prefill of ragged contexts, then token by token, each row at its own position."""
    return {
        f"decode, {label}": (
            _heads(network, _decode(network, arrays, list(rows), layout)),
            _expected_decode(arrays, rows),
        )
        for label, (layout, rows) in runs.items()
    }


def block_pairs(
    network: Network,
    arrays: Arrays,
    runs: Mapping[str, Run] = RUNS,
    forms: Iterable[str] = ("padded", "flat"),
) -> Pairs:
    """Prefill, then a block under its tree mask: padded and flat, next to the context and far from it."""
    passes = {"padded": _decode_block, "flat": _decode_flat}
    pairs = {}
    for label, (layout, rows) in runs.items():
        for name in ("block", "far"):
            for form in forms:
                hidden = passes[form](network, arrays, list(rows), layout, arrays[f"{name}_positions"])
                pairs[f"{name}, {form}, {label}"] = _heads(network, hidden), _expected(arrays, name, rows)
    return pairs


def packed_pairs(network: Network, arrays: Arrays) -> Pairs:
    """All rows behind one another as segments of one row."""
    lengths = arrays["lengths"]
    hidden = _packed_pass(
        network.model,
        network.adapter,
        np.concatenate([row[:n] for row, n in zip(arrays["tokens"], lengths, strict=True)])[None],
        np.repeat(np.arange(len(lengths)) + 1, lengths)[None],
        np.concatenate([np.arange(n) for n in lengths])[None],
        config=network.config,
    )
    return {"packed": (_heads(network, np.asarray(hidden)[0]), arrays["rows"])}


def _decode(network: Network, arrays: Arrays, rows: list[int], layout: Layout) -> np.ndarray:
    """Hidden states from every row's last context token on, token by token; rows that have ended idle on."""
    tokens, lengths, contexts = (arrays[name][rows] for name in ("tokens", "lengths", "context_lengths"))
    hidden, cache = _prefill_rows(network, arrays, rows, layout)
    steps = [hidden]
    for step in range(int((lengths - contexts).max())):
        at = contexts + step
        new = tokens[np.arange(len(rows)), np.minimum(at, tokens.shape[1] - 1)]
        hidden, cache = _step(network.model, network.adapter, new, at, cache, config=network.config)
        steps.append(hidden)
    return _ragged(np.stack([np.asarray(hidden) for hidden in steps], axis=1), lengths - contexts + 1)


def _decode_block(
    network: Network, arrays: Arrays, rows: list[int], layout: Layout, positions: np.ndarray
) -> np.ndarray:
    """Hidden states of the rows' blocks, as one padded block whose padding is written nowhere."""
    block = _Block(arrays, rows)
    _, cache = _prefill_rows(network, arrays, rows, layout)
    columns, mask = block.place(cache.columns)
    hidden, _ = _block_pass(
        network.model,
        network.adapter,
        arrays["block_tokens"][rows],
        positions[rows],
        columns,
        mask,
        cache,
        config=network.config,
    )
    return _ragged(np.asarray(hidden), block.lengths)


def _decode_flat(
    network: Network, arrays: Arrays, rows: list[int], layout: Layout, positions: np.ndarray
) -> np.ndarray:
    """Hidden states of the rows' blocks, on a flat axis in a mixed order with two places empty."""
    block = _Block(arrays, rows)
    _, cache = _prefill_rows(network, arrays, rows, layout)
    columns, mask = block.place(cache.columns)
    row, slot, order = block.flatten()
    hidden = _flat_pass(
        network.model,
        network.adapter,
        arrays["block_tokens"][rows][row % len(rows), slot],
        positions[rows][row % len(rows), slot],
        row,
        slot,
        columns[row % len(rows), slot],
        mask,
        cache,
        config=network.config,
    )
    return np.asarray(hidden)[order]


def half_adapted_pairs(network: Network, arrays: Arrays, layout: Layout = "BKHS") -> Pairs:
    """Every row twice in one flat pass, with the adapter and without: it must act on its own tokens alone."""
    assert network.adapter is not None
    rows = [*range(len(arrays["tokens"]))] * 2
    count = len(rows)
    adapted = np.arange(count) < count // 2
    block = _Block(arrays, rows)
    prompts = np.broadcast_to(adapted[:, None], (count, _prompt_width(arrays)))
    half_adapted = replace(network, adapter=_acting_on(network.adapter, prompts))
    _, cache = _prefill_rows(half_adapted, arrays, rows, layout)
    columns, mask = block.place(cache.columns)
    row, slot, order = block.flatten()
    hidden = _flat_pass(
        network.model,
        _acting_on(network.adapter, adapted[row % count]),
        arrays["block_tokens"][rows][row % count, slot],
        arrays["block_positions"][rows][row % count, slot],
        row,
        slot,
        columns[row % count, slot],
        mask,
        cache,
        config=network.config,
    )
    with_adapter, without = np.split(np.asarray(hidden)[order], 2)
    return {
        "half adapted, with": (_heads(network, with_adapter), arrays["block"]),
        "half adapted, without": (_heads(network, without), arrays["base_block"]),
    }


class _Block:
    """Where the tokens of the rows' blocks go, and what they see."""

    def __init__(self, arrays: Arrays, rows: list[int]):
        self.lengths = arrays["block_lengths"][rows]
        self.contexts = arrays["context_lengths"][rows]
        self.tree = arrays["block_mask"][rows]
        self.rows, self.places = self.tree.shape[:2]

    def place(self, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Columns [B, T], from the end of the cache down so that none is its token's position; the mask."""
        slots = np.arange(self.places)
        places = np.where(slots < self.lengths[:, None], columns - 1 - slots, columns)
        mask = np.zeros((self.rows, self.places, columns), bool)
        mask |= np.arange(columns) < self.contexts[:, None, None]
        mask[:, :, columns - 1 - slots] = self.tree
        return places.astype(np.int32), mask

    def flatten(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row and slot of every place of a shuffled flat axis, and the places of the tokens in row order."""
        tokens = [(row, slot) for row, length in enumerate(self.lengths) for slot in range(length)]
        places = [*tokens, (self.rows, 0), (self.rows, 0)]
        shuffle = np.random.default_rng(0).permutation(len(places))
        row, slot = np.array(places, np.int32)[shuffle].T
        return row, slot, np.argsort(shuffle)[: len(tokens)]


def _prefill_rows(
    network: Network, arrays: Arrays, rows: list[int], layout: Layout
) -> tuple[jax.Array, KVCache]:
    """The rows' contexts in a cache that has room for what follows. What stands in the padding is any id."""
    contexts = arrays["context_lengths"][rows]
    width = _prompt_width(arrays)
    spare = max(arrays["block_tokens"].shape[1], int((arrays["lengths"] - arrays["context_lengths"]).max()))
    tokens = np.full((len(rows), width), network.config.vocab_size - 1, np.int32)
    for i, (row, length) in enumerate(zip(rows, contexts, strict=True)):
        tokens[i, :length] = arrays["tokens"][row, :length]
    return _prefill(
        network.model,
        network.adapter,
        tokens,
        contexts,
        config=network.config,
        columns=width + spare,
        layout=layout,
    )


def _prompt_width(arrays: Arrays) -> int:
    return passes.bucket_length(int(arrays["context_lengths"].max()))


@functools.partial(jax.jit, static_argnames=("config", "columns", "layout"))
def _prefill(model, adapter, tokens, lengths, *, config, columns, layout):
    dtype = model["embed_tokens"]["weight"].dtype
    cache = KVCache.zeros(config, tokens.shape[0], columns, dtype, layout)
    return passes.prefill(model, tokens, lengths, cache, config=config, adapter=adapter)


@functools.partial(jax.jit, static_argnames="config")
def _step(model, adapter, tokens, lengths, cache, *, config):
    return passes.decode_step(model, tokens, lengths, cache, config=config, adapter=adapter)


@functools.partial(jax.jit, static_argnames="config")
def _block_pass(model, adapter, tokens, positions, columns, mask, cache, *, config):
    return passes.decode_block(model, tokens, positions, columns, mask, cache, config=config, adapter=adapter)


@functools.partial(jax.jit, static_argnames="config")
def _flat_pass(model, adapter, tokens, positions, rows, slots, columns, mask, cache, *, config):
    attend = FlatAttention(rows, slots, columns, mask)
    return forward(model, tokens, positions, cache, attend, config=config, adapter=adapter)[0]


@functools.partial(jax.jit, static_argnames="config")
def _packed_pass(model, adapter, tokens, segment_ids, positions, *, config):
    return passes.hidden_states(
        model, tokens, config=config, adapter=adapter, segment_ids=segment_ids, positions=positions
    )


def _heads(network: Network, hidden: np.ndarray) -> np.ndarray:
    return np.asarray(network.head(jnp.asarray(hidden)))


def _acting_on(adapter: Adapter, tokens: np.ndarray) -> Adapter:
    return Adapter(adapter.params, adapter.config, jnp.asarray(tokens))


def _ragged(padded: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[B, L, ...] -> [sum of lengths, ...]."""
    return np.concatenate([row[:length] for row, length in zip(padded, lengths, strict=True)])


def _expected(arrays: Arrays, name: str, rows: Iterable[int]) -> np.ndarray:
    """The rows' part of "rows", "block" or "far"."""
    parts = _split(arrays, name)
    return np.concatenate([parts[row] for row in rows])


def _expected_decode(arrays: Arrays, rows: Iterable[int]) -> np.ndarray:
    """Of "rows", what comes from each row's last context token on."""
    parts = _split(arrays, "rows")
    return np.concatenate([parts[row][arrays["context_lengths"][row] - 1 :] for row in rows])


def _split(arrays: Arrays, name: str) -> list[np.ndarray]:
    lengths = arrays["lengths" if name == "rows" else "block_lengths"]
    return np.split(arrays[name], np.cumsum(lengths)[:-1])
