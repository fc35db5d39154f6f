"""What a search asks for, and what it is told: beginnings of a reply, how they may go on, and their rewards.

A search of one prompt is a generator: it yields a list of asks of one kind, is sent a list of answers in
their order, and returns the draft that it chose. It knows nothing of engines and of reward models, and
`sia_jax.evaluation.search.runner` runs many at a time.

    draft = Draft()
    (outlook,) = yield [Look(draft)]                        # what the policy would say next
    scores = yield [Score(one) for one in outlook.drafts]   # what a reward says of each way to go on
    return outlook.drafts[...]
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import numpy as np

from sia_jax.decoding.state import FinishReason
from sia_jax.steering.types import TokenRecord


@dataclass(frozen=True, eq=False)
class Chunk:
    """Tokens that a draft was continued by in one go. Drafts that share a beginning share its chunks."""

    begin: int
    """Tokens of the draft before it."""
    record: TokenRecord  # [l] each, NumPy


@dataclass(frozen=True, eq=False)
class Draft:
    """A beginning of a reply, or all of it. T is its length in tokens."""

    chunks: tuple[Chunk, ...] = ()
    finish_reason: FinishReason = FinishReason.RUNNING
    """RUNNING: it may go on."""

    @property
    def tokens(self) -> list[int]:
        """T ids."""
        return [token for chunk in self.chunks for token in np.asarray(chunk.record.tokens).tolist()]

    @property
    def ended(self) -> bool:
        """Whether it is a whole reply."""
        return self.finish_reason != FinishReason.RUNNING

    @property
    def failed(self) -> bool:
        """Whether it ended in numbers that were not finite."""
        return self.finish_reason == FinishReason.NON_FINITE

    def __len__(self) -> int:
        return self.chunks[-1].begin + len(self.chunks[-1].record.tokens) if self.chunks else 0

    def continued(self, record: TokenRecord, finish_reason: FinishReason) -> "Draft":
        """The draft with more tokens.

        Args:
          record: [l] each, l of 1 or more.
          finish_reason: of the whole then.
        """
        return Draft((*self.chunks, Chunk(len(self), record)), finish_reason)

    def record(self) -> TokenRecord:
        """[T] of all tokens; there is one at least."""
        whole: TokenRecord = jax.tree.map(
            lambda *parts: np.concatenate(parts), *[chunk.record for chunk in self.chunks]
        )
        return whole


@dataclass(frozen=True, eq=False)
class Outlook:
    """The next token of a draft as the policy has it."""

    drafts: tuple[Draft, ...]
    """[C] the draft with each candidate, the likeliest first; none where the policy's numbers failed."""
    logprobs: np.ndarray  # [C] log softmax of the policy's logits, nats
    failed: Draft | None = None
    """The draft as it then ends."""

    def chosen(self, place: int, own: int) -> Draft:
        """The draft with a candidate, whose record says whether the policy would have said another.

        Args:
          place: of the candidate.
          own: that of the policy's own choice.
        """
        draft = self.drafts[place]
        last = draft.chunks[-1]
        shifted: Any = np.array([place != own])
        record = replace(last.record, shifted=shifted)
        return replace(draft, chunks=(*draft.chunks[:-1], replace(last, record=record)))


@dataclass(frozen=True, eq=False)
class Look:
    """Which candidates does the policy have for the next token? Answered by an `Outlook`."""

    draft: Draft


@dataclass(frozen=True, eq=False)
class Continue:
    """Go on with a draft. Answered by n drafts, a list."""

    draft: Draft
    limit: int
    """Tokens more at most; 1 or more."""
    key: np.ndarray  # [2] words; continuation j of several draws with fold_in(key, j), a single one with key
    n: int = 1
    greedy: bool = False
    """At temperature 0."""


@dataclass(frozen=True, eq=False)
class Score:
    """What reward has this draft, as far as it goes? Answered by a number, or None where it has none."""

    draft: Draft


Asks: TypeAlias = Sequence[Look] | Sequence[Continue] | Sequence[Score]
Search: TypeAlias = Generator[Asks, list[Any], Draft]


def outlook_of(draft: Draft, look: TokenRecord, ends: Callable[[int], bool], limit: int) -> Outlook:
    """What a reply of one token says of how a draft may go on.

    The record of a candidate says that something else than the policy chose it (`junction`).

    Args:
      draft: without the token.
      look: [1] each, with candidates, none of whose values was read.
      ends: whether an id ends a reply.
      limit: tokens of a reply at most.
    """
    known = look.candidates
    assert known is not None
    ids, logprobs = np.asarray(known.ids)[0], np.asarray(known.policy_logprobs)[0]
    drafts = []
    unknown = np.full(1, np.nan, np.float32)
    for place, token in enumerate(ids.tolist()):
        own: Any = {"tokens": ids[place : place + 1], "policy_logprob": logprobs[place : place + 1]}
        own |= {"junction": np.ones(1, bool), "logprob": unknown, "value": unknown, "candidates": None}
        record = replace(look, **own)
        reason = FinishReason.RUNNING
        if ends(token):
            reason = FinishReason.STOP
        elif len(draft) + 1 >= limit:
            reason = FinishReason.LENGTH
        drafts.append(draft.continued(record, reason))
    return Outlook(tuple(drafts), np.where(np.asarray(known.logits)[0] > -np.inf, logprobs, -np.inf))
