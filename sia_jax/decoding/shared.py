"""The `Shared` schedule: each step is one pass of both models, where one is a LoRA over the other's weights.

Decoding is bound by the bytes of the weights, or by the work that each product begins with. A pass over one
flat axis takes both once, for the next token of every row that runs, and for the spans and candidates of
those that wait; the adapter acts on the latter alone, and either attends to its own model's cache.

With look-ahead the policy reads the candidates too. The one that is chosen then has its hidden state already:
the row says its token, and is decided about again in the same pass, as if it had run.

    row 0 runs, row 1 waits with a span of s1, s2 and two candidates a, b; F = 5, G = 3

    policy   r0  ·              the row that waits reads nothing
    ahead            a  b  ·
    value                    s1  s2  a  b  ·
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from sia_jax.decoding import policy_pass, value_pass
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.schedule import Shared
from sia_jax.decoding.state import DecodeState
from sia_jax.decoding.value_pass import Layout, ValueTokens
from sia_jax.models.attention import FlatAttention, PairAttention
from sia_jax.models.cache import CachePair
from sia_jax.models.transformer import forward
from sia_jax.models.value_model import ValueNet
from sia_jax.parallel.rows import sum_over_rows


def run_shared(
    params: SteeringParams,
    state: DecodeState,
    schedule: Shared,
    steps: Int[Array, ""] | int,
    config: SamplerConfig,
    unread_width: int,
) -> DecodeState:
    """See `sia_jax.decoding.loop.run_chunk`: a loop of passes, each of which is a policy step."""
    net = params.value_net(config)
    assert net is not None

    def goes_on(carry: tuple[DecodeState, Array]) -> Bool[Array, ""]:
        state, left = carry
        return (sum_over_rows(jnp.sum(state.alive)) > 0) & (left > 0)

    def step(carry: tuple[DecodeState, Array]) -> tuple[DecodeState, Array]:
        state, left = carry
        if unread_width:
            waiting = sum_over_rows(jnp.sum(state.waiting & state.alive)) > 0
            with jax.named_scope("value"):
                state = value_pass.read_unread(net, state, waiting, unread_width, config)
        with jax.named_scope("shared"):
            return shared_pass(params, net, state, schedule, config), left - 1

    return jax.lax.while_loop(goes_on, step, (state, jnp.asarray(steps, jnp.int32)))[0]


def shared_pass(
    params: SteeringParams, net: ValueNet, state: DecodeState, schedule: Shared, config: SamplerConfig
) -> DecodeState:
    """Serve rows that wait, and let those that run say their next token.

    Args:
      params: the weights; `net` lies over those of the policy.
      net: the value model.
      state: value prompts of rows that wait have been read.
      schedule: whether the policy looks ahead.
      config: resolved.
    """
    layout = value_pass.plan(state, config)
    values = value_pass.gather(state, layout, config)
    steps = policy_pass.gather(state)
    ahead = _plan_ahead(state, layout, config) if schedule.look_ahead else None
    parts = [(steps.ids[:, 0], steps.positions[:, 0])]
    reads = None if ahead is None else _gather_ahead(state, ahead, config)
    if reads is not None:
        parts.append((reads.ids, reads.positions))
    parts.append((values.ids, values.positions))
    ids, positions = (jnp.concatenate(part) for part in zip(*parts, strict=True))
    assert state.value_cache is not None
    assert net.adapter is not None
    hidden, caches = forward(
        params.policy["model"],
        ids,
        positions,
        CachePair(state.policy_cache, state.value_cache),
        PairAttention(steps.attend(config), None if reads is None else reads.attend, values.attend),
        config=config.policy,
        adapter=replace(net.adapter, tokens=jnp.arange(len(ids)) >= len(ids) - len(values.ids)),
    )
    of_policy, rest = hidden[: state.rows], hidden[state.rows :]
    of_ahead, of_values = rest[: -len(values.ids)], rest[-len(values.ids) :]

    running, waited = state.running, state
    state, chosen = value_pass.settle(net, of_values, caches.value, state, layout, config)
    policy_cache = caches.policy
    if ahead is not None:
        speaks = waited.waiting & ~state.waiting & (state.lengths > waited.lengths)
        place = jnp.zeros(state.rows, jnp.int32).at[layout.rows].set(ahead.starts) + chosen
        last_place = len(of_ahead) - 1
        of_policy = jnp.where(speaks[:, None], of_ahead[jnp.clip(place, 0, last_place)], of_policy)
        scratch = policy_cache.columns - config.look_ahead_tokens
        target = jnp.where(speaks, waited.policy_lengths, policy_cache.columns)
        policy_cache = policy_cache.move(jnp.arange(state.rows), scratch + chosen, target)
        running |= speaks & state.alive
        state = replace(state, policy_computed=state.policy_computed + len(of_ahead))
    return policy_pass.settle(params.policy, of_policy, policy_cache, state, config, running)


def _plan_ahead(state: DecodeState, layout: Layout, config: SamplerConfig) -> Layout:
    """Places for the candidates of the rows that are served, which the policy reads: no spans, G places."""
    assert config.slots is not None
    assert config.pass_tokens is not None
    count = jnp.where(layout.complete, jnp.sum(state.pending.reads[layout.rows], axis=-1), 0)
    starts, slot, offset = value_pass.places(
        count, min(config.pass_tokens, config.slots * config.look_ahead_tokens)
    )
    return Layout(layout.rows, jnp.zeros_like(layout.spans), starts, layout.complete, slot, offset)


def _gather_ahead(state: DecodeState, ahead: Layout, config: SamplerConfig) -> ValueTokens:
    """The candidates as the policy's tokens: all at the next position, each sees prompt, reply and itself."""
    assert config.slots is not None
    most, cache = config.look_ahead_tokens, state.policy_cache
    scratch, lengths = cache.columns - most, state.policy_lengths
    slot = jnp.minimum(ahead.slot, config.slots - 1)
    row, number = ahead.rows[slot], jnp.clip(ahead.offset, 0, most - 1)
    column = jnp.arange(cache.columns)
    before = column < lengths[ahead.rows][:, None, None]
    return ValueTokens(
        ids=state.pending.ids[row, value_pass.read_order(state)[row, number]],
        positions=lengths[row],
        attend=FlatAttention(
            rows=ahead.slot,
            slots=number,
            columns=scratch + number,
            mask=before | (column == scratch + jnp.arange(most)[:, None]),
            slot_rows=None if config.slots == cache.batch else ahead.rows,
            kernel=config.attention,
        ),
    )
