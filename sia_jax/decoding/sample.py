"""`sample`: prompts in, replies and their record out, in one jitted program."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sia_jax.arguments import check_kind, concrete, told
from sia_jax.decoding import checks
from sia_jax.decoding.burst import run_chunk, value_backbone
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.state import DecodeState, Pending, Samples, Settings, empty_record, samples_specs
from sia_jax.models.attention import PrefillAttention, block_length
from sia_jax.models.cache import KVCache
from sia_jax.models.config import ModelConfig
from sia_jax.models.transformer import forward
from sia_jax.parallel.rows import BY_ROW, WHOLE, split_by_rows, sum_over_rows
from sia_jax.reprs import weights
from sia_jax.steering.arrays import pick
from sia_jax.steering.config import Knobs
from sia_jax.steering.gates import Gate
from sia_jax.steering.tilts import Tilt
from sia_jax.types import Params

_COLUMNS = 16
"""Caches have a multiple of so many columns, which suits the vector units."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class SteeringParams:
    """The weights of a sampler."""

    policy: Params
    """{"model": ..., "lm_head": ...}."""
    value: Params | None = None
    """{"model" or "lora": ..., "value_head": ...}; None: nothing is steered."""

    def __repr__(self) -> str:
        return f"SteeringParams(policy: {weights(self.policy)}; value: {weights(self.value)})"


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
      ValueError: what `sia_jax.decoding.checks` finds, or shapes that do not fit.
      TypeError: an argument of another kind.

    Source: the paper's equations 3 to 5, arXiv 2602.21215; the official code's loop is `src/sia.py`.
    """
    check_call(params, config)
    checks.check_params(params.policy, params.value, config)
    prompt = checks.check_prompt(prompt, config)
    threshold = checks.check_threshold(threshold, config)
    knobs = Knobs() if knobs is None else knobs
    checks.check_knobs(knobs)
    rows = prompt.rows
    checks.check_mesh(params.policy, params.value, rows, config)
    config = config.resolve(rows * config.branches)
    settings = make_settings(threshold, rng_key, knobs, rows, config)
    return _sample(params, jax.tree.map(_int32, prompt), settings, config=config)


def check_call(params: Any, config: Any) -> None:
    """The weights and the configuration are such.

    Raises:
      TypeError: they are something else, such as a loaded model.
    """
    check_kind("params", params, SteeringParams, "sia_jax.SteeringParams(policy.params, value.params)")
    check_kind("config", config, SamplerConfig, "sia_jax.SamplerConfig(policy=policy.config, ...)")


def lower(params: SteeringParams, prompts: Prompt, settings: Settings, *, config: SamplerConfig) -> Any:
    """The program of `sample`, lowered and not compiled: a `jax.stages.Lowered`.

    Args:
      params: arrays, or shapes.
      prompts: arrays or shapes too, int32.
      settings: of `make_settings`, or their shapes.
      config: resolved.
    """
    return _sample.lower(params, prompts, settings, config=config)


@functools.partial(jax.jit, static_argnames="config")
def _sample(params: SteeringParams, prompts: Prompt, settings: Settings, *, config: SamplerConfig) -> Samples:
    reply: Callable[..., Samples] = functools.partial(_reply, config=config)
    if config.mesh is not None:
        by_row = jax.tree.map(lambda x: BY_ROW if x.ndim else WHOLE, settings)
        reply = split_by_rows(reply, config.mesh, (WHOLE, BY_ROW, by_row), samples_specs())
    return reply(params, prompts, settings)


def _reply(params: SteeringParams, prompts: Prompt, settings: Settings, *, config: SamplerConfig) -> Samples:
    prompt, settings = branch(prompts, settings, config)
    state = start(params, prompts, prompt, settings, config)
    state = finish(params, prompts, prompt, settings, state, config)
    return collect(prompts, prompt, state, config)


def branch(prompts: Prompt, settings: Settings, config: SamplerConfig) -> tuple[Prompt, Settings]:
    """One row for each branch of each prompt; branch j of a row draws with fold_in(key, j)."""
    n = config.branches
    if n == 1:
        return prompts, settings

    def repeat(x: Array) -> Array:
        return jnp.repeat(x, n, axis=0) if x.ndim else x

    settings = jax.tree.map(repeat, settings)
    keys = jax.random.wrap_key_data(settings.keys, impl="threefry2x32")
    numbers = jnp.arange(keys.shape[0]) % n
    keys = jax.random.key_data(jax.vmap(jax.random.fold_in)(keys, numbers))
    return jax.tree.map(repeat, prompts), replace(settings, keys=keys)


def start(
    params: SteeringParams, prompts: Prompt, prompt: Prompt, settings: Settings, config: SamplerConfig
) -> DecodeState:
    """An empty reply for each row: caches allocated, the policy's prompts read.

    Args:
      params: the weights, whose dtypes the caches take.
      prompts: before the branches.
      prompt: one row for each row of the state.
      settings: of the rows.
      config: resolved.
    """
    rows, length = prompt.policy_tokens.shape
    c, v = config.steering.num_candidates, config.policy.vocab_size
    t = config.max_new_tokens
    model = params.policy["model"]
    columns, value_columns = cache_columns(config, length, prompt.value_tokens.shape[1])
    cache = _cache(model, config.policy, rows, columns)
    positions = jnp.broadcast_to(jnp.arange(length), prompts.policy_tokens.shape)
    _, cache = forward(
        model,
        prompts.policy_tokens,
        positions,
        cache,
        PrefillAttention(config.branches, block_length(config.mesh)),
        config=config.policy,
    )
    value_cache = None
    if params.value is not None and config.value is not None:
        value_model, _ = value_backbone(params.policy, params.value, config)
        value_cache = _cache(value_model, config.value.backbone, rows, value_columns)

    zeros = jnp.zeros(rows, jnp.int32)
    real = jnp.arange(length) < prompt.policy_lengths[:, None]
    ids = jnp.where(real, prompt.policy_tokens, v)
    last = pick(prompt.policy_tokens, prompt.policy_lengths - 1)
    is_vocab = config.value is not None and config.value.head == "vocab"
    return DecodeState(
        policy_cache=cache,
        value_cache=value_cache,
        token=last,
        lengths=zeros,
        finish_reason=zeros,
        waiting_since=zeros - 1,
        previous_entropy=jnp.zeros(rows),
        gate=config.steering.gate.init(settings.threshold),
        prompt_ids=jnp.zeros((rows, v), bool).at[jnp.arange(rows)[:, None], ids].set(True, mode="drop"),
        counts=jnp.zeros((rows, v), jnp.int32),
        # A vocab head speaks at a prefix's last token, which is therefore never counted as read.
        value_lengths=prompt.value_lengths - is_vocab,
        value_ready=jnp.zeros((), bool),
        junctions=zeros,
        policy_tokens=prompt.policy_lengths - 1,
        value_tokens=zeros,
        pending=Pending(
            ids=jnp.zeros((rows, c), jnp.int32),
            logits=jnp.zeros((rows, c)),
            policy_logprobs=jnp.zeros((rows, c)),
            kept=zeros,
            entropy=jnp.zeros(rows),
            own_choice=zeros,
        ),
        record=empty_record(rows, t, c if config.record == "candidates" else None),
        policy_steps=jnp.zeros((), jnp.int32),
        value_calls=jnp.zeros((), jnp.int32),
        chunk_steps=jnp.zeros((), jnp.int32),
    )


def finish(
    params: SteeringParams,
    prompts: Prompt,
    prompt: Prompt,
    settings: Settings,
    state: DecodeState,
    config: SamplerConfig,
) -> DecodeState:
    """Chunk after chunk, until every reply has ended."""

    def go_on(state: DecodeState) -> DecodeState:
        return run_chunk(params.policy, params.value, prompt, prompts, settings, state, config)

    return jax.lax.while_loop(lambda state: sum_over_rows(jnp.sum(state.alive)) > 0, go_on, state)


def collect(prompts: Prompt, prompt: Prompt, state: DecodeState, config: SamplerConfig) -> Samples:
    """What is handed out of a state whose replies have ended; what lies past a reply is padding."""
    record = state.record
    rows, t = record.tokens.shape
    real = jnp.arange(t) < state.lengths[:, None]
    pad = config.policy.pad_token_id or 0
    prefill = jnp.where(state.value_ready, prompts.value_tokens.size, 0)
    policy_computed = prompts.policy_tokens.size + state.policy_steps * rows
    value_computed = prefill + state.value_calls * (config.places or 0)
    return Samples(
        tokens=jnp.where(real, record.tokens, pad),
        junction=record.junction,
        entropy=record.entropy,
        policy_logprob=record.policy_logprob,
        logprob=record.logprob,
        value=record.value,
        shifted=record.shifted,
        lengths=state.lengths,
        finish_reason=state.finish_reason,
        policy_tokens=state.policy_tokens,
        value_tokens=state.value_tokens,
        policy_steps=state.policy_steps,
        value_calls=state.value_calls,
        policy_computed=sum_over_rows(policy_computed),
        value_computed=sum_over_rows(value_computed),
        candidates=record.candidates,
    )


def make_settings(threshold: Any, rng_key: Any, knobs: Knobs, rows: int, config: SamplerConfig) -> Settings:
    """Every number of a call as a typed array [B], so that no Python number ever compiles anything.

    Args:
      threshold: [] or [B].
      rng_key: one key or [B].
      knobs: [] or [B] each; None: the default.
      rows: B.
      config: resolved; gives the defaults.

    Raises:
      ValueError: a number out of its range, or a shape that is neither [] nor [B].
      TypeError: a key that is not threefry2x32.
    """
    steering = config.steering
    schedule = {"quorum": config.quorum, "patience": config.patience}
    defaults: dict[str, Any] = {
        "max_new_tokens": config.max_new_tokens,
        "stop_ids": np.array(config.policy.eos_token_ids, np.int32),
        "banned_ids": np.zeros(0, np.int32),
        "bias_ids": np.zeros(0, np.int32),
        "bias": np.zeros(0, np.float32),
    } | schedule
    integers = {"top_k", "min_new_tokens", "max_new_tokens"}
    numbers: dict[str, Any] = {}
    for field in fields(Knobs):
        name = field.name
        if name in ("gate", "tilt"):
            numbers[name] = _numbers(name, getattr(knobs, name), getattr(steering, name), rows, config)
            continue
        given = getattr(knobs, name)
        value: Any = given if given is not None else defaults.get(name, getattr(steering, name, None))
        value = checks.check_knob(name, value, config)
        if name in ("stop_ids", "banned_ids", "bias_ids", "bias"):
            dtype: Any = np.float32 if name == "bias" else np.int32
            numbers[name] = _broadcast(
                name, value, dtype, (rows, np.shape(value)[-1] if np.ndim(value) else 1)
            )
        elif name in schedule:
            numbers[name] = _broadcast(name, value, np.int32, ())
        else:
            numbers[name] = _broadcast(name, value, np.int32 if name in integers else np.float32, (rows,))
    if numbers["bias"].shape != numbers["bias_ids"].shape:
        raise ValueError(
            f"bias and bias_ids must have one shape, got {np.shape(knobs.bias)} and "
            f"{np.shape(knobs.bias_ids)}"
        )
    least, most = numbers["min_new_tokens"], numbers["max_new_tokens"]
    if concrete(least) and concrete(most) and bool(np.any(np.asarray(least) > np.asarray(most))):
        raise ValueError(
            f"min_new_tokens must be at most max_new_tokens, got {np.asarray(least).tolist()} and "
            f"{np.asarray(most).tolist()}; raise max_new_tokens"
        )
    return Settings(
        keys=_keys(rng_key, rows),
        threshold=_broadcast("threshold", threshold, np.float32, (rows,)),
        **numbers,
    )


def _numbers(name: str, given: Any, part: Gate | Tilt, rows: int, config: SamplerConfig) -> tuple:
    defaults = part.numbers
    if given is not None and not isinstance(given, tuple | list):
        raise TypeError(f"knobs.{name} must be a tuple, one number each of {defaults}, got {told(given)}")
    values = defaults if given is None else tuple(given)
    if len(values) != len(defaults):
        raise ValueError(f"the {name} {part} has {len(defaults)} numbers, got {len(values)}")
    values = tuple(checks.check_knob(f"numbers of the {name}", value, config) for value in values)
    for value, (low, high) in zip(values, part.ranges, strict=True):
        if concrete(value) and not np.all((low <= value) & (value <= high)):
            raise ValueError(f"a number of the {name} {part} must lie in {low:g} .. {high:g}, got {value}")
    return tuple(_broadcast(f"a number of the {name}", value, np.float32, (rows,)) for value in values)


def _broadcast(name: str, value: Any, dtype: Any, shape: tuple[int, ...]) -> Array:
    got = np.shape(value)
    if got != shape and got != shape[1:]:
        expected = f"{shape[1:]} or {shape}" if shape else "a scalar"
        raise ValueError(f"{name} must be of shape {expected}, got {got}")
    if concrete(value):
        return jnp.asarray(np.broadcast_to(np.asarray(value).astype(dtype), shape))
    return jnp.broadcast_to(value.astype(dtype), shape)


def _keys(rng_key: Any, rows: int) -> Array:
    """[B, 2] raw threefry2x32 keys."""
    if not isinstance(rng_key, jax.Array) or not jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"rng_key must be a key such as jax.random.key(0, impl='threefry2x32'), got {told(rng_key)}"
        )
    if str(jax.random.key_impl(rng_key)) != "threefry2x32":
        raise TypeError(
            f"rng_key must be of impl 'threefry2x32', got {jax.random.key_impl(rng_key)}: replies must not "
            "depend on JAX's default generator; use jax.random.key(seed, impl='threefry2x32')"
        )
    if rng_key.shape == ():
        rng_key = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng_key, jnp.arange(rows))
    if rng_key.shape != (rows,):
        raise ValueError(f"rng_key must be one key or {rows} (one a prompt), got shape {rng_key.shape}")
    return jax.random.key_data(rng_key)


def cache_columns(config: SamplerConfig, policy_prompt: int, value_prompt: int) -> tuple[int, int]:
    """Columns of the caches of policy and value model, for prompts in buffers of these lengths."""
    needed = (policy_prompt, value_prompt + config.candidate_places)
    policy, value = (-(-(size + config.max_new_tokens) // _COLUMNS) * _COLUMNS for size in needed)
    return policy, value


def _cache(weights: Params, model: ModelConfig, rows: int, columns: int) -> KVCache:
    cache = KVCache.zeros(model, rows, columns, weights["embed_tokens"]["weight"].dtype)
    return cache.split_over_tensor()


def _int32(x: Any) -> Array:
    return jnp.asarray(x, jnp.int32)
