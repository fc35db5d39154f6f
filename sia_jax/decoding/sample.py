"""`sample`: prompts in, replies and their record out, in one jitted program."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from sia_jax.arguments import check_kind, concrete
from sia_jax.decoding import checks
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.loop import run_chunk
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.rows import admit, allocate
from sia_jax.decoding.schedule import Schedule, make_schedule
from sia_jax.decoding.state import DecodeState, Samples, row_specs
from sia_jax.parallel.lock_step import agreed, on_every_process, spans_processes
from sia_jax.parallel.rows import BY_ROW, WHOLE, split_by_rows, sum_over_rows
from sia_jax.steering.config import Knobs
from sia_jax.steering.types import RowParams


def sample(
    params: SteeringParams,
    prompt: Prompt,
    threshold: Any,
    *,
    rng_key: Any,
    config: SamplerConfig,
    knobs: Knobs | None = None,
) -> Samples:
    """Generate a reply to each prompt, steered at its junctions.

    y_t ~ softmax((l_A + tilt(beta V)) / T) over the candidates where the gate opens (by default where the
    entropy reaches the threshold), softmax(l / T) elsewhere.

    Everything that is concrete is checked; then one program runs, whose only static argument is `config`. It
    serves all values of threshold, keys and knobs; each shape [B, P] of the prompts is compiled once. A
    reply depends on its prompts, its key and its numbers: not on its neighbours, nor on the schedule.

    With `config.mesh` each group of devices along "tensor" decodes rows of its own; between the groups only
    counts of rows go round, by which all know when to run what. Weights that "fsdp" splits are gathered once
    a call, and whole from then on: only "tensor" makes room for larger ones.

    A mesh over several processes (`jax.distributed`) is served in lock step: each process makes the same call
    with all prompts, decodes the rows of its own devices, and is handed all replies in the order of the
    prompts. Calls that differ, or that one process refuses, raise on every one before anything is traced.

    Args:
      params: weights of policy and value model.
      prompt: B prompts.
      threshold: [] or [B], nats. With the default gate -inf steers densely and +inf never; a gate without
        `Entropy` and `Budget` does not look at it.
      rng_key: one threefry2x32 key, of which row i uses fold_in(rng_key, i), or [B] keys.
      config: static.
      knobs: numbers that override the configuration's defaults, [] or [B].

    Returns:
      Samples of B rows; with `config.branches` of n, of B n rows, those of a prompt side by side.

    Raises:
      ValueError: what `sia_jax.decoding.checks` finds, shapes that do not fit, or another call than that of
        the mesh's other processes.
      TypeError: an argument of another kind.

    Source: the paper's equations 3 to 5, arXiv 2602.21215; the official code's loop is `src/sia.py`.
    """
    check_call(params, config)
    prepare = functools.partial(_prepare, params, prompt, threshold, rng_key, config, knobs)
    # Under a caller's own `jax.jit` there are no numbers to compare yet.
    compare = spans_processes(config.mesh) and not _traced(params, prompt, threshold, rng_key, knobs)
    call = agreed("sample", prepare, _parts, mesh=config.mesh) if compare else prepare()
    samples = _sample(params, call.prompts, call.numbers, call.schedule, config=call.config)
    return on_every_process(samples, config.mesh)


@dataclass(frozen=True)
class _Call:
    """The arguments of the program, checked."""

    prompts: Prompt
    numbers: RowParams
    schedule: Schedule
    config: SamplerConfig


def _prepare(
    params: SteeringParams,
    prompt: Prompt,
    threshold: Any,
    rng_key: Any,
    config: SamplerConfig,
    knobs: Knobs | None,
) -> _Call:
    checks.check_params(params.policy, params.value, config)
    checks.check_attention(params.policy, params.value, config)
    prompt = checks.check_prompt(prompt, config)
    threshold = checks.check_threshold(threshold, config)
    knobs = Knobs() if knobs is None else knobs
    checks.check_knobs(knobs)
    rows = prompt.rows
    checks.check_mesh(params.policy, params.value, rows, config)
    config = config.resolve(rows * config.branches)
    numbers = make_row_params(threshold, rng_key, knobs, rows, config)
    schedule = make_schedule(knobs.schedule, config.schedule)
    return _Call(jax.tree.map(_int32, prompt), numbers, schedule, config)


def _parts(call: _Call) -> dict[str, Any]:
    """What must be alike on all processes."""
    keys = call.numbers.keys
    numbers = {f.name: getattr(call.numbers, f.name) for f in fields(RowParams) if f.name != "keys"}
    numbers["schedule"] = call.schedule
    return {"prompt": call.prompts, "rng_key": keys, "threshold or knobs": numbers, "config": call.config}


def _traced(*trees: Any) -> bool:
    return not all(concrete(leaf) for leaf in jax.tree.leaves(trees))


def check_call(params: Any, config: Any) -> None:
    """The weights and the configuration are such.

    Raises:
      TypeError: they are something else, such as a loaded model.
    """
    check_kind("params", params, SteeringParams, "sia_jax.SteeringParams(policy.params, value.params)")
    check_kind("config", config, SamplerConfig, "sia_jax.SamplerConfig(policy=policy.config, ...)")


def lower(
    params: SteeringParams, prompts: Prompt, numbers: RowParams, schedule: Schedule, *, config: SamplerConfig
) -> Any:
    """The program of `sample`, lowered and not compiled: a `jax.stages.Lowered`.

    Args:
      params: arrays, or shapes.
      prompts: arrays or shapes too, int32.
      numbers: of `make_row_params`, or their shapes.
      schedule: of `make_schedule`, or its shapes.
      config: resolved.
    """
    return _sample.lower(params, prompts, numbers, schedule, config=config)


@functools.partial(jax.jit, static_argnames="config")
def _sample(
    params: SteeringParams, prompts: Prompt, numbers: RowParams, schedule: Schedule, *, config: SamplerConfig
) -> Samples:
    reply: Callable[..., Samples] = functools.partial(_reply, config=config)
    if config.mesh is not None:
        reply = split_by_rows(reply, config.mesh, (WHOLE, BY_ROW, BY_ROW, WHOLE), row_specs(Samples))
    return reply(params, prompts, numbers, schedule)


def _reply(
    params: SteeringParams, prompts: Prompt, numbers: RowParams, schedule: Schedule, *, config: SamplerConfig
) -> Samples:
    state = start(params, prompts, numbers, config)
    state = finish(params, state, schedule, config)
    return collect(state, config)


def start(params: SteeringParams, prompts: Prompt, numbers: RowParams, config: SamplerConfig) -> DecodeState:
    """Rows for all prompts and their branches, at the beginning of their replies; no value prompt is read.

    Args:
      params: the weights, whose dtypes the caches take.
      prompts: N, before the branches.
      numbers: of N prompts; branch j of one draws with fold_in(key, j).
      config: resolved.
    """
    numbers = branch(numbers, config.branches)
    sizes = (x.shape[1] + config.max_new_tokens for x in (prompts.policy_ids, prompts.value_ids))
    state = allocate(params, numbers, config, *sizes)
    return admit(params, state, None, prompts, numbers, config, read_values=False)


def branch(numbers: RowParams, n: int) -> RowParams:
    """The numbers of n rows side by side for each row, under keys of their own: fold_in(key, j)."""
    if n == 1:
        return numbers
    numbers = jax.tree.map(lambda x: jnp.repeat(x, n, axis=0), numbers)
    keys = jax.random.wrap_key_data(numbers.keys, impl="threefry2x32")
    keys = jax.vmap(jax.random.fold_in)(keys, jnp.arange(keys.shape[0]) % n)
    return replace(numbers, keys=jax.random.key_data(keys))


def finish(
    params: SteeringParams, state: DecodeState, schedule: Schedule, config: SamplerConfig
) -> DecodeState:
    """Chunk after chunk, until every reply has ended."""
    width = state.value_ids.shape[1] - config.max_new_tokens  # of the prompts, which are still unread

    def go_on(state: DecodeState) -> DecodeState:
        return run_chunk(params, state, schedule, config.chunk, config, unread_width=width)

    return jax.lax.while_loop(lambda state: sum_over_rows(jnp.sum(state.alive)) > 0, go_on, state)


def collect(state: DecodeState, config: SamplerConfig) -> Samples:
    """What is handed out of a state whose replies have ended; what lies past a reply is padding."""
    record = state.record
    real = jnp.arange(record.tokens.shape[1]) < state.lengths[:, None]
    return Samples(
        tokens=jnp.where(real, record.tokens, config.policy.pad_token_id or 0),
        junction=record.junction,
        entropy=record.entropy,
        policy_logprob=record.policy_logprob,
        logprob=record.logprob,
        value=record.value,
        shifted=record.shifted,
        contenders=record.contenders,
        values_read=record.values_read,
        lengths=state.lengths,
        finish_reason=state.finish_reason,
        policy_tokens=state.policy_tokens,
        value_tokens=state.value_tokens,
        policy_steps=state.policy_steps,
        value_calls=state.value_calls,
        policy_computed=sum_over_rows(state.policy_computed),
        value_computed=sum_over_rows(state.value_computed),
        candidates=record.candidates,
        top=record.top,
    )


def _int32(x: Any) -> Array:
    return jnp.asarray(x, jnp.int32)
