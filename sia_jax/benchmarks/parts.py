"""Where the time of a steered reply goes: every part of the loop, timed by itself in a loop of its own."""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from sia_jax.benchmarks.systems import SamplerSystem, Timing
from sia_jax.costs.roofline import DeviceRates, decode_step_cost, pass_cost
from sia_jax.decoding import policy_pass, value_pass
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.sample import start
from sia_jax.decoding.state import DecodeState
from sia_jax.models.attention import PrefillAttention
from sia_jax.models.heads import lm_head
from sia_jax.models.passes import decode_step
from sia_jax.models.transformer import forward
from sia_jax.steering.arrays import pick
from sia_jax.steering.types import RowParams


def time_parts(
    system: SamplerSystem, timing: Timing, prompts: list[list[int]], new_tokens: int, rates: DeviceRates
) -> list[dict[str, Any]]:
    """One row a part: how often it ran in `timing`, the seconds of one run, its floor, its share of the call.

    Args:
      system: what was timed.
      timing: one call of it.
      prompts: what it was called with.
      new_tokens: ids a reply.
      rates: measured in the same run.
    """
    config = system.config(len(prompts), new_tokens)
    params, prompt = system.params(), jax.tree.map(jnp.asarray, Prompt.pack(prompts))
    numbers = system.numbers(config, len(prompts))
    model, batch = config.policy, len(prompts)
    columns = prompt.policy_ids.shape[1] + new_tokens // 2
    itemsize = params.policy["model"]["embed_tokens"]["weight"].dtype.itemsize
    step_floor = rates.floor_seconds(decode_step_cost(model, batch, columns, itemsize))
    steps, calls = timing.counts["policy_steps"], timing.counts["value_calls"]
    assert config.pass_tokens is not None
    assert config.slots is not None
    assert config.value is not None
    backbone = config.value.backbone
    prefilled = prompt.value_ids.size if calls else 0
    needed = (timing.counts["value_needed"] - prefilled) / max(calls, 1)
    served = timing.counts["steered"] * timing.tokens / max(calls, 1)
    pass_floor = rates.floor_seconds(
        pass_cost(backbone, needed, columns_seen=columns, columns_read=served * columns, itemsize=itemsize)
    )
    prefill = pass_cost(
        model,
        prompt.policy_ids.size,
        columns_seen=prompt.policy_ids.shape[1] / 2,
        columns_read=0,
        itemsize=itemsize,
    )
    span = math.ceil((1 - system.expected_ratio) / system.expected_ratio)
    seconds = {name: _seconds(part, params, prompt, numbers, span, config) for name, part in _PARTS.items()}
    whole_step = seconds["policy step"]
    rows = [
        ("policy network", steps, seconds["policy network"], step_floor),
        ("entropy, gate, draw, record", steps, max(whole_step - seconds["policy network"], 0.0), 0.0),
        ("value pass, needed tokens", calls, seconds["value pass"] * needed / config.pass_tokens, pass_floor),
        ("value pass, padding", calls, seconds["value pass"] * (1 - needed / config.pass_tokens), 0.0),
        ("prefill", 2 if calls else 1, seconds["prefill"], rates.floor_seconds(prefill)),
    ]
    accounted = sum(count * each for _, count, each, _ in rows)
    rows.append(("rest: loops, dispatch", 1, timing.seconds - accounted, 0.0))
    return [
        {
            "part": name,
            "runs": count,
            "ms_each": 1e3 * each,
            "floor_ms_each": 1e3 * floor,
            "share": count * each / timing.seconds,
        }
        for name, count, each, floor in rows
        if count
    ]


def seconds_each(run: Callable[[int], Any]) -> float:
    """Seconds of one run: the difference between many in a loop and a few.

    Args:
      run: does so many in a loop, and returns what has to be waited for.
    """
    few, many = 2, 18

    def call(count: int) -> float:
        begin = time.perf_counter()
        jax.block_until_ready(run(count))
        return time.perf_counter() - begin

    call(few)
    return min(call(many) for _ in range(3)) / (many - few) - min(call(few) for _ in range(3)) / (many - few)


def _seconds(
    part: Any, params: SteeringParams, prompt: Prompt, numbers: RowParams, span: int, config: SamplerConfig
) -> float:
    """Of one run of a part."""
    return seconds_each(lambda count: _repeat(params, prompt, numbers, count, span, part=part, config=config))


@functools.partial(jax.jit, static_argnames=("part", "config"))
def _repeat(
    params: SteeringParams,
    prompt: Prompt,
    numbers: RowParams,
    count: Any,
    span: Any,
    *,
    part: Any,
    config: SamplerConfig,
) -> DecodeState:
    """The part, `count` times, on rows in the middle of their replies."""
    state = start(params, prompt, numbers, config)
    rows = prompt.policy_ids.shape[0]
    length = config.max_new_tokens // 2
    begin = replace(
        state,
        lengths=jnp.full(rows, length),
        value_lengths=prompt.value_lengths + length - span,
        value_read=jnp.ones(rows, bool),
        waited=jnp.where(jnp.arange(rows) < (config.slots or 0), 0, -1),
        pending=replace(
            state.pending,
            kept=jnp.full(rows, config.steering.num_candidates),
            reads=jnp.ones_like(state.pending.reads),
        ),
    )

    def body(carry: tuple[Any, DecodeState]) -> tuple[Any, DecodeState]:
        count, state = carry
        # Every run finds the rows where the first one did, give or take a token: what were the same each time
        # XLA would compute once, before the loop.
        ids = (begin.pending.ids + count) % config.policy.vocab_size
        again = replace(
            begin,
            policy_cache=state.policy_cache,
            value_cache=state.value_cache,
            record=state.record,
            policy_ids=jnp.broadcast_to(ids[:, :1], begin.policy_ids.shape),
            lengths=begin.lengths + count % 2,
            value_lengths=begin.value_lengths + count % 2,
            pending=replace(begin.pending, ids=ids),
        )
        return count - 1, part(params, prompt, again, config)

    return jax.lax.while_loop(lambda carry: carry[0] > 0, body, (count, begin))[1]


def _policy_step(
    params: SteeringParams, prompt: Prompt, state: DecodeState, config: SamplerConfig
) -> DecodeState:
    state = replace(state, waited=jnp.full_like(state.waited, -1))
    return policy_pass.policy_step(params.policy, state, config, params.value_net(config))


def _policy_network(
    params: SteeringParams, prompt: Prompt, state: DecodeState, config: SamplerConfig
) -> DecodeState:
    last = state.policy_lengths - 1
    hidden, cache = decode_step(
        params.policy["model"], pick(state.policy_ids, last), last, state.policy_cache, config=config.policy
    )
    logits = lm_head(params.policy, hidden)
    tokens = state.record.tokens.at[:, 0].set(jnp.argmax(logits, axis=-1).astype(jnp.int32))
    return replace(state, policy_cache=cache, record=replace(state.record, tokens=tokens))


def _value_pass(
    params: SteeringParams, prompt: Prompt, state: DecodeState, config: SamplerConfig
) -> DecodeState:
    net = params.value_net(config)
    assert net is not None
    return value_pass.value_pass(net, state, config)


def _prefill(
    params: SteeringParams, prompt: Prompt, state: DecodeState, config: SamplerConfig
) -> DecodeState:
    positions = jnp.broadcast_to(jnp.arange(prompt.policy_ids.shape[1]), prompt.policy_ids.shape)
    _, cache = forward(
        params.policy["model"],
        (prompt.policy_ids + state.policy_ids[:, -1:]) % config.policy.vocab_size,
        positions,
        state.policy_cache,
        PrefillAttention(),
        config=config.policy,
    )
    return replace(state, policy_cache=cache)


_PARTS: dict[str, Any] = {
    "policy step": _policy_step,
    "policy network": _policy_network,
    "value pass": _value_pass,
    "prefill": _prefill,
}
