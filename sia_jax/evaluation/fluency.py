"""How likely a second language model finds the texts of replies: what their fluency is measured by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.score import POSITIONS, score
from sia_jax.evaluation.scoring import BATCH_TOKENS, Aside, Said
from sia_jax.models.passes import bucket_length
from sia_jax.parallel.mesh import mesh_of, row_sharding, row_shards
from sia_jax.pretrained import Policy
from sia_jax.steering.config import SteeringConfig
from sia_jax.text.chat import Message
from sia_jax.text.forms import Prompting
from sia_jax.text.templates import TemplateRefusal
from sia_jax.text.tokenizer import exact_ids

_LOGITS = 2**26
"""Held at once at most, but for a single row: 256 MiB of float32."""


@dataclass(frozen=True)
class Fluency:
    """What a model says of one reply's text."""

    logprob: float | None
    """Nats, the sum over the text's tokens, given the prompt; None: there is none, and `why` says why."""
    tokens: int
    """Of the text, by the model's tokenizer; 0 of an empty one."""
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """As fields of a record."""
        found: dict[str, Any] = {"fluency_logprob": self.logprob, "fluency_tokens": self.tokens}
        return found | ({"fluency_unscored": self.why} if self.why else {})


class FluencyScorer:
    """Log-probabilities of replies' texts under a causal language model, batched by their lengths' buckets.

    As of a `Labeller`, a bucket has one shape: a text's number is the same bits whatever else there is.

      log p(text | prompt) = sum_t log softmax(m)_{y_t},   y the text in the model's own tokens

    The prompt is in the model's own template. The token with which a reply ends is no part of its text.

    Args:
      model: with a tokenizer. On a mesh, rows are spread over it.
      prompting: how its prompts are made.
      aside: entered while a length is compiled.
    """

    def __init__(self, model: Policy, prompting: Prompting, aside: Aside):
        self._model, self._prompting, self._aside = model, prompting, aside
        # One candidate: what is asked of the configuration is which ids have a token.
        self._config = SamplerConfig(policy=model.config, steering=SteeringConfig(num_candidates=1))
        self._mesh = mesh_of(model.params)
        self._compiled: set[int] = set()

    def score(self, prompts: Sequence[Sequence[Message]], replies: Sequence[Said]) -> list[Fluency]:
        """The fluency of one reply to each prompt, in order.

        A reply that is too long for the model, that has an id which the model does not know, or whose number
        is not finite has none, and the others have theirs.

        Args:
          prompts: conversations that end with the user.
          replies: one to each.
        """
        found: list[Fluency | None] = []
        buckets: dict[int, list[tuple[int, list[int], int]]] = {}
        for place, (messages, reply) in enumerate(zip(prompts, replies, strict=True)):
            outcome = self._ids(messages, reply.text)
            if isinstance(outcome, Fluency):
                found.append(outcome)
                continue
            ids, begin = outcome
            found.append(None)
            buckets.setdefault(bucket_length(len(ids)), []).append((place, ids, begin))
        for length, own in sorted(buckets.items()):
            rows = self._rows(length)
            for first in range(0, len(own), rows):
                batch = own[first : first + rows]
                logprobs = self._compute([ids for _, ids, _ in batch], rows, length)
                for (place, ids, begin), row in zip(batch, logprobs, strict=False):
                    found[place] = _told(row[begin : len(ids)])
        return [one for one in found if one is not None]

    def _ids(self, messages: Sequence[Message], text: str) -> tuple[list[int], int] | Fluency:
        """(ids of prompt and text, where the text begins), or why there are none."""
        said = exact_ids(self._model.tokenizer, text)
        if not said:
            return Fluency(0.0, 0)
        try:
            ids = self._model.prompt_ids(messages, self._prompting.form, **self._prompting.variables)
        except TemplateRefusal as error:
            return Fluency(None, len(said), f"the chat template refuses it: {error.why}")
        whole, held = [*ids, *said], self._model.config.max_position_embeddings
        if len(whole) > held:
            return Fluency(None, len(said), f"{len(whole):,} tokens, at most {held:,}")
        if max(whole) >= self._model.config.vocab_size:
            known = self._model.config.vocab_size - 1
            return Fluency(None, len(said), f"id {max(whole)}, and the model knows 0 .. {known}")
        return whole, len(ids)

    def _rows(self, length: int) -> int:
        """Texts in a batch of a bucket."""
        shards, vocab_size = row_shards(self._mesh), self._model.config.vocab_size
        most = min(BATCH_TOKENS // length, _LOGITS // (POSITIONS * vocab_size))
        return max(1, most // shards) * shards

    def _compute(self, sequences: Sequence[Sequence[int]], rows: int, length: int) -> np.ndarray:
        """[rows, length] nats; a length that is new is compiled aside."""
        if length not in self._compiled:
            with self._aside(f"compiling the fluency model for up to {length} tokens"):
                self._batch([], rows, length)
            self._compiled.add(length)
        return self._batch(sequences, rows, length)

    def _batch(self, sequences: Sequence[Sequence[int]], rows: int, length: int) -> np.ndarray:
        tokens, lengths = np.zeros((rows, length), np.int32), np.ones(rows, np.int32)
        for row, ids in enumerate(sequences):
            tokens[row, : len(ids)], lengths[row] = ids, len(ids)
        placed = (jnp.asarray(tokens), jnp.asarray(lengths))
        if self._mesh is not None:
            placed = jax.device_put((tokens, lengths), row_sharding(self._mesh))
        return np.asarray(score(self._model.params, *placed, config=self._config))


def _told(logprobs: np.ndarray) -> Fluency:
    """Of a text's tokens, [T] nats."""
    total = float(np.sum(logprobs, dtype=np.float64))
    if not np.isfinite(total):
        return Fluency(None, len(logprobs), f"the log-probability is {total}")
    return Fluency(min(total, 0.0), len(logprobs))  # rounding may leave 1e-8
