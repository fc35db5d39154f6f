"""What the study samples: the policy's own replies with their candidates' values, and continuations of them.

Each depends on the weights, the numbers and its own names alone, not on what ran beside it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import jax
import numpy as np

import sia_jax
from sia_jax.decoding.state import FinishReason
from sia_jax.engine.reply import Reply
from sia_jax.runs.engines import Row, make_engine, make_request
from sia_jax.runs.options import Models, SamplingArgs
from sia_jax.studies.entropy.positions import Place, Studied
from sia_jax.studies.entropy.replay import candidate_values

T = TypeVar("T")

_FIRST_KEY = 2**31
"""With a position added, folded into a prompt's key: far from what its own reply's tokens are drawn with."""


def replying_engine(models: Models, args: SamplingArgs, rows: int, prompts: Sequence[Row]) -> sia_jax.Engine:
    """An engine of the policy alone, which records candidates. Their values are found afterwards: one with a
    value model gives only those of what it steers.
    """
    return make_engine(Models(models.policy, None), args, rows, prompts, record="candidates")


def continuing_engine(
    models: Models, args: SamplingArgs, rows: int, prompts: Sequence[Row]
) -> sia_jax.Engine:
    """An engine of the policy alone, which makes no texts: what it continues has to be read with it."""
    return make_engine(Models(replace(models.policy, tokenizer=None), None), args, rows, prompts)


class Values:
    """Values of the candidates of replies, some replies at a time in buffers of one shape.

    So one program serves all of them, and what it says of a reply does not depend on the others.

    Args:
      value: the value model.
      prompts: all that there will be.
      tokens: of the longest reply.
      size: replies at a time.
    """

    def __init__(self, value: sia_jax.ValueModel, prompts: Sequence[Row], tokens: int, size: int):
        self._value, self._size = value, size
        self._lengths = max(len(row.value_ids) for row in prompts), tokens

    def of(self, replies: Sequence[tuple[Row, Reply]]) -> list[np.ndarray]:
        """[T, C] of each of `size` replies at most, which were recorded with their candidates."""
        filled = [*replies, *[replies[0]] * (self._size - len(replies))]
        values = candidate_values(
            self._value,
            [row.value_ids for row, _ in filled],
            [reply.tokens.tolist() for _, reply in filled],
            [_candidates(reply) for _, reply in filled],
            lengths=self._lengths,
        )
        return values[: len(replies)]


def in_groups(found: Iterable[T], size: int, wanted: Callable[[], bool]) -> Iterator[list[T]]:
    """What is found, `size` at a time, and the rest; once `wanted` says no, no more is waited for."""
    group: list[T] = []
    for each in found:
        group.append(each)
        if len(group) == size or not wanted():
            yield group
            group = []
        if not wanted():
            return
    if group:
        yield group


def _candidates(reply: Reply) -> np.ndarray:
    assert reply.candidates is not None
    return np.asarray(reply.candidates.ids)


@dataclass(frozen=True)
class Task:
    """A position whose candidates are to be followed."""

    place: Place
    row: Row
    """Its prompt."""
    reply: Studied
    chosen: np.ndarray  # [K] the places of its candidates

    @property
    def candidates(self) -> list[int]:
        """[K] ids."""
        return [int(token) for token in self.reply.ids[self.place.position, self.chosen]]


@dataclass(frozen=True)
class _Head:
    """A candidate whose reply is to be finished, again and again."""

    task: Task
    number: int
    """Among the position's candidates."""
    ids: list[int]
    """The policy's prompt, the reply before the position, the candidate."""
    room: int
    """Tokens that the reply may still have."""


class Continuations:
    """Finishes replies, M times each, as the policy alone would.

    Args:
      engine: of the policy alone, with rows for all prompts and their replies.
      args: the numbers.
      count: M, two or more.
    """

    def __init__(self, engine: sia_jax.Engine, args: SamplingArgs, count: int):
        self._engine, self._args, self._count = engine, args, count
        self._stops = set(engine.policy.config.eos_token_ids)

    def warm_up(self, tasks: Sequence[Task]) -> None:
        """Compile what these need."""
        by_length = {len(head.ids): head for task in tasks for head in self._heads(task)}
        self._engine.warmup(map(self._request, by_length.values()))

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[list[list[int]]]]]:
        """The ids that follow each candidate of a position, [K][M][...], as positions become whole.

        A candidate that ends the reply is followed by nothing, M times.

        Args:
          tasks: in the order in which they are begun.

        Raises:
          ValueError: the policy's logits are not finite.
        """
        found: dict[Place, list[list[list[int]]]] = {
            task.place: [[[]] * self._count for _ in task.chosen] for task in tasks
        }
        heads = [head for task in tasks for head in self._heads(task)]
        left: dict[Place, int] = dict.fromkeys(found, 0)
        for head in heads:
            left[head.task.place] += 1
        for task in tasks:
            if not left[task.place]:
                yield task, found.pop(task.place)
        for place, reply in self._engine.as_completed(map(self._request, heads)):
            head, choices = heads[place], reply.choices
            if any(choice.finish_reason == FinishReason.NON_FINITE for choice in choices):
                raise ValueError("the policy's logits are not finite")
            own = head.task.place
            found[own][head.number] = [choice.tokens.tolist() for choice in choices]
            left[own] -= 1
            if not left[own]:
                yield head.task, found.pop(own)

    def _heads(self, task: Task) -> list[_Head]:
        """Those of the candidates that do not end the reply."""
        t = task.place.position
        room = self._args.max_new_tokens - t - 1
        before = [*task.row.policy_ids, *task.reply.tokens[:t]]
        return [
            _Head(task, number, [*before, token], room)
            for number, token in enumerate(task.candidates)
            if room > 0 and token not in self._stops
        ]

    def _request(self, head: _Head) -> sia_jax.Request:
        """Its first token has index 0 under a key of its own, whatever stood before."""
        row, t = head.task.row, head.task.place.position
        key = jax.random.fold_in(row.key, np.uint32(_FIRST_KEY + t))
        key = jax.random.fold_in(key, head.ids[-1])
        row = Row(head.ids, head.ids, key, row.threshold)
        return make_request(row, self._args, n=self._count, max_new_tokens=head.room)
