"""One reply on the host: its text, what was recorded at each of its tokens, and both as JSON."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.state import FinishReason, Samples
from sia_jax.steering.types import CandidateRecord, TokenRecord, TopLogprobs
from sia_jax.text.decoder import cut_at_stop, token_pieces, token_text
from sia_jax.text.tokenizer import Tokenizer

_PER_TOKEN = (
    *("junction", "entropy", "policy_logprob", "logprob", "value", "shifted"),
    *("contenders", "values_read"),
)
_IN_RECORDS = {"policy_choice": "own_choice"}
"""Fields of candidates that are called otherwise in JSON, where files of before are still read."""


@dataclass(frozen=True)
class Usage:
    """What a reply took, in tokens; whatever the schedule, it is the same."""

    prompt: int
    """Ids of the policy's prompt."""
    completion: int
    """Of the reply, the stop token included."""
    steered: int
    """Of them at junctions."""
    shifted: int
    """Of them such as the policy alone would not have said."""
    policy_tokens: int
    """That the policy reads."""
    value_tokens: int
    """That the value model reads."""
    values_read: int
    """Candidates whose values decided, of all its tokens."""
    value_passes: int
    """Of its tokens those that values decided: the steered ones less those decided without."""


@dataclass(frozen=True)
class Timing:
    """Seconds since a request was handed in."""

    admitted: float
    """Until it had a row; before, it was in the queue. NaN: it never had one."""
    first_token: float
    """Until the host had its first tokens: NaN if it has none."""
    ended: float
    """Until the reply was whole."""

    @property
    def queued(self) -> float:
        """In the queue."""
        return self.admitted

    def between_tokens(self, tokens: int) -> float:
        """Between two tokens, on average: NaN for fewer than two.

        Examples:
          >>> Timing(admitted=0.25, first_token=0.5, ended=3.0).between_tokens(11)
          0.25
        """
        return (self.ended - self.first_token) / (tokens - 1) if tokens > 1 else math.nan


@dataclass(frozen=True, eq=False)
class Reply:
    """A reply, its text and its record. T is its length in tokens."""

    text: str
    """Without special tokens and without the stop text; "" where there is no tokenizer."""
    finish_reason: FinishReason
    record: TokenRecord = field(repr=False)  # [T] each, NumPy
    usage: Usage
    stop_string: str | None = None
    """The stop text that ended it."""
    timing: Timing | None = None
    """None: it was not an engine that made it."""
    cached: int = 0
    """Ids of the policy's prompt that a row held already, and that were not read again for this reply."""
    choices: tuple["Reply", ...] = field(default=(), repr=False)
    """All n replies to the request, of which this is the first; empty where n is one."""
    tokenizer: Tokenizer | None = field(default=None, repr=False)

    @property
    def tokens(self) -> np.ndarray:
        """[T] ids."""
        return np.asarray(self.record.tokens)

    @property
    def junction(self) -> np.ndarray:
        """[T] bool: the token was steered."""
        return np.asarray(self.record.junction)

    @property
    def junctions(self) -> np.ndarray:
        """The places of the tokens that were steered."""
        return np.flatnonzero(self.record.junction)

    @property
    def entropy(self) -> np.ndarray:
        """[T] nats."""
        return np.asarray(self.record.entropy)

    @property
    def policy_logprob(self) -> np.ndarray:
        """[T] see `Samples`."""
        return np.asarray(self.record.policy_logprob)

    @property
    def logprob(self) -> np.ndarray:
        """[T] see `Samples`."""
        return np.asarray(self.record.logprob)

    @property
    def value(self) -> np.ndarray:
        """[T]; NaN where none was computed."""
        return np.asarray(self.record.value)

    @property
    def contenders(self) -> np.ndarray:
        """[T] candidates that might have won, whatever their values; 0 where the token was not steered."""
        return np.asarray(self.record.contenders)

    @property
    def values_read(self) -> np.ndarray:
        """[T] candidates whose values were read; 0 at a junction: it was decided without."""
        return np.asarray(self.record.values_read)

    @property
    def shifted(self) -> np.ndarray:
        """[T] bool: the policy alone would have said something else."""
        return np.asarray(self.record.shifted)

    @property
    def candidates(self) -> CandidateRecord | None:
        """[T, C], if they were recorded."""
        return self.record.candidates

    @property
    def top(self) -> TopLogprobs | None:
        """[T, K] the policy's likeliest ids, if they were recorded."""
        return self.record.top

    @property
    def num_junctions(self) -> int:
        """Tokens that were steered."""
        return self.usage.steered

    @property
    def num_shifted(self) -> int:
        """Tokens that the policy alone would not have said."""
        return self.usage.shifted

    @property
    def num_decided(self) -> int:
        """Tokens that were steered without a value being read."""
        return self.usage.steered - self.usage.value_passes

    @property
    def policy_tokens(self) -> int:
        """See `Usage`."""
        return self.usage.policy_tokens

    @property
    def value_tokens(self) -> int:
        """See `Usage`."""
        return self.usage.value_tokens

    @cached_property
    def pieces(self) -> list[str]:
        """The text that each token completes; joined, the reply's text. "" everywhere without a tokenizer."""
        if self.tokenizer is None:
            return [""] * len(self.tokens)
        pieces, left = [], len(self.text)
        for piece in token_pieces(self.tokenizer, self.tokens.tolist()):
            pieces.append(piece[:left])  # what a stop text takes off the end
            left -= len(pieces[-1])
        return pieces

    @cached_property
    def names(self) -> dict[int, str] | None:
        """The texts of all ids among the candidates, and of the policy's own choices."""
        if self.candidates is None or self.tokenizer is None:
            return None
        known = np.union1d(self.candidates.ids, self.candidates.policy_choice)
        return {int(token): token_text(self.tokenizer, int(token)) for token in known}

    def to_json(self) -> dict[str, Any]:
        """Strict JSON: numbers that are not finite are null."""
        t = len(self.tokens)
        record = {
            "text": self.text,
            "finish_reason": self.finish_reason.name.lower(),
            "stop_string": self.stop_string,
            "length": t,
            "usage": {"policy_tokens": self.policy_tokens, "value_tokens": self.value_tokens},
            "steering": {
                "ratio": round(self.num_junctions / t, 6) if t else 0.0,
                "junctions": self.num_junctions,
                "shifted": self.num_shifted,
                "decided": self.num_decided,
                "values_read": self.usage.values_read,
            },
            "tokens": self.tokens.tolist(),
        }
        record |= {name: json_numbers(getattr(self, name)) for name in _PER_TOKEN}
        if self.candidates is not None:
            record["candidates"] = {
                _IN_RECORDS.get(f.name, f.name): json_numbers(getattr(self.candidates, f.name))
                for f in fields(CandidateRecord)
            }
            if self.names is not None:
                record["pieces"] = self.pieces
                record["names"] = {str(token): name for token, name in sorted(self.names.items())}
        if self.top is not None:
            record["top"] = {f.name: json_numbers(getattr(self.top, f.name)) for f in fields(TopLogprobs)}
        return record


def make_reply(
    record: TokenRecord,
    text: str,
    finish_reason: FinishReason,
    counts: tuple[int, int],
    prompt: tuple[int, int],
    config: SamplerConfig,
    *,
    cut: int | None = None,
    stop_string: str | None = None,
    tokenizer: Tokenizer | None = None,
    timing: Timing | None = None,
    cached: int = 0,
) -> Reply:
    """A reply of what was recorded; of one that a stop text ended, what was needed up to there.

    Args:
      record: [T] of all tokens that were said.
      text: of the reply, without the stop text.
      finish_reason: as the device has it; STOP where there is a `cut`.
      counts: tokens that policy and value model read for all that was said.
      prompt: ids of the prompts of policy and value model.
      config: says what the value model reads.
      cut: tokens that are kept, the one that completed the stop text being the last; None: all.
      stop_string: the stop text.
      tokenizer: of the policy; None: no texts.
      timing: when it came.
      cached: ids of the policy's prompt that a row held already.
    """
    if cut is not None:
        record, finish_reason = jax.tree.map(lambda x: x[:cut], record), FinishReason.STOP
        places = np.flatnonzero(record.values_read)
        value_tokens = 0
        if len(places):
            read = int(np.sum(record.values_read))
            value_tokens = config.value_tokens(prompt[1], int(places[-1]), len(places) - 1, read)
        counts = prompt[0] + cut - 1, value_tokens
    usage = Usage(
        prompt=prompt[0],
        completion=len(record.tokens),
        steered=int(np.sum(record.junction)),
        shifted=int(np.sum(record.shifted)),
        policy_tokens=counts[0],
        value_tokens=counts[1],
        values_read=int(np.sum(record.values_read)),
        value_passes=int(np.sum(record.values_read > 0)),
    )
    return Reply(text, finish_reason, record, usage, stop_string, timing, cached, tokenizer=tokenizer)


def read_replies(
    samples: Samples,
    prompt: Prompt,
    config: SamplerConfig,
    tokenizer: Tokenizer | None = None,
    stops: Sequence[str] = (),
    min_new_tokens: int | None = None,
) -> list[Reply]:
    """The replies of a batch, each cut before its first stop string.

    A reply that a stop string ends has finish_reason STOP, the token that completed the string is its last,
    and the tokens it counts are those that were needed up to there.

    Args:
      samples: B n rows, n = config.branches.
      prompt: B rows, what `samples` were made from.
      config: likewise.
      tokenizer: the policy's; None: no texts.
      stops: stop strings.
      min_new_tokens: tokens that no stop string ends, as no stop id does; None: the configuration's.

    Raises:
      ValueError: an empty stop string, or stop strings without a tokenizer.
    """
    if stops and tokenizer is None:
        raise ValueError("stop strings need a tokenizer")
    if min_new_tokens is None:
        min_new_tokens = config.steering.min_new_tokens
    host: Any = jax.device_get(samples)
    found = []
    for row, t in enumerate(host.lengths.tolist()):
        names = [f.name for f in fields(TokenRecord)]
        record = TokenRecord(**jax.tree.map(lambda x: x[row, :t], {n: getattr(host, n) for n in names}))  # noqa: B023
        pieces = [] if tokenizer is None else token_pieces(tokenizer, record.tokens.tolist())
        cut = cut_at_stop(pieces, stops, min_new_tokens)
        source = row // config.branches
        found.append(
            make_reply(
                record,
                "".join(pieces if cut is None else cut.pieces),
                FinishReason(int(host.finish_reason[row])),
                (int(host.policy_tokens[row]), int(host.value_tokens[row])),
                (int(prompt.policy_lengths[source]), int(prompt.value_lengths[source])),
                config,
                cut=None if cut is None else len(cut.pieces),
                stop_string=None if cut is None else cut.stop,
                tokenizer=tokenizer,
            )
        )
    return found


def with_choices(replies: Sequence[Reply]) -> Reply:
    """The first of all replies to a request, which knows the others."""
    return replies[0] if len(replies) == 1 else replace(replies[0], choices=tuple(replies))


def json_numbers(array: np.ndarray) -> list[Any]:
    """Nested lists of an array, float32 in its shortest decimals, null for what is not finite."""
    if array.ndim > 1:
        return [json_numbers(row) for row in array]
    if array.dtype.kind != "f":
        return array.tolist()
    return [float(str(x)) if math.isfinite(x) else None for x in array]


def json_threshold(number: float) -> float | str:
    """A threshold in strict JSON, which has no infinity: "inf" or "-inf"."""
    return number if math.isfinite(number) else str(number)
