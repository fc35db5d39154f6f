"""Programs over rows that live: the state goes in and comes out, and what the host reads are reports.

Each is one jitted function of which the state is donated, so that caches are written where they lie. Read a
`Report`, never a leaf of a state: a live view of a donated buffer makes JAX copy it, silently. On a mesh the
shardings are pinned on the way out, so that what one program returns the next takes as it is.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Int, UInt32

from sia_jax.decoding import rows as traced
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.loop import run_chunk
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.schedule import Schedule
from sia_jax.decoding.state import COUNTS, DecodeState, FinishReason, row_specs, state_specs
from sia_jax.models.cache import KVCache
from sia_jax.parallel.mesh import ROW_AXES
from sia_jax.parallel.rows import BY_ROW, WHOLE, split_by_rows, sum_over_rows
from sia_jax.steering.gates import shut_at_infinity
from sia_jax.steering.types import RowParams, TokenRecord


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Report:
    """What rows said in a window, and how they stand after it."""

    # [B, W + 1], a column a token: who waits at the border may speak before the first step. Past `counts`
    # stands anything.
    said: TokenRecord
    counts: Int[Array, " B"]  # tokens said
    lengths: Int[Array, " B"]  # t, tokens of the reply so far
    finish_reason: Int[Array, " B"]  # `FinishReason`
    policy_tokens: Int[Array, " B"]
    value_tokens: Int[Array, " B"]
    # Columns of the caches that hold tokens of prompt and reply, which `extend` may keep. They are true until
    # something else comes into the row.
    policy_held: Int[Array, " B"]
    value_held: Int[Array, " B"]
    policy_steps: Int[Array, ""]  # of this window, as are the following
    value_calls: Int[Array, ""]
    policy_computed: Int[Array, ""]  # on all devices, and by what was admitted since the last window
    value_computed: Int[Array, ""]


@functools.partial(jax.jit, static_argnames=("config", "policy_tokens", "value_tokens"))
def allocate(
    params: SteeringParams,
    numbers: RowParams,
    *,
    config: SamplerConfig,
    policy_tokens: int,
    value_tokens: int,
) -> DecodeState:
    """See `sia_jax.decoding.rows.allocate`."""

    def make(params: SteeringParams, numbers: RowParams) -> DecodeState:
        return traced.allocate(params, numbers, config, policy_tokens, value_tokens).outside()

    shapes = jax.eval_shape(make, params, numbers)
    return _by_rows(make, config, (WHOLE, BY_ROW), state_specs(shapes))(params, numbers)


def admit(
    params: SteeringParams,
    state: DecodeState,
    rows: Any,
    prompts: Prompt,
    numbers: RowParams,
    *,
    config: SamplerConfig,
    read_values: bool = True,
) -> DecodeState:
    """Put N requests into rows; both models read the prompts. See `sia_jax.decoding.rows.admit`.

    Args:
      params: the weights.
      state: donated.
      rows: [N] of the whole batch, none twice; outside 0 .. B-1: the entry is padding. On a mesh of G groups
        entries are split as rows are: entry i goes to a row of group i // (N / G), or nowhere.
      prompts: N.
      numbers: of N requests.
      config: resolved; its `branches` are not looked at, `fork` makes them.
      read_values: static. False leaves the value prompts unread, which a window never makes up for: only for
        requests that cannot come to a junction, those with a threshold of +inf under a gate that infinity
        shuts.

    Raises:
      ValueError: a request that does not fit into its row, a row that is named twice or lies in another group
        than its entry, one that may come to a junction where `read_values` is False, or what
        `sia_jax.decoding.rows.admit` finds.
    """
    rows = np.asarray(rows, np.int32)
    _check_rows(rows, state, config)
    _check_room(rows, prompts, numbers, state, config)
    if not read_values:
        _check_unsteered(rows, numbers, state, config)
    return _admit(params, state, rows, prompts, numbers, config=config, read_values=read_values)


@functools.partial(jax.jit, static_argnames=("config", "read_values"), donate_argnames="state")
def _admit(
    params: SteeringParams,
    state: DecodeState,
    rows: Int[Array, " N"],
    prompts: Prompt,
    numbers: RowParams,
    *,
    config: SamplerConfig,
    read_values: bool,
) -> DecodeState:
    def put(
        params: SteeringParams, state: DecodeState, rows: Array, prompts: Prompt, numbers: RowParams
    ) -> DecodeState:
        own, state = _own_rows(rows, state, config), state.inside()
        return traced.admit(params, state, own, prompts, numbers, config, read_values=read_values).outside()

    specs = state_specs(state)
    put = _by_rows(put, config, (WHOLE, specs, BY_ROW, BY_ROW, BY_ROW), specs)
    return put(params, state, rows, prompts, numbers)


def extend(
    params: SteeringParams,
    state: DecodeState,
    rows: Any,
    kept: Any,
    value_kept: Any,
    prompts: Prompt,
    numbers: RowParams,
    *,
    config: SamplerConfig,
    read_values: bool = True,
) -> DecodeState:
    """Put N requests into rows that hold the beginnings of their prompts, such as the turns before.

    Both models read what comes after them, and the rows begin anew, as if `admit` had put the whole prompts
    there. See `sia_jax.decoding.rows.extend`.

    Args:
      params: the weights.
      state: donated.
      rows: [N] as in `admit`.
      kept: [N] ids at the beginning of the row, and of the prompt, that the policy does not read again: at
        most `keepable` of the row's last report. What the row holds besides is not looked at.
      value_kept: [N] the same of the value model.
      prompts: N, ids after `kept` and `value_kept` of them, at least one each.
      numbers: of N requests.
      config: resolved; its `branches` are not looked at.
      read_values: static, as in `admit`. False leaves the value cache at `value_kept` tokens, which the next
        turn may keep in its place.

    Raises:
      ValueError: numbers of tokens below zero, nothing to read, or what `admit` raises.
    """
    rows = np.asarray(rows, np.int32)
    kept, value_kept = np.asarray(kept, np.int32), np.asarray(value_kept, np.int32)
    _check_rows(rows, state, config)
    _check_kept(rows, kept, value_kept, prompts, state)
    lengths = np.asarray(prompts.policy_lengths) + kept, np.asarray(prompts.value_lengths) + value_kept
    whole = replace(prompts, policy_lengths=lengths[0], value_lengths=lengths[1])
    _check_room(rows, whole, numbers, state, config)
    if not read_values:
        _check_unsteered(rows, numbers, state, config)
    return _extend(
        params, state, rows, kept, value_kept, prompts, numbers, config=config, read_values=read_values
    )


@functools.partial(jax.jit, static_argnames=("config", "read_values"), donate_argnames="state")
def _extend(
    params: SteeringParams,
    state: DecodeState,
    rows: Int[Array, " N"],
    kept: Int[Array, " N"],
    value_kept: Int[Array, " N"],
    prompts: Prompt,
    numbers: RowParams,
    *,
    config: SamplerConfig,
    read_values: bool,
) -> DecodeState:
    def put(
        params: SteeringParams,
        state: DecodeState,
        rows: Array,
        kept: tuple[Array, Array],
        prompts: Prompt,
        numbers: RowParams,
    ) -> DecodeState:
        own, state = _own_rows(rows, state, config), state.inside()
        return traced.extend(
            params, state, own, *kept, prompts, numbers, config, read_values=read_values
        ).outside()

    specs = state_specs(state)
    put = _by_rows(put, config, (WHOLE, specs, BY_ROW, BY_ROW, BY_ROW, BY_ROW), specs)
    return put(params, state, rows, (kept, value_kept), prompts, numbers)


def keepable(held: int, ids: Sequence[int] | np.ndarray, prompt: Sequence[int] | np.ndarray) -> int:
    """Ids of a prompt that `extend` need not read: min(held, ids alike from the first on, len(prompt) - 1).

        keepable(5, [1, 2, 3, 4, 5, 6], [1, 2, 3, 9, 8]) == 3

    Args:
      held: the row's `Report.policy_held`, or `value_held` for the value model.
      ids: prompt and reply that the row holds, as the model sees them.
      prompt: of the request to come, as the model sees it.
    """
    most = min(int(held), len(ids), len(prompt) - 1)
    alike = np.asarray(ids[:most]) == np.asarray(prompt[:most])
    return most if alike.all() else int(np.argmin(alike))


@functools.partial(jax.jit, static_argnames="config", donate_argnames="state")
def fork(
    state: DecodeState,
    source: Int[Array, " N"],
    target: Int[Array, " N"],
    keys: UInt32[Array, "N 2"],
    *,
    config: SamplerConfig,
) -> DecodeState:
    """Copy rows over others, from any group of a mesh to any. See `sia_jax.decoding.rows.fork`."""
    return _pinned(traced.fork(state, source, target, keys), config)


def window(
    params: SteeringParams,
    state: DecodeState,
    schedule: Schedule,
    steps: Any,
    cancel: Any,
    *,
    config: SamplerConfig,
) -> tuple[DecodeState, Report]:
    """Some policy steps of all rows, and the value passes among them.

    Args:
      params: the weights.
      state: donated; value prompts have been read.
      schedule: numbers of config.schedule, [] int32 each.
      steps: [] policy steps at most, and no more than W = `config.chunk`. They are fewer where no row is left
        that runs, and where value passes of `Burst` come so often that the W rounds of a window are used up.
        Under `Shared` each pass is a step.
      cancel: [B] rows to be stopped before the first step.
      config: resolved.

    Returns:
      (the state, the report).
    """
    steps, cancel = jnp.asarray(steps, jnp.int32), jnp.asarray(cancel, bool)
    return _window(params, state, schedule, steps, cancel, config=config)


def lower(
    params: SteeringParams,
    numbers: RowParams,
    schedule: Schedule,
    *,
    config: SamplerConfig,
    policy_tokens: int,
    value_tokens: int,
) -> Any:
    """The program of `window`, lowered and not compiled: a `jax.stages.Lowered`.

    Args:
      params: arrays, or shapes.
      numbers: of `make_row_params` for all rows, or their shapes.
      schedule: of `make_schedule`, or its shapes.
      config: resolved.
      policy_tokens: as of `allocate`, whose state this is for; it lies on the mesh as `window` returns it.
      value_tokens: the same of the value model.
    """
    make = functools.partial(allocate, config=config, policy_tokens=policy_tokens, value_tokens=value_tokens)
    state = jax.eval_shape(make, params, numbers)
    steps, cancel = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((state.rows,), bool)
    mesh = config.mesh
    if mesh is not None:
        state, steps, cancel = jax.tree.map(
            lambda x, spec: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec)),
            (state, steps, cancel),
            (_placed_specs(state, mesh), WHOLE, BY_ROW),
        )
    return _window.lower(params, state, schedule, steps, cancel, config=config)


@functools.partial(jax.jit, static_argnames="config", donate_argnames="state")
def _window(
    params: SteeringParams,
    state: DecodeState,
    schedule: Schedule,
    steps: Int[Array, ""],
    cancel: Bool[Array, " B"],
    *,
    config: SamplerConfig,
) -> tuple[DecodeState, Report]:
    def run(
        params: SteeringParams, state: DecodeState, schedule: Schedule, steps: Array, cancel: Array
    ) -> tuple[DecodeState, Report]:
        state = state.inside()
        reason = jnp.where(cancel & state.alive, FinishReason.CANCELLED, state.finish_reason)
        state, begin = replace(state, finish_reason=reason), state.lengths
        state = run_chunk(params, state, schedule, jnp.minimum(steps, config.chunk), config)
        report = _report(state, begin, config.chunk + 1)
        nothing: dict[str, Any] = dict.fromkeys(COUNTS, jnp.zeros((), jnp.int32))
        return replace(state, **nothing).outside(), report

    specs = state_specs(state)
    run = _by_rows(run, config, (WHOLE, specs, WHOLE, WHOLE, BY_ROW), (specs, row_specs(Report)))
    return run(params, state, schedule, steps, cancel)


def _report(state: DecodeState, begin: Array, width: int) -> Report:
    """The columns of the record from `begin` on, as many as a window may write."""
    length = state.record.tokens.shape[1]
    columns = jnp.minimum(begin[:, None] + jnp.arange(width), length - 1)

    def taken(x: Array) -> Array:
        return jnp.take_along_axis(x, columns.reshape(*columns.shape, *[1] * (x.ndim - 2)), axis=1)

    policy_held, value_held = traced.held(state)
    return Report(
        said=jax.tree.map(taken, state.record),
        counts=state.lengths - begin,
        lengths=state.lengths,
        finish_reason=state.finish_reason,
        policy_tokens=state.policy_tokens,
        value_tokens=state.value_tokens,
        policy_held=policy_held,
        value_held=value_held,
        policy_steps=state.policy_steps,
        value_calls=state.value_calls,
        policy_computed=sum_over_rows(state.policy_computed),
        value_computed=sum_over_rows(state.value_computed),
    )


def _check_rows(rows: np.ndarray, state: DecodeState, config: SamplerConfig) -> None:
    real = rows[(rows >= 0) & (rows < state.rows)]
    twice = sorted({int(row) for row in real if (real == row).sum() > 1})
    if twice:
        raise ValueError(f"rows must name no row twice, got {twice[:10]} more than once")
    groups = config.row_groups
    if len(rows) % groups:
        raise ValueError(
            f"expected entries in multiples of {groups}, the groups of the mesh, got {len(rows)}"
        )
    own = np.arange(len(rows)) // (len(rows) // groups)
    wrong = (rows >= 0) & (rows < state.rows) & (rows // (state.rows // groups) != own)
    if wrong.any():
        raise ValueError(
            f"an entry goes to a row of its own group of devices, got (entry, row) "
            f"{[(int(i), int(rows[i])) for i in np.flatnonzero(wrong)[:10]]} of {groups} groups of "
            f"{state.rows // groups} rows"
        )


def _check_room(
    rows: np.ndarray, prompts: Prompt, numbers: RowParams, state: DecodeState, config: SamplerConfig
) -> None:
    real = (rows >= 0) & (rows < state.rows)
    most = np.asarray(numbers.max_new_tokens)
    models = [("policy", prompts.policy_lengths, state.policy_ids.shape[1])]
    if config.value_passes:
        models.append(("value", prompts.value_lengths, state.value_ids.shape[1]))
    for name, lengths, room in models:
        needed = np.asarray(lengths) + most
        wrong = np.flatnonzero(real & (needed > room))
        if wrong.size:
            raise ValueError(
                f"{name} prompt and reply must fit into a row of {room} tokens, got (entry, tokens) "
                f"{[(int(i), int(needed[i])) for i in wrong[:10]]}; cut the prompt, or lower max_new_tokens"
            )


def _check_kept(
    rows: np.ndarray, kept: np.ndarray, value_kept: np.ndarray, prompts: Prompt, state: DecodeState
) -> None:
    for name, given, lengths in (
        ("kept", kept, prompts.policy_lengths),
        ("value_kept", value_kept, prompts.value_lengths),
    ):
        if given.shape != rows.shape:
            raise ValueError(f"{name} must have a number for each of {len(rows)} entries, got {given.shape}")
        real = (rows >= 0) & (rows < state.rows)
        wrong = np.flatnonzero(real & ((given < 0) | (np.asarray(lengths) < 1)))
        if wrong.size:
            raise ValueError(
                f"{name} must be at least 0 and leave at least one id to be read, got (entry, kept, left) "
                f"{[(int(i), int(given[i]), int(lengths[i])) for i in wrong[:10]]}; keep what `keepable` says"
            )


def _check_unsteered(rows: np.ndarray, numbers: RowParams, state: DecodeState, config: SamplerConfig) -> None:
    """That no row comes to a junction, where the value prompts stay unread."""
    if not config.value_passes:
        return
    real = (rows >= 0) & (rows < state.rows)
    thresholds = np.asarray(numbers.threshold)
    open_ = np.flatnonzero(real & (thresholds != np.inf))
    if open_.size:
        raise ValueError(
            "value prompts may stay unread where no row comes to a junction, at a threshold of +inf, got "
            f"(entry, threshold) {[(int(i), float(thresholds[i])) for i in open_[:10]]}; leave read_values "
            "True"
        )
    if real.any() and not shut_at_infinity(config.steering.gate):
        raise ValueError(
            "value prompts may stay unread where no row comes to a junction, and a threshold of +inf does "
            f"not shut this gate, {config.steering.gate}; leave read_values True"
        )


def _own_rows(rows: Int[Array, " N"], state: DecodeState, config: SamplerConfig) -> Int[Array, " N"]:
    """Rows of the whole batch as a group of devices counts its own, B of them; B: another's, or nobody's."""
    first = 0 if config.mesh is None else jax.lax.axis_index(ROW_AXES) * state.rows
    own = rows - first
    return jnp.where((own >= 0) & (own < state.rows), own, state.rows)


def _by_rows(function: Callable[..., Any], config: SamplerConfig, in_specs: Any, out_specs: Any) -> Any:
    """`function` by each group of a mesh on its own rows, and the states among its results pinned."""
    if config.mesh is None:
        return function
    split = split_by_rows(function, config.mesh, in_specs, out_specs)

    def pinned(*arguments: Any) -> Any:
        results = split(*arguments)
        return jax.tree.map(
            lambda x: _pinned(x, config) if isinstance(x, DecodeState) else x,
            results,
            is_leaf=lambda x: isinstance(x, DecodeState),
        )

    return pinned


def _pinned(state: DecodeState, config: SamplerConfig) -> DecodeState:
    """The state with its shardings said: rows over "data" and "fsdp", heads of caches over "tensor"."""
    mesh = config.mesh
    if mesh is None:
        return state

    def pin(x: Array, spec: P) -> Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    pinned: DecodeState = jax.tree.map(pin, state, _placed_specs(state, mesh))
    return pinned


def _placed_specs(state: DecodeState, mesh: Mesh) -> DecodeState:
    specs, tensor = state_specs(state), mesh.shape["tensor"]
    specs = replace(specs, policy_cache=_cache_specs(state.policy_cache, tensor))
    if state.value_cache is None:
        return specs
    return replace(specs, value_cache=_cache_specs(state.value_cache, tensor))


def _cache_specs(cache: KVCache, tensor: int) -> KVCache:
    axis, spec = cache.heads_axis, BY_ROW
    if axis is not None and cache.kv_heads % tensor == 0:
        spec = P(*BY_ROW, *[None] * (axis - 1), "tensor")
    specs: KVCache = jax.tree.map(lambda _: spec, cache)
    return specs
