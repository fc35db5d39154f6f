"""Low-rank adapters (LoRA) as a tree of their own beside frozen weights.

The tree is named as PEFT names it: `layers.3.self_attn.q_proj.lora_A.weight`. It is merged into a copy of
the weights, or applied on the way, to all tokens or only to some: on a flat axis that holds tokens of a
policy and of a value model over the same weights, the adapter acts on the value model's tokens alone.
"""

import math
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

from sia_jax.models.patterns import matches_end
from sia_jax.models.product import einsum_float32
from sia_jax.reprs import changed
from sia_jax.types import Params, flatten_names, unflatten_names

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, repr=False)
class LoraConfig:
    """Which projections an adapter changes, and by how much. Frozen and hashable: static under `jax.jit`.

    W x  ->  W x + scale * B (A x),  A [R, in], B [out, R], B = 0 at the start (Hu et al. 2021, section 4.1).

    Examples:
      >>> config = LoraConfig(rank=16, alpha=32.0, rank_pattern=(("o_proj", 4),))
      >>> config.scale("layers.3.self_attn.q_proj"), config.scale("layers.3.self_attn.o_proj")
      (2.0, 8.0)
    """

    rank: int = 16
    alpha: float = 32.0
    target_modules: tuple[str, ...] = ATTENTION_PROJECTIONS
    """Any of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj."""
    dropout: float = 0.1
    """Of the adapter's input, in training only."""
    use_rslora: bool = False
    """scale = alpha / sqrt(rank) in place of alpha / rank."""
    rank_pattern: tuple[tuple[str, int], ...] = ()
    """(regular expression, rank) pairs; the first that matches the end of a module's path sets its rank.
    Expressions are those of `sia_jax.models.patterns`."""
    alpha_pattern: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        ranks = [("rank", self.rank), *((f"rank_pattern {key!r}", rank) for key, rank in self.rank_pattern)]
        alphas = [("alpha", self.alpha), *((f"alpha_pattern {key!r}", x) for key, x in self.alpha_pattern)]
        for name, rank in ranks:
            if rank < 1:
                raise ValueError(f"{name} must be 1 or more, got {rank}")
        for name, alpha in alphas:
            if not math.isfinite(alpha):
                raise ValueError(f"{name} must be finite, got {alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")

    def __repr__(self) -> str:
        return changed(self, always=("rank", "alpha"))

    def rank_of(self, module_path: str) -> int:
        """The rank of the module at `module_path`, such as "layers.3.self_attn.q_proj"."""
        return next((rank for key, rank in self.rank_pattern if _matches(key, module_path)), self.rank)

    def scale(self, module_path: str) -> float:
        """alpha / rank (rsLoRA: alpha / sqrt(rank)) of the module at `module_path`."""
        alpha = next((alpha for key, alpha in self.alpha_pattern if _matches(key, module_path)), self.alpha)
        rank = self.rank_of(module_path)
        return alpha / (rank**0.5 if self.use_rslora else rank)


def _matches(pattern: str, module_path: str) -> bool:
    """PEFT's rule: the pattern matches the whole path or a dotted suffix of it."""
    return matches_end(pattern, f"model.{module_path}")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Adapter:
    """A LoRA tree on its way through a network: `at` descends in step with the modules."""

    params: Params  # the adapter's tree, or the part of it below `path`
    config: LoraConfig = field(metadata={"static": True})
    tokens: Bool[Array, "..."] | None = None  # [...] the tokens it acts on; None: all
    dropout_keys: UInt32[Array, "... 2"] | None = None  # a key for each token; None: nothing is dropped
    path: str = field(default="", metadata={"static": True})

    def at(self, name: str | int) -> "Adapter | None":
        """The adapter of the submodule `name`, or None where it has none."""
        if name not in self.params:
            return None
        path = f"{self.path}.{name}" if self.path else str(name)
        return replace(self, params=self.params[name], path=path)


def descend(adapter: Adapter | None, name: str | int) -> Adapter | None:
    """`adapter.at(name)`, and None of None."""
    return None if adapter is None else adapter.at(name)


def of_any_layer(adapter: Adapter | None) -> Adapter | None:
    """A layer's adapter under the path of the first layer's, where the path decides nothing.

    It does where patterns give projections their own ranks and scales, and where inputs are dropped.
    """
    if adapter is None or adapter.dropout_keys is not None:
        return adapter
    if adapter.config.rank_pattern or adapter.config.alpha_pattern:
        return adapter
    return replace(adapter, path="layers.0")


def lora_delta(x: Float[Array, "... I"], adapter: Adapter) -> Float[Array, "... O"]:
    """scale * B (A x), on the adapter's tokens; zero on the others.

    Args:
      x: [..., in] input of the projection.
      adapter: at a projection, that is with leaves lora_A.weight [R, in] and lora_B.weight [out, R].

    Returns:
      [..., out] float32, what to add to the projection's output. Computed in the adapter's own dtype, which
      is float32 unless it was cast.
    """
    a, b = adapter.params["lora_A"]["weight"], adapter.params["lora_B"]["weight"]
    x = x.astype(a.dtype)
    if adapter.dropout_keys is not None:
        x = _dropout(x, adapter.dropout_keys, adapter.config.dropout, adapter.path)
    inner = einsum_float32("...i,ri->...r", x, a)
    if adapter.tokens is not None:
        inner = jnp.where(adapter.tokens[..., None], inner, 0)
    return adapter.config.scale(adapter.path) * einsum_float32("...r,or->...o", inner.astype(b.dtype), b)


def _dropout(
    x: Float[Array, "... I"], keys: UInt32[Array, "... 2"], rate: float, path: str
) -> Float[Array, "... I"]:
    """x / (1 - rate) where it is kept, drawn for each token by its own key and the projection's path.

    So what is dropped of a token does not depend on what it is packed or batched with.
    """
    if rate == 0:
        return x
    salt = zlib.crc32(path.encode())

    def bits(key: Array) -> Array:
        return jax.random.bits(jax.random.fold_in(key, salt), x.shape[-1:])

    drawn = jax.vmap(bits)(jax.random.wrap_key_data(keys.reshape(-1, 2), impl="threefry2x32"))
    # As uint32: from a rate of a half on, the number is no int32, which a Python number would become.
    kept = drawn.reshape(x.shape) >= np.uint32(min(round(rate * 2**32), 2**32 - 1))
    return jnp.where(kept, x / (1 - rate), 0)


def init_lora(model: Params, config: LoraConfig, rng_key: jax.Array, dtype: Any = jnp.float32) -> Params:
    """A fresh adapter: A uniform in +-1/sqrt(in) as PEFT draws it, B zero, so that it changes nothing.

    Args:
      model: the backbone's tree (`params["model"]`), arrays or ShapeDtypeStructs.
      config: which projections, and their ranks.
      rng_key: consumed; each A folds in the crc32 of its path, so it does not depend on the other targets.
      dtype: of the leaves.

    Returns:
      {"layers": {i: {"self_attn": {"q_proj": {"lora_A": {"weight": [R, in]}, "lora_B": ...}}}}}.

    Raises:
      ValueError: a target is not a projection of the network.
    """
    check_targets(config)
    tree: Params = {}
    for i, layer in model["layers"].items():
        for block in ("self_attn", "mlp"):
            for name in config.target_modules:
                if name not in layer[block]:
                    continue
                path = f"layers.{i}.{block}.{name}"
                out_features, in_features = layer[block][name]["weight"].shape
                rank = config.rank_of(path)
                key = jax.random.fold_in(rng_key, zlib.crc32(path.encode()))
                bound = in_features**-0.5
                node = tree.setdefault("layers", {}).setdefault(i, {}).setdefault(block, {})
                node[name] = {
                    "lora_A": {"weight": jax.random.uniform(key, (rank, in_features), dtype, -bound, bound)},
                    "lora_B": {"weight": jnp.zeros((out_features, rank), dtype)},
                }
    return tree


def merge_lora(model: Params, lora: Params, config: LoraConfig) -> Params:
    """W' = (float32(W) + scale * B A), rounded to W's dtype once, for every adapted projection.

    Args:
      model: the backbone's tree; it is not changed, and unadapted arrays are shared with the result.
      lora: the adapter's tree over the same backbone.
      config: gives each module's scale.

    Returns:
      The backbone's tree with merged weights, sharded as they were.

    Raises:
      ValueError: the adapter does not fit the backbone.
    """
    check_adapter(model, lora)
    weights, adapter = flatten_names(model), flatten_names(lora)
    for module in sorted({name.partition(".lora_")[0] for name in adapter}):
        a, b = adapter[f"{module}.lora_A.weight"], adapter[f"{module}.lora_B.weight"]
        weights[f"{module}.weight"] = _merge_weight(weights[f"{module}.weight"], a, b, config.scale(module))
    return unflatten_names(weights)


@jax.jit
def _merge_weight(weight: Array, a: Array, b: Array, scale: Array) -> Array:
    delta = einsum_float32("or,ri->oi", b.astype(jnp.float32), a.astype(jnp.float32))
    return (weight.astype(jnp.float32) + scale * delta).astype(weight.dtype)


def check_adapter(model: Params, lora: Params) -> None:
    """Raise ValueError if an adapter's tree has a module that the backbone has not, or of other sizes.

    Args:
      model: the backbone's tree.
      lora: the adapter's tree. It may leave modules out.
    """
    base, adapter = flatten_names(model), flatten_names(lora)
    for name, leaf in adapter.items():
        module, _, part = name.partition(".lora_")
        weight = base.get(f"{module}.weight")
        if part not in ("A.weight", "B.weight") or weight is None or not is_projection(module):
            raise ValueError(f"the adapter's {name} has no projection in the backbone that it could change")
        other = adapter.get(f"{module}.lora_{'B' if part[0] == 'A' else 'A'}.weight")
        features, rank = (weight.shape[1], 0) if part[0] == "A" else (weight.shape[0], 1)
        if other is None or leaf.shape[1 - rank] != features or leaf.shape[rank] != other.shape[1 - rank]:
            got = f"{leaf.shape} beside {None if other is None else other.shape}"
            raise ValueError(f"the adapter's {name} is {got}, on a weight of {weight.shape}")


def is_projection(module: str) -> bool:
    """Whether an adapter can be on a module: one of the projections, by its path in the backbone."""
    return module.rpartition(".")[2] in ATTENTION_PROJECTIONS + MLP_PROJECTIONS


def check_targets(config: LoraConfig) -> None:
    """Raise ValueError if a target of `config` is not a projection of the network."""
    known = ATTENTION_PROJECTIONS + MLP_PROJECTIONS
    unknown = [name for name in config.target_modules if name not in known]
    if unknown or not config.target_modules:
        raise ValueError(f"target_modules must be among {known}, got {config.target_modules}")
