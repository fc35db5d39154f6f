"""Fused attention against a plain softmax and our own products, and what a GPU would be given to run.

No GPU is needed: `jax.nn.dot_product_attention` has an implementation that runs anywhere, and takes the very
calls that cuDNN gets. For CUDA the passes are lowered only.
"""

import re
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sia_jax.models import fused_attention as module
from sia_jax.models.attention import (
    CachedAttention,
    ExtendAttention,
    FlatAttention,
    PairAttention,
    PrefillAttention,
)
from sia_jax.models.cache import CachePair, KVCache
from sia_jax.models.fused_attention import check_kernel, fused_attention
from tests.models.test_cache import COLUMNS, as_plain, filled, plain_attention, random_pair, shape_config
from tests.support.checkpoints import assert_close
from tests.support.cudnn import believe_in_cudnn

pytestmark = pytest.mark.optimised

GROUPS = [(2, 2), (4, 1), (6, 2)]
"""Query heads and key heads: each ratio has a mapping of its own to go wrong."""
B, T, S, H = 3, 5, 9, 8
run = jax.jit(lambda attend, *arguments: attend(1, *arguments))
fused = jax.jit(fused_attention, static_argnames=("kernel", "causal"))
BFLOAT16 = 2.0**-9
"""Half of the distance between two neighbours, of their size: what one rounding to bfloat16 is off by."""


def drawn(n: int, k: int, length: int = S, dtype: Any = jnp.float32) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(0)
    shapes = (B, T, n, H), (B, length, k, H), (B, length, k, H)
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)


def cases() -> dict[str, tuple[dict[str, Any], np.ndarray, int]]:
    """What is said to the call, the mask that it means, and the columns of keys."""
    rng = np.random.default_rng(1)
    seen = np.array([1, 4, S], np.int32)
    mask = rng.random((B, T, S)) < 0.5
    mask[..., 0] |= ~mask.any(-1)
    return {
        "causal": ({"causal": True}, np.tri(T, dtype=bool)[None].repeat(B, 0), T),
        "seen": ({"seen": jnp.asarray(seen)}, (np.arange(S) < seen[:, None])[:, None].repeat(T, 1), S),
        "mask": ({"mask": jnp.asarray(mask)}, mask, S),
        "all": ({}, np.ones((B, T, S), bool), S),
    }


@pytest.mark.parametrize("heads", GROUPS)
@pytest.mark.parametrize("case", cases())
def test_it_is_the_softmax_over_what_each_token_may_see(case, heads):
    said, mask, columns = cases()[case]
    queries, keys, values = drawn(*heads, length=columns)
    attended = fused(queries, keys, values, "xla", **said)
    assert_close(attended, plain_attention(queries, keys, values, mask))


@pytest.mark.parametrize("case", cases())
def test_in_bfloat16_it_is_off_by_the_rounding_of_weights_and_result_alone(case):
    said, mask, columns = cases()[case]
    queries, keys, values = drawn(6, 2, columns, jnp.bfloat16)
    attended = fused(queries, keys, values, "xla", **said)
    assert attended.dtype == jnp.bfloat16
    exact = plain_attention(*(np.asarray(x, np.float64) for x in (queries, keys, values)), mask)
    # Each weight is rounded once, and the sum of values once: two roundings of the largest value at most.
    bound = 2 * BFLOAT16 * np.abs(np.asarray(values, np.float64)).max()
    assert 0 < np.abs(np.asarray(attended, np.float64) - exact).max() < bound


def of_kernel(attend: Any) -> Any:
    """The same pass with each of its parts attending by the kernel."""
    if isinstance(attend, PairAttention):
        parts = [part and replace(part, kernel="xla") for part in (attend.policy, attend.ahead, attend.value)]
        return PairAttention(*parts)
    return replace(attend, kernel="xla")


def passes() -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Every way in which a sampler's pass attends, and the axes of its tokens; three rows."""
    lengths = jnp.array([2, 5, 0], jnp.int32)
    columns = lengths[:, None]
    step = CachedAttention(columns, (jnp.arange(COLUMNS) <= columns)[:, None], lengths + 1)
    tree = np.random.default_rng(2).random((3, 3, COLUMNS)) < 0.6
    tree[..., 0] = True
    flat = FlatAttention(
        rows=jnp.array([2, 0, 0, 1, 3]),
        slots=jnp.array([0, 0, 1, 2, 0]),
        columns=jnp.array([4, 5, 6, 3, 0]),
        mask=jnp.asarray(tree),
    )
    slots = replace(flat, rows=jnp.array([1, 0, 0, 1, 2]), mask=flat.mask[:2], slot_rows=jnp.array([2, 0]))
    return {
        "prefill": (PrefillAttention(), (3, 4)),
        "prefill of some rows": (PrefillAttention(rows=jnp.array([2, 3, 0])), (3, 4)),
        "the rest of a prompt": (ExtendAttention(jnp.array([2, 0, 3]), jnp.array([2, 1, 0])), (3, 4)),
        "the rest of a prompt in blocks": (
            ExtendAttention(jnp.array([2, 0, 3]), jnp.array([2, 1, 0]), block=2),
            (3, 4),
        ),
        "step": (step, (3, 1)),
        "value pass": (flat, (5,)),
        "value pass of some rows": (slots, (5,)),
        "both models": (PairAttention(step, flat, slots), (3 + 5 + 5,)),
    }


@pytest.mark.parametrize("name", passes())
def test_a_pass_by_the_kernel_is_that_by_our_own_products(name):
    attend, tokens = passes()[name]
    rng = np.random.default_rng(3)
    cache: Any = filled(rng, "BSKH", 3, 2)[0]
    if name == "both models":
        cache = CachePair(cache, filled(rng, "BSKH", 3, 2)[0])
    queries = rng.standard_normal((*tokens, 4, 4)).astype(np.float32)
    keys, values = random_pair(rng, shape_config(2), *tokens)
    ours, cached = run(attend, queries, keys, values, cache)
    theirs, also_cached = run(of_kernel(attend), queries, keys, values, cache)
    assert_close(theirs, ours)
    for one, other in zip(*(jax.tree.leaves(x) for x in (cached, also_cached)), strict=True):
        seen = ~np.asarray(other == 0)  # the kernel's caches have zeros for what nobody sees
        np.testing.assert_array_equal(np.asarray(one)[seen], np.asarray(other)[seen])


@pytest.mark.parametrize("name", ["prefill of some rows", "the rest of a prompt"])
def test_keys_that_a_row_left_behind_are_cleared_for_a_mask_that_is_added(name):
    attend, tokens = passes()[name]
    rng = np.random.default_rng(4)
    cache, _ = filled(rng, "BSKH", 3, 2)
    spoilt = replace(cache, keys=tuple(x.at[:, 3:].set(jnp.nan) for x in cache.keys))
    queries = jnp.asarray(rng.standard_normal((*tokens, 4, 4)), jnp.float32)
    keys, values = (jnp.asarray(x) for x in random_pair(rng, shape_config(2), *tokens))
    for one, clean in ((attend, False), (of_kernel(attend), True)):
        _, after = run(one, queries, keys, values, spoilt)
        found = np.isfinite(as_plain(after, 1)[0]).all((1, 2, 3))
        np.testing.assert_array_equal(found, [clean, False, clean])  # row 1 is not named


# What CUDA gets


@pytest.fixture
def cudnn(monkeypatch):
    believe_in_cudnn(monkeypatch)


def calls_of(attend: Any, tokens: tuple[int, ...]) -> list[str]:
    """The custom calls of a pass that is lowered for CUDA, with the types of their operands."""
    config = replace(shape_config(2), head_dim=H)
    cache = KVCache.zeros(config, 3, 16, jnp.bfloat16, "BSKH")
    queries = jnp.zeros((*tokens, 4, H), jnp.bfloat16)
    new = jnp.zeros((*tokens, 2, H), jnp.bfloat16)
    lowered = run.trace(attend, queries, new, new, cache).lower(lowering_platforms=("cuda",))
    return re.findall(r"custom_call @(__cudnn\S+?)\(.*: \((.*)\) ->", lowered.as_text())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("prefill", ("__cudnn$fmhaSoftmax", "3x4x4x8xbf16 3x4x2x8xbf16 3x4x2x8xbf16")),
        ("step", ("__cudnn$fmhaSoftmax", "3x1x4x8xbf16 3x16x2x8xbf16 3x16x2x8xbf16 3xi32 3xi32")),
        (
            "value pass",
            ("__cudnn$fmhaScaleBiasSoftmax", "3x3x4x8xbf16 3x16x2x8xbf16 3x16x2x8xbf16 3x1x3x16xbf16"),
        ),
        (
            "value pass of some rows",
            ("__cudnn$fmhaScaleBiasSoftmax", "2x3x4x8xbf16 2x16x2x8xbf16 2x16x2x8xbf16 2x1x3x16xbf16"),
        ),
    ],
)
def test_a_pass_is_one_call_of_cudnn_on_the_cache_as_it_lies(name, expected, cudnn):
    attend, tokens = passes()[name]
    attend = replace(attend, kernel="cudnn")
    if hasattr(attend, "mask"):
        wider = jnp.pad(attend.mask, ((0, 0), (0, 0), (0, 16 - COLUMNS)))
        attend = replace(attend, mask=wider)
    ((call, operands),) = calls_of(attend, tokens)
    shapes = " ".join(re.findall(r"tensor<(\S+?)>", operands))
    assert (call.strip('"'), shapes) == expected


def test_without_the_kernel_nothing_of_cudnn_is_called():
    attend, tokens = passes()["prefill"]
    assert calls_of(attend, tokens) == []


# What is refused


class Device:
    """A GPU that is not there."""

    def __init__(self, capability: str):
        self.compute_capability = capability


@pytest.fixture
def gpu(monkeypatch):
    """capability -> JAX's default backend is an NVIDIA GPU of it."""

    def pretend(capability: str) -> None:
        class Client:
            platform_version = "PJRT C API\ncuda 12090"

        monkeypatch.setattr(module.backend, "get_backend", Client)
        monkeypatch.setattr(module.jax, "local_devices", lambda: [Device(capability)])

    return pretend


def test_cudnn_is_refused_where_there_is_no_nvidia_gpu():
    with pytest.raises(ValueError, match="needs an NVIDIA GPU, got cpu; leave attention out"):
        check_kernel("cudnn", jnp.bfloat16, 128)
    check_kernel("xla", jnp.float32, 5)


@pytest.mark.parametrize(
    ("capability", "dtype", "head_dim", "message"),
    [
        ("9.0", jnp.float32, 128, "needs weights in bfloat16 or float16, got float32"),
        ("9.0", jnp.bfloat16, 100, r"multiples of 8 up to 256 \(compute capability 9.0\), got 100"),
        ("10.0", jnp.bfloat16, 264, r"multiples of 8 up to 256 \(compute capability 10.0\), got 264"),
        ("8.0", jnp.float16, 256, r"multiples of 8 up to 128 \(compute capability 8.0\), got 256"),
    ],
)
def test_cudnn_is_refused_for_heads_that_it_does_not_take(capability, dtype, head_dim, message, gpu):
    gpu(capability)
    with pytest.raises(ValueError, match=message):
        check_kernel("cudnn", dtype, head_dim)


@pytest.mark.parametrize(("capability", "head_dim"), [("8.0", 128), ("9.0", 256), ("9.0", 64)])
def test_cudnn_is_taken_for_heads_that_it_takes(capability, head_dim, gpu):
    gpu(capability)
    for dtype in (jnp.bfloat16, jnp.float16, np.dtype("bfloat16")):
        check_kernel("cudnn", dtype, head_dim)
