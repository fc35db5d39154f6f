"""One policy step: every running row reads a token, and then speaks, or waits at a junction.

Where the value model is a head on the policy's hidden states, a row at a junction speaks too: its values are
read in the same step.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.state import DecodeState, FinishReason, write_record
from sia_jax.models.attention import CachedAttention
from sia_jax.models.cache import KVCache
from sia_jax.models.heads import lm_head
from sia_jax.models.transformer import forward
from sia_jax.models.value_model import ValueNet
from sia_jax.parallel.rows import whole
from sia_jax.steering.arrays import pick
from sia_jax.steering.decision import decide, neutral, steer
from sia_jax.steering.types import TokenRecord
from sia_jax.types import Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PolicyTokens:
    """What a policy step reads: the last token of every row."""

    ids: Int[Array, "B 1"]
    positions: Int[Array, "B 1"]
    columns: Int[Array, "B 1"]  # of the cache; outside of it for rows that do not run
    mask: Bool[Array, "B 1 S"]

    def attend(self, config: SamplerConfig) -> CachedAttention:
        """How they attend: a token sees the columns up to its own, which is that of its position."""
        seen = None if config.attention is None else self.positions[:, 0] + 1
        return CachedAttention(self.columns, self.mask, seen, config.attention)


def policy_step(
    policy: Params, state: DecodeState, config: SamplerConfig, net: ValueNet | None = None
) -> DecodeState:
    """Advance every running row by one token, or to its junction: gather, one forward pass, settle.

    The first step of a reply reads the prompt's last token (once more, prefill has read it too), so that
    there is one place where logits become decisions, and one copy of it in the program.

    Args:
      policy: the policy's tree.
      state: rows that wait or are done stay as they are.
      config: static.
      net: the value model; it has a part here only if it reads the policy's hidden states.
    """
    tokens = gather(state)
    hidden, cache = forward(
        policy["model"],
        tokens.ids,
        tokens.positions,
        state.policy_cache,
        tokens.attend(config),
        config=config.policy,
    )
    return settle(policy, hidden[:, 0], cache, state, config, net=net)


def gather(state: DecodeState) -> PolicyTokens:
    """The last token of prompt or reply of every row, where it stands, and what it sees.

    Args:
      state: of a row with a prompt of P tokens and t generated ones, the token at P + t - 1 is read; it sees
        the columns 0 .. P + t - 1.
    """
    last = (state.policy_lengths - 1)[:, None]
    cache = state.policy_cache
    return PolicyTokens(
        ids=pick(state.policy_ids, last[:, 0])[:, None],
        positions=last,
        columns=jnp.where(state.running[:, None], last, cache.columns),
        mask=(jnp.arange(cache.columns) <= last)[:, None],
    )


def settle(
    policy: Params,
    hidden: Float[Array, "B D"],
    cache: KVCache,
    state: DecodeState,
    config: SamplerConfig,
    running: Bool[Array, " B"] | None = None,
    net: ValueNet | None = None,
) -> DecodeState:
    """From the tokens' hidden states to decisions: running rows speak, wait for values, or fail.

    Args:
      policy: the policy's tree, for its head.
      hidden: [B, D] after the final norm.
      cache: with the tokens' keys and values.
      state: before the step.
      config: static.
      running: the rows whose last token was read; None: all that run.
      net: the value model, or None, as in `policy_step`.
    """
    running = state.running if running is None else running
    # Rows that do not run ask for nothing: a filter or a penalty runs if any row asks for it.
    numbers = neutral(state.numbers, running)
    decision = decide(whole(lm_head(policy, hidden)), state.history, numbers, config.decision)
    failed = running & ~decision.finite
    waits = running & decision.finite & decision.waits
    speaks = running & decision.finite & ~decision.waits
    state = replace(
        state,
        policy_cache=cache,
        finish_reason=jnp.where(failed, FinishReason.NON_FINITE, state.finish_reason),
        waited=jnp.where(waits, 0, state.waited + state.waiting),
        previous_entropy=jnp.where(speaks, decision.pending.entropy, state.previous_entropy),
        gate=where_rows(speaks, decision.pending.gate, state.gate),
        pending=where_rows(waits, decision.pending, state.pending),
        policy_tokens=state.policy_tokens + running,
        policy_steps=state.policy_steps + 1,
        policy_computed=state.policy_computed + state.rows,
    )
    if config.value is None or config.value_passes:
        return append(state, decision.entry, speaks)
    assert net is not None
    values = net.values_of(hidden, decision.pending.ids)
    state, _, entry, steered = serve(values, waits, state.prefix_value, state, config)
    return append(state, where_rows(steered, entry, decision.entry), speaks | steered)


def serve(
    values: Float[Array, "B C"],
    served: Bool[Array, " B"],
    prefix_value: Float[Array, " B"],
    state: DecodeState,
    config: SamplerConfig,
) -> tuple[DecodeState, Int[Array, " B"], TokenRecord, Bool[Array, " B"]]:
    """What the values of their candidates make of rows at a junction: steered tokens, or failures.

    Args:
      values: [B, C] V(s, a), finite or not; what stands where none was read means nothing.
      served: [B] the rows that have them; what stands in the others means nothing.
      prefix_value: [B] V(s), as `steer` takes it.
      state: with what is pending.
      config: static.

    Returns:
      (the state in which they wait no more, [B] the place of each choice among the candidates, what is to be
      appended, [B] the rows for which it is).
    """
    finite = jnp.all(jnp.isfinite(values) | ~state.pending.reads, axis=-1)
    values = jnp.where(finite[:, None], values, 0)
    choice, entry, sound = steer(
        values, state.pending, state.lengths, prefix_value, state.numbers, config.decision
    )
    speaks, failed = served & finite & sound, served & ~(finite & sound)
    values_read = state.values_read + jnp.where(served, entry.values_read, 0)
    needed = config.value_tokens(state.value_prompts, state.lengths, state.readings, values_read)
    state = replace(
        state,
        prefix_value=jnp.where(speaks, entry.value, prefix_value),
        value_tokens=jnp.where(served, needed, state.value_tokens),
        readings=state.readings + served,
        values_read=values_read,
        waited=jnp.where(served, -1, state.waited),
        # The position is decided: only now does the row's past move on.
        previous_entropy=jnp.where(speaks, state.pending.entropy, state.previous_entropy),
        gate=where_rows(speaks, state.pending.gate, state.gate),
        finish_reason=jnp.where(failed, FinishReason.NON_FINITE, state.finish_reason),
    )
    return state, choice, entry, speaks


def append(state: DecodeState, entry: TokenRecord, speaks: Bool[Array, " B"]) -> DecodeState:
    """Give the rows that speak their next token, and end the replies that it ends."""
    numbers, batch = state.numbers, jnp.arange(state.rows)
    stops = jnp.any(entry.tokens[:, None] == numbers.stop_ids, axis=-1)
    full = state.lengths + 1 >= numbers.max_new_tokens
    reason = jnp.where(stops, FinishReason.STOP, jnp.where(full, FinishReason.LENGTH, FinishReason.RUNNING))

    def put(ids: Array, columns: Array) -> Array:
        # What has nothing to say writes out of range, where an update is dropped.
        columns = jnp.where(speaks, columns, ids.shape[1])
        return ids.at[batch, columns].set(entry.tokens, mode="drop")

    said = jnp.where(speaks, entry.tokens, state.counts.shape[-1])
    return replace(
        state,
        policy_ids=put(state.policy_ids, state.policy_lengths),
        value_ids=put(state.value_ids, state.value_totals),
        finish_reason=jnp.where(speaks, reason, state.finish_reason),
        record=write_record(state.record, entry, speaks, state.lengths),
        counts=state.counts.at[batch, said].add(1, mode="drop"),
        lengths=state.lengths + speaks,
    )


def where_rows(rows: Bool[Array, " B"], new: Any, old: Any) -> Any:
    """`new` in the rows where `rows` holds, else `old`, in every leaf [B, ...] of a tree."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
