"""One value pass: the spans and candidates of the rows at a junction, on one flat axis of token places.

The value model does not run on unsteered tokens as they come. They are a row's *span*, and wait until the row
comes to a junction; then one pass reads [span | candidates], those of the C whose values decide. Span tokens
are causal, every candidate sees prefix, span and itself, and all candidates share one position. They lie in
the last C columns of the row's cache; the one that is chosen moves to its place, the others are overwritten
by the next.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.policy_pass import append, serve
from sia_jax.decoding.state import DecodeState
from sia_jax.models.attention import Attend, ExtendAttention, FlatAttention, PrefillAttention, block_length
from sia_jax.models.cache import KVCache
from sia_jax.models.transformer import forward
from sia_jax.models.value_model import ValueNet
from sia_jax.steering.arrays import pick, run_if


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layout:
    """Who brings what to a pass: J slots, and F places filled by them one after the other."""

    rows: Int[Array, " J"]  # the row of each slot
    spans: Int[Array, " J"]  # span tokens that the slot brings
    starts: Int[Array, " J"]  # its first place
    complete: Bool[Array, " J"]  # whether its candidates come too, so that the row will be served
    slot: Int[Array, " F"]  # the slot of each place; J: an empty place
    offset: Int[Array, " F"]  # which of its slot's tokens a place holds

    @property
    def last_places(self) -> Int[Array, " J"]:
        """The place of each slot's last span token; one before its first where it brings none."""
        return self.starts + self.spans - 1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ValueTokens:
    """What a value pass reads, on one flat axis of F places."""

    ids: Int[Array, " F"]
    positions: Int[Array, " F"]
    attend: FlatAttention


def value_pass(net: ValueNet, state: DecodeState, config: SamplerConfig) -> DecodeState:
    """Serve the rows that wait: plan, gather, one forward pass, settle.

    Args:
      net: the value model.
      state: some row waits, here or on other devices.
      config: resolved.
    """
    layout = plan(state, config)
    tokens = gather(state, layout, config)
    hidden, cache = forward(
        net.model,
        tokens.ids,
        tokens.positions,
        state.value_cache,
        tokens.attend,
        config=net.config.backbone,
        adapter=net.adapter,
    )
    return settle(net, hidden, cache, state, layout, config)[0]


def plan(state: DecodeState, config: SamplerConfig) -> Layout:
    """Give slots to the rows, the oldest junction first, and places to their tokens.

    A row is served if its span and candidates fit; a longer span brings what fits and the rest next time.
    Slots that nobody waits for catch up long spans of rows that have been served before.

        place   0  1  2  3  4  5  6  7  8  9 10 11     F = 12, J = 2
        slot    0  0  0  1  1  1  1  2  2  2  2  2     2: an empty place
        offset  0  1  2  0  1  2  3                    slot 0 brings 3 candidates, slot 1 a span of 2 and 2

    Args:
      state: who waits, since when, and how long the spans are.
      config: resolved.
    """
    assert config.slots is not None
    assert config.pass_tokens is not None
    assert config.row_tokens is not None
    waiting = state.waiting & state.alive
    # A vocabulary head speaks at the prefix's last token, which must come in the pass that serves the row.
    kept_back = jnp.where(waiting | config.reads_candidates, 0, 1)
    behind = state.value_totals - state.value_lengths - kept_back
    helps = state.alive & ~waiting & (state.readings > 0) & (behind > 0)
    order = jnp.lexsort((jnp.where(waiting, -state.waited, -behind), jnp.where(waiting, 0, ~helps + 1)))
    rows = order[: config.slots].astype(jnp.int32)

    span = jnp.where((waiting | helps)[rows], behind[rows], 0)
    candidates = jnp.where(waiting & config.reads_candidates, jnp.sum(state.pending.reads, axis=-1), 0)
    need = span + candidates[rows]
    fits = need <= config.row_tokens
    demand = jnp.where(fits, need, jnp.minimum(span, config.row_tokens))
    starts, slot, offset = places(demand, config.pass_tokens)
    inside = jnp.minimum(slot, config.slots - 1)
    whole = starts + demand <= config.pass_tokens
    taken = jnp.where(whole, demand, jnp.clip(config.pass_tokens - starts, 0, jnp.minimum(demand, span)))
    empty = (slot == config.slots) | (offset >= taken[inside])
    spans, complete = jnp.minimum(span, taken), waiting[rows] & fits & whole
    if config.slots == state.lengths.shape[0]:
        # Every row has a slot: let it be the row's own, and the cache is read where it lies.
        spans, starts, complete = (x.at[rows].set(x) for x in (spans, starts, complete))
        inside, rows = rows[inside], jnp.arange(config.slots)
    return Layout(rows, spans, starts, complete, jnp.where(empty, config.slots, inside), offset)


def places(
    demand: Int[Array, " J"], size: int
) -> tuple[Int[Array, " J"], Int[Array, " F"], Int[Array, " F"]]:
    """Places on one axis for what each slot brings, one slot after the other.

    Args:
      demand: [J] tokens.
      size: F, static.

    Returns:
      ([J] each slot's first place, [F] the slot of each place; J: of none, [F] which of its slot's tokens).
    """
    ends = jnp.cumsum(demand)
    starts = ends - demand
    place = jnp.arange(size)
    slot = jnp.sum(place[:, None] >= ends, axis=-1).astype(jnp.int32)
    return starts, slot, place - starts[jnp.minimum(slot, len(demand) - 1)]


def gather(state: DecodeState, layout: Layout, config: SamplerConfig) -> ValueTokens:
    """The tokens of the places: spans at their own positions, candidates all at that of the next token.

    A row of 5 tokens of which the cache holds 3, with candidates a, b, c to be read and S columns:

        token     s3  s4   a    b    c
        position   3   4   5    5    5
        column     3   4  S-3  S-2  S-1
        sees     0-3 0-4  0-4 and itself

    Args:
      state: spans, and the candidates that wait.
      layout: of `plan`.
      config: resolved.
    """
    assert config.slots is not None
    assert config.row_tokens is not None
    cache, candidates = state.value_cache, config.candidate_tokens
    assert cache is not None
    scratch = cache.columns - candidates
    slot = jnp.minimum(layout.slot, config.slots - 1)  # an empty place computes on somebody's numbers
    row, span = layout.rows[slot], layout.spans[slot]
    is_span = layout.offset < span
    number = jnp.clip(layout.offset - span, 0, max(candidates - 1, 0))  # of those that are read
    candidate = read_order(state)[row, number]
    own = state.value_lengths[row] + layout.offset  # a span token's place in prompt and reply
    span_token = state.value_ids[row, jnp.minimum(own, state.value_ids.shape[1] - 1)]
    total = state.value_totals

    offset = jnp.arange(config.row_tokens)[:, None]
    column = jnp.arange(cache.columns)
    before = state.value_lengths[layout.rows][:, None, None]
    spans = layout.spans[:, None, None]
    sees_span = column <= before + offset
    sees_prefix = column < total[layout.rows][:, None, None]
    mask = jnp.where(offset < spans, sees_span, sees_prefix | (column == scratch + offset - spans))
    return ValueTokens(
        ids=jnp.where(is_span, span_token, state.pending.ids[row, candidate]),
        positions=jnp.where(is_span, own, total[row]),
        attend=FlatAttention(
            rows=layout.slot,
            slots=layout.offset,
            columns=jnp.where(is_span, own, scratch + number),
            mask=mask,
            slot_rows=None if config.slots == cache.batch else layout.rows,
            kernel=config.attention,
        ),
    )


def read_order(state: DecodeState) -> Int[Array, "B C"]:
    """The places of the candidates that are read, in their order, and after them those of the others."""
    return jnp.argsort(~state.pending.reads, axis=-1, stable=True)


def settle(
    net: ValueNet,
    hidden: Float[Array, "F D"],
    cache: KVCache | None,
    state: DecodeState,
    layout: Layout,
    config: SamplerConfig,
) -> tuple[DecodeState, Int[Array, " B"]]:
    """From the places' hidden states to steered tokens: rows that are served speak, or fail.

    Args:
      net: the value model, for its head.
      hidden: [F, D] after the final norm.
      cache: with the places' keys and values.
      state: before the pass.
      layout: what the places hold.
      config: resolved.

    Returns:
      (the state, [B] which of a row's candidates that were read was chosen).
    """
    assert cache is not None
    candidates, last_place = config.candidate_tokens, hidden.shape[0] - 1
    before = hidden[jnp.clip(layout.last_places, 0, last_place)]
    at_values, reads = before, state.pending.reads
    number = jnp.cumsum(reads, axis=-1) - 1  # of each candidate that is read, among those
    if config.reads_candidates:
        first = layout.starts + layout.spans
        at_values = hidden[jnp.clip(first[:, None] + number[layout.rows], 0, last_place)]
    values = net.values_of(at_values, state.pending.ids[layout.rows])

    # From slots back to rows; a slot that is not served drops out of range.
    served_rows = jnp.where(layout.complete, layout.rows, state.rows)
    served = jnp.zeros(state.rows, bool).at[served_rows].set(True, mode="drop")
    row_values = jnp.zeros((state.rows, values.shape[-1])).at[served_rows].set(values, mode="drop")
    caught_up = jnp.zeros(state.rows, jnp.int32).at[layout.rows].add(layout.spans)
    prefix_value = state.prefix_value
    if config.reads_candidates:
        brings = jnp.where(layout.spans > 0, layout.rows, state.rows)
        prefix_value = prefix_value.at[brings].set(net.values(before), mode="drop")
    after, choice, entry, speaks = serve(row_values, served, prefix_value, state, config)

    chosen = pick(number, choice)
    if config.reads_candidates:
        # The chosen candidate's keys and values become those of the reply's new token.
        scratch = cache.columns - candidates
        target = jnp.where(
            layout.complete & speaks[layout.rows], state.value_totals[layout.rows], cache.columns
        )
        cache = cache.move(layout.rows, scratch + chosen[layout.rows], target)
    after = replace(
        after,
        value_cache=cache,
        value_lengths=state.value_lengths + caught_up + (speaks & config.reads_candidates),
        value_calls=state.value_calls + 1,
        value_computed=state.value_computed + (config.pass_tokens or 0),
    )
    return append(after, entry, speaks), chosen


def read_prompts(
    net: ValueNet,
    state: DecodeState,
    ids: Int[Array, "N P"],
    config: SamplerConfig,
    rows: Int[Array, " N"] | None = None,
    kept: Int[Array, " N"] | None = None,
) -> DecodeState:
    """The value model reads prompts: of the rows that are named, or of all, none of which has been read.

    Args:
      net: the value model.
      state: of rows that have their prompts.
      ids: [N, P'] the prompts, padded on the right.
      config: with `branches` of n and no `rows`, each prompt is that of n rows side by side.
      rows: [N]; outside 0 .. B-1: nobody's. None: all rows in order.
      kept: [N] columns of the rows' caches that hold the beginnings of the prompts, of which `ids` are the
        rest; None: none do.
    """
    places, attend = prompt_pass(ids, config, rows, kept)
    _, cache = forward(
        net.model,
        ids,
        places,
        state.value_cache,
        attend,
        config=net.config.backbone,
        adapter=net.adapter,
    )
    which: Any = slice(None) if rows is None else rows
    read = state.value_read.at[which].set(True, mode="drop", wrap_negative_indices=False)
    return replace(state, value_cache=cache, value_read=read, value_computed=state.value_computed + ids.size)


def read_unread(
    net: ValueNet, state: DecodeState, asked: Bool[Array, ""], width: int, config: SamplerConfig
) -> DecodeState:
    """`read_prompts` of all rows, if it is asked for and they are unread.

    Args:
      net: the value model.
      state: of rows whose prompts stand in `value_ids`.
      asked: [] the same on all devices.
      width: P', tokens of the buffers of value prompts.
      config: resolved.
    """

    def read(state: DecodeState) -> DecodeState:
        return read_prompts(net, state, state.value_ids[:: config.branches, :width], config)

    return run_if(asked & ~jnp.all(state.value_read), read, state)


def prompt_pass(
    ids: Int[Array, "N P"],
    config: SamplerConfig,
    rows: Int[Array, " N"] | None,
    kept: Int[Array, " N"] | None,
) -> tuple[Int[Array, "N P"], Attend]:
    """Positions of prompts, or of what comes after `kept` tokens of them, and how they are read into rows."""
    places = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    block, kernel = block_length(config.mesh), config.attention
    if rows is None or kept is None:
        return places, PrefillAttention(rows, config.branches if rows is None else 1, block, kernel)
    return kept[:, None] + places, ExtendAttention(rows, kept, block, kernel)
