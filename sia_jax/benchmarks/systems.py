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
from sia_jax.decoding.checks import check_params, check_prompt
from sia_jax.decoding.policy_pass import policy_step
from sia_jax.decoding.row_params import make_row_params
from sia_jax.decoding.sample import collect, start
from sia_jax.decoding.state import DecodeState
from sia_jax.models import passes
from sia_jax.models.cache import KVCache, Layout
from sia_jax.models.config import ModelConfig
from sia_jax.models.heads import lm_head
from sia_jax.steering import gates
from sia_jax.steering.tilts import Additive, Tilt
from sia_jax.steering.types import RowParams
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
        seconds, samples = self.sample(prompts, new_tokens)
        return Timing(seconds, int(np.sum(samples.lengths)), _counts(samples))

    def sample(self, prompts: list[list[int]], new_tokens: int) -> tuple[float, sia_jax.Samples]:
        """The seconds of a call, and what it gives."""
        config = self.config(len(prompts), new_tokens)
        params, prompt, key, knobs = self.params(), sia_jax.Prompt.pack(prompts), _key(), self._knobs()
        begin = time.perf_counter()
        samples = jax.block_until_ready(
            sia_jax.sample(params, prompt, np.inf, rng_key=key, config=config, knobs=knobs)
        )
        return time.perf_counter() - begin, samples

    def params(self) -> sia_jax.SteeringParams:
        """The weights of its models."""
        return self.models.params(None if self.ratio is None else self.head)

    def numbers(self, config: sia_jax.SamplerConfig, rows: int) -> RowParams:
        """What a call makes of the numbers of its rows."""
        return make_row_params(np.inf, _key(), self._knobs(), rows, config)

    def _knobs(self) -> sia_jax.Knobs:
        """No id stops a reply."""
        return sia_jax.Knobs(
            stop_ids=np.zeros(0, np.int32), gate=gates.Bernoulli(self.ratio or 0.0), **dict(self.knobs)
        )


def _key() -> jax.Array:
    return jax.random.key(0, impl="threefry2x32")


def _counts(samples: sia_jax.Samples) -> dict[str, float]:
    junction = np.asarray(samples.junction)
    return {
        "steered": float(np.mean(junction)),
        "contenders": float(np.mean(samples.contenders[junction])) if junction.any() else 0.0,
        "values_read": float(np.mean(samples.values_read)),
        "policy_steps": int(samples.policy_steps),
        "value_calls": int(samples.value_calls),
        "value_needed": int(np.sum(samples.value_tokens)),
        "value_computed": int(samples.value_computed),
    }


@dataclass(frozen=True, eq=False)
class KnownSteps:
    """The unsteered sampler as a loop whose number of steps is known when it is compiled.

    The sampler's own loop asks after each step whether somebody still runs. XLA can make one graph of GPU
    kernels of a loop only where it knows how often it runs.
    """

    models: Weights

    def __call__(self, prompts: list[list[int]], new_tokens: int) -> Timing:
        """Sample once, checks included; `counts` says how many tokens differ from those of `sample`."""
        system = SamplerSystem(self.models, None)
        config = system.config(len(prompts), new_tokens)
        params, prompt = system.params(), sia_jax.Prompt.pack(prompts)
        begin = time.perf_counter()
        check_params(params.policy, params.value, config)
        prompt = jax.tree.map(jnp.asarray, check_prompt(prompt, config))
        numbers = system.numbers(config, len(prompts))
        samples = jax.block_until_ready(known_steps(params, prompt, numbers, config=config))
        seconds = time.perf_counter() - begin
        differing = int(np.sum(samples.tokens != system.sample(prompts, new_tokens)[1].tokens))
        counts = _counts(samples) | {"differing_tokens": differing}
        return Timing(seconds, int(np.sum(samples.lengths)), counts)


@functools.partial(jax.jit, static_argnames="config")
def known_steps(
    params: sia_jax.SteeringParams,
    prompts: sia_jax.Prompt,
    numbers: RowParams,
    *,
    config: sia_jax.SamplerConfig,
) -> sia_jax.Samples:
    """As many policy steps as a reply has tokens: nobody waits, and nobody stops."""

    def step(_: jax.Array, state: DecodeState) -> DecodeState:
        return policy_step(params.policy, state, config)

    state = start(params, prompts, numbers, config)
    return collect(jax.lax.fori_loop(0, config.max_new_tokens, step, state), config)


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
