"""One policy step: every running row reads a token, and then speaks, or waits at a junction."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.decide import decide
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.state import DecodeState, FinishReason, Settings, TokenRecord, write_record
from sia_jax.models.heads import lm_head
from sia_jax.models.passes import decode_block
from sia_jax.parallel.rows import whole
from sia_jax.types import Params


def policy_step(
    policy: Params, prompt: Prompt, settings: Settings, state: DecodeState, config: SamplerConfig
) -> DecodeState:
    """Advance every running row by one token, or to its junction.

    The first step of a reply reads the prompt's last token (once more, prefill has read it too), so that
    there is one place where logits become decisions, and one copy of it in the program.

    Args:
      policy: the policy's tree.
      prompt: rows of the batch.
      settings: the call's numbers.
      state: rows that wait or are done stay as they are.
      config: static.
    """
    running = state.running
    places = (prompt.policy_lengths + state.lengths - 1)[:, None]
    cache = state.policy_cache
    columns = jnp.where(running[:, None], places, cache.columns)  # outside: nothing is written
    mask = jnp.arange(cache.columns) <= places
    hidden, cache = decode_block(
        policy["model"],
        state.token[:, None],
        places,
        columns,
        mask[:, None],
        cache,
        config=config.policy,
    )
    decision = decide(whole(lm_head(policy, hidden[:, 0])), state, settings, config)
    failed = running & ~decision.finite
    waits = running & decision.finite & decision.junction
    state = replace(
        state,
        policy_cache=cache,
        finish_reason=jnp.where(failed, FinishReason.NON_FINITE, state.finish_reason),
        waiting_since=jnp.where(waits, state.policy_steps + 1, state.waiting_since),
        previous_entropy=jnp.where(running, decision.pending.entropy, state.previous_entropy),
        gate=_where(running, decision.gate, state.gate),
        pending=_where(waits, decision.pending, state.pending),
        policy_tokens=state.policy_tokens + running,
        policy_steps=state.policy_steps + 1,
        chunk_steps=state.chunk_steps + 1,
    )
    return append(state, decision.entry, running & decision.finite & ~decision.junction, settings)


def append(
    state: DecodeState, entry: TokenRecord, rows: Bool[Array, " B"], settings: Settings
) -> DecodeState:
    """Give the rows their next token, and end the replies that it ends."""
    batch = jnp.arange(entry.tokens.shape[0])
    stops = jnp.any(entry.tokens[:, None] == settings.stop_ids, axis=-1)
    full = state.lengths + 1 >= settings.max_new_tokens
    reason = jnp.where(stops, FinishReason.STOP, jnp.where(full, FinishReason.LENGTH, FinishReason.RUNNING))
    # An out-of-range column drops the count of the rows that get nothing.
    columns = jnp.where(rows, entry.tokens, state.counts.shape[-1])
    return replace(
        state,
        token=jnp.where(rows, entry.tokens, state.token),
        finish_reason=jnp.where(rows, reason, state.finish_reason),
        record=write_record(state.record, entry, rows, state.lengths),
        counts=state.counts.at[batch, columns].add(1, mode="drop"),
        lengths=state.lengths + rows,
    )


def _where(rows: Array, new: Any, old: Any) -> Any:
    def pick(a: Array, b: Array) -> Array:
        return jnp.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, new, old)
