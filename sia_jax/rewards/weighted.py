"""Several rewards as one: a weighted sum of reward models', of functions', and of the reply's length."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sia_jax.files.shown import shown_value
from sia_jax.rewards.functions import LARGEST, RewardFunction
from sia_jax.rewards.labelling import Labeller, Outcome, check_conversation
from sia_jax.text.chat import Message

_ROWS = 64
"""Conversations that a function is given at a time."""

Score = Callable[[Sequence[Sequence[Message]]], list[Outcome]]
"""The outcomes of conversations, by their places."""


@dataclass(frozen=True)
class Term:
    """One part of a sum."""

    name: str
    weight: float
    score: Score | None
    """None: a reward model's, which is scored elsewhere."""


@dataclass(frozen=True)
class WeightedSum:
    """R = sum over the terms of w_i R_i; there is none where a term has none.

    Raises:
      ValueError: no terms, two of one name, or a model behind what is none.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        names = self._names
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            both = f"two rewards are called {twice[0]!r}; leave one out, or rename a folder" if twice else ""
            raise ValueError(both or "no rewards")
        if any(term.score is None for term in self.terms[self.models :]):
            raise ValueError("reward models must be the first terms")

    @property
    def _names(self) -> list[str]:
        return [term.name for term in self.terms]

    @property
    def models(self) -> int:
        """How many of the terms are reward models, which stand first."""
        known = (place for place, term in enumerate(self.terms) if term.score is not None)
        return next(known, len(self.terms))

    @property
    def is_sum(self) -> bool:
        """Whether it is more than one reward as it stands, so that its parts are worth a record."""
        return len(self.terms) > 1 or self.terms[0].weight != 1

    def score(self, conversations: Sequence[Sequence[Message]]) -> list[list[Outcome]]:
        """The outcomes of all terms but the models', for each conversation.

        Args:
          conversations: each ends with the assistant.
        """
        found = [term.score(conversations) for term in self.terms if term.score is not None]
        return [[outcomes[place] for outcomes in found] for place in range(len(conversations))]

    def combine(self, index: int, outcomes: Sequence[Outcome | None]) -> Outcome:
        """The sum as an outcome; its tokens are all that were read.

        Args:
          index: of the outcome.
          outcomes: one for each term; None: it was not asked, because another has no reward.
        """
        asked = [outcome for outcome in outcomes if outcome is not None]
        tokens = sum(outcome.tokens for outcome in asked)
        rewards = [None if outcome is None else outcome.reward for outcome in outcomes]
        parts = dict(zip(self._names, rewards, strict=True)) if self.is_sum else None
        lacking = [outcome for outcome in asked if outcome.reward is None]
        if lacking:
            why = "; ".join(outcome.why for outcome in lacking)
            return Outcome(index, tokens, None, lacking[0].reason, why, parts)
        if not self.is_sum:
            return replace(asked[0], index=index)
        total = math.fsum(
            term.weight * reward
            for term, reward in zip(self.terms, rewards, strict=True)
            if reward is not None
        )
        if abs(total) > LARGEST:
            return Outcome(index, tokens, None, "not finite", f"the weighted sum is {total}", parts)
        return Outcome(index, tokens, total, parts=parts)


class WeightedLabeller:
    """A `Labeller` of a weighted sum: what is added comes back later, in another order.

    Functions are asked first, some conversations at a time; each model reads what all before it have a reward
    for.

    Args:
      total: the sum.
      models: each scores the conversations of its term, in the order of the terms.
    """

    def __init__(self, total: WeightedSum, models: Sequence[Labeller]):
        self._total, self._models = total, models
        self._waiting: list[tuple[int, Sequence[Message]]] = []
        self._known: dict[int, _Begun] = {}

    def add(self, index: int, messages: Sequence[Message]) -> list[Outcome]:
        """Take in a conversation; see `Labeller.add`."""
        problem = check_conversation(messages)
        if problem is not None:
            return [Outcome(index, 0, None, *problem)]
        self._waiting.append((index, messages))
        return self._ask() if len(self._waiting) == _ROWS else []

    def finish(self) -> Iterator[list[Outcome]]:
        """All that is left; see `Labeller.finish`."""
        yield self._ask()
        for model in self._models:
            for batch in model.finish():
                yield self._go_on(batch)

    def drain(self) -> list[Outcome]:
        """What is being computed; see `Labeller.drain`."""
        return [outcome for model in self._models for outcome in self._go_on(model.drain())]

    def _ask(self) -> list[Outcome]:
        """The functions' part of the conversations that wait, which then go to the models."""
        waiting, self._waiting = self._waiting, []
        found = []
        scored = self._total.score([messages for _, messages in waiting])
        for (index, messages), own in zip(waiting, scored, strict=True):
            self._known[index] = _Begun(messages, [], own)
            found += self._next(index)
        return found

    def _go_on(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """What a model has found, put to what is known; the conversations go to the next model."""
        found = []
        for outcome in outcomes:
            self._known[outcome.index].models.append(outcome)
            found += self._next(outcome.index)
        return found

    def _next(self, index: int) -> list[Outcome]:
        """The next model's turn; the sum where there is none, or where a part has no reward."""
        begun = self._known[index]
        place = len(begun.models)
        lacking = any(outcome.reward is None for outcome in (*begun.models, *begun.functions))
        if lacking or place == len(self._models):
            left: list[Outcome | None] = [None] * (len(self._models) - place)
            return [self._total.combine(index, [*begun.models, *left, *self._known.pop(index).functions])]
        return self._go_on(self._models[place].add(index, begun.messages))


@dataclass(frozen=True)
class _Begun:
    """A conversation, and what is known of it."""

    messages: Sequence[Message]
    models: list[Outcome]
    functions: Sequence[Outcome]


def model_alone(name: str) -> WeightedSum:
    """A reward model's reward as it stands."""
    return WeightedSum((Term(name, 1.0, None),))


def function_term(function: RewardFunction, weight: float) -> Term:
    """A function as a part of a sum."""
    return Term(function.name, weight, function.score)


def length_term(penalty: float) -> Term:
    """-X for each word of the last message, as white space parts them: the same for every tokenizer."""

    def words(conversations: Sequence[Sequence[Message]]) -> list[Outcome]:
        counts = [len(messages[-1]["content"].split()) for messages in conversations]
        return [Outcome(place, 0, float(count)) for place, count in enumerate(counts)]

    return Term("words", -penalty, words)


def labeller_of(
    total: WeightedSum,
    models: Sequence[Any],
    templates: Sequence[Mapping[str, Any]] = (),
    **options: Any,
) -> Labeller | WeightedLabeller:
    """What scores many conversations.

    Args:
      total: the sum.
      models: its reward models, in the order of the terms.
      templates: variables of the chat template of each; none of all, if empty.
      **options: of `Labeller`.
    """
    given = templates or [{}] * len(models)
    labellers = [
        Labeller(model, template=template, **options) for model, template in zip(models, given, strict=True)
    ]
    return labellers[0] if labellers and not total.is_sum else WeightedLabeller(total, labellers)


def check_parts(parts: Any) -> None:
    """What a record says of a sum's parts is numbers, or null, by names.

    Raises:
      ValueError: it is something else.
    """
    if not isinstance(parts, dict):
        raise ValueError(f"parts must be numbers by their names, got {shown_value(parts, 60)}")
    for name, number in parts.items():
        if number is not None and not (type(number) in (int, float) and math.isfinite(number)):
            raise ValueError(f"part {name[:60]!r} must be a number, or null, got {shown_value(number, 60)}")
