"""Rows that live: room for them, prompts that come into it, and copies of rows in the middle of a reply.

All functions here are traced; `sia_jax.decoding.window` has them as programs. A state is held `inside`,
but by `fork`.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.state import DecodeState, FinishReason, empty_record, empty_top, map_rows
from sia_jax.decoding.value_pass import prompt_pass, read_prompts
from sia_jax.models.cache import KVCache, Layout
from sia_jax.models.config import ModelConfig
from sia_jax.models.transformer import forward
from sia_jax.steering.types import Pending, RowParams
from sia_jax.types import Params

_COLUMNS = 16
"""Caches have a multiple of so many columns, which suits the vector units."""


def cache_columns(config: SamplerConfig, policy_tokens: int, value_tokens: int) -> tuple[int, int]:
    """Columns of the caches of policy and value model, for rows of so many tokens of prompt and reply."""
    needed = (policy_tokens + config.look_ahead_tokens, value_tokens + config.candidate_tokens)
    policy, value = (-(-size // _COLUMNS) * _COLUMNS for size in needed)
    return policy, value


def allocate(
    params: SteeringParams, numbers: RowParams, config: SamplerConfig, policy_tokens: int, value_tokens: int
) -> DecodeState:
    """Room for rows, none of which holds a request.

    Args:
      params: the weights, whose dtypes the caches take.
      numbers: of B rows, any. The widths X of their id lists are those of all requests to come.
      config: resolved.
      policy_tokens: W, tokens of prompt and reply that a row can hold, as the policy counts them.
      value_tokens: W', the same of the value model.
    """
    rows = numbers.keys.shape[0]
    columns, value_columns = cache_columns(config, policy_tokens, value_tokens)
    net = params.pass_net(config)
    ids, lengths = jnp.zeros((rows, 1), jnp.int32), jnp.ones(rows, jnp.int32)
    state = begin(Prompt(ids, lengths, ids, lengths), numbers, config, policy_tokens, value_tokens)
    return replace(
        state,
        policy_cache=_cache(params.policy["model"], config.policy, rows, columns, config),
        value_cache=(
            None if net is None else _cache(net.model, net.config.backbone, rows, value_columns, config)
        ),
        finish_reason=jnp.full_like(state.finish_reason, FinishReason.CANCELLED),
    )


def admit(
    params: SteeringParams,
    state: DecodeState,
    rows: Int[Array, " N"] | None,
    prompts: Prompt,
    numbers: RowParams,
    config: SamplerConfig,
    *,
    read_values: bool = True,
) -> DecodeState:
    """Put requests into rows, whatever these held: the policy reads the prompts, the rest begins anew.

    Args:
      params: the weights.
      state: rows that are not named stay as they are.
      rows: [N] the row of each request, none twice; outside 0 .. B-1: the entry is padding. None: all rows in
        order, and with `config.branches` of n each prompt, read once, fills n rows side by side.
      prompts: N; they and the replies fit into the rows.
      numbers: of N requests; of all rows, if `rows` is None.
      config: resolved.
      read_values: whether the value model reads the prompts too; else when first a row comes to a junction.

    Raises:
      ValueError: buffers of prompts that are wider than the rows, or id lists of other widths than theirs.
    """
    n = config.branches if rows is None else 1
    ids, value_ids = prompts.policy_ids, prompts.value_ids
    each = jax.tree.map(lambda x: jnp.repeat(x, n, axis=0), prompts) if n > 1 else prompts
    fresh = begin(each, numbers, config, state.policy_ids.shape[1], state.value_ids.shape[1])
    if rows is not None:
        _check_widths(numbers, state.numbers)
        fresh = map_rows(lambda old, new: _put(old, rows, new), _without_caches(state), fresh)
    state = _read_policy_prompts(params, state, fresh, ids, config, rows)
    net = params.pass_net(config)
    if net is None or not read_values:
        return state
    return read_prompts(net, state, value_ids, config, rows)


def extend(
    params: SteeringParams,
    state: DecodeState,
    rows: Int[Array, " N"],
    kept: Int[Array, " N"],
    value_kept: Int[Array, " N"],
    prompts: Prompt,
    numbers: RowParams,
    config: SamplerConfig,
    *,
    read_values: bool = True,
) -> DecodeState:
    """Put requests into rows that hold the beginnings of their prompts: what comes after them is read.

    A turn of a conversation, of which row 2 has said the one before: 4 ids of prompt, 3 of reply, of which
    nobody has read the last. Its prompt is now these 7 and 2 more.

        ids      p0 p1 p2 p3 r0 r1 | r2 n0 n1
        column    0  1  2  3  4  5 |  6  7  8      rows 2, kept 6, prompts.policy_ids r2 n0 n1

    The row begins anew, as if `admit` had put the whole prompt there.

    Args:
      params: the weights.
      state: rows that are not named stay as they are.
      rows: [N] the row of each request, none twice; outside 0 .. B-1: the entry is padding.
      kept: [N] ids at the row's beginning that are those of the prompt, and whose keys and values its policy
        cache holds: of P ids of prompt and t of reply, P + t - 1 at most, see `held`.
      value_kept: [N] the same of the value model, which lags behind.
      prompts: N, what comes after `kept` and `value_kept` ids of them, at least one id each.
      numbers: of N requests.
      config: resolved.
      read_values: whether the value model reads the rest too. Else its cache goes on to hold `value_kept`
        tokens, for a turn to come, and the row must come to no junction.

    Raises:
      ValueError: buffers of prompts that are wider than the rows, or id lists of other widths than theirs.
    """
    _check_widths(numbers, state.numbers)
    whole = Prompt(
        *_joined(state.policy_ids, rows, kept, prompts.policy_ids, prompts.policy_lengths),
        *_joined(state.value_ids, rows, value_kept, prompts.value_ids, prompts.value_lengths),
    )
    fresh = begin(whole, numbers, config, state.policy_ids.shape[1], state.value_ids.shape[1])
    if not read_values:
        fresh = replace(fresh, value_lengths=value_kept, value_read=value_kept > 0)
    fresh = map_rows(lambda old, new: _put(old, rows, new), _without_caches(state), fresh)
    state = _read_policy_prompts(params, state, fresh, prompts.policy_ids, config, rows, kept)
    net = params.pass_net(config)
    if net is None or not read_values:
        return state
    return read_prompts(net, state, prompts.value_ids, config, rows, value_kept)


def held(state: DecodeState) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    """Columns of each row, of policy and value model, that hold tokens of prompt and reply, for `extend`.

    The policy has read all but the last token, P + t - 1. The value model has read what `value_lengths`
    says, and nothing where the prompt is unread. A row that failed has NaN among them: none of either.
    """
    sound = state.finish_reason != FinishReason.NON_FINITE
    return (
        jnp.where(sound, state.policy_lengths - 1, 0),
        jnp.where(sound & state.value_read, state.value_lengths, 0),
    )


def fork(
    state: DecodeState, source: Int[Array, " N"], target: Int[Array, " N"], keys: UInt32[Array, "N 2"]
) -> DecodeState:
    """Copy rows, reply, caches and all, under keys of their own: branches, best-of-N, beams.

    A copy of a row that waits comes to its junction anew: what was drawn there was drawn under another key.

    Args:
      state: `outside`.
      source: [N] rows that are copied, as they are before the call.
      target: [N] rows that they are copied over, none twice; outside 0 .. B-1: nowhere.
      keys: [N, 2] of the copies, such as fold_in(key, j) of branch j.
    """
    taken = jnp.clip(source, 0, state.rows - 1)
    waits = state.waiting
    free = replace(
        state,
        waited=jnp.full_like(state.waited, -1),
        policy_tokens=state.policy_tokens - waits,  # the step to the junction is taken again
    )
    forked = map_rows(lambda old, new: _put(old, target, new[taken]), state, free)
    own = _put(forked.numbers.keys, target, keys)
    return replace(forked, numbers=replace(forked.numbers, keys=own))


def begin(
    prompts: Prompt, numbers: RowParams, config: SamplerConfig, policy_tokens: int, value_tokens: int
) -> DecodeState:
    """Rows at the beginning of their replies, one for each prompt, and without caches.

    Args:
      prompts: B.
      numbers: of B rows.
      config: resolved.
      policy_tokens: W.
      value_tokens: W'.
    """
    rows, c, v = prompts.policy_ids.shape[0], config.steering.num_candidates, config.policy.vocab_size
    zeros, nothing, none = jnp.zeros(rows, jnp.int32), jnp.zeros(rows), jnp.zeros((), jnp.int32)
    no_cache: Any = None
    gate = numbers.gate.init(numbers.threshold)
    real = jnp.arange(prompts.policy_ids.shape[1]) < prompts.policy_lengths[:, None]
    ids = jnp.where(real, prompts.policy_ids, v)
    return DecodeState(
        numbers=numbers,
        policy_ids=_padded(prompts.policy_ids, policy_tokens),
        policy_prompts=prompts.policy_lengths,
        value_ids=_padded(prompts.value_ids, value_tokens),
        value_prompts=prompts.value_lengths,
        policy_cache=no_cache,
        value_cache=None,
        lengths=zeros,
        finish_reason=zeros,
        waited=zeros - 1,
        previous_entropy=nothing,
        gate=gate,
        prompt_ids=jnp.zeros((rows, v), bool).at[jnp.arange(rows)[:, None], ids].set(True, mode="drop"),
        counts=jnp.zeros((rows, v), jnp.int32),
        value_read=jnp.zeros(rows, bool),
        # A vocabulary head speaks at a prefix's last token, which is therefore never counted as read.
        value_lengths=prompts.value_lengths - (not config.reads_candidates),
        prefix_value=nothing,
        readings=zeros,
        values_read=zeros,
        policy_tokens=prompts.policy_lengths - 1,
        value_tokens=zeros,
        pending=Pending(
            ids=jnp.zeros((rows, c), jnp.int32),
            logits=jnp.zeros((rows, c)),
            policy_logprobs=jnp.zeros((rows, c)),
            kept=zeros,
            contenders=zeros,
            reads=jnp.zeros((rows, c), bool),
            entropy=nothing,
            policy_choice=zeros,
            gate=gate,
            top=empty_top(config.top_logprobs, rows),
        ),
        record=empty_record(
            rows,
            config.max_new_tokens,
            c if config.record == "candidates" else None,
            config.top_logprobs,
        ),
        policy_steps=none,
        value_calls=none,
        policy_computed=none,
        value_computed=none,
    )


def _read_policy_prompts(
    params: SteeringParams,
    state: DecodeState,
    fresh: DecodeState,
    ids: Int[Array, "N P"],
    config: SamplerConfig,
    rows: Int[Array, " N"] | None,
    kept: Int[Array, " N"] | None = None,
) -> DecodeState:
    """`fresh` with the caches and counts of `state`, after the policy has read prompts, or their rest."""
    places, attend = prompt_pass(ids, config, rows, kept)
    model = params.policy["model"]
    _, cache = forward(model, ids, places, state.policy_cache, attend, config=config.policy)
    return replace(
        fresh,
        policy_cache=cache,
        value_cache=state.value_cache,
        policy_steps=state.policy_steps,
        value_calls=state.value_calls,
        policy_computed=state.policy_computed + ids.size,
        value_computed=state.value_computed,
    )


def _joined(
    ids: Int[Array, "B W"],
    rows: Int[Array, " N"],
    kept: Int[Array, " N"],
    rest: Int[Array, "N P"],
    lengths: Int[Array, " N"],
) -> tuple[Int[Array, "N W"], Int[Array, " N"]]:
    """The first `kept` ids of these rows and `lengths` of the rest, then 0; and how many they are."""
    width = ids.shape[1]
    rest = _padded(rest, width)
    place = jnp.arange(width) - kept[:, None]
    beginning = ids[jnp.clip(rows, 0, len(ids) - 1)]
    after = jnp.take_along_axis(rest, jnp.maximum(place, 0), axis=1)
    joined = jnp.where(place < 0, beginning, jnp.where(place < lengths[:, None], after, 0))
    return joined, kept + lengths


def _put(old: Array, rows: Array, new: Array) -> Array:
    """old[rows] = new; rows outside 0 .. B-1 are dropped."""
    return old.at[rows].set(new, mode="drop", wrap_negative_indices=False)


def _check_widths(numbers: RowParams, rows: RowParams) -> None:
    for name in ("stop_ids", "banned_ids", "bias_ids", "bias"):
        got, expected = getattr(numbers, name).shape[1], getattr(rows, name).shape[1]
        if got != expected:
            raise ValueError(
                f"{name} must have the width that the rows were allocated with, {expected}, got {got}; fill "
                "ids up with -1 and a bias with 0"
            )


def _padded(ids: Array, width: int) -> Array:
    if ids.shape[1] > width:
        raise ValueError(
            f"prompts in buffers of {ids.shape[1]} ids do not fit into rows of {width} tokens; cut them, or "
            "allocate rows that hold more"
        )
    return jnp.pad(ids, ((0, 0), (0, width - ids.shape[1])))


def _without_caches(state: DecodeState) -> DecodeState:
    """The state but for its caches, which are written in place and never taken apart."""
    nothing: Any = None
    return replace(state, policy_cache=nothing, value_cache=nothing)


def _cache(weights: Params, model: ModelConfig, rows: int, columns: int, config: SamplerConfig) -> KVCache:
    layout: Layout | None = None if config.attention is None else "BSKH"  # in which fused kernels take it
    cache = KVCache.zeros(model, rows, columns, weights["embed_tokens"]["weight"].dtype, layout)
    return cache.split_over_tensor()
