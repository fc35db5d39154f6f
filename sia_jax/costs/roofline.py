"""What a pass must move and compute, what this machine can move and compute, and so its floor."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sia_jax.models.config import ModelConfig


@dataclass(frozen=True)
class PassCost:
    """Bytes and floating-point operations of one pass, counted from shapes."""

    weight_bytes: int
    """Every weight that is read, once a pass however many tokens share it."""
    cache_bytes: int
    """Keys and values: those read and those written."""
    flops: int
    """Two for each multiply-add of projections, scores, mixing and lm_head; norms and the like left out."""

    @property
    def bytes(self) -> int:
        """All that is moved."""
        return self.weight_bytes + self.cache_bytes

    def __sub__(self, other: "PassCost") -> "PassCost":
        """What remains without a part."""
        mine, less = astuple(self), astuple(other)
        return PassCost(*(one - part for one, part in zip(mine, less, strict=True)))


def pass_cost(
    config: ModelConfig,
    tokens: float,
    *,
    columns_seen: float,
    columns_read: float,
    head_rows: float = 0,
    itemsize: int = 4,
) -> PassCost:
    """The cost of one pass of a network over its cache, without padding.

    Args:
      config: the network.
      tokens: that go through it.
      columns_seen: of the cache that each token attends to, on average; they cost FLOPs.
      columns_read: of all rows together; they are moved once however many of a row's tokens see them.
      head_rows: hidden states that the lm_head runs on.
      itemsize: bytes of a weight and of a cache entry.
    """
    d, h = config.hidden_size, config.head_dim
    attention = 2 * d * h * (config.num_heads + config.num_kv_heads)
    layer = attention + 3 * d * config.intermediate_size
    head = config.vocab_size * d
    weights = config.num_layers * layer + (head if head_rows else 0) + tokens * d
    entry = 2 * config.num_layers * config.num_kv_heads * h
    cache = (columns_read + tokens) * entry
    mixing = 2 * columns_seen * config.num_heads * h
    flops = 2 * tokens * config.num_layers * (layer + mixing) + 2 * head_rows * head
    return PassCost(round(weights * itemsize), round(cache * itemsize), round(flops))


def decode_step_cost(config: ModelConfig, rows: int, columns: float, itemsize: int = 4) -> PassCost:
    """The cost of one token a row, with its logits, after `columns` tokens each."""
    return pass_cost(
        config,
        rows,
        columns_seen=columns,
        columns_read=rows * columns,
        head_rows=rows,
        itemsize=itemsize,
    )


def training_flops(
    config: ModelConfig,
    tokens: float,
    columns_seen: float,
    *,
    weights: bool,
    activations: bool = True,
    remat: bool = False,
) -> float:
    """FLOPs of the network in a training step: forward, then backward to activations and maybe to weights.

    A forward pass takes 2 FLOPs a weight and token; the gradient of the activations costs as much again, that
    of the weights once more, and recomputing is another forward pass. An adapter is left out.

    Args:
      config: the network.
      tokens: without padding.
      columns_seen: tokens that each one attends to, on average.
      weights: whether the network's own weights are trained; with an adapter they are not.
      activations: whether the gradient runs through the network; to a head alone it does not.
      remat: whether layers are computed again on its way.
    """
    forward = pass_cost(config, tokens, columns_seen=columns_seen, columns_read=0).flops
    return forward * (1 + activations * (1 + weights + remat))


GPU_PEAK_FLOPS = {
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
}
"""Dense bfloat16 FLOP/s of a GPU by part of its `device_kind`, from the maker's data sheets."""

TPU_PEAK_FLOPS = {
    "TPU v4": 275e12,
    **dict.fromkeys(("TPU v5 lite", "TPU v5e"), 197e12),
    **dict.fromkeys(("TPU v5", "TPU v5p"), 459e12),
    **dict.fromkeys(("TPU v6 lite", "TPU v6e"), 918e12),
}
"""The same of a TPU, by each name that JAX has for its `device_kind`."""


def peak_flops(device: jax.Device) -> float | None:
    """The device's dense bfloat16 FLOP/s, or None for one that is not in the tables."""
    kind = device.device_kind
    if kind in TPU_PEAK_FLOPS:
        return TPU_PEAK_FLOPS[kind]
    return next((peak for name, peak in GPU_PEAK_FLOPS.items() if name in kind), None)


@dataclass(frozen=True)
class DeviceRates:
    """What the default device was measured to do."""

    bytes_per_second: float
    flops_per_second: float

    def best_of(self, other: "DeviceRates") -> "DeviceRates":
        """The better rates of two measurements: a floor must not be beaten."""
        return DeviceRates(
            max(self.bytes_per_second, other.bytes_per_second),
            max(self.flops_per_second, other.flops_per_second),
        )

    def floor_seconds(self, cost: PassCost) -> float:
        """No pass is faster: the larger of its bytes over the bandwidth and its FLOPs over the peak."""
        return max(cost.bytes / self.bytes_per_second, cost.flops / self.flops_per_second)


def measure_device(megabytes: int = 512, matrix: int = 2048, dtype: Any = jnp.float32) -> DeviceRates:
    """Measure the device: the best rate at which it moves memory and multiplies matrices.

    Each rate is the best of several kernels and of several tries, for a floor must not be beaten.

    Args:
      megabytes: what a bandwidth kernel reads; well over the last cache.
      matrix: width of the square matrices.
      dtype: of what is read and multiplied.
    """
    rows = megabytes * 2**20 // (jnp.dtype(dtype).itemsize * 4096)
    x = jnp.ones((rows, 4096), dtype)
    vector = jnp.ones((4096,), dtype)
    kernels: list[Callable[[], object]] = [lambda: _matvec(x, vector), lambda: _sum(x)]
    if jax.default_backend() == "cpu":
        host = np.ones((rows, 4096), np.float32)
        parts = np.array_split(host, usable_cores())
        pool = ThreadPoolExecutor(len(parts))
        kernels.append(lambda: list(pool.map(np.max, parts)))
    bandwidth = max(x.nbytes / best_seconds(kernel) for kernel in kernels)
    if jax.default_backend() != "cpu":  # a GPU copies faster than it reads alone
        bandwidth = max(bandwidth, 2 * x.nbytes / best_seconds(lambda: _negative(x)))
    square = jnp.ones((matrix, matrix), dtype)
    peak = 2 * matrix**3 / best_seconds(lambda: _matmul(square, square))
    return DeviceRates(bandwidth, peak)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def best_seconds(call: Callable[[], object], tries: int = 7) -> float:
    """The shortest of several timings of `call`, after one that is not counted."""
    return min(all_seconds(call, tries))


def all_seconds(call: Callable[[], object], tries: int) -> list[float]:
    """Wall times of `call`, each until its results are ready, after one that is not counted (it compiles)."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return seconds


@jax.jit
def _matvec(x: jax.Array, vector: jax.Array) -> jax.Array:
    return x @ vector


@jax.jit
def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x)


@jax.jit
def _negative(x: jax.Array) -> jax.Array:
    return -x


@jax.jit
def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest" if a.dtype == jnp.float32 else None)
