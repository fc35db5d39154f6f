"""Runs the methods of a comparison on engines: sample, choose among n, score; with time and FLOPs.

There is one engine at a time, for each structure another: the policy alone, and the steered policy in a few
layouts (`sia_jax.evaluation.methods.SCHEDULES`) and under each bound. The numbers of gates and n are each
request's own.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sia_jax.costs.reply import (
    ReplyFlops,
    last_value_flops,
    policy_flops,
    steering_flops,
)
from sia_jax.decoding.config import SamplerConfig
from sia_jax.engine.engine import Engine
from sia_jax.engine.reply import Reply
from sia_jax.engine.request import Request
from sia_jax.engine.sampling_keys import words_of
from sia_jax.evaluation.gate_numbers import GateNumbers, gate_of
from sia_jax.evaluation.methods import Method
from sia_jax.evaluation.scoring import Aside, LastValues, Rewards, Scorer, choose
from sia_jax.evaluation.search.drafts import Draft
from sia_jax.evaluation.search.methods import SearchMethod
from sia_jax.evaluation.search.replies import DraftRequests, reply_of, sampled_counts, search_flops
from sia_jax.evaluation.search.runner import Found, Rated, SearchRunner
from sia_jax.runs.engines import Row, make_engine, make_request
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.runs.runner import steering
from sia_jax.steering.config import SteeringConfig
from sia_jax.steering.tilts import Advantage, Clipped
from sia_jax.text.chat import Message


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
    scores: list[float | None] | None
    """Of all n replies, what was chosen by (None: one without); None if there was nothing to choose."""
    proxy: float | None
    """Reward of the reply; None: it has none, and `unscored` says why."""
    unscored: str
    parts: Mapping[str, float | None] | None
    """Of a reward that is a weighted sum."""
    sampled_tokens: int
    sampled_junctions: int
    sampled_decided: int
    """Junctions that were decided without a value."""
    values_read: int
    """Candidates; like the three before, of all n replies."""
    seconds: float
    """The prompt's share of the time, without the scoring of what was chosen."""
    flops: ReplyFlops


@dataclass(frozen=True)
class _Text:
    """A draft's."""

    text: str


class MethodRunner:
    """Runs any method on some prompts.

    Args:
      models: policy and value model.
      reward: scores replies.
      args: sampling.
      prompts: all of the run's.
      batch: replies at a time, those of best-of-n among them.
      aside: entered while something is compiled.
    """

    def __init__(
        self,
        models: Models,
        reward: Scorer,
        args: SamplingArgs,
        prompts: Sequence[Row],
        batch: int,
        aside: Aside,
    ):
        assert models.value is not None
        self._models, self._args, self._prompts = models, args, prompts
        self._batch, self._aside, self._value = batch, aside, models.value.config
        self._structure: tuple[bool, float, bool, bool, float | None] | None = None
        self._engine: Engine | None = None
        self._reward = reward
        self._config = config = SamplerConfig(
            policy=models.policy.config,
            value=self._value,
            max_new_tokens=args.max_new_tokens,
            mesh=args.make_mesh(),
        )
        self._last_values = LastValues(models.params, config, aside)

    def run(
        self, method: Method, gate: GateNumbers, jobs: Sequence[Job]
    ) -> Iterator[list[tuple[int, Chosen]]]:
        """A method's replies, some at a time as they are whole, each with the place of its job.

        What has to be compiled first is, and is not timed. Nothing is sampled while replies are scored and
        while the caller has them. After Ctrl-C come those that are whole, then KeyboardInterrupt.

        Args:
          method: any.
          gate: its numbers.
          jobs: each of a prompt of the run's.

        Raises:
          EngineClosed: the engine failed.
        """
        if method.search is not None:
            yield from self._search(method, method.search, gate, jobs)
            return
        engine = self._ready_engine(method)
        size, left = max(1, self._batch // method.n), len(jobs)
        requests = [self._request(method, gate, job.row) for job in jobs]
        whole: list[tuple[int, Reply]] = []
        begin = time.perf_counter()
        try:
            for one in engine.as_completed(requests):
                whole.append(one)
                if len(whole) < min(size, left):
                    continue
                with engine.paused():
                    chosen = self._judge(method, jobs, whole, time.perf_counter() - begin)
                    left, whole = left - len(whole), []
                    yield chosen
                begin = time.perf_counter()
        except KeyboardInterrupt:
            if whole:
                yield self._judge(method, jobs, whole, time.perf_counter() - begin)
            raise

    def close(self) -> None:
        """End the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _ready_engine(self, method: Method) -> Engine:
        """An engine of the method's structure, with all compiled that the method needs."""
        searches = method.search is not None
        schedule = method.schedule if method.is_steered else 1.0
        structure = (method.is_steered, schedule, method.n > 1, searches, method.bound)
        if self._engine is None or structure != self._structure:
            self.close()  # its rows take memory; its programs stay compiled
            self._engine = make_engine(
                self._models if method.is_steered else Models(self._models.policy, None),
                self._args,
                self._batch,
                self._prompts,
                structure=self._steering(method),
                expected_ratio=method.schedule if method.is_steered else None,
                record="candidates" if searches else None,
                continues=searches,
            )
            self._structure = structure
            longest = max(len(row.policy_ids) for row in self._prompts)
            with self._aside(f"compiling {method.name} for prompts of up to {longest} tokens"):
                self._engine.warmup(self._warming(method))
        return self._engine

    def _steering(self, method: Method) -> SteeringConfig:
        """What the method's engine is made of: one for each bound, by which value passes are laid out."""
        config = replace(steering(self._args), gate=gate_of(GateNumbers()))
        if method.bound is None:
            return config
        return replace(config, tilt=Clipped(method.bound, Advantage()))

    def _warming(self, method: Method) -> Iterator[Request]:
        """Requests that need all programs that the method needs."""
        for row in self._prompts:
            yield self._request(method, GateNumbers(), row)
            if method.search is not None:  # whose drafts are prompts, the longest of one token less
                said = [0] * (self._args.max_new_tokens - 1)
                draft = replace(row, policy_ids=[*row.policy_ids, *said], value_ids=[*row.value_ids, *said])
                own = self._request(method, GateNumbers(), draft)
                yield from (own.override(n=n, max_new_tokens=1) for n in (1, 2))

    def _request(self, method: Method, gate: GateNumbers, row: Row) -> Request:
        numbers = gate_of(gate) if method.is_steered else None
        row = replace(row, threshold=gate.threshold)
        return make_request(row, self._args, n=method.n, gate=numbers)

    def _search(
        self, method: Method, search: SearchMethod, gate: GateNumbers, jobs: Sequence[Job]
    ) -> Iterator[list[tuple[int, Chosen]]]:
        """The replies of a search; see `run`."""
        tokenizer = self._models.policy.tokenizer
        assert tokenizer is not None
        rows, limit = [job.row for job in jobs], self._args.max_new_tokens
        stops = frozenset(self._models.policy.config.eos_token_ids)

        def rate(places: Sequence[int], drafts: Sequence[Draft], texts: Sequence[str]) -> Rated:
            if method.chooser == "value":
                sequences = [
                    [*rows[place].value_ids, *draft.tokens]
                    for place, draft in zip(places, drafts, strict=True)
                ]
                values, seconds = self._last_values(sequences)
                known = [value if math.isfinite(value) else None for value in values]
                flops = [
                    last_value_flops(self._value, len(rows[place].value_ids), [len(draft.tokens)])
                    for place, draft in zip(places, drafts, strict=True)
                ]
                return Rated(known, [len(ids) for ids in sequences], flops, seconds)
            prompts = [jobs[place].messages for place in places]
            found = self._reward.score(prompts, [[_Text(text)] for text in texts])
            return Rated(
                [reward for (reward,) in found.rewards],
                [count for (count,) in found.tokens],
                [flops for (flops,) in found.flops],
                found.seconds,
            )

        runner = SearchRunner(
            self._ready_engine(method),
            DraftRequests(rows, self._args, gate, method.is_steered),
            rate,
            ends=stops.__contains__,
            tokenizer=tokenizer,
            limit=limit,
            at_once=self._batch,
        )
        size, left = self._batch, len(jobs)
        whole: list[tuple[int, Found]] = []
        try:
            for one in runner.run([search.search(words_of(row.key), limit) for row in rows]):
                whole.append(one)
                if len(whole) == min(size, left):
                    found, whole, left = whole, [], left - len(whole)
                    yield self._judge_found(method, jobs, found)
        except KeyboardInterrupt:
            if whole:
                yield self._judge_found(method, jobs, whole)
            raise

    def _judge_found(
        self, method: Method, jobs: Sequence[Job], whole: Sequence[tuple[int, Found]]
    ) -> list[tuple[int, Chosen]]:
        """Score what searches found; in the order of the jobs."""
        whole = sorted(whole, key=lambda one: one[0])
        scored = self._reward.score([jobs[place].messages for place, _ in whole], [[one] for _, one in whole])
        chosen = []
        for i, (place, one) in enumerate(whole):
            row, ledger = jobs[place].row, one.ledger
            policy, value = search_flops(one, row, self._config)
            reward = 0.0
            if method.chooser == "value":
                value += ledger.scored_flops
            else:
                reward = ledger.scored_flops
            chosen.append(
                (
                    place,
                    Chosen(
                        reply=reply_of(one, row, self._config, self._models.policy.tokenizer),
                        branch=0,
                        scores=None,
                        proxy=scored.rewards[i][0],
                        unscored=scored.why[i][0],
                        parts=scored.parts[i][0],
                        **sampled_counts(one),
                        seconds=ledger.seconds,
                        flops=ReplyFlops(policy, value, reward),
                    ),
                )
            )
        return chosen

    def _judge(
        self, method: Method, jobs: Sequence[Job], whole: Sequence[tuple[int, Reply]], seconds: float
    ) -> list[tuple[int, Chosen]]:
        """Choose among the replies to each prompt, and score what is chosen; in the order of the jobs."""
        whole = sorted(whole, key=lambda one: one[0])
        own = [jobs[place] for place, _ in whole]
        groups = [reply.choices or (reply,) for _, reply in whole]
        scores: list[list[float | None]] | None = None
        found: Rewards | None = None
        conversations = [job.messages for job in own]
        if method.chooser == "value":
            scores, more = self._values(own, groups)
            seconds += more
        elif method.chooser == "reward":
            found = self._reward.score(conversations, groups)
            scores = found.rewards
            seconds += found.seconds
        best = [0] * len(own) if scores is None else choose(scores, groups)
        read = [[0.0]] * len(own) if found is None else found.flops
        if found is None:
            chosen = [[group[branch]] for group, branch in zip(groups, best, strict=True)]
            found, kept = self._reward.score(conversations, chosen), [0] * len(own)
        else:
            kept = best
        return [
            (
                whole[i][0],
                Chosen(
                    reply=group[best[i]],
                    branch=best[i],
                    scores=None if scores is None else scores[i],
                    proxy=found.rewards[i][kept[i]],
                    unscored=found.why[i][kept[i]],
                    parts=found.parts[i][kept[i]],
                    sampled_tokens=sum(len(reply.tokens) for reply in group),
                    sampled_junctions=sum(reply.num_junctions for reply in group),
                    sampled_decided=sum(reply.num_decided for reply in group),
                    values_read=sum(reply.usage.values_read for reply in group),
                    seconds=seconds / len(own),
                    flops=self._flops(method, own[i].row, group, read[i]),
                ),
            )
            for i, group in enumerate(groups)
        ]

    def _values(
        self, jobs: Sequence[Job], groups: Sequence[Sequence[Reply]]
    ) -> tuple[list[list[float | None]], float]:
        """The value of each reply's last token, None where it is not finite, and the seconds that it took."""
        sequences = [
            [*job.row.value_ids, *reply.tokens.tolist()]
            for job, group in zip(jobs, groups, strict=True)
            for reply in group
        ]
        values, seconds = self._last_values(sequences)
        lengths = [len(reply.tokens) for group in groups for reply in group]
        n, known = len(groups[0]), [x if length else 0.0 for x, length in zip(values, lengths, strict=True)]
        scores = [x if math.isfinite(x) else None for x in known]
        return [scores[i : i + n] for i in range(0, len(scores), n)], seconds

    def _flops(self, method: Method, row: Row, group: Sequence[Reply], read: Sequence[float]) -> ReplyFlops:
        lengths = [len(reply.tokens) for reply in group]
        value, prompt = 0.0, len(row.value_ids)
        if method.is_steered:
            value += steering_flops(self._value, prompt, [reply.values_read for reply in group])
        if method.chooser == "value":
            value += last_value_flops(self._value, prompt, lengths)
        return ReplyFlops(
            policy=policy_flops(self._models.policy.config, len(row.policy_ids), lengths),
            value=value,
            reward=math.fsum(read),
        )
