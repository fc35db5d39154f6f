"""Whether the products of a layer that share an input are faster as one: q, k and v; gate and up."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from sia_jax.benchmarks.parts import seconds_each
from sia_jax.costs.roofline import DeviceRates, PassCost
from sia_jax.models.product import project
from sia_jax.types import Params

_GROUPS = {
    "q, k, v": ("self_attn", ("q_proj", "k_proj", "v_proj")),
    "gate, up": ("mlp", ("gate_proj", "up_proj")),
}


def time_projections(
    model: Params, tokens: tuple[int, ...], steps: int, call_seconds: float, rates: DeviceRates
) -> list[dict[str, Any]]:
    """Two rows a group, the products of all layers each by itself and as one, as `time_parts` has them.

    Args:
      model: a backbone's tree; its products are timed in its dtype.
      tokens: axes of the input before D: (B, 1) of a decoding step, (1, P) of a prompt.
      steps: runs in a call.
      call_seconds: of that call, of which the rows say their share.
      rates: measured in the same run.
    """
    rows = []
    for group, (block, names) in _GROUPS.items():
        layers = [[model["layers"][i][block][name]["weight"] for name in names] for i in model["layers"]]
        joined = [[jnp.concatenate(weights)] for weights in layers]
        widths = tuple(weight.shape[0] for weight in layers[0])
        size = sum(weight.size for weights in layers for weight in weights)
        itemsize = layers[0][0].dtype.itemsize
        floor = rates.floor_seconds(PassCost(size * itemsize, 0, 2 * size * math.prod(tokens)))
        for way, weights in (("each by itself", layers), ("as one", joined)):
            seconds = seconds_each(functools.partial(_run, weights, tokens, widths))
            rows.append(
                {
                    "part": f"{group} {way}",
                    "runs": steps,
                    "ms_each": 1e3 * seconds,
                    "floor_ms_each": 1e3 * floor,
                    "share": steps * seconds / call_seconds,
                }
            )
    return rows


def _run(
    layers: Sequence[Sequence[Array]], tokens: tuple[int, ...], widths: tuple[int, ...], count: int
) -> Array:
    weight = layers[0][0]
    x = jax.random.normal(jax.random.key(0), (*tokens, weight.shape[1])).astype(weight.dtype)
    return repeat(layers, x, count, widths=widths)


@functools.partial(jax.jit, static_argnames="widths")
def repeat(layers: Sequence[Sequence[Array]], x: Array, count: Any, *, widths: tuple[int, ...]) -> Array:
    """The products of all layers, `count` times.

    As in a network, each result is read by itself, and each layer waits for the one before.
    """
    ends = [sum(widths[:i]) for i in range(1, len(widths))]

    def body(carry: tuple[Any, Array]) -> tuple[Any, Array]:
        count, x = carry
        for weights in layers:
            found = [project(x, weight) for weight in weights]
            if len(found) == 1:
                found = jnp.split(found[0], ends, axis=-1)
            for part in found:
                x = x + 1e-3 * jnp.max(part, axis=-1, keepdims=True)
        return count - 1, x

    return jax.lax.while_loop(lambda carry: carry[0] > 0, body, (count, x))[1]
