"""What a reply is chosen by: its reward, or the value of its last token; and the choice."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from sia_jax.costs.reply import reward_flops
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.params import SteeringParams
from sia_jax.decoding.search import best_branches, sequence_values
from sia_jax.decoding.state import FinishReason
from sia_jax.engine.reply import Reply
from sia_jax.models.passes import bucket_length
from sia_jax.parallel.mesh import row_shards
from sia_jax.pretrained import RewardModel
from sia_jax.rewards.labelling import Labeller, Outcome
from sia_jax.rewards.weighted import WeightedSum, model_alone
from sia_jax.text.chat import Message
from sia_jax.text.templates import TemplateRefusal

Aside = Callable[[str], AbstractContextManager[Any]]
"""Says what goes on that is not the work itself, while it goes on."""


class Said(Protocol):
    """What has a text: a reply, or a part of one."""

    @property
    def text(self) -> str:
        """Without special tokens."""
        ...


BATCH_TOKENS = 2048
"""Of a batch: small, for each group of replies fills one of every length that it has."""


@dataclass(frozen=True)
class Rewards:
    """What is said of some replies to each prompt."""

    rewards: list[list[float | None]]
    """None: a reply without one."""
    why: list[list[str]]
    """Why not."""
    parts: list[list[Mapping[str, float | None] | None]]
    """Of a weighted sum, its parts by their names; None: it is no sum."""
    tokens: list[list[int]]
    """Of the conversations, of all models together; 0 where a template refuses one, or no model reads it."""
    flops: list[list[float]]
    """Of the models; a function's count for nothing."""
    seconds: float
    """Those of compiling left out."""


class Scorer:
    """Rewards of replies, a batch of them at a time.

    Args:
      models: with tokenizers, in the order of the sum's terms; none, if there is no model in it.
      aside: entered while a length is compiled.
      templates: variables of the chat template of each; none of all, if empty.
      max_tokens: of the longest conversation that is scored; None: as many as a model holds.
      total: the weighted sum that the models are a part of; None: it is the one model's reward as it stands.
    """

    def __init__(
        self,
        models: Sequence[RewardModel],
        aside: Aside,
        templates: Sequence[Mapping[str, str]] = (),
        max_tokens: int | None = None,
        total: WeightedSum | None = None,
    ):
        self._total = model_alone(models[0].name) if total is None else total
        self._aside, self._compiling_seconds = aside, 0.0
        self._templates = templates or [{}] * len(models)
        self._labellers = [
            Labeller(
                model,
                batch_tokens=BATCH_TOKENS,
                max_tokens=model.config.max_position_embeddings if max_tokens is None else max_tokens,
                compiling=self._compiling,
            )
            for model in models
        ]

    def score(self, prompts: Sequence[Sequence[Message]], groups: Sequence[Sequence[Said]]) -> Rewards:
        """Score some replies to each prompt; an empty reply has a reward too.

        A reply that the template refuses, that is too long, or whose reward is no number has none, and the
        others have theirs.

        Args:
          prompts: conversations that end with the user.
          groups: replies to each.
        """
        begin, compiled = time.perf_counter(), self._compiling_seconds
        whole: list[Sequence[Message]] = [
            [*prompt, {"role": "assistant", "content": reply.text}]
            for prompt, group in zip(prompts, groups, strict=True)
            for reply in group
        ]
        read = [
            self._read(labeller, template, whole)
            for labeller, template in zip(self._labellers, self._templates, strict=True)
        ]
        terms = [
            [*(outcomes[place] for outcomes in read), *others]
            for place, others in enumerate(self._total.score(whole))
        ]
        combined = (self._total.combine(number, own) for number, own in enumerate(terms))
        outcomes = [[next(combined) for _ in group] for group in groups]
        seconds = time.perf_counter() - begin - (self._compiling_seconds - compiled)
        flops = (self._flops([own[place].tokens for own in read]) for place in range(len(whole)))
        return Rewards(
            rewards=[[one.reward for one in group] for group in outcomes],
            why=[[one.why for one in group] for group in outcomes],
            parts=[[one.parts for one in group] for group in outcomes],
            tokens=[[one.tokens for one in group] for group in outcomes],
            flops=[[next(flops) for _ in group] for group in outcomes],
            seconds=seconds,
        )

    def _flops(self, tokens: Sequence[int]) -> float:
        """Of one conversation, of which each model reads so many tokens."""
        models = (labeller.model for labeller in self._labellers)
        return math.fsum(
            reward_flops(model.config, [count]) for model, count in zip(models, tokens, strict=True) if count
        )

    def _read(
        self, labeller: Labeller, template: Mapping[str, str], conversations: Sequence[Sequence[Message]]
    ) -> list[Outcome]:
        """A model's outcomes, in order."""
        found = []
        for number, messages in enumerate(conversations):
            try:
                ids = labeller.model.conversation_ids(messages, **template)
            except TemplateRefusal as error:
                refused = f"the reward model's chat template refuses it: {error.why}"
                found.append(Outcome(number, 0, None, "not a conversation", refused))
                continue
            found += labeller.add_ids(number, ids)
        found += [outcome for batch in labeller.finish() for outcome in batch]
        return sorted(found, key=lambda outcome: outcome.index)

    @contextmanager
    def _compiling(self, length: int) -> Iterator[None]:
        begin = time.perf_counter()
        with self._aside(f"compiling a reward model for up to {length} tokens"):
            yield
        self._compiling_seconds += time.perf_counter() - begin


class LastValues:
    """Values of the last tokens of sequences, each in the batch of its length's bucket.

    As of a `Labeller`, a bucket has one shape: a sequence's value is the same bits whatever else there is.

    Args:
      params: the value model's must be there.
      config: of it.
      aside: entered while a length is compiled.
    """

    def __init__(self, params: SteeringParams, config: SamplerConfig, aside: Aside):
        self._params, self._config, self._aside = params, config, aside
        self._compiled: set[int] = set()

    def __call__(self, sequences: Sequence[Sequence[int]]) -> tuple[list[float], float]:
        """(the value of each sequence's last token, seconds, those of compiling left out).

        Args:
          sequences: ids of prompt and reply.
        """
        buckets: dict[int, list[int]] = {}
        for place, ids in enumerate(sequences):
            buckets.setdefault(bucket_length(len(ids)), []).append(place)
        found, seconds = np.zeros(len(sequences), np.float32), 0.0
        for length, places in sorted(buckets.items()):
            shards = row_shards(self._config.mesh)
            rows = max(1, BATCH_TOKENS // (length * shards)) * shards
            if length not in self._compiled:
                with self._aside(f"compiling the values of finished replies of up to {length} tokens"):
                    self._compute([], rows, length)
                self._compiled.add(length)
            begin = time.perf_counter()
            for first in range(0, len(places), rows):
                own = places[first : first + rows]
                found[own] = self._compute([sequences[place] for place in own], rows, length)
            seconds += time.perf_counter() - begin
        return found.tolist(), seconds

    def _compute(self, sequences: Sequence[Sequence[int]], rows: int, length: int) -> np.ndarray:
        tokens, lengths = np.zeros((rows, length), np.int32), np.ones(rows, np.int32)
        for row, ids in enumerate(sequences):
            tokens[row, : len(ids)], lengths[row] = ids, len(ids)
        values = sequence_values(self._params, jnp.asarray(tokens), jnp.asarray(lengths), self._config)
        return np.asarray(values)[: len(sequences)]


def choose(scores: Sequence[Sequence[float | None]], groups: Sequence[Sequence[Reply]]) -> list[int]:
    """The branch that is chosen of each prompt's replies, as `best_branches` has it for best-of-N.

    Args:
      scores: of each reply to each prompt; None: it has none.
      groups: the replies.
    """
    numbers = np.array([[math.nan if x is None else x for x in row] for row in scores], np.float32)
    failed = [[reply.finish_reason == FinishReason.NON_FINITE for reply in group] for group in groups]
    found: list[int] = np.asarray(best_branches(numbers, np.array(failed))).tolist()
    return found
