"""The decoder networks in float64: NumPy only, the whole prefix for every question, no cache.

Written from the papers and the parameters' names alone, so that it is a second opinion on the library. The
configs are read by attribute; no function of the library is called.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Tree = Mapping[Any, Any]


class NumpyModel:
    """A Qwen3 or Llama-3 policy or value model in float64.

    What it has computed for a prefix it remembers, as a function does; keys and values it never keeps.
    """

    def __init__(self, params: Tree, config: Any, base: Tree | None = None):
        """Read the parameters; an adapter is merged, W + scale * B A.

        Args:
          params: {"model", "lm_head"} of a policy (no lm_head if tied), {"model", "value_head"} of a merged
            value model, {"lora", "value_head"} of one over somebody else's weights, or {"value_head"} of a
            head on the policy's hidden states.
          config: of the policy, or of the value model with fields backbone, head, lora and states.
          base: the backbone's tree under {"lora", ...} or under the head.
        """
        self.config = getattr(config, "backbone", config)
        self.head_kind = getattr(config, "head", None)
        self.on_policy = getattr(config, "states", None) == "policy"
        self.weights = dict(_named(params["model"] if base is None else base))
        if "lora" in params:
            _merge(self.weights, dict(_named(params["lora"])), config.lora)
        # A policy that is tied has no head of its own.
        head = params.get("value_head") or params.get("lm_head") or {}
        self.head = dict(_named(head)) or {"weight": self.weights["embed_tokens.weight"]}
        self.frequencies = inverse_frequencies(self.config.rope, self.config.head_dim)
        self._memory: dict[tuple[Any, ...], np.ndarray] = {}

    def hidden(
        self, ids: Any, positions: np.ndarray | None = None, visible: np.ndarray | None = None
    ) -> np.ndarray:
        """Hidden states after the final norm.

        Args:
          ids: [..., L].
          positions: [L], for the rotation only; by default 0 .. L-1.
          visible: [L, L], whether a query (row) sees a key (column); by default causal.

        Returns:
          [..., L, D].
        """
        ids = np.asarray(ids)
        length = ids.shape[-1]
        positions = np.arange(length) if positions is None else positions
        visible = np.tri(length, dtype=bool) if visible is None else visible
        angles = positions[:, None, None] * self.frequencies
        with np.errstate(all="ignore"):  # NaN and overflow are results here, to be found by who reads them
            x = self.weights["embed_tokens.weight"][ids]
            for i in range(self.config.num_layers):
                layer = f"layers.{i}."
                y = self._norm(layer + "input_layernorm", x)
                x = x + self._attention(layer + "self_attn.", y, angles, visible)
                y = self._norm(layer + "post_attention_layernorm", x)
                x = x + self._mlp(layer + "mlp.", y)
            return self._norm("norm", x)

    def logits(
        self, prefix: Sequence[int], *, unwritten: Iterable[int] = (), network: "NumpyModel | None" = None
    ) -> np.ndarray:
        """m [V] = W h at the last token of a policy's prefix.

        Args:
          prefix: prompt and reply so far.
          unwritten: indices of the prefix whose keys no later token sees.
          network: whose h it is, in place of its own.
        """
        hidden = (network or self)._last_hidden(tuple(prefix), (None,), tuple(unwritten), 0)[0]
        with np.errstate(all="ignore"):
            return self.head["weight"] @ hidden

    def candidate_values(
        self,
        prefix: Sequence[int],
        candidates: Iterable[int],
        *,
        unwritten: Iterable[int] = (),
        shift: int = 0,
    ) -> np.ndarray:
        """V(s, a) [C] = w h + b with h at the candidate a behind the prefix s, or Q(s, a) with a vocab head.

        Args:
          prefix: prompt and reply so far.
          candidates: ids, each in a sequence of its own.
          unwritten: indices of the prefix whose keys no later token sees.
          shift: added to the candidates' rotary position.
        """
        candidates = tuple(int(a) for a in candidates)
        if self.head_kind == "vocab":
            return self.vocab_values(prefix, unwritten=unwritten)[list(candidates)]
        hidden = self._last_hidden(tuple(prefix), candidates, tuple(unwritten), shift)
        with np.errstate(all="ignore"):
            return hidden @ self.head["weight"][0] + self.head["bias"][0]

    def vocab_values(self, prefix: Sequence[int], *, unwritten: Iterable[int] = ()) -> np.ndarray:
        """Q(s, a) [V] = U (D h) + b with h at the last token of the prefix s."""
        hidden = self._last_hidden(tuple(prefix), (None,), tuple(unwritten), 0)[0]
        with np.errstate(all="ignore"):
            return self.head["up.weight"] @ (self.head["down.weight"] @ hidden) + self.head["up.bias"]

    def _last_hidden(
        self,
        prefix: tuple[int, ...],
        endings: tuple[int | None, ...],
        unwritten: tuple[int, ...],
        shift: int,
    ) -> np.ndarray:
        """[C, D] at the end of the prefix and each ending; the ending None adds no token."""
        question = (prefix, endings, unwritten, shift)
        if question not in self._memory:
            ids = np.array([prefix if a is None else (*prefix, a) for a in endings])
            length = ids.shape[-1]
            positions = np.arange(length)
            positions[-1] += shift
            visible = np.tri(length, dtype=bool)
            visible[:, list(unwritten)] = False
            visible |= np.eye(length, dtype=bool)
            self._memory[question] = self.hidden(ids, positions, visible)[:, -1]
        return self._memory[question]

    def _attention(self, name: str, x: np.ndarray, angles: np.ndarray, visible: np.ndarray) -> np.ndarray:
        """Grouped-query attention: softmax(q k / sqrt(H)) v, head n reading key head n // (N / K)."""
        config = self.config
        heads = (*x.shape[:-1], -1, config.head_dim)
        queries = self._linear(name + "q_proj", x).reshape(heads)
        keys = self._linear(name + "k_proj", x).reshape(heads)
        values = self._linear(name + "v_proj", x).reshape(heads)
        if config.family == "qwen3":
            queries, keys = self._norm(name + "q_norm", queries), self._norm(name + "k_norm", keys)
        queries, keys = _rotate(queries, angles), _rotate(keys, angles)
        group = config.num_heads // config.num_kv_heads
        keys, values = np.repeat(keys, group, axis=-2), np.repeat(values, group, axis=-2)
        queries, keys, values = (y.swapaxes(-2, -3) for y in (queries, keys, values))
        scores = np.where(visible, queries @ keys.swapaxes(-1, -2) / math.sqrt(config.head_dim), -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = weights / weights.sum(axis=-1, keepdims=True)
        mixed = (weights @ values).swapaxes(-2, -3)
        return self._linear(name + "o_proj", mixed.reshape(*x.shape[:-1], -1))

    def _mlp(self, name: str, x: np.ndarray) -> np.ndarray:
        """SwiGLU: down(silu(gate(x)) * up(x)), silu(y) = y / (1 + exp(-y))."""
        gate, up = self._linear(name + "gate_proj", x), self._linear(name + "up_proj", x)
        return self._linear(name + "down_proj", gate / (1 + np.exp(-gate)) * up)

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        """x / sqrt(mean(x^2) + eps) * weight."""
        scale = np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + self.config.rms_norm_eps)
        return x / scale * self.weights[f"{name}.weight"]

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        """W x, W [out, in]."""
        return x @ self.weights[f"{name}.weight"].T


def inverse_frequencies(rope: Any, head_dim: int) -> np.ndarray:
    """theta^(-2i/H) [H / 2]; `llama3` scaling divides those of long wavelength by `factor`.

    With s = (O / wavelength - low) / (high - low) clipped to [0, 1], O the original context: (1 - s) f /
    factor + s f.
    """
    frequencies = rope.theta ** -(np.arange(0, head_dim, 2) / head_dim)
    scaling = rope.scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = np.clip(smooth, 0, 1)
    return (1 - smooth) * frequencies / scaling.factor + smooth * frequencies


def _rotate(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(a, b) -> (a cos - b sin, b cos + a sin) for the pairs a = x[i], b = x[i + H/2]."""
    a, b = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _merge(weights: dict[str, np.ndarray], adapter: Mapping[str, np.ndarray], lora: Any) -> None:
    """W <- W + scale * B A in place, for every projection that the adapter names."""
    for module in {name.partition(".lora_")[0] for name in adapter}:
        a, b = adapter[f"{module}.lora_A.weight"], adapter[f"{module}.lora_B.weight"]
        weights[f"{module}.weight"] = weights[f"{module}.weight"] + _scale(lora, module, len(a)) * (b @ a)


def _scale(lora: Any, module: str, rank: int) -> float:
    """alpha / rank, or alpha / sqrt(rank); the first pattern that ends a module's path sets its alpha."""
    alphas = [
        alpha for pattern, alpha in lora.alpha_pattern if re.search(rf"(^|\.)({pattern})$", f"model.{module}")
    ]
    alpha = alphas[0] if alphas else lora.alpha
    return alpha / (math.sqrt(rank) if lora.use_rslora else rank)


def _named(tree: Tree, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """(dotted name, float64 array) of every leaf."""
    for key, leaf in tree.items():
        if isinstance(leaf, Mapping):
            yield from _named(leaf, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", np.asarray(leaf).astype(np.float64)
