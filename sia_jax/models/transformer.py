"""The decoder network: Qwen3 and Llama-3 in one code path.

`Transformer` (Flax NNX) describes every parameter once: its place in the tree, shape and initialiser. The
rest of the library sees only `forward`, a pure function of a tree of arrays, and applies the heads
(`sia_jax.models.heads`) to the hidden states that it returns.

Weights are held as checkpoints hold them, [out, in], and the tree's paths are the checkpoints' names. So
nothing is transposed on the way in or out; on a CPU this order is also the faster one at small batches.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from sia_jax.arguments import concrete
from sia_jax.models import rope
from sia_jax.models.attention import Attend
from sia_jax.models.cache import CachePair, KVCache
from sia_jax.models.config import ModelConfig
from sia_jax.models.lora import Adapter, descend, lora_delta, of_any_layer
from sia_jax.models.product import project
from sia_jax.parallel.mesh import gathered, keep_all_but_gathered, look_up, row_sharding
from sia_jax.types import Params


class Linear(nnx.Module):
    """y = W x, W [out, in], without a bias; plus the adapter's share where there is one."""

    def __init__(
        self, in_features: int, out_features: int, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs
    ):
        init = nnx.initializers.normal(config.initializer_range)
        self.weight = nnx.Param(init(rngs.params(), (out_features, in_features), dtype))

    def __call__(self, x: Float[Array, "... I"], adapter: Adapter | None = None) -> Float[Array, "... O"]:
        """W x, plus scale * B A x for the adapter's tokens."""
        y = project(x, self.weight[...])
        return y if adapter is None else (y + lora_delta(x, adapter)).astype(y.dtype)


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, in float32, rounded once."""

    def __init__(self, features: int, eps: float, *, dtype: Any):
        self.weight = nnx.Param(jnp.ones((features,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalise the last axis."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
        return (y * self.weight[...].astype(jnp.float32)).astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query attention: N query heads, K key/value heads, head n reads key head n // (N / K)."""

    def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs):
        d, h = config.hidden_size, config.head_dim
        linear = functools.partial(Linear, config=config, dtype=dtype, rngs=rngs)
        self.q_proj = linear(d, config.num_heads * h)
        self.k_proj = linear(d, config.num_kv_heads * h)
        self.v_proj = linear(d, config.num_kv_heads * h)
        self.o_proj = linear(config.num_heads * h, d)
        if config.qk_norm:
            self.q_norm = RMSNorm(h, config.rms_norm_eps, dtype=dtype)
            self.k_norm = RMSNorm(h, config.rms_norm_eps, dtype=dtype)
        self.config = config

    def __call__(
        self,
        x: Float[Array, "... D"],
        angles: tuple[Array, Array],
        layer: int,
        attend: Attend,
        cache: Any,
        adapter: Adapter | None,
    ) -> tuple[Float[Array, "... D"], Any]:
        """Project, normalise and rotate every token, let `attend` mix them, project back."""
        heads = (*x.shape[:-1], -1, self.config.head_dim)
        queries = self.q_proj(x, descend(adapter, "q_proj")).reshape(heads)
        keys = self.k_proj(x, descend(adapter, "k_proj")).reshape(heads)
        values = self.v_proj(x, descend(adapter, "v_proj")).reshape(heads)
        if self.config.qk_norm:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        queries, keys = rope.rotate(queries, *angles), rope.rotate(keys, *angles)
        attended, cache = attend(layer, queries, keys, values, cache)
        return self.o_proj(attended.reshape(*x.shape[:-1], -1), descend(adapter, "o_proj")), cache


class MLP(nnx.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs):
        d, f = config.hidden_size, config.intermediate_size
        linear = functools.partial(Linear, config=config, dtype=dtype, rngs=rngs)
        self.gate_proj, self.up_proj, self.down_proj = linear(d, f), linear(d, f), linear(f, d)

    def __call__(self, x: Float[Array, "... D"], adapter: Adapter | None = None) -> Float[Array, "... D"]:
        """Apply to every token."""
        gate = self.gate_proj(x, descend(adapter, "gate_proj"))
        up = self.up_proj(x, descend(adapter, "up_proj"))
        return self.down_proj(jax.nn.silu(gate) * up, descend(adapter, "down_proj"))


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs):
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype)
        self.self_attn = Attention(config, dtype=dtype, rngs=rngs)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype)
        self.mlp = MLP(config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "... D"],
        angles: tuple[Array, Array],
        layer: int,
        attend: Attend,
        cache: Any,
        adapter: Adapter | None,
    ) -> tuple[Float[Array, "... D"], Any]:
        """One layer of the decoder."""
        attended, cache = self.self_attn(
            self.input_layernorm(x), angles, layer, attend, cache, descend(adapter, "self_attn")
        )
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x), descend(adapter, "mlp")), cache


class Embedding(nnx.Module):
    """Rows of a [V, D] table."""

    def __init__(self, config: ModelConfig, *, dtype: Any, rngs: nnx.Rngs):
        init = nnx.initializers.normal(config.initializer_range)
        self.weight = nnx.Param(init(rngs.params(), (config.vocab_size, config.hidden_size), dtype))

    def __call__(self, tokens: Int[Array, "..."]) -> Float[Array, "... D"]:
        """The rows of the tokens."""
        return self.weight[...][tokens]


class Transformer(nnx.Module):
    """The backbone: embedding, layers, final norm. Its parameters are the tree below `params["model"]`."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        num_layers: int | None = None,  # None: the config's
    ):
        count = config.num_layers if num_layers is None else num_layers
        self.embed_tokens = Embedding(config, dtype=dtype, rngs=rngs)
        self.layers = nnx.List([Block(config, dtype=dtype, rngs=rngs) for _ in range(count)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype)
        self.config = config


def forward(
    model: Params,
    tokens: Int[Array, "..."],
    positions: Int[Array, "..."],
    cache: Any,
    attend: Attend,
    *,
    config: ModelConfig,
    adapter: Adapter | None = None,
    remat: bool = False,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "... D"], Any]:
    """Hidden states of tokens after the final norm, and the cache with their keys and values.

    A pure function, to be traced inside a larger program.

    Args:
      model: the backbone's tree, `params["model"]`.
      tokens: [...] ids: a padded block [B, T] or a flat axis [T], as `attend` takes them.
      positions: [...] 0-based positions, for the rotary embedding only.
      cache: what `attend` writes to and reads, usually a KVCache; None for a full pass.
      attend: decides what is written and seen; one of `sia_jax.models.attention`.
      config: static.
      adapter: a LoRA applied on the way, to all tokens or some; None where it is merged or there is none.
      remat: a backward pass keeps the input of each layer alone, and computes the rest again.
      mesh: for training. Rows [B, T] are split over "data" and "fsdp", and each layer's weights gathered
        where it runs; None: the compiler decides.

    Returns:
      ([..., D] in the weights' dtype, the cache).

    Raises:
      ValueError: the tree does not fit the config.
    """
    if len(model["layers"]) != config.num_layers:
        raise ValueError(f"the config has {config.num_layers} layers, the tree {len(model['layers'])}")
    kinds = _graphdefs(config)
    table = nnx.merge(kinds.embedding, model["embed_tokens"])
    angles = rope.rotary_angles(positions, rope.inverse_frequencies(config.rope, config.head_dim))
    x = table(tokens) if mesh is None else look_up(table, tokens, mesh)
    alike = _traced_once(kinds.block)
    for i in range(config.num_layers):
        weights, layer_adapter = model["layers"][i], descend(descend(adapter, "layers"), i)
        with jax.named_scope(f"layer_{i}"):
            # Outside of a trace it would be compiled for each call.
            by_layer = isinstance(cache, KVCache | CachePair | None)
            if mesh is None and not remat and by_layer and not concrete(x):
                own = None if cache is None else cache.layer(i)
                x, own = alike(weights, x, angles, attend, own, of_any_layer(layer_adapter))
                cache = None if cache is None else cache.with_layer(i, own)
                continue
            apply: Callable[..., Any] = functools.partial(
                _layer, kinds.block, weights, layer=i, attend=attend, mesh=mesh
            )
            if remat:
                apply = jax.checkpoint(apply)
            elif mesh is not None:
                apply = jax.checkpoint(apply, policy=keep_all_but_gathered)
            x, cache = apply(x, angles, cache=cache, adapter=layer_adapter)
    return nnx.merge(kinds.norm, model["norm"])(x), cache


def _traced_once(block: nnx.GraphDef[Block]) -> Callable[..., tuple[Array, Any]]:
    """A layer as a function that Python runs for the first of several alike; the others repeat its trace.

    In deep networks most of the tracing is of layers that differ in their arrays alone. What is lowered has
    each of them in line, as if Python had run it.

    It is made for one pass. A function of the module would keep its traces for the life of the process, and
    with them whatever they have read that is no argument.
    """

    @functools.partial(jax.jit, inline=True)
    def layer(
        weights: Params,
        x: Array,
        angles: tuple[Array, Array],
        attend: Attend,
        cache: KVCache | CachePair | None,
        adapter: Adapter | None,
    ) -> tuple[Array, Any]:
        return nnx.merge(block, weights)(x, angles, 0, attend, cache, adapter)

    return layer


def _layer(
    block: nnx.GraphDef[Block],
    weights: Params,
    x: Array,
    angles: tuple[Array, Array],
    *,
    layer: int,
    attend: Attend,
    cache: Any,
    adapter: Adapter | None,
    mesh: Mesh | None,
) -> tuple[Array, Any]:
    """One layer; on a mesh its weights are gathered here, and again where a backward pass comes to it."""
    if mesh is None:
        return nnx.merge(block, weights)(x, angles, layer, attend, cache, adapter)
    whole = nnx.merge(block, gathered(weights, mesh))
    if adapter is not None:
        adapter = replace(adapter, params=gathered(adapter.params, mesh))
    x, cache = whole(x, angles, layer, attend, cache, adapter)
    return jax.lax.with_sharding_constraint(x, row_sharding(mesh)), cache


class _GraphDefs(NamedTuple):
    """What the modules of a network are beside their arrays; all layers are alike."""

    embedding: nnx.GraphDef[Embedding]
    block: nnx.GraphDef[Block]
    norm: nnx.GraphDef[RMSNorm]


@functools.lru_cache(maxsize=64)
def _graphdefs(config: ModelConfig) -> _GraphDefs:
    # Of one layer: NNX takes a second to build twenty-eight.
    network = nnx.eval_shape(lambda: Transformer(config, rngs=nnx.Rngs(0), num_layers=1))
    return _GraphDefs(
        nnx.split(network.embed_tokens)[0], nnx.split(network.layers[0])[0], nnx.split(network.norm)[0]
    )


def init_model(config: ModelConfig, rng_key: jax.Array, dtype: Any = jnp.float32) -> Params:
    """A random backbone: normal(0, initializer_range) weights, ones for the norms. `rng_key` is consumed."""
    return nnx.to_pure_dict(nnx.state(Transformer(config, dtype=dtype, rngs=nnx.Rngs(params=rng_key))))


def abstract_model(config: ModelConfig, dtype: Any = jnp.float32) -> Params:
    """The backbone's tree with a ShapeDtypeStruct in place of each array."""
    return nnx.to_pure_dict(
        nnx.state(nnx.eval_shape(lambda: Transformer(config, dtype=dtype, rngs=nnx.Rngs(0))))
    )
