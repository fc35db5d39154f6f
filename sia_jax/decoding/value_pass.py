"""One value pass: the spans and candidates of the rows at a junction, on one flat axis of token places.

The value model does not run on unsteered tokens as they come. They are a row's *span*, and wait until the row
comes to a junction; then one pass reads [span | C candidates]. Span tokens are causal, every candidate sees
prefix, span and itself, and all candidates share one position. They lie in the last C columns of the row's
cache; the one that is chosen moves to its place, the others are overwritten by the next.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.decide import steer
from sia_jax.decoding.policy_pass import append
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.state import DecodeState, FinishReason, Settings
from sia_jax.models.attention import FlatAttention, PrefillAttention, block_length
from sia_jax.models.cache import KVCache
from sia_jax.models.heads import value_head
from sia_jax.models.lora import Adapter
from sia_jax.models.product import einsum_float32
from sia_jax.models.transformer import forward
from sia_jax.types import Params


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


def plan(state: DecodeState, prompt: Prompt, config: SamplerConfig) -> Layout:
    """Give slots to the rows, the oldest junction first, and places to their tokens.

    A row is served if its span and candidates fit; a longer span brings what fits and the rest next time.
    Slots that nobody waits for catch up long spans of rows that have met the value model before.

    Args:
      state: who waits, since when, and how long the spans are.
      prompt: rows of the batch.
      config: resolved.
    """
    assert config.slots is not None
    assert config.places is not None
    assert config.slot_places is not None
    candidates, vocab = config.candidate_places, _is_vocab(config)
    waiting = state.waiting & state.alive
    total = prompt.value_lengths + state.lengths
    # A vocab head speaks at the last token of the prefix, which must come in the pass that serves the row.
    behind = total - state.value_lengths - jnp.where(waiting, 0, vocab)
    helps = state.alive & ~waiting & (state.value_tokens > 0) & (behind > 0)
    order = jnp.lexsort((jnp.where(waiting, state.waiting_since, -behind), jnp.where(waiting, 0, ~helps + 1)))
    rows = order[: config.slots].astype(jnp.int32)

    span = jnp.where((waiting | helps)[rows], behind[rows], 0)
    need = span + jnp.where(waiting[rows], candidates, 0)
    fits = need <= config.slot_places
    demand = jnp.where(fits, need, jnp.minimum(span, config.slot_places))
    ends = jnp.cumsum(demand)
    starts = ends - demand
    whole = ends <= config.places
    taken = jnp.where(whole, demand, jnp.clip(config.places - starts, 0, jnp.minimum(demand, span)))

    place = jnp.arange(config.places)
    slot = jnp.sum(place[:, None] >= ends, axis=-1).astype(jnp.int32)
    inside = jnp.minimum(slot, config.slots - 1)
    offset = place - starts[inside]
    empty = (slot == config.slots) | (offset >= taken[inside])
    spans, complete = jnp.minimum(span, taken), waiting[rows] & fits & whole
    if config.slots == state.lengths.shape[0]:
        # Every row has a slot: let it be the row's own, and the cache is read where it lies.
        spans, starts, complete = (x.at[rows].set(x) for x in (spans, starts, complete))
        inside, rows = rows[inside], jnp.arange(config.slots)
    return Layout(rows, spans, starts, complete, jnp.where(empty, config.slots, inside), offset)


def value_pass(
    model: Params,
    head: Params,
    adapter: Adapter | None,
    prompt: Prompt,
    settings: Settings,
    state: DecodeState,
    config: SamplerConfig,
) -> DecodeState:
    """Read the spans and candidates of the slots' rows, and give the rows that are served their tokens.

    Args:
      model: the value model's backbone.
      head: its head.
      adapter: its LoRA, where that is kept apart.
      prompt: rows of the batch.
      settings: the call's numbers.
      state: some row waits, here or on other devices.
      config: resolved.
    """
    batch = state.lengths.shape[0]
    layout = plan(state, prompt, config)
    hidden, cache = _read(model, adapter, prompt, state, layout, config)
    values = _values(head, hidden, state, layout, config)

    # From slots back to rows; a slot that is not served drops out of range.
    served_rows = jnp.where(layout.complete, layout.rows, batch)
    served = jnp.zeros(batch, bool).at[served_rows].set(True, mode="drop")
    row_values = jnp.zeros((batch, values.shape[-1])).at[served_rows].set(values, mode="drop")
    caught_up = jnp.zeros(batch, jnp.int32).at[layout.rows].add(layout.spans)
    finite = jnp.all(jnp.isfinite(row_values), axis=-1)
    choice, entry, sound = steer(
        jnp.where(finite[:, None], row_values, 0), state.pending, state.lengths, settings, config
    )
    finite &= sound
    speaks = served & finite

    total = prompt.value_lengths + state.lengths
    if not _is_vocab(config):
        # The chosen candidate's keys and values become those of the reply's new token.
        scratch = cache.columns - config.candidate_places
        target = jnp.where(layout.complete & speaks[layout.rows], total[layout.rows], cache.columns)
        cache = cache.move(layout.rows, scratch + choice[layout.rows], target)
    needed = config.value_tokens(prompt.value_lengths, state.lengths, state.junctions)
    state = replace(
        state,
        value_cache=cache,
        value_lengths=state.value_lengths + caught_up + jnp.where(speaks & (not _is_vocab(config)), 1, 0),
        value_tokens=jnp.where(served, needed, state.value_tokens),
        junctions=state.junctions + served,
        waiting_since=jnp.where(served, -1, state.waiting_since),
        finish_reason=jnp.where(served & ~finite, FinishReason.NON_FINITE, state.finish_reason),
        value_calls=state.value_calls + 1,
    )
    return append(state, entry, speaks, settings)


def prefill_values(
    model: Params, adapter: Adapter | None, prompt: Prompt, state: DecodeState, config: SamplerConfig
) -> DecodeState:
    """The value model reads the prompts, of all rows at once, when first a row comes to a junction.

    Args:
      model: the value model's backbone.
      adapter: its LoRA, where that is kept apart.
      prompt: before the branches: one row for each prompt.
      state: rows and branches.
      config: static.
    """
    assert config.value is not None
    positions = jnp.broadcast_to(jnp.arange(prompt.value_tokens.shape[1]), prompt.value_tokens.shape)
    _, cache = forward(
        model,
        prompt.value_tokens,
        positions,
        state.value_cache,
        PrefillAttention(config.branches, block_length(config.mesh)),
        config=config.value.backbone,
        adapter=adapter,
    )
    return replace(state, value_cache=cache, value_ready=jnp.ones((), bool))


def _read(
    model: Params,
    adapter: Adapter | None,
    prompt: Prompt,
    state: DecodeState,
    layout: Layout,
    config: SamplerConfig,
) -> tuple[Array, KVCache]:
    """Hidden states [F, D] of the places' tokens, and the value cache with their keys and values."""
    assert config.value is not None
    assert config.slots is not None
    assert config.slot_places is not None
    cache, candidates = state.value_cache, config.candidate_places
    assert cache is not None
    scratch = cache.columns - candidates
    slot = jnp.minimum(layout.slot, config.slots - 1)  # an empty place computes on somebody's numbers
    row, span = layout.rows[slot], layout.spans[slot]
    is_span = layout.offset < span
    candidate = jnp.clip(layout.offset - span, 0, max(candidates - 1, 0))
    own = state.value_lengths[row] + layout.offset  # a span token's place in prompt and reply
    in_prompt = own < prompt.value_lengths[row]
    from_prompt = prompt.value_tokens[row, jnp.minimum(own, prompt.value_tokens.shape[1] - 1)]
    generated = jnp.clip(own - prompt.value_lengths[row], 0, state.record.tokens.shape[1] - 1)
    from_reply = state.record.tokens[row, generated]
    span_token = jnp.where(in_prompt, from_prompt, from_reply)
    total = prompt.value_lengths + state.lengths
    tokens = jnp.where(is_span, span_token, state.pending.ids[row, candidate])
    positions = jnp.where(is_span, own, total[row])
    columns = jnp.where(is_span, own, scratch + candidate)

    offset = jnp.arange(config.slot_places)[:, None]
    column = jnp.arange(cache.columns)
    before = state.value_lengths[layout.rows][:, None, None]
    spans = layout.spans[:, None, None]
    sees_span = column <= before + offset
    sees_prefix = column < total[layout.rows][:, None, None]
    mask = jnp.where(offset < spans, sees_span, sees_prefix | (column == scratch + offset - spans))

    attend = FlatAttention(
        rows=layout.slot,
        slots=layout.offset,
        columns=columns,
        mask=mask,
        slot_rows=None if config.slots == cache.batch else layout.rows,
    )
    return forward(model, tokens, positions, cache, attend, config=config.value.backbone, adapter=adapter)


def _values(
    head: Params, hidden: Float[Array, "F D"], state: DecodeState, layout: Layout, config: SamplerConfig
) -> Float[Array, "J C"]:
    """V(s, a) of every slot's candidates; of slots that are not served, anything."""
    last = hidden.shape[0] - 1
    if _is_vocab(config):
        at_prefix = hidden[jnp.clip(layout.starts + layout.spans - 1, 0, last)]
        down, up = head["down"]["weight"], head["up"]
        inner = einsum_float32("jd,rd->jr", at_prefix.astype(down.dtype), down)
        ids = state.pending.ids[layout.rows]
        return einsum_float32("jr,jcr->jc", inner, up["weight"][ids]) + up["bias"][ids]
    first = layout.starts + layout.spans
    places = jnp.minimum(first[:, None] + jnp.arange(config.candidate_places), last)
    return value_head(head, hidden[places])


def _is_vocab(config: SamplerConfig) -> bool:
    return config.value is not None and config.value.head == "vocab"
