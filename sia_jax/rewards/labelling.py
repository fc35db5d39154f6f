"""Many conversations through a reward model, in batches of a few fixed shapes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import numpy as np

from sia_jax.models import passes
from sia_jax.models.batches import pad_batch, read_at
from sia_jax.models.passes import bucket_length
from sia_jax.parallel.lock_step import agreed, on_every_process
from sia_jax.parallel.mesh import mesh_of, row_shards
from sia_jax.pretrained import RewardModel
from sia_jax.text.chat import Message, check_messages
from sia_jax.text.messages import read_messages
from sia_jax.text.templates import TemplateRefusal

Reason = Literal["no reply", "not a conversation", "too long", "not finite", "not a number", "failed"]
"""Why a conversation has no reward."""

REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True)
class Outcome:
    """What became of one conversation."""

    index: int
    """What the caller calls it."""
    tokens: int
    """Of the whole conversation; 0 if it was not made into tokens."""
    reward: float | None
    """None: there is none, and `reason` says why."""
    reason: Reason | None = None
    why: str = ""
    """The reason with its numbers."""
    parts: Mapping[str, float | None] | None = None
    """Of a weighted sum, its parts by their names; None: it is no sum."""


class Labeller:
    """Scores conversations, each in the batch of its length's bucket.

    A bucket has one shape, [rows, length], that depends on nothing but `batch_tokens` and the mesh: it is
    compiled once, and a text's reward is the same bits whatever else there is to score, and in which order.
    Results come out of order, batches later than their conversations went in: while one is computed, the next
    is put together.

    On a mesh of several processes every process adds the same conversations in the same order and gets all
    outcomes; each computes the rows of its own devices. Batches that differ raise on every process.

    Nothing is cut to fit. (The official code also ends a reply at "human:"; here that is text like any
    other.)

    Args:
      model: with a tokenizer, unless only `add_ids` is used. On a mesh, rows are spread over it.
      batch_tokens: of a batch, padding included; a single row for each shard may have more.
      max_tokens: of a conversation; at most the model's positions.
      template: variables of the chat template, such as {"date_string": "26 Jul 2024"}.
      compiling: called with a length when it comes for the first time, and entered while that compiles.

    Raises:
      ValueError: a number below 1, or a tokenizer with ids that the model does not know.
    """

    def __init__(
        self,
        model: RewardModel,
        *,
        batch_tokens: int = 8192,
        max_tokens: int = 4096,
        template: Mapping[str, Any] | None = None,
        compiling: Callable[[int], AbstractContextManager[Any]] = nullcontext,
    ):
        for name, number in (("batch_tokens", batch_tokens), ("max_tokens", max_tokens)):
            if number < 1:
                raise ValueError(f"{name} must be 1 or more, got {number}")
        check_tokenizer(model)
        self.model = model
        self.max_tokens = min(max_tokens, model.config.max_position_embeddings)
        """Tokens of the longest conversation that is scored."""
        self._batch_tokens = batch_tokens
        self._template = dict(template or {})
        self._compiling = compiling
        self._mesh = mesh_of(model.params)
        self._waiting: dict[int, list[tuple[int, Sequence[int]]]] = {}
        self._computed: deque[tuple[list[tuple[int, int]], jax.Array]] = deque()
        self._compiled: set[int] = set()

    def rows(self, length: int) -> int:
        """Conversations in a batch of a bucket."""
        shards = row_shards(self._mesh)
        return max(1, self._batch_tokens // (length * shards)) * shards

    def add(self, index: int, messages: Sequence[Message]) -> list[Outcome]:
        """Take in a conversation.

        Args:
          index: comes back in its outcome.
          messages: ends with the assistant.

        Returns:
          What is known by now: often nothing, at times a whole batch.

        Raises:
          ValueError: the tokenizer has no chat template, or its template does not know a variable.
        """
        problem = check_conversation(messages)
        if problem is not None:
            return [Outcome(index, 0, None, *problem)]
        try:
            ids = self.model.conversation_ids(messages, **self._template)
        except TemplateRefusal as error:
            why = f"the chat template refuses it: {error.why}"
            return [Outcome(index, 0, None, "not a conversation", why)]
        return self.add_ids(index, ids)

    def add_ids(self, index: int, ids: Sequence[int]) -> list[Outcome]:
        """Take in a conversation as ids (`RewardModel.conversation_ids`); see `add`.

        Raises:
          ValueError: no ids, or ids that the model does not know.
        """
        vocab_size = self.model.config.vocab_size
        if not len(ids) or min(ids) < 0 or max(ids) >= vocab_size:
            got = f"ids from {min(ids)} to {max(ids)}" if len(ids) else "none"
            raise ValueError(f"conversation {index}: ids must lie in 0 .. {vocab_size - 1}, got {got}")
        if len(ids) > self.max_tokens:
            why = f"{len(ids):,} tokens, at most {self.max_tokens:,}"
            return [Outcome(index, len(ids), None, "too long", why)]
        length = bucket_length(len(ids))
        waiting = self._waiting.setdefault(length, [])
        waiting.append((index, ids))
        if len(waiting) < self.rows(length):
            return []
        self._compute(length)
        return self._read(keep=1)

    def finish(self) -> Iterator[list[Outcome]]:
        """All that is left, batch by batch; afterwards the labeller is as new."""
        for length in sorted(self._waiting):
            self._compute(length)
            yield self._read(keep=1)
        agreed("the end of the conversations", lambda: None, lambda _: {}, mesh=self._mesh)
        yield self._read()

    def drain(self) -> list[Outcome]:
        """The batches that are being computed, and no more: what a run that must stop still saves."""
        return self._read()

    def _compute(self, length: int) -> None:
        """Enqueue the conversations that wait in a bucket; their results are not waited for."""
        waiting = self._waiting.pop(length)
        tokens = np.zeros((self.rows(length), length), np.int32)
        lengths = np.ones(len(tokens), np.int32)
        for row, (_, ids) in enumerate(waiting):
            tokens[row, : len(ids)] = ids
            lengths[row] = len(ids)
        config = self.model.config
        agreed("a batch of conversations", lambda: tokens, lambda x: {"ids": x}, mesh=self._mesh)
        with nullcontext() if length in self._compiled else self._compiling(length):
            padded = pad_batch(tokens, read_at(tokens, lengths, config), config, self._mesh)
            rewards = passes.batch_rewards(self.model.params, *padded, config=config)
            rewards = on_every_process(rewards, self._mesh)
        self._compiled.add(length)
        self._computed.append(([(index, len(ids)) for index, ids in waiting], rewards))

    def _read(self, keep: int = 0) -> list[Outcome]:
        """Wait for the oldest results, all but `keep` batches."""
        outcomes = []
        while len(self._computed) > keep:
            items, rewards = self._computed.popleft()
            # The rows that fill a batch up stand behind the others.
            for (index, count), reward in zip(items, np.asarray(rewards).tolist(), strict=False):
                if np.isfinite(reward):
                    outcomes.append(Outcome(index, count, reward))
                else:
                    outcomes.append(Outcome(index, count, None, "not finite", f"the reward is {reward}"))
        return outcomes


def label(model: RewardModel, conversations: Iterable[Sequence[Message]], **options: Any) -> list[Outcome]:
    """Score conversations, each of which ends with the assistant.

    Args:
      model: with a tokenizer.
      conversations: scored all; `Labeller` is for those that memory does not hold.
      **options: of `Labeller`.

    Returns:
      Their outcomes, in their order.

    Raises:
      ValueError: what `Labeller` and `Labeller.add` find.
    """
    labeller = Labeller(model, **options)
    batches = [labeller.add(index, messages) for index, messages in enumerate(conversations)]
    outcomes = [outcome for batch in (*batches, *labeller.finish()) for outcome in batch]
    return sorted(outcomes, key=lambda outcome: outcome.index)


def check_conversation(messages: Any) -> tuple[Reason, str] | None:
    """Why these are not a conversation with a reply, as a reason and in words; None if they are."""
    if isinstance(messages, list):
        try:
            messages = read_messages(messages)
        except ValueError as error:
            return "not a conversation", str(error)
    last = messages[-1] if isinstance(messages, Sequence) and messages else None
    rest, why = messages, ""
    if isinstance(last, Mapping) and last.get("role") == "user":
        why = "it ends with the user"
    elif isinstance(last, Mapping) and last.get("role") == "assistant" and _is_blank(last.get("content")):
        rest, why = messages[:-1], "the reply is empty"
    try:
        check_messages(rest, last="user" if why else "assistant")
    except ValueError as error:
        return "not a conversation", str(error)
    return ("no reply", why) if why else None


def check_tokenizer(model: RewardModel) -> None:
    """A tokenizer, if there is one, has no ids beyond the model's vocabulary.

    Raises:
      ValueError: it has.
    """
    if model.tokenizer is None:
        return
    largest = max(model.tokenizer.get_vocab().values())
    if largest >= model.config.vocab_size:
        raise ValueError(
            f"{model.name}: the tokenizer has ids up to {largest}, the model knows 0 .. "
            f"{model.config.vocab_size - 1}; use the reward model's own tokenizer"
        )


def _is_blank(content: Any) -> bool:
    return content is None or (isinstance(content, str) and not content.strip())
