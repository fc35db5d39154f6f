"""The systems that the benchmark times: the sampler in its settings, a bare loop, and the PyTorch baselines.

A system is a function of prompts and a number of new tokens which returns what it counted and the seconds.
Replies have exactly that many tokens: stop ids are ignored. The share of junctions is pinned by the Bernoulli
gate, so that timings compare.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sia_jax
from sia_jax.costs.shapes import Head, Weights
from sia_jax.models import passes
from sia_jax.models.cache import KVCache, Layout
from sia_jax.models.config import ModelConfig
from sia_jax.models.heads import lm_head
from sia_jax.steering import gates
from sia_jax.steering.tilts import Additive, Tilt
from sia_jax.types import Params


@dataclass(frozen=True)
class Timing:
    """One call: its seconds, its tokens, and the sampler's own counts where it has any."""

    seconds: float
    tokens: int
    counts: dict[str, float] = field(default_factory=dict)


System = Callable[[list[list[int]], int], Timing]


@dataclass(frozen=True, eq=False)
class SamplerSystem:
    """`sia_jax.sample` in one setting; the configuration is compiled once for each shape."""

    models: Weights
    ratio: float | None
    """Share of junctions; None: no value model. 0 keeps the value model in a program that never meets one."""
    head: Head = "scalar"
    expected_ratio: float = 0.2
    """What `SamplerConfig.auto` is told."""
    num_candidates: int = 10
    tilt: Tilt = field(default_factory=Additive)
    fields: tuple[tuple[str, Any], ...] = ()
    """Fields of the configuration to set otherwise, such as slots."""
    knobs: tuple[tuple[str, Any], ...] = ()
    """Knobs to set, such as the numbers of the schedule."""

    def config(self, batch: int, new_tokens: int) -> sia_jax.SamplerConfig:
        """The static description of the program that runs."""
        steering = sia_jax.SteeringConfig(
            num_candidates=self.num_candidates, gate=gates.Bernoulli(0.2), tilt=self.tilt
        )
        return sia_jax.SamplerConfig.auto(
            batch,
            self.expected_ratio,
            policy=self.models.config,
            value=None if self.ratio is None else self.models.value_config(self.head),
            steering=steering,
            max_new_tokens=new_tokens,
            **dict(self.fields),
        )

    def __call__(self, prompts: list[list[int]], new_tokens: int) -> Timing:
        """Sample once at temperature 1."""
        config = self.config(len(prompts), new_tokens)
        params = self.models.params(None if self.ratio is None else self.head)
        knobs = sia_jax.Knobs(
            stop_ids=np.zeros(0, np.int32), gate=gates.Bernoulli(self.ratio or 0.0), **dict(self.knobs)
        )
        prompt = sia_jax.Prompt.pack(prompts)
        key = jax.random.key(0, impl="threefry2x32")
        start = time.perf_counter()
        samples = jax.block_until_ready(
            sia_jax.sample(params, prompt, np.inf, rng_key=key, config=config, knobs=knobs)
        )
        seconds = time.perf_counter() - start
        counts = {
            "steered": float(np.mean(samples.junction)),
            "contenders": float(np.mean(samples.contenders[samples.junction])) if self.ratio else 0.0,
            "values_read": float(np.mean(samples.values_read)),
            "policy_steps": int(samples.policy_steps),
            "value_calls": int(samples.value_calls),
            "value_needed": int(np.sum(samples.value_tokens)),
            "value_computed": int(samples.value_computed),
        }
        return Timing(seconds, int(np.sum(samples.lengths)), counts)


@dataclass(frozen=True, eq=False)
class BareLoop:
    """Prefill and greedy decoding around a decoding step: no record, no entropy, no draw."""

    models: Weights

    def __call__(self, prompts: list[list[int]], new_tokens: int) -> Timing:
        """Decode once."""
        tokens = jnp.asarray(prompts, jnp.int32)
        lengths = jnp.full((len(prompts),), tokens.shape[1], jnp.int32)
        start = time.perf_counter()
        jax.block_until_ready(
            greedy(self.models.policy, tokens, lengths, config=self.models.config, new_tokens=new_tokens)
        )
        return Timing(time.perf_counter() - start, len(prompts) * new_tokens)


@functools.partial(jax.jit, static_argnames=("config", "new_tokens", "layout"))
def greedy(
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    *,
    config: ModelConfig,
    new_tokens: int,
    layout: Layout | None = None,
) -> jax.Array:
    """Prefill and greedy decoding in one program: the bare loop around a decoding step.

    Args:
      params: the policy's tree.
      tokens: [B, P] prompts padded on the right.
      lengths: [B].
      config: static.
      new_tokens: T, static.
      layout: of the cache; None: the backend's.

    Returns:
      [B, T] ids.
    """
    batch, width = tokens.shape
    dtype = params["model"]["embed_tokens"]["weight"].dtype
    cache = KVCache.zeros(config, batch, width + new_tokens, dtype, layout)
    hidden, cache = passes.prefill(params["model"], tokens, lengths, cache, config=config)

    def body(state: tuple[Any, ...]) -> tuple[Any, ...]:
        t, hidden, lengths, cache, replies = state
        token = jnp.argmax(lm_head(params, hidden), axis=-1).astype(jnp.int32)
        replies = replies.at[:, t].set(token)
        hidden, cache = passes.decode_step(params["model"], token, lengths, cache, config=config)
        return t + 1, hidden, lengths + 1, cache, replies

    # The last token needs no further pass, so the loop makes T - 1 steps.
    state = (0, hidden, lengths, cache, jnp.zeros((batch, new_tokens), jnp.int32))
    t, hidden, _, _, replies = jax.lax.while_loop(lambda state: state[0] < new_tokens - 1, body, state)
    return replies.at[:, t].set(jnp.argmax(lm_head(params, hidden), axis=-1).astype(jnp.int32))
