"""Best-of-N on top of `sample`: N replies to each prompt, of which the best is kept.

The prompt is prefilled once; the N replies differ by their keys alone. With the default gate a finite
threshold makes this SIA with best-of-N, and +inf plain best-of-N. Each is scored when it is complete, by the
value model's value of its last token or by whatever the caller brings, such as a trajectory reward model.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from sia_jax.arguments import read_numbers, told
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.sample import check_call, sample
from sia_jax.decoding.state import FinishReason, Samples
from sia_jax.models.passes import hidden_states
from sia_jax.models.value_model import ValueNet
from sia_jax.reprs import shape_of
from sia_jax.steering.config import Knobs

Score = Callable[[Prompt, Samples], Any]
"""(the B prompts, the B N replies, those of a prompt side by side) -> [B N] scores."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class BestOfN:
    """All replies, their scores, and which of them is the best."""

    samples: Samples  # of B N rows
    scores: Float[Array, "B N"]  # -inf for a reply that was not finite, or whose value is not
    best: Int[Array, " B"]  # branch with the largest score, the lowest of equal ones; a failed one last

    def __repr__(self) -> str:
        return f"BestOfN(scores {shape_of(self.scores)}, of {self.samples!r})"

    @property
    def replies(self) -> Samples:
        """The best reply to each prompt, [B] rows. The counts of the call stay those of all replies."""
        b, n = self.scores.shape
        rows = jnp.arange(b) * n + self.best
        return jax.tree.map(lambda x: x[rows] if x.ndim else x, self.samples)


def best_of_n(
    params: SteeringParams,
    prompt: Prompt,
    threshold: Any,
    *,
    rng_key: Any,
    config: SamplerConfig,
    score: Score | None = None,
    knobs: Knobs | None = None,
) -> BestOfN:
    """Sample `config.branches` replies to each prompt and say which scores best.

    y* = argmax_j R(x, y_j), y_j drawn as `sample` draws with the key fold_in(key, j).

    Args:
      params: weights of policy and value model.
      prompt: B prompts.
      threshold: [] or [B], nats; +inf: plain best-of-N.
      rng_key: one key, or [B].
      config: static; `branches` is N.
      score: R; None: the value model's value of the reply's last token (`last_values`).
      knobs: numbers that override the configuration's defaults.

    Returns:
      BestOfN.

    Raises:
      ValueError: what `sample` raises; no score and no value model; scores of another shape, or NaN.
    """
    check_call(params, config)
    if score is not None and not callable(score):
        raise TypeError(f"score must be a function (prompt, samples) -> [B N] numbers, got {told(score)}")
    if score is None and params.value is None:
        raise ValueError("best_of_n needs a score or a value model to choose by, got neither; give score=...")
    samples = sample(params, prompt, threshold, rng_key=rng_key, config=config, knobs=knobs)
    if score is None:
        # Unsteered replies meet the value model here for the first time. Numbers that are not finite count as
        # in the sampler: against the reply that has them, and no other.
        values = last_values(params, prompt, samples, config)
        scores: Any = jnp.where(jnp.isfinite(values), values, -jnp.inf)
    else:
        scores = read_numbers("what score returns", score(prompt, samples))
    rows, n = prompt.rows, config.branches
    if np.shape(scores) != (rows * n,):
        raise ValueError(f"score must return one number a reply, [{rows * n}], got shape {np.shape(scores)}")
    failed = samples.finish_reason == FinishReason.NON_FINITE
    scores = jnp.where(failed, -jnp.inf, jnp.asarray(scores, jnp.float32))
    if bool(jnp.any(jnp.isnan(scores))):
        raise ValueError(
            f"score must not return NaN, got {np.asarray(scores).tolist()}; -inf is for a reply that is to "
            "be chosen only where there is no other"
        )
    scores, failed = scores.reshape(rows, n), failed.reshape(rows, n)
    return BestOfN(samples, scores, best_branches(scores, failed))


def best_branches(scores: Any, failed: Any) -> Int[Array, " B"]:
    """Which of N replies is chosen, wherever there are several: the largest score that is a number.

    The first of equal ones. A reply without a score (NaN, or -inf) is chosen where none has one, and one that
    failed where all have: then the first.

    Args:
      scores: [B, N].
      failed: [B, N] whether a reply ended in numbers that were not finite; whatever its score.
    """
    scores = jnp.asarray(scores, jnp.float32)
    lowest = jnp.finfo(jnp.float32).min
    order = jnp.maximum(jnp.where(jnp.isnan(scores), lowest, scores), lowest)
    return jnp.argmax(jnp.where(jnp.asarray(failed), -jnp.inf, order), axis=-1).astype(jnp.int32)


def last_values(
    params: SteeringParams, prompt: Prompt, samples: Samples, config: SamplerConfig
) -> Float[Array, " R"]:
    """V(x, y): the value model's value of each reply's last token, by one full pass.

    Args:
      params: weights; the value model's must be there.
      prompt: B prompts.
      samples: B N replies.
      config: the one that the replies were sampled with.

    Returns:
      [B N] float32, in units of the reward; 0 for an empty reply.
    """
    net = params.value_net(config)
    assert net is not None
    prompts = (prompt.value_ids, prompt.value_lengths)
    if not config.value_passes:  # whose hidden states are the policy's, behind the policy's prompt
        prompts = (prompt.policy_ids, prompt.policy_lengths)
    tokens, lengths = map(jnp.asarray, prompts)
    return _last_values(net, tokens, lengths, samples.tokens, samples.lengths, mesh=config.mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _last_values(
    net: ValueNet,
    prompts: Int[Array, "B P"],
    prompt_lengths: Int[Array, " B"],
    replies: Int[Array, "R T"],
    lengths: Int[Array, " R"],
    *,
    mesh: Mesh | None,
) -> Float[Array, " R"]:
    n = replies.shape[0] // prompts.shape[0]
    tokens = jnp.repeat(prompts, n, axis=0)
    begin = jnp.repeat(prompt_lengths, n, axis=0)
    tokens = jnp.pad(tokens, ((0, 0), (0, replies.shape[1])))
    columns = begin[:, None] + jnp.arange(replies.shape[1])
    tokens = tokens.at[jnp.arange(tokens.shape[0])[:, None], columns].set(replies)
    return jnp.where(lengths > 0, _sequence_values(net, tokens, begin + lengths, mesh=mesh), 0)


def sequence_values(
    params: SteeringParams, tokens: Int[Array, "R L"], lengths: Int[Array, " R"], config: SamplerConfig
) -> Float[Array, " R"]:
    """V(y_<t, y_t): the value model's value of the last token of sequences, by one full pass.

    Args:
      params: weights; the value model's must be there.
      tokens: [R, L] ids of prompt and reply, padded on the right, as the value model sees them; where it
        reads the policy's hidden states, as the policy does.
      lengths: [R].
      config: says what the value model is, and the mesh.

    Returns:
      [R] float32, in units of the reward.
    """
    net = params.value_net(config)
    assert net is not None
    return _sequence_values(net, tokens, lengths, mesh=config.mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _sequence_values(
    net: ValueNet, tokens: Int[Array, "R L"], lengths: Int[Array, " R"], *, mesh: Mesh | None
) -> Float[Array, " R"]:
    hidden = hidden_states(net.model, tokens, config=net.config.backbone, adapter=net.adapter, mesh=mesh)
    return net.last_values(hidden, tokens, lengths - 1)
