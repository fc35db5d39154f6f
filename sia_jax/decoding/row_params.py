"""The numbers of a call, checked, typed and broadcast to its rows: `Knobs` in, `RowParams` out."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sia_jax.arguments import concrete, read_numbers, told
from sia_jax.decoding.config import SamplerConfig
from sia_jax.steering.config import Knobs
from sia_jax.steering.numbers import NUMBERS, Number, check_number
from sia_jax.steering.parts import Expression, check_numbers, same_expression
from sia_jax.steering.types import RowParams

Kind = TypeVar("Kind", bound=Expression)

_BIAS = Number(expected="finite numbers; to ban an id, use banned_ids")


def make_row_params(
    threshold: Any, rng_key: Any, knobs: Knobs, rows: int, config: SamplerConfig
) -> RowParams:
    """Every number of a call as a typed array [B], so that no Python number ever compiles anything.

    What is concrete stays with the host (NumPy) until a program takes it.

    Args:
      threshold: [] or [B], nats.
      rng_key: one threefry2x32 key, of which row i uses fold_in(rng_key, i), or [B] keys.
      knobs: [] or [B] each; None: the default.
      rows: B.
      config: resolved; gives the defaults.

    Raises:
      ValueError: a number out of its range, or a shape that is neither [] nor [B].
      TypeError: a key that is not threefry2x32, or what is no gate or no tilt.
    """
    return row_params_of(threshold, _keys(rng_key, rows), knobs, rows, config)


def row_params_of(threshold: Any, words: Any, knobs: Knobs, rows: int, config: SamplerConfig) -> RowParams:
    """`make_row_params` with raw keys [B, 2] in place of `rng_key`."""
    steering = config.steering
    numbers = {}
    for name, row in NUMBERS.items():
        value = check_number(name, _given(getattr(knobs, name), getattr(steering, name)))
        numbers[name] = _broadcast(name, value, row.dtype, (rows,))

    most = _check_most(_given(knobs.max_new_tokens, config.max_new_tokens), config)
    most = _broadcast("max_new_tokens", most, np.int32, (rows,))
    least = numbers["min_new_tokens"]
    if concrete(least) and concrete(most) and bool(np.any(np.asarray(least) > np.asarray(most))):
        raise ValueError(
            f"min_new_tokens must be at most max_new_tokens, got {np.asarray(least).tolist()} and "
            f"{np.asarray(most).tolist()}; raise max_new_tokens"
        )

    stop_ids, banned_ids, bias_ids = (
        _list(name, _check_ids(name, _given(getattr(knobs, name), default), config), np.int32, rows)
        for name, default in (
            ("stop_ids", np.array(config.policy.eos_token_ids, np.int32)),
            ("banned_ids", np.zeros(0, np.int32)),
            ("bias_ids", np.zeros(0, np.int32)),
        )
    )
    bias = _BIAS.check("bias", _given(knobs.bias, np.zeros(0, np.float32)))
    bias = _list("bias", bias, np.float32, rows)
    if bias.shape != bias_ids.shape:
        raise ValueError(
            f"bias and bias_ids must have one shape, got {np.shape(knobs.bias)} and "
            f"{np.shape(knobs.bias_ids)}"
        )
    return RowParams(
        keys=words,
        threshold=_broadcast("threshold", threshold, np.float32, (rows,)),
        max_new_tokens=most,
        stop_ids=stop_ids,
        banned_ids=banned_ids,
        bias_ids=bias_ids,
        bias=bias,
        gate=_expression("gate", knobs.gate, steering.gate, rows),
        tilt=_expression("tilt", knobs.tilt, steering.tilt, rows),
        **numbers,
    )


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def _check_most(value: Any, config: SamplerConfig) -> Any:
    """max_new_tokens lies in the buffer."""
    array = Number(whole=True).check("max_new_tokens", value)
    if concrete(array) and array.size and (array.min() < 1 or array.max() > config.max_new_tokens):
        raise ValueError(
            f"max_new_tokens must lie in 1 .. {config.max_new_tokens} (the buffer, set by the "
            f"configuration's max_new_tokens), got {array.tolist()}"
        )
    return array


def _check_ids(name: str, value: Any, config: SamplerConfig) -> Any:
    """Ids are of the policy's vocabulary; -1 is none."""
    array = read_numbers(name, value)
    vocab = config.policy.vocab_size
    if not concrete(array) or not array.size:
        return array
    if array.dtype.kind not in "iu" or array.min() < -1 or array.max() >= vocab:
        raise ValueError(
            f"{name} must lie in 0 .. {vocab - 1} (the policy's vocabulary), or be -1 for none, got "
            f"{array.tolist()}"
        )
    return array


def _expression(name: str, given: Any, default: Kind, rows: int) -> Kind:
    """A gate or a tilt whose numbers are [B] each: the configuration's, or the same with others."""
    if given is not None:
        same_expression(f"knobs.{name}", given, default)
        check_numbers(name, given, static=False)
    whole = default if given is None else given
    label = f"a number of the {name}"
    found: Kind = jax.tree.map(
        lambda x: _broadcast(label, read_numbers(label, x), np.float32, (rows,)), whole
    )
    return found


def _list(name: str, value: Any, dtype: Any, rows: int) -> Array:
    """[X] or [B, X] as [B, X]."""
    return _broadcast(name, value, dtype, (rows, np.shape(value)[-1] if np.ndim(value) else 1))


def _broadcast(name: str, value: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    got = np.shape(value)
    if got != shape and got != shape[1:]:
        raise ValueError(f"{name} must be of shape {shape[1:]} or {shape}, got {got}")
    if concrete(value):
        return np.ascontiguousarray(np.broadcast_to(np.asarray(value).astype(dtype), shape))
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
