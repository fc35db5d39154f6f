"""Runs the methods that `decode.evaluate` compares: sample, choose among n, score; with time and FLOPs.

There is one program for each structure: the policy alone, and the steered policy in a few layouts
(`sia_jax.evaluation.methods.SCHEDULES`), each for each n. Thresholds and probabilities are traced.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sia_jax
from decode import runner
from decode.runner import Models, Row, Runner, SamplingArgs
from sia_jax.data.chat import Message
from sia_jax.decoding.search import last_values
from sia_jax.evaluation.methods import GATE, GateNumbers, Method
from sia_jax.evaluation.reply_cost import (
    ReplyFlops,
    last_value_flops,
    policy_flops,
    reward_flops,
    steering_flops,
)
from sia_jax.reports.reply import Reply
from sia_jax.rewards.labelling import Labeller
from sia_jax.text.templates import TemplateRefusal

Aside = Callable[[str], AbstractContextManager[Any]]
"""Says what goes on that is not the work itself, while it goes on."""

_ONE_BUFFER = 128
"""Tokens up to which all prompts run in buffers of one length: one program costs less than the padding."""

_BATCH_TOKENS = 2048
"""Of a batch of the reward model: small, for each batch of replies fills one of every length that it has."""


@dataclass(frozen=True)
class Job:
    """A prompt under a seed."""

    row: Row
    """Its threshold is that of the method."""
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Chosen:
    """The reply that a method gives to a prompt, and what it took."""

    reply: Reply
    branch: int
    scores: list[float] | None
    """Of all n replies, what was chosen by; None if there was nothing to choose."""
    proxy: float
    """Reward of the reply."""
    sampled_tokens: int
    sampled_junctions: int
    """Of all n replies."""
    seconds: float
    """The prompt's share of its batch, without the scoring of what was chosen."""
    flops: ReplyFlops


class MethodRunner:
    """Runs batches of any method.

    Args:
      models: policy and value model.
      reward: the reward model, with a tokenizer.
      args: sampling.
      batch: replies at a time, those of best-of-n among them.
      aside: entered while something is compiled.
      template: variables of the reward model's chat template.
    """

    def __init__(
        self,
        models: Models,
        reward: sia_jax.RewardModel,
        args: SamplingArgs,
        batch: int,
        aside: Aside,
        template: Mapping[str, str] | None = None,
    ):
        assert models.value is not None
        self._models, self._args, self._batch, self._aside = models, args, batch, aside
        self._value = models.value.config
        self._machines: dict[tuple[bool, int, float], Runner] = {}
        self._warm: set[tuple[int, tuple[int, int]]] = set()
        self._reward = Scorer(reward, aside, template)

    def rows(self, method: Method) -> int:
        """Prompts of a batch."""
        return runner.whole_rows(self._args, max(1, self._batch // method.n))

    def run(
        self, method: Method, gate: GateNumbers, jobs: Sequence[Job], shape: tuple[int, int]
    ) -> list[Chosen]:
        """One batch of a method; what has to be compiled first is, and is not timed.

        Args:
          method: any.
          gate: its numbers.
          jobs: at most `rows(method)`.
          shape: lengths of the buffers for the prompts of policy and value model.

        Raises:
          ValueError: a reply that the reward model cannot score.
        """
        machine = self._machine(method)
        if machine.needs_compiling(shape):
            with self._aside(f"compiling {method.name} for prompts of up to {shape[0]} tokens"):
                machine.compile(shape)
        rows = [job.row for job in jobs]
        numbers = (gate.rate,) if method.is_steered else None
        prompt, samples, seconds = machine.sample(rows, shape, self._args, numbers)
        groups = machine.read(prompt, samples, len(rows))
        scores: list[list[float]] | None = None
        counts: list[list[int]] = []
        if method.chooser == "value":
            scores, more = self._last_values(method, prompt, samples, groups, shape)
            seconds += more
        elif method.chooser == "reward":
            scores, counts, more = self._reward.score([job.messages for job in jobs], groups)
            seconds += more
        best = (
            [0] * len(jobs) if scores is None else [_best(*pair) for pair in zip(scores, groups, strict=True)]
        )
        if method.chooser == "reward":
            assert scores is not None
            proxies = [own[branch] for own, branch in zip(scores, best, strict=True)]
        else:
            chosen = [[group[branch]] for group, branch in zip(groups, best, strict=True)]
            proxies = [own[0] for own in self._reward.score([job.messages for job in jobs], chosen)[0]]
        return [
            Chosen(
                reply=group[best[i]],
                branch=best[i],
                scores=None if scores is None else scores[i],
                proxy=proxies[i],
                sampled_tokens=sum(len(reply.tokens) for reply in group),
                sampled_junctions=sum(reply.num_junctions for reply in group),
                seconds=seconds / len(jobs),
                flops=self._flops(method, rows[i], group, counts[i] if counts else []),
            )
            for i, group in enumerate(groups)
        ]

    def _machine(self, method: Method) -> Runner:
        structure = (method.is_steered, method.n, method.schedule if method.is_steered else 1.0)
        if structure not in self._machines:
            self._machines[structure] = Runner(
                self._models if method.is_steered else Models(self._models.policy, None),
                self._args,
                self.rows(method),
                branches=method.n,
                structure=replace(runner.steering(self._args), gate=GATE),
                expected_ratio=method.schedule if method.is_steered else None,
            )
        return self._machines[structure]

    def _last_values(
        self,
        method: Method,
        prompt: sia_jax.Prompt,
        samples: sia_jax.Samples,
        groups: Sequence[Sequence[Reply]],
        shape: tuple[int, int],
    ) -> tuple[list[list[float]], float]:
        """The value of each reply's last token, and the seconds that it took."""
        config = sia_jax.SamplerConfig(
            policy=self._models.policy.config,
            value=self._value,
            max_new_tokens=self._args.max_new_tokens,
            branches=method.n,
            mesh=runner.mesh_of(self._args),
        )
        lengths = np.array(samples.lengths)
        own = [len(reply.tokens) for group in groups for reply in group]
        lengths[: len(own)] = own  # a stop string may have cut them
        cut = replace(samples, lengths=jnp.asarray(lengths))

        def call() -> np.ndarray:
            return np.asarray(jax.device_get(last_values(self._models.params, prompt, cut, config)))

        if (method.n, shape) not in self._warm:
            with self._aside("compiling the values of finished replies"):
                call()
            self._warm.add((method.n, shape))
        begin = time.perf_counter()
        values = call()
        seconds = time.perf_counter() - begin
        return values.reshape(-1, method.n)[: len(groups)].tolist(), seconds

    def _flops(
        self, method: Method, row: Row, group: Sequence[Reply], conversations: Sequence[int]
    ) -> ReplyFlops:
        lengths = [len(reply.tokens) for reply in group]
        value, prompt = 0.0, len(row.value_ids)
        if method.is_steered:
            places = [np.flatnonzero(reply.junction) for reply in group]
            candidates = runner.steering(self._args).num_candidates
            value += steering_flops(self._value, candidates, prompt, places)
        if method.chooser == "value":
            value += last_value_flops(self._value, prompt, lengths)
        return ReplyFlops(
            policy=policy_flops(self._models.policy.config, len(row.policy_ids), lengths),
            value=value,
            reward=reward_flops(self._reward.model.config, conversations),
        )


class Scorer:
    """Rewards of replies, a batch of them at a time.

    Args:
      model: with a tokenizer.
      aside: entered while a length is compiled.
      template: variables of its chat template.
    """

    def __init__(self, model: sia_jax.RewardModel, aside: Aside, template: Mapping[str, str] | None = None):
        self.model, self._template = model, dict(template or {})
        self._aside, self._compiling_seconds = aside, 0.0
        self._labeller = Labeller(model, batch_tokens=_BATCH_TOKENS, compiling=self._compiling)

    def score(
        self, prompts: Sequence[Sequence[Message]], groups: Sequence[Sequence[Reply]]
    ) -> tuple[list[list[float]], list[list[int]], float]:
        """Score some replies to each prompt; an empty reply has a reward too.

        Args:
          prompts: conversations that end with the user.
          groups: replies to each.

        Returns:
          (rewards; tokens of the conversations; seconds, those of compiling left out).

        Raises:
          ValueError: a conversation that is too long or that the template refuses, or a reward that is no
            number.
        """
        begin, compiled = time.perf_counter(), self._compiling_seconds
        places = [(i, j) for i, group in enumerate(groups) for j in range(len(group))]
        found = []
        for number, (i, j) in enumerate(places):
            messages = [*prompts[i], {"role": "assistant", "content": groups[i][j].text}]
            try:
                ids = self.model.conversation_ids(messages, **self._template)
            except TemplateRefusal as error:
                raise ValueError(f"the reward model's chat template refuses a reply: {error.why}") from error
            found += self._labeller.add_ids(number, ids)
        found += [outcome for batch in self._labeller.finish() for outcome in batch]
        rewards: list[list[float]] = [[0.0] * len(group) for group in groups]
        tokens = [[0] * len(group) for group in groups]
        for outcome in found:
            if outcome.reward is None:
                advice = "; lower --max-new-tokens" if outcome.reason == "too long" else ""
                raise ValueError(f"a reply has no reward: {outcome.why}{advice}")
            i, j = places[outcome.index]
            rewards[i][j], tokens[i][j] = outcome.reward, outcome.tokens
        compiling = self._compiling_seconds - compiled
        return rewards, tokens, time.perf_counter() - begin - compiling

    @contextmanager
    def _compiling(self, length: int) -> Iterator[None]:
        begin = time.perf_counter()
        with self._aside(f"compiling the reward model for up to {length} tokens"):
            yield
        self._compiling_seconds += time.perf_counter() - begin


def common_shape(shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The buffers of the batches: one for all, if none is long."""
    widest = max(p for p, _ in shapes), max(v for _, v in shapes)
    return [widest] * len(shapes) if max(widest) <= _ONE_BUFFER else list(shapes)


def _best(scores: Sequence[float], group: Sequence[Reply]) -> int:
    """The branch with the largest score, the first of equal ones; one that was not finite comes last."""
    failed = sia_jax.FinishReason.NON_FINITE
    return max(range(len(group)), key=lambda j: (group[j].finish_reason != failed, scores[j], -j))
