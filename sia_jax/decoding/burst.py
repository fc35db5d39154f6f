"""The `burst` schedule: policy steps until a quorum waits, then one value pass for those who wait."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.policy_pass import policy_step
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.state import DecodeState, Settings
from sia_jax.decoding.value_pass import prefill_values, value_pass
from sia_jax.models.lora import Adapter
from sia_jax.parallel.rows import sum_over_rows
from sia_jax.steering.arrays import run_if
from sia_jax.types import Params


def pass_is_due(state: DecodeState, settings: Settings) -> Bool[Array, ""]:
    """Whether the rows that wait should be served now.

    When min(quorum, rows still alive) wait, when the oldest has waited `patience` steps, or when no row can
    advance.
    """
    return _due(_count(state, settings), settings)


@dataclass(frozen=True)
class _Counts:
    """Rows of the whole batch, wherever they lie."""

    alive: Int[Array, ""]
    running: Int[Array, ""]
    waiting: Int[Array, ""]
    overdue: Int[Array, ""]  # have waited `patience` steps or more


def _count(state: DecodeState, settings: Settings) -> _Counts:
    waiting = state.waiting & state.alive
    overdue = waiting & (state.policy_steps - state.waiting_since >= settings.patience)
    counts = jnp.stack([jnp.sum(x) for x in (state.alive, state.running, waiting, overdue)])
    return _Counts(*sum_over_rows(counts))


def _due(rows: _Counts, settings: Settings) -> Bool[Array, ""]:
    quorate = rows.waiting >= jnp.minimum(settings.quorum, rows.alive)
    return (rows.waiting > 0) & (quorate | (rows.overdue > 0) | (rows.running == 0))


def run_chunk(
    policy: Params,
    value: Params | None,
    prompt: Prompt,
    prompts: Prompt,
    settings: Settings,
    state: DecodeState,
    config: SamplerConfig,
) -> DecodeState:
    """At most `config.chunk` policy steps, and the value passes that come due among them.

    A scan of rounds. A round is a loop of policy steps, which ends when a value pass is due, and a loop of
    one value pass or none. What has nothing to do takes no trip: masks decide, and there is no branch.

    Args:
      policy: the policy's tree.
      value: the value model's, or None.
      prompt: one row for each row of the state.
      prompts: the same before the branches, one row for each prompt.
      settings: the call's numbers.
      state: to be continued.
      config: resolved.
    """

    def advances(state: DecodeState) -> Array:
        has_steps = state.chunk_steps < config.chunk
        rows = _count(state, settings)
        return (rows.running > 0) & has_steps & ~_due(rows, settings)

    def advance(state: DecodeState) -> DecodeState:
        return policy_step(policy, prompt, settings, state, config)

    def needs_prompts(state: DecodeState) -> Array:
        return pass_is_due(state, settings) & ~state.value_ready

    def read_prompts(state: DecodeState) -> DecodeState:
        assert value is not None
        model, adapter = value_backbone(policy, value, config)
        return prefill_values(model, adapter, prompts, state, config)

    def serve(state: DecodeState) -> DecodeState:
        assert value is not None
        model, adapter = value_backbone(policy, value, config)
        return value_pass(model, value["value_head"], adapter, prompt, settings, state, config)

    def round_(state: DecodeState, _: None) -> tuple[DecodeState, None]:
        with jax.named_scope("policy"):
            state = jax.lax.while_loop(advances, advance, state)
        if value is not None:
            with jax.named_scope("value"):
                state = jax.lax.while_loop(needs_prompts, read_prompts, state)
                state = run_if(pass_is_due(state, settings), serve, state)
        return state, None

    state = replace(state, chunk_steps=jnp.zeros((), jnp.int32))
    return jax.lax.scan(round_, state, length=config.chunk)[0]


def value_backbone(policy: Params, value: Params, config: SamplerConfig) -> tuple[Params, Adapter | None]:
    """The value model's weights: its own, or the policy's under its adapter."""
    assert config.value is not None
    if config.value.lora is None:
        return value["model"], None
    return policy["model"], Adapter(value["lora"], config.value.lora)
