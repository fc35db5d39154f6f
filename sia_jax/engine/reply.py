"""One reply on the host: its text, what was recorded at each of its tokens, and both as JSON."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np

from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.prompt import Prompt
from sia_jax.decoding.state import CandidateRecord, FinishReason, Samples
from sia_jax.text.decoder import cut_at_stop, token_pieces, token_text
from sia_jax.text.tokenizer import Tokenizer

_PER_TOKEN = ("junction", "entropy", "policy_logprob", "logprob", "value", "shifted")
_IN_RECORDS = {"policy_choice": "own_choice"}
"""Fields of candidates that are called otherwise in JSON, where files of before are still read."""


@dataclass(frozen=True)
class Reply:
    """A row of `Samples` without its padding, and its text. T is the reply's own length."""

    tokens: np.ndarray  # [T]
    pieces: list[str]
    """The text that each token completes; joined, the reply's text. "" everywhere without a tokenizer."""
    finish_reason: FinishReason
    stop_string: str | None
    """The stop string that ended it; it is not part of the text."""
    policy_tokens: int
    value_tokens: int
    junction: np.ndarray  # [T] bool
    entropy: np.ndarray  # [T] nats
    policy_logprob: np.ndarray  # [T]
    logprob: np.ndarray  # [T]
    value: np.ndarray  # [T]; NaN where none was computed
    shifted: np.ndarray  # [T] bool
    candidates: CandidateRecord | None = None  # [T, C]
    names: dict[int, str] | None = None
    """The texts of all ids among the candidates, and of the policy's own choices."""

    @property
    def text(self) -> str:
        """The reply, without special tokens and without the stop string."""
        return "".join(self.pieces)

    @property
    def num_junctions(self) -> int:
        """Tokens that were steered."""
        return int(self.junction.sum())

    @property
    def num_shifted(self) -> int:
        """Tokens that the policy alone would not have said."""
        return int(self.shifted.sum())

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
            },
            "tokens": self.tokens.tolist(),
        }
        record |= {name: json_numbers(getattr(self, name)) for name in _PER_TOKEN}
        if self.candidates is not None:
            record["candidates"] = {
                _IN_RECORDS.get(field.name, field.name): json_numbers(getattr(self.candidates, field.name))
                for field in fields(CandidateRecord)
            }
            if self.names is not None:
                record["pieces"] = self.pieces
                record["names"] = {str(token): name for token, name in sorted(self.names.items())}
        return record


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
    rows = range(len(host.lengths))
    return [_read(host, row, prompt, config, tokenizer, stops, min_new_tokens) for row in rows]


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


def _read(
    samples: Any,  # Samples on the host: NumPy arrays
    row: int,
    prompt: Prompt,
    config: SamplerConfig,
    tokenizer: Tokenizer | None,
    stops: Sequence[str],
    min_new_tokens: int,
) -> Reply:
    t = int(samples.lengths[row])
    ids = samples.tokens[row, :t].tolist()
    pieces = [""] * t if tokenizer is None else token_pieces(tokenizer, ids)
    reason = FinishReason(int(samples.finish_reason[row]))
    policy_tokens, value_tokens = int(samples.policy_tokens[row]), int(samples.value_tokens[row])
    stop_string = None
    cut = cut_at_stop(pieces, stops, min_new_tokens)
    if cut is not None:
        pieces, stop_string, reason, t = cut.pieces, cut.stop, FinishReason.STOP, len(cut.pieces)
        source = row // config.branches
        policy_tokens = int(prompt.policy_lengths[source]) + t - 1
        places = np.flatnonzero(samples.junction[row, :t])
        value_tokens = 0
        if len(places):
            value_prompt = int(prompt.value_lengths[source])
            value_tokens = config.value_tokens(value_prompt, int(places[-1]), len(places) - 1)
    candidates = names = None
    if samples.candidates is not None:
        candidates = jax.tree.map(lambda x: x[row, :t], samples.candidates)
        if tokenizer is not None:
            known = np.union1d(candidates.ids, candidates.policy_choice)
            names = {int(token): token_text(tokenizer, int(token)) for token in known}
    return Reply(
        tokens=samples.tokens[row, :t],
        pieces=pieces,
        finish_reason=reason,
        stop_string=stop_string,
        policy_tokens=policy_tokens,
        value_tokens=value_tokens,
        candidates=candidates,
        names=names,
        **{name: getattr(samples, name)[row, :t] for name in _PER_TOKEN},
    )
