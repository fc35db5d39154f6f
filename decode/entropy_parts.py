"""What `decode.entropy_study` samples: replies with their candidates' values, and continuations.

Every reply, and every position whose candidates were continued, is a record of a journal. Each depends on the
weights, the numbers and its own names alone, not on what ran beside it or on when a run was stopped.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import sia_jax
from sia_jax.data.prompts import PromptLine
from sia_jax.decoding.state import CandidateRecord, FinishReason
from sia_jax.engine.reply import Reply, json_numbers
from sia_jax.models.passes import bucket_length
from sia_jax.runs import prompting, runner
from sia_jax.runs.console import Terminal
from sia_jax.runs.journal import Journal, place_in
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.runs.plan import plan
from sia_jax.runs.progress import RunProgress
from sia_jax.runs.runner import Row, Runner
from sia_jax.studies.entropy import spread
from sia_jax.studies.entropy.replay import candidate_values
from sia_jax.studies.entropy.study import Drawn, Population

_FIRST_KEY = 2**31
"""With a position added, folded into a prompt's key: far from what its own reply's tokens are drawn with."""

_SHORTEST = 64
"""Buffers for what is continued are at least so long, so that few programs serve all positions."""

Reward = Callable[[str | int, str], float]
"""From a prompt's id and a finished reply."""


class Place(NamedTuple):
    """A position of a reply."""

    prompt: int
    """Its index."""
    position: int
    """Tokens of the reply before it."""


@dataclass(frozen=True)
class Studied:
    """A reply and what stood to choice all along it."""

    tokens: list[int]  # [T]
    entropy: np.ndarray  # [T] nats
    ids: np.ndarray  # [T, C] candidates, most probable first
    probabilities: np.ndarray  # [T, C] the policy's, renormalised over the candidates
    outside: np.ndarray  # [T] the policy's probability of all other ids
    values: np.ndarray  # [T, C]

    def chosen(self, position: int, floor: float, most: int) -> np.ndarray:
        """[K] the places of the candidates that have some weight, at least one."""
        heavy = np.flatnonzero(self.probabilities[position] >= floor)[:most]
        return heavy if len(heavy) else np.zeros(1, np.int64)


class StudyJournal(Journal):
    """Replies by prompt, and rewards by position."""

    def __init__(
        self, path: Path, settings: dict[str, Any], prompts: Sequence[PromptLine], *, overwrite: bool
    ):
        self.replies: dict[int, Studied] = {}
        self.rewards: dict[Place, np.ndarray] = {}
        """[K, M] of each position."""
        self._prompts = prompts
        super().__init__(path, settings, self._take, overwrite=overwrite)

    def _take(self, record: dict[str, Any]) -> Hashable:
        """Keep what a record says.

        Raises:
          ValueError: it is of no prompt of the input.
        """
        index = place_in(record, "index")
        prompt = self._prompts[index] if index < len(self._prompts) else None
        if prompt is None or (record["id"], record["prompt"]) != (prompt.id, prompting.prompt_json(prompt)):
            raise ValueError(f"prompt {record['id']!r} is not the input's prompt at place {index}")
        if record["kind"] == "reply":
            self.replies[index] = Studied(
                tokens=record["tokens"],
                entropy=np.array(record["entropy"]),
                ids=np.array(record["candidates"], np.int32),
                probabilities=np.array(record["probabilities"]),
                outside=np.array(record["outside"]),
                values=np.array(record["values"]),
            )
            return "reply", index
        place = Place(index, record["position"])
        self.rewards[place] = np.array(record["rewards"], np.float64)
        return "position", *place


def sample_replies(
    models: Models,
    args: SamplingArgs,
    prompts: Sequence[PromptLine],
    batch: int,
    journal: StudyJournal,
    wanted: Callable[[], bool],
    console: Terminal,
) -> None:
    """The policy's own reply to each prompt that has none yet, and the values of all its candidates.

    Args:
      models: with a value model.
      args: the numbers; no threshold is looked at.
      prompts: all of them.
      batch: replies at a time.
      journal: open; gets a record for each reply.
      wanted: whether to go on, asked before every batch.
      console: for the progress.

    Raises:
      ValueError: the policy's logits, or values, are not finite.
    """
    assert models.value is not None
    rows, settled = [], prompting.find_prompting(models.policy, args)
    for prompt in prompts:
        ids = prompting.policy_ids(models.policy, prompt, args, settled)
        own = prompting.value_ids(models, prompt, ids, args)
        rows.append(Row(ids, own, runner.prompt_key(args.seed, prompt.index), math.inf))
    size = min(batch, len(rows))
    # Values are found afterwards: a sampler with a value model would only give them of what it steers.
    engine = Runner(Models(models.policy, None), args, size, record="candidates")
    with RunProgress(console, len(rows), len(journal.replies)) as progress:
        for group in plan(rows, size, by_length=True):
            missing = [index for index in group.indices if index not in journal.replies]
            if not missing:
                continue
            if not wanted():
                return
            if engine.needs_compiling(group.shape):
                with progress.aside(f"compiling for prompts of up to {group.shape[0]} tokens"):
                    engine.compile(group.shape)
            found, _ = engine.run([rows[index] for index in group.indices], group.shape, args)
            replies = {index: own[0] for index, own in zip(group.indices, found, strict=True)}
            # Values of the whole group, also where some are there already: the program depends on its shape.
            values = _values(models.value, rows, replies, size)
            for index in missing:
                journal.write(_reply_record(prompts[index], replies[index], values[index]))
            progress.advance(len(missing), sum(len(replies[index].tokens) for index in missing))


def _values(
    value: sia_jax.ValueModel, rows: Sequence[Row], replies: dict[int, Reply], size: int
) -> dict[int, np.ndarray]:
    """Of every reply's candidates; a short group is filled up, so that one program serves it too."""
    filled = [*replies, *[next(iter(replies))] * (size - len(replies))]
    found = candidate_values(
        value,
        [rows[index].value_ids for index in filled],
        [replies[index].tokens.tolist() for index in filled],
        [np.asarray(_candidates(replies[index]).ids) for index in filled],
    )
    return dict(zip(replies, found, strict=False))


def _candidates(reply: Reply) -> CandidateRecord:
    assert reply.candidates is not None
    return reply.candidates


def _reply_record(prompt: PromptLine, reply: Reply, values: np.ndarray) -> dict[str, Any]:
    record = _candidates(reply)
    if reply.finish_reason == FinishReason.NON_FINITE or not np.isfinite(values).all():
        raise ValueError(f"prompt {prompt.id!r}: the policy's logits, or the values, are not finite")
    inside = np.exp(np.asarray(record.policy_logprobs, np.float64))
    mass = inside.sum(axis=-1, keepdims=True)
    return {
        "kind": "reply",
        "id": prompt.id,
        "index": prompt.index,
        "prompt": prompting.prompt_json(prompt),
        "text": reply.text,
        "finish_reason": reply.finish_reason.name.lower(),
        "tokens": reply.tokens.tolist(),
        "entropy": json_numbers(reply.entropy),
        "candidates": record.ids.tolist(),
        "probabilities": json_numbers((inside / mass).astype(np.float32)),
        "outside": json_numbers(np.maximum(0, 1 - mass[:, 0]).astype(np.float32)),
        "values": json_numbers(values),
    }


def describe(
    replies: dict[int, Studied], floor: float, most: int, bins: int, seed: int
) -> tuple[list[Place], Population]:
    """Every position of the replies, in the order of prompts, and what is known of it without rewards.

    Args:
      replies: by prompt, complete.
      floor: probability from which a candidate has weight.
      most: candidates of a position that are looked at.
      bins: of entropy, among the positions with two candidates or more.
      seed: of the values that are drawn by lot.
    """
    places = [Place(i, t) for i in sorted(replies) for t in range(len(replies[i].tokens))]
    each = [replies[i] for i in sorted(replies)]
    entropy, p, values = (
        np.concatenate([getattr(reply, name) for reply in each])
        for name in ("entropy", "probabilities", "values")
    )
    branches = np.array([len(replies[i].chosen(t, floor, most)) > 1 for i, t in places])
    strata = np.full(len(places), -1)
    strata[branches] = spread.quantile_bins(entropy[branches], bins)
    return places, Population(
        prompts=np.array([i for i, _ in places]),
        entropies=entropy,
        spreads=np.sqrt(spread.variance(values, p)),
        plain_spreads=np.sqrt(spread.variance(values)),
        lot_spreads=np.sqrt(spread.variance(np.random.default_rng([seed, 2]).normal(size=p.shape), p)),
        strata=strata,
    )


def draw_places(population: Population, count: int, bins: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which positions are continued: as many of each bin of entropy; their places and weights."""
    branching = np.flatnonzero(population.branches)
    each = -(-count // bins)
    chosen, weights = spread.draw_by_stratum(
        population.strata[branching], each, np.random.default_rng([seed, 0])
    )
    return branching[chosen], weights


@dataclass(frozen=True)
class _Head:
    """A candidate whose reply is to be finished, again and again."""

    ids: list[int]  # the policy's prompt, the reply before the position, the candidate
    key: jax.Array
    room: int  # tokens that the reply may still have; 0: it is finished


class Continuations:
    """Finishes replies, M times each, as the policy alone would.

    Args:
      models: whose policy is used.
      args: the numbers.
      prompts: all of them.
      replies: to all of them.
      count: M.
      batch: replies at a time.
    """

    def __init__(
        self,
        models: Models,
        args: SamplingArgs,
        prompts: Sequence[PromptLine],
        replies: dict[int, Studied],
        count: int,
        batch: int,
    ):
        self._models, self._args, self._count = models, args, count
        self._prompts, self._replies = prompts, replies
        settled = prompting.find_prompting(models.policy, args)
        self._ids = [list(prompting.policy_ids(models.policy, prompt, args, settled)) for prompt in prompts]
        plain = Runner(Models(models.policy, None), args, 1)
        self._stops, self._tokenizer = set(plain.stop_ids.tolist()), models.policy.tokenizer
        self._stop_ids = plain.stop_ids
        self._rows = batch // count
        self._compiled: set[int] = set()
        self._config = sia_jax.SamplerConfig.auto(
            self._rows * count,
            policy=models.policy.config,
            steering=plain.config.steering,
            max_new_tokens=args.max_new_tokens,
            branches=count,
        )

    def run(
        self,
        places: Sequence[tuple[Place, np.ndarray]],
        reward: Reward,
        journal: StudyJournal,
        wanted: Callable[[], bool],
        console: Terminal,
    ) -> None:
        """Rewards of the positions that have none yet.

        Args:
          places: all positions of the study, each with the places [K] of its candidates.
          reward: of a finished reply.
          journal: open; gets a record for each position.
          wanted: whether to go on, asked before every batch.
          console: for the progress.
        """
        done = sum(place in journal.rewards for place, _ in places)
        with RunProgress(console, len(places), done, "positions") as progress:
            for group in self._batches(places):
                missing = [(place, own) for place, own in group if place not in journal.rewards]
                if not missing:
                    continue
                if not wanted():
                    return
                # All of the group: what a run that goes on samples must not depend on where it was stopped.
                heads = [(place, self._head(place, int(own))) for place, each in group for own in each]
                open_heads = [head for _, head in heads if head.room > 0]
                length = bucket_length(max(len(head.ids) for _, head in heads), _SHORTEST)
                if open_heads and length not in self._compiled:
                    with progress.aside(f"compiling for replies begun with up to {length} tokens"):
                        self._sample([replace(head, room=1) for head in open_heads], length)
                    self._compiled.add(length)
                finished = iter(self._sample(open_heads, length) if open_heads else ())
                found: dict[Place, list[list[list[int]]]] = {place: [] for place, _ in group}
                for place, head in heads:
                    found[place].append(next(finished) if head.room > 0 else [[]] * self._count)
                for place, own in missing:
                    journal.write(self._record(place, own, found[place], reward))
                tokens = sum(len(ids) for each in found.values() for own_ids in each for ids in own_ids)
                progress.advance(len(missing), tokens)

    def _batches(self, places: Sequence[tuple[Place, np.ndarray]]) -> list[list[tuple[Place, np.ndarray]]]:
        """Whole positions together, of like lengths, so that little is padded and few programs are made."""
        order = sorted(places, key=lambda entry: (self._length(entry[0]), entry[0]))
        batches: list[list[tuple[Place, np.ndarray]]] = []
        free = 0
        for place, own in order:
            if not batches or len(own) > free:
                batches.append([])
                free = self._rows
            batches[-1].append((place, own))
            free -= len(own)
        return batches

    def _length(self, place: Place) -> int:
        return len(self._ids[place.prompt]) + place.position + 1

    def _head(self, place: Place, candidate: int) -> _Head:
        reply, before = self._replies[place.prompt], self._ids[place.prompt]
        token = int(reply.ids[place.position, candidate])
        key = jax.random.fold_in(
            runner.prompt_key(self._args.seed, place.prompt), np.uint32(_FIRST_KEY + place.position)
        )
        room = 0 if token in self._stops else self._args.max_new_tokens - place.position - 1
        return _Head([*before, *reply.tokens[: place.position], token], jax.random.fold_in(key, token), room)

    def _sample(self, heads: Sequence[_Head], length: int) -> list[list[list[int]]]:
        """The ids of M continuations of each; a short batch is filled up with copies of one token."""
        fill = self._rows - len(heads)
        filled = [*heads, *[heads[0]] * fill]
        ids = [head.ids for head in filled]
        samples = sia_jax.sample(
            sia_jax.SteeringParams(self._models.policy.params),
            sia_jax.Prompt.pack(ids, policy_length=length, value_length=length),
            math.inf,
            rng_key=jnp.stack([head.key for head in filled]),
            config=self._config,
            knobs=sia_jax.Knobs(
                max_new_tokens=np.array([*(head.room for head in heads), *[1] * fill]),
                stop_ids=self._stop_ids,
            ),
        )
        tokens, lengths, reasons = jax.device_get((samples.tokens, samples.lengths, samples.finish_reason))
        if (reasons == FinishReason.NON_FINITE).any():
            raise ValueError("the policy's logits are not finite")
        new = [tokens[row, : lengths[row]].tolist() for row in range(len(heads) * self._count)]
        return [new[i : i + self._count] for i in range(0, len(new), self._count)]

    def _record(
        self, place: Place, own: np.ndarray, continuations: list[list[list[int]]], reward: Reward
    ) -> dict[str, Any]:
        prompt, reply, t = self._prompts[place.prompt], self._replies[place.prompt], place.position
        rewards = [
            [
                reward(prompt.id, self._text([*reply.tokens[:t], int(reply.ids[t, candidate]), *ids]))
                for ids in each
            ]
            for candidate, each in zip(own, continuations, strict=True)
        ]
        return {
            "kind": "position",
            "id": prompt.id,
            "index": place.prompt,
            "prompt": prompting.prompt_json(prompt),
            "position": t,
            "candidates": reply.ids[t, own].tolist(),
            "texts": [self._text([int(token)]) for token in reply.ids[t, own]],
            "rewards": rewards,
        }

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def as_drawn(
    places: Sequence[Place],
    chosen: np.ndarray,
    weights: np.ndarray,
    journal: StudyJournal,
    floor: float,
    most: int,
) -> list[Drawn]:
    """The drawn positions with their rewards, for the figures.

    Args:
      places: of the population.
      chosen: [n] those drawn.
      weights: [n] of each.
      journal: complete.
      floor: as in `describe`.
      most: likewise.
    """
    drawn = []
    for number, weight in zip(chosen.tolist(), weights.tolist(), strict=True):
        place = places[number]
        reply, t = journal.replies[place.prompt], place.position
        own = reply.chosen(t, floor, most)
        p, values = reply.probabilities[t, own], reply.values[t, own]
        drawn.append(Drawn(number, weight, p, values, journal.rewards[place]))
    return drawn
