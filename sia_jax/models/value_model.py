"""A value model as a network: a backbone, an adapter over it or none, and a head; made and read in one place.

The trees are those of checkpoints and optimisers, {"model" or "lora": ..., "value_head": ...}, or of a head
on the policy's states {"value_head": ...} alone. `value_net` puts a `ValueNet` together from them, and
whoever has hidden states reads values through its methods, whatever the kind of its head
(`sia_jax.models.heads`).
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from sia_jax.models.config import ValueConfig
from sia_jax.models.heads import HEADS
from sia_jax.models.lora import Adapter, init_lora
from sia_jax.models.transformer import abstract_model
from sia_jax.types import Params, unflatten_names


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ValueNet:
    """The network of a value model, V(x, y_<t, a). Values are float32, in units of the trajectory reward.

    Under `jax.jit` the trees are traced and the configuration, hence the kind of the head, is static.
    """

    model: Params  # the backbone's tree, its own or the policy's
    adapter: Adapter | None  # over the policy's backbone; None: the weights are the value model's own
    head: Params  # the head's tree
    config: ValueConfig = field(metadata={"static": True})

    def values(self, hidden: Float[Array, "... D"]) -> Array:
        """All values that can be read at each token.

        Args:
          hidden: [..., D] after the final norm.

        Returns:
          scalar head: [...], V = w h + b of the token itself; vocab head: [..., V], Q = U (D h) + b of each
          next token.
        """
        return HEADS[self.config.head].values(self.head, hidden)

    def values_of(self, hidden: Float[Array, "..."], ids: Int[Array, "... C"]) -> Float[Array, "... C"]:
        """V(s, a) of C candidates after each prefix s.

        Args:
          hidden: after the final norm; [..., C, D] at the candidates themselves if
            `config.reads_candidates`, else [..., D] at the last token of the prefix.
          ids: [..., C] the candidates. A vocab head reads their rows of `up` alone, never all V.

        Returns:
          [..., C].
        """
        return HEADS[self.config.head].values_of(self.head, hidden, ids)

    def token_values(
        self, hidden: Float[Array, "... L D"], tokens: Int[Array, "... L"]
    ) -> Float[Array, "... L"]:
        """V(y_<t, y_t) of every token of sequences: at the token itself, or of its id at the token before.

        Args:
          hidden: [..., L, D] after the final norm.
          tokens: [..., L] the sequences' ids.

        Returns:
          [..., L]. With a vocab head, what stands at a sequence's first token means nothing.
        """
        return HEADS[self.config.head].token_values(self.head, hidden, tokens)

    def last_values(
        self, hidden: Float[Array, "B L D"], tokens: Int[Array, "B L"], last: Int[Array, " B"]
    ) -> Float[Array, " B"]:
        """V(y_<t, y_t) of one token of each sequence, as `token_values` has it.

        Args:
          hidden: [B, L, D] after the final norm.
          tokens: [B, L] ids.
          last: [B] the place t of each sequence's last token.

        Returns:
          [B].
        """
        return HEADS[self.config.head].last_values(self.head, hidden, tokens, last)


def value_net(
    value_params: Params,
    config: ValueConfig,
    policy_params: Params | None = None,
    *,
    dropout_keys: UInt32[Array, "... 2"] | None = None,
) -> ValueNet:
    """Put a value model together from its trees.

    Args:
      value_params: {"value_head"}; "lora" if `config.lora` is set; and "model" if the backbone is its own.
      config: static.
      policy_params: {"model": ...}, whose backbone it takes where `value_params` has none.
      dropout_keys: [..., 2] in training, a key for each token; None: the adapter drops nothing.

    Raises:
      ValueError: neither of the trees has a backbone.
    """
    backbone = value_params if "model" in value_params else policy_params
    if backbone is None:
        raise ValueError(
            f"a value model without weights of its own lies over the policy's, got {sorted(value_params)}; "
            "give policy_params"
        )
    adapter = None
    if config.lora is not None:
        adapter = Adapter(value_params["lora"], config.lora, dropout_keys=dropout_keys)
    return ValueNet(backbone["model"], adapter, value_params["value_head"], config)


def init_value_head(config: ValueConfig, rng_key: jax.Array) -> Params:
    """A fresh head of `config.head`'s kind, float32; `rng_key` is consumed.

    The scalar head starts as torch's `Linear` does, uniform in +-1/sqrt(D). The vocab head starts at Q = 0
    (`up` is zero), so that before training it steers nothing.
    """
    backbone = config.backbone
    return HEADS[config.head].init(backbone.hidden_size, backbone.vocab_size, config.head_rank, rng_key)


def abstract_value_head(config: ValueConfig) -> Params:
    """The head's tree, with a float32 `ShapeDtypeStruct` in place of each array."""
    backbone = config.backbone
    shapes = HEADS[config.head].shapes(backbone.hidden_size, backbone.vocab_size, config.head_rank)
    return unflatten_names({name: jax.ShapeDtypeStruct(x, jnp.float32) for name, x in shapes.items()})


def abstract_value(config: ValueConfig, dtype: Any = jnp.float32) -> Params:
    """The tree of a value model, with a `ShapeDtypeStruct` in place of each array.

    Args:
      config: with `lora`, the tree has the adapter and no backbone.
      dtype: of the backbone; adapter and head are float32.

    Returns:
      {"model" or "lora": ..., "value_head": ...}; of a head on the policy's states {"value_head": ...}.
    """
    head, lora = abstract_value_head(config), config.lora
    if not config.runs_passes:
        return {"value_head": head}
    if lora is None:
        return {"model": abstract_model(config.backbone, dtype), "value_head": head}
    model = abstract_model(config.backbone)
    adapter = jax.eval_shape(lambda: init_lora(model, lora, jax.random.key(0)))
    return {"lora": adapter, "value_head": head}
