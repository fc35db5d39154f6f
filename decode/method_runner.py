"""Runs the methods that `decode.evaluate` compares: sample, choose among n, score; with time and FLOPs.

There is one program for each structure: the policy alone, and the steered policy in a few layouts
(`sia_jax.evaluation.methods.SCHEDULES`), each for each n. Thresholds and probabilities are traced.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sia_jax
from sia_jax.costs.reply import (
    ReplyFlops,
    last_value_flops,
    policy_flops,
    reward_flops,
    steering_flops,
)
from sia_jax.decoding.search import best_branches, last_values
from sia_jax.engine.reply import Reply
from sia_jax.evaluation.methods import GateNumbers, Method, gate_at
from sia_jax.rewards.labelling import Labeller, Outcome
from sia_jax.runs import runner
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.runs.runner import Row, Runner
from sia_jax.text.chat import Message
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
class Rewards:
    """What the reward model says of some replies to each prompt."""

    rewards: list[list[float | None]]
    """None: a reply that it cannot score."""
    why: list[list[str]]
    """Why not."""
    tokens: list[list[int]]
    """Of the conversations; 0 where the template refuses one."""
    seconds: float
    """Those of compiling left out."""


@dataclass(frozen=True)
class Chosen:
    """The reply that a method gives to a prompt, and what it took."""

    reply: Reply
    branch: int
    scores: list[float | None] | None
    """Of all n replies, what was chosen by (None: one without); None if there was nothing to choose."""
    proxy: float | None
    """Reward of the reply; None: the reward model could not score it, and `unscored` says why."""
    unscored: str
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
      reward_tokens: of the longest conversation that is scored; None: as many as the reward model holds.
    """

    def __init__(
        self,
        models: Models,
        reward: sia_jax.RewardModel,
        args: SamplingArgs,
        batch: int,
        aside: Aside,
        template: Mapping[str, str] | None = None,
        reward_tokens: int | None = None,
    ):
        assert models.value is not None
        self._models, self._args, self._batch, self._aside = models, args, batch, aside
        self._value = models.value.config
        self._engines: dict[tuple[bool, int, float], Runner] = {}
        self._warm: set[tuple[int, tuple[int, int]]] = set()
        self._reward = Scorer(reward, aside, template, reward_tokens)

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
        """
        engine = self._engine(method)
        if engine.needs_compiling(shape):
            with self._aside(f"compiling {method.name} for prompts of up to {shape[0]} tokens"):
                engine.compile(shape)
        rows = [job.row for job in jobs]
        numbers = gate_at(gate.rate) if method.is_steered else None
        prompt, samples, seconds = engine.sample(rows, shape, self._args, numbers)
        groups = engine.read(prompt, samples, len(rows), self._args)
        scores: list[list[float | None]] | None = None
        found: Rewards | None = None
        conversations = [job.messages for job in jobs]
        if method.chooser == "value":
            scores, more = self._last_values(method, prompt, samples, groups, shape)
            seconds += more
        elif method.chooser == "reward":
            found = self._reward.score(conversations, groups)
            scores = found.rewards
            seconds += found.seconds
        best = [0] * len(jobs) if scores is None else choose(scores, groups)
        counts = [] if found is None else found.tokens
        if found is None:
            chosen = [[group[branch]] for group, branch in zip(groups, best, strict=True)]
            found, kept = self._reward.score(conversations, chosen), [0] * len(jobs)
        else:
            kept = best
        return [
            Chosen(
                reply=group[best[i]],
                branch=best[i],
                scores=None if scores is None else scores[i],
                proxy=found.rewards[i][kept[i]],
                unscored=found.why[i][kept[i]],
                sampled_tokens=sum(len(reply.tokens) for reply in group),
                sampled_junctions=sum(reply.num_junctions for reply in group),
                seconds=seconds / len(jobs),
                flops=self._flops(method, rows[i], group, counts[i] if counts else []),
            )
            for i, group in enumerate(groups)
        ]

    def _engine(self, method: Method) -> Runner:
        structure = (method.is_steered, method.n, method.schedule if method.is_steered else 1.0)
        if structure not in self._engines:
            self._engines[structure] = Runner(
                self._models if method.is_steered else Models(self._models.policy, None),
                self._args,
                self.rows(method),
                branches=method.n,
                structure=replace(runner.steering(self._args), gate=gate_at(0.0)),
                expected_ratio=method.schedule if method.is_steered else None,
            )
        return self._engines[structure]

    def _last_values(
        self,
        method: Method,
        prompt: sia_jax.Prompt,
        samples: sia_jax.Samples,
        groups: Sequence[Sequence[Reply]],
        shape: tuple[int, int],
    ) -> tuple[list[list[float | None]], float]:
        """The value of each reply's last token, None where it is not finite, and the seconds that it took."""
        config = sia_jax.SamplerConfig(
            policy=self._models.policy.config,
            value=self._value,
            max_new_tokens=self._args.max_new_tokens,
            branches=method.n,
            mesh=self._args.make_mesh(),
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
        rows = values.reshape(-1, method.n)[: len(groups)].tolist()
        return [[x if math.isfinite(x) else None for x in row] for row in rows], seconds

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
      max_tokens: of the longest conversation that is scored; None: as many as the model holds.
    """

    def __init__(
        self,
        model: sia_jax.RewardModel,
        aside: Aside,
        template: Mapping[str, str] | None = None,
        max_tokens: int | None = None,
    ):
        self.model, self._template = model, dict(template or {})
        self._aside, self._compiling_seconds = aside, 0.0
        self._labeller = Labeller(
            model,
            batch_tokens=_BATCH_TOKENS,
            max_tokens=model.config.max_position_embeddings if max_tokens is None else max_tokens,
            compiling=self._compiling,
        )

    def score(self, prompts: Sequence[Sequence[Message]], groups: Sequence[Sequence[Reply]]) -> Rewards:
        """Score some replies to each prompt; an empty reply has a reward too.

        A reply that the template refuses, that is too long, or whose reward is no number has none, and the
        others have theirs.

        Args:
          prompts: conversations that end with the user.
          groups: replies to each.
        """
        begin, compiled = time.perf_counter(), self._compiling_seconds
        places = [(i, j) for i, group in enumerate(groups) for j in range(len(group))]
        found = []
        for number, (i, j) in enumerate(places):
            messages = [*prompts[i], {"role": "assistant", "content": groups[i][j].text}]
            try:
                ids = self.model.conversation_ids(messages, **self._template)
            except TemplateRefusal as error:
                refused = f"the reward model's chat template refuses it: {error.why}"
                found.append(Outcome(number, 0, None, "not a conversation", refused))
                continue
            found += self._labeller.add_ids(number, ids)
        found += [outcome for batch in self._labeller.finish() for outcome in batch]
        rewards: list[list[float | None]] = [[None] * len(group) for group in groups]
        why = [[""] * len(group) for group in groups]
        tokens = [[0] * len(group) for group in groups]
        for outcome in found:
            i, j = places[outcome.index]
            rewards[i][j], tokens[i][j], why[i][j] = outcome.reward, outcome.tokens, outcome.why
        compiling = self._compiling_seconds - compiled
        return Rewards(rewards, why, tokens, time.perf_counter() - begin - compiling)

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


def choose(scores: Sequence[Sequence[float | None]], groups: Sequence[Sequence[Reply]]) -> list[int]:
    """The branch that is chosen of each prompt's replies, as `best_branches` has it for best-of-N."""
    numbers = np.array([[math.nan if x is None else x for x in row] for row in scores], np.float32)
    failed = [[reply.finish_reason == sia_jax.FinishReason.NON_FINITE for reply in group] for group in groups]
    found: list[int] = np.asarray(best_branches(numbers, np.array(failed))).tolist()
    return found
