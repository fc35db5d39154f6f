"""Where the time of a reply goes: every part of the loop, timed by itself in a loop of its own."""

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from sia_jax.benchmarks.network_parts import Unmixed, products
from sia_jax.benchmarks.systems import SamplerSystem, Timing
from sia_jax.costs.roofline import DeviceRates, pass_cost
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
from sia_jax.types import Params


def time_network(system: SamplerSystem, prompts: list[list[int]], new_tokens: int) -> dict[str, float]:
    """Seconds of one run of each part of the policy's own passes: they are those of every steered system.

    Args:
      system: of the policy; whatever steers it.
      prompts: as many as there are rows.
      new_tokens: ids a reply; the parts run in its middle.
    """
    return _time(_NETWORK, SamplerSystem(system.models, None), prompts, new_tokens)


def time_parts(
    system: SamplerSystem,
    timing: Timing,
    prompts: list[list[int]],
    new_tokens: int,
    rates: DeviceRates,
    network: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """One row a part: how often it ran in `timing`, the seconds of one run, its floor, its share of the call.

    Args:
      system: what was timed.
      timing: one call of it.
      prompts: what it was called with.
      new_tokens: ids a reply.
      rates: measured in the same run.
      network: of `time_network`; None: it is timed here.
    """
    config = system.config(len(prompts), new_tokens)
    network = time_network(system, prompts, new_tokens) if network is None else network
    model, batch, width = config.policy, len(prompts), max(map(len, prompts))
    columns = width + new_tokens // 2
    itemsize = system.params().policy["model"]["embed_tokens"]["weight"].dtype.itemsize
    cost = functools.partial(pass_cost, itemsize=itemsize)
    steps, calls = timing.counts["policy_steps"], timing.counts["value_calls"]
    alone = cost(model, batch, columns_seen=0, columns_read=0, head_rows=batch)
    whole = cost(model, batch, columns_seen=columns, columns_read=batch * columns, head_rows=batch)
    prefill = cost(model, batch * width, columns_seen=width / 2, columns_read=0)
    steered = _time(_STEERED if calls else _UNSTEERED, system, prompts, new_tokens)
    around = steered["policy step"] - network["network"]
    floor = rates.floor_seconds
    rows = [
        ("policy: products", steps, network["products"], floor(alone)),
        ("policy: norms, rotations", steps, network["unmixed"] - network["products"], 0.0),
        ("policy: attention, cache", steps, network["network"] - network["unmixed"], floor(whole - alone)),
        ("entropy, gate, draw, record", steps, around, 0.0),
    ]
    if calls:
        assert config.value is not None
        backbone = config.value.backbone
        needed = (timing.counts["value_needed"] - batch * width) / calls
        served = timing.counts["steered"] * timing.tokens / calls
        used = needed * calls / (timing.counts["value_computed"] - batch * width)
        alone = cost(backbone, needed, columns_seen=0, columns_read=0)
        whole = cost(backbone, needed, columns_seen=columns, columns_read=served * columns)
        rest = steered["value pass"] - steered["value products"]
        name = f"value pass: products, {config.pass_tokens} places, {used:.0%} used"
        rows += [
            (name, calls, steered["value products"], floor(alone)),
            ("value pass: attention, gathering, the rest", calls, rest, floor(whole - alone)),
        ]
    rows.append(("prefill", 2 if calls else 1, network["prefill"], floor(prefill)))
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


def _time(
    parts: Mapping[str, Any], system: SamplerSystem, prompts: list[list[int]], new_tokens: int
) -> dict[str, float]:
    """Seconds of one run of each part."""
    config = system.config(len(prompts), new_tokens)
    params, prompt = system.params(), jax.tree.map(jnp.asarray, Prompt.pack(prompts))
    numbers = system.numbers(config, len(prompts))
    span = math.ceil((1 - system.expected_ratio) / system.expected_ratio)

    def run(part: Any, count: int) -> DecodeState:
        return _repeat(params, prompt, numbers, count, span, part=part, config=config)

    return {name: seconds_each(functools.partial(run, part)) for name, part in parts.items()}


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
    return _greedy(params, hidden, replace(state, policy_cache=cache))


def _policy_unmixed(
    params: SteeringParams, prompt: Prompt, state: DecodeState, config: SamplerConfig
) -> DecodeState:
    last = (state.policy_lengths - 1)[:, None]
    ids = pick(state.policy_ids, last[:, 0])[:, None]
    hidden, _ = forward(params.policy["model"], ids, last, None, Unmixed(), config=config.policy)
    return _greedy(params, hidden[:, 0], state)


def _policy_products(
    params: SteeringParams, prompt: Prompt, state: DecodeState, config: SamplerConfig
) -> DecodeState:
    model = params.policy["model"]
    ids = pick(state.policy_ids, state.policy_lengths - 1)[:, None]
    return _greedy(params, products(model, _embedded(model, ids))[:, 0], state)


def _greedy(params: SteeringParams, hidden: jax.Array, state: DecodeState) -> DecodeState:
    """The head's product, and something that needs all of it."""
    best = jnp.argmax(lm_head(params.policy, hidden), axis=-1).astype(jnp.int32)
    return replace(state, record=replace(state.record, tokens=state.record.tokens.at[:, 0].set(best)))


def _embedded(model: Params, ids: jax.Array) -> jax.Array:
    """Hidden states of about 1, which differ from run to run as the ids do."""
    x = model["embed_tokens"]["weight"][ids]
    return x / jnp.sqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True))


def _value_pass(
    params: SteeringParams, prompt: Prompt, state: DecodeState, config: SamplerConfig
) -> DecodeState:
    net = params.value_net(config)
    assert net is not None
    return value_pass.value_pass(net, state, config)


def _value_products(
    params: SteeringParams, prompt: Prompt, state: DecodeState, config: SamplerConfig
) -> DecodeState:
    net = params.value_net(config)
    assert net is not None
    assert config.pass_tokens is not None
    ids = jnp.resize(state.pending.ids, (config.pass_tokens,))
    found = jnp.max(products(net.model, _embedded(net.model, ids)))
    return replace(state, prefix_value=state.prefix_value + found)


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


_NETWORK: Mapping[str, Any] = {
    "products": _policy_products,
    "unmixed": _policy_unmixed,
    "network": _policy_network,
    "prefill": _prefill,
}
_UNSTEERED: Mapping[str, Any] = {"policy step": _policy_step}
_STEERED: Mapping[str, Any] = {
    **_UNSTEERED,
    "value pass": _value_pass,
    "value products": _value_products,
}
