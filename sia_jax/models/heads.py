"""Heads: what is read off the hidden states. Each is a function of its own weights and of hidden [..., D].

A value model has one of several kinds of heads. All that depends on the kind is in a class of it, a `Head`;
its weights are a tree of their own, so that a kind is static wherever the weights are traced. Elsewhere one
reads a value model through `sia_jax.models.value_model.ValueNet`.

All results are float32, whatever the backbone's dtype.
"""

from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sia_jax.models.product import einsum_float32, project
from sia_jax.steering.arrays import pick
from sia_jax.types import Params


def lm_head(params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Logits m = W h. W is `params["lm_head"]`, or the embedding where the two are tied.

    Args:
      params: the policy's tree: {"model": ..., "lm_head": {"weight": [V, D]}}, the latter absent if tied.
      hidden: [..., D] after the final norm.

    Returns:
      [..., V] float32, before any temperature.
    """
    head = params["lm_head"] if "lm_head" in params else params["model"]["embed_tokens"]
    weight = head["weight"]
    return project(hidden, weight, jnp.float32)


def value_head(head: Params, hidden: Float[Array, "... D"]) -> Float[Array, "..."]:
    """V(s, a) = w h + b on the hidden state at the candidate token a (the official `token_reward_head`).

    Args:
      head: {"weight": [1, D], "bias": [1]} float32.
      hidden: [..., D] after the final norm.

    Returns:
      [...] float32, in units of the trajectory reward.
    """
    weight, bias = head["weight"].astype(jnp.float32), head["bias"].astype(jnp.float32)
    # Not a product of a matrix and a vector: XLA on CPU adds up its last rows in another order than the
    # others, so that a candidate's value would depend, by a bit, on its place in the batch.
    return jnp.sum(hidden.astype(jnp.float32) * weight[0], axis=-1) + bias[0]


def reward_head(head: Params, hidden: Float[Array, "... D"]) -> Float[Array, "..."]:
    """R = w h, without a bias: `score` of a ForSequenceClassification checkpoint, num_labels = 1.

    Args:
      head: {"weight": [1, D]}.
      hidden: [..., D] after the final norm, at a sequence's last token.

    Returns:
      [...] float32.
    """
    weight = head["weight"].astype(jnp.float32)
    return jnp.sum(hidden.astype(jnp.float32) * weight[0], axis=-1)


class Head(Protocol):
    """A kind of value head. `params` is the head's tree, whose leaves `shapes` names."""

    @property
    def reads_candidates(self) -> bool:
        """Whether the value of a candidate is read where the network has read the candidate itself.

        If not, the hidden state of the prefix tells the values of all that may follow.
        """

    @property
    def has_rank(self) -> bool:
        """Whether the head has an inner width R."""

    def shapes(self, hidden_size: int, vocab_size: int, rank: int | None) -> dict[str, tuple[int, ...]]:
        """Shape of each leaf, by its dotted name.

        Args:
          hidden_size: D.
          vocab_size: V.
          rank: R, where the head has one.
        """

    def init(self, hidden_size: int, vocab_size: int, rank: int | None, rng_key: jax.Array) -> Params:
        """A fresh tree, float32; arguments as for `shapes`, and a key that is consumed."""

    def values(self, params: Params, hidden: Float[Array, "... D"]) -> Array:
        """All that the head reads off each hidden state; see the kinds."""

    def values_of(
        self, params: Params, hidden: Float[Array, "..."], ids: Int[Array, "... C"]
    ) -> Float[Array, "... C"]:
        """V(s, a) of the C candidates a = ids; see the kinds."""

    def token_values(
        self, params: Params, hidden: Float[Array, "... L D"], tokens: Int[Array, "... L"]
    ) -> Float[Array, "... L"]:
        """V(y_<t, y_t) of every token of sequences; see the kinds."""

    def last_values(
        self,
        params: Params,
        hidden: Float[Array, "B L D"],
        tokens: Int[Array, "B L"],
        last: Int[Array, " B"],
    ) -> Float[Array, " B"]:
        """V(y_<t, y_t) of the token at t = `last` of each sequence; see the kinds."""


class ScalarHead:
    """V(s, a) = w h + b, h the hidden state at the candidate token a itself.

    Tree: {"weight": [1, D], "bias": [1]} float32.
    """

    reads_candidates = True
    has_rank = False

    def shapes(self, hidden_size: int, vocab_size: int, rank: int | None) -> dict[str, tuple[int, ...]]:
        """{"weight": (1, D), "bias": (1,)}."""
        return {"weight": (1, hidden_size), "bias": (1,)}

    def init(self, hidden_size: int, vocab_size: int, rank: int | None, rng_key: jax.Array) -> Params:
        """As torch's `Linear` starts: uniform in +-1/sqrt(D)."""
        bound = hidden_size**-0.5
        weight_key, bias_key = jax.random.split(rng_key)
        return {
            "weight": jax.random.uniform(weight_key, (1, hidden_size), jnp.float32, -bound, bound),
            "bias": jax.random.uniform(bias_key, (1,), jnp.float32, -bound, bound),
        }

    def values(self, params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "..."]:
        """The value of each token itself; see `value_head`."""
        return value_head(params, hidden)

    def values_of(
        self, params: Params, hidden: Float[Array, "... C D"], ids: Int[Array, "... C"]
    ) -> Float[Array, "... C"]:
        """The values at the candidates' own hidden states, whatever their ids."""
        return value_head(params, hidden)

    def token_values(
        self, params: Params, hidden: Float[Array, "... L D"], tokens: Int[Array, "... L"]
    ) -> Float[Array, "... L"]:
        """At the token itself."""
        return value_head(params, hidden)

    def last_values(
        self,
        params: Params,
        hidden: Float[Array, "B L D"],
        tokens: Int[Array, "B L"],
        last: Int[Array, " B"],
    ) -> Float[Array, " B"]:
        """At the last token itself."""
        return value_head(params, pick(hidden, last))


class VocabHead:
    """Q(s, a) = U_a (D h) + b_a for every a at once, h the hidden state at the last token of the prefix s.

    Tree: {"down": {"weight": [R, D]}, "up": {"weight": [V, R], "bias": [V]}} float32.
    """

    reads_candidates = False
    has_rank = True

    def shapes(self, hidden_size: int, vocab_size: int, rank: int | None) -> dict[str, tuple[int, ...]]:
        """{"down.weight": (R, D), "up.weight": (V, R), "up.bias": (V,)}."""
        assert rank is not None
        return {"down.weight": (rank, hidden_size), "up.weight": (vocab_size, rank), "up.bias": (vocab_size,)}

    def init(self, hidden_size: int, vocab_size: int, rank: int | None, rng_key: jax.Array) -> Params:
        """Q = 0 (`up` is zero), so that before training it steers nothing; `down` as torch's `Linear`."""
        assert rank is not None
        bound = hidden_size**-0.5
        return {
            "down": {"weight": jax.random.uniform(rng_key, (rank, hidden_size), jnp.float32, -bound, bound)},
            "up": {"weight": jnp.zeros((vocab_size, rank)), "bias": jnp.zeros((vocab_size,))},
        }

    def values(self, params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """The value of every next token."""
        up = params["up"]
        return einsum_float32("...r,vr->...v", _inner(params, hidden), up["weight"]) + up["bias"]

    def values_of(
        self, params: Params, hidden: Float[Array, "... D"], ids: Int[Array, "... C"]
    ) -> Float[Array, "... C"]:
        """The values of some next tokens, from their rows of `up` alone: R C products, not R V."""
        up = params["up"]
        inner = _inner(params, hidden)
        return einsum_float32("...r,...cr->...c", inner, up["weight"][ids]) + up["bias"][ids]

    def token_values(
        self, params: Params, hidden: Float[Array, "... L D"], tokens: Int[Array, "... L"]
    ) -> Float[Array, "... L"]:
        """Q(y_<t)[y_t], read at the token before. What stands at t = 0, which has none, means nothing."""
        up = params["up"]
        before = jnp.roll(_inner(params, hidden), 1, axis=-2)  # the last wraps around to the first
        return jnp.sum(before * up["weight"][tokens], axis=-1) + up["bias"][tokens]

    def last_values(
        self,
        params: Params,
        hidden: Float[Array, "B L D"],
        tokens: Int[Array, "B L"],
        last: Int[Array, " B"],
    ) -> Float[Array, " B"]:
        """Q(y_<t)[y_t], read at the token before the last. Of a sequence of one token it means nothing."""
        q = self.values(params, pick(hidden, jnp.maximum(last - 1, 0)))
        return pick(q, pick(tokens, last))


def _inner(params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... R"]:
    down = params["down"]["weight"]
    return einsum_float32("...d,rd->...r", hidden.astype(down.dtype), down)


HEADS: dict[str, Head] = {"scalar": ScalarHead(), "vocab": VocabHead()}
"""The kinds, as `ValueConfig.head` names them."""
