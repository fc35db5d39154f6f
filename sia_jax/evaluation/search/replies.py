"""What a search found, as a reply with its counts; and the requests that it makes of an engine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from sia_jax.costs.reply import ReadChunk, chunk_steering_flops, drawn_flops
from sia_jax.decoding.config import SamplerConfig
from sia_jax.decoding.state import empty_record
from sia_jax.engine.reply import Reply, make_reply
from sia_jax.engine.request import Request
from sia_jax.evaluation.gate_numbers import GateNumbers, gate_of
from sia_jax.evaluation.search.drafts import Continue, Draft, Look
from sia_jax.evaluation.search.runner import Found
from sia_jax.runs.engines import Row, make_request
from sia_jax.runs.options import SamplingArgs
from sia_jax.text.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class DraftRequests:
    """Requests for what comes after drafts, as `sia_jax.evaluation.search.runner.Requests` says."""

    rows: Sequence[Row]
    """By the place of the prompt."""
    args: SamplingArgs
    gate: GateNumbers
    steered: bool
    """Whether the engine has a value model."""

    def __call__(self, place: int, draft: Draft, ask: Continue | Look) -> Request:
        """The draft is a prompt, to both models."""
        row, said = self.rows[place], draft.tokens
        own = replace(
            row, policy_ids=[*row.policy_ids, *said], value_ids=[*row.value_ids, *said], threshold=math.inf
        )
        gate = gate_of(GateNumbers()) if self.steered else None
        if isinstance(ask, Look):
            return make_request(own, self.args, gate=gate, max_new_tokens=1, temperature=0.0)
        if self.steered:
            gate = gate_of(self.gate)
        words: Any = ask.key
        own = replace(
            own,
            key=jax.random.wrap_key_data(words, impl="threefry2x32"),
            threshold=self.gate.threshold,
        )
        cold = {"temperature": 0.0} if ask.greedy else {}
        return make_request(own, self.args, n=ask.n, gate=gate, max_new_tokens=ask.limit, **cold)


def reply_of(found: Found, row: Row, config: SamplerConfig, tokenizer: Tokenizer | None) -> Reply:
    """A reply whose counts are those of the whole search.

    Args:
      found: by the search.
      row: its prompt.
      config: says what the value model reads.
      tokenizer: of the policy.
    """
    draft, prompt = found.draft, (len(row.policy_ids), len(row.value_ids))
    if draft.chunks:
        record = replace(draft.record(), candidates=None)
    else:
        record = jax.tree.map(lambda x: np.asarray(x)[0], empty_record(1, 0, None))
    counts = prompt[0] - 1 + found.ledger.drawn, _value_tokens(found.ledger.read_chunks(), prompt[1], config)
    return make_reply(
        record,
        found.text,
        draft.finish_reason,
        counts,
        prompt,
        config,
        tokenizer=tokenizer,
    )


def search_flops(found: Found, row: Row, config: SamplerConfig) -> tuple[float, float]:
    """FLOPs of policy and value model for all that a search drew.

    Args:
      found: by the search.
      row: its prompt.
      config: the models.
    """
    policy = drawn_flops(config.policy, len(row.policy_ids), found.ledger.draws)
    if config.value is None:
        return policy, 0.0
    return policy, chunk_steering_flops(config.value, len(row.value_ids), found.ledger.read_chunks())


def _value_tokens(chunks: list[ReadChunk], prompt: int, config: SamplerConfig) -> int:
    """Tokens that the value model reads: its prompt, and what is read of the chunks with all candidates."""
    total = sum(int(chunk.values_read.sum()) for chunk in chunks)
    if not total or config.value is None or not config.value.runs_passes:
        return 0
    if not config.reads_candidates:
        return prompt + sum(max(chunk.last - (not chunk.whole), 0) for chunk in chunks)
    between = sum(int(np.sum(chunk.values_read[: chunk.last] == 0)) for chunk in chunks)
    return prompt + between + total


def sampled_counts(found: Found) -> dict[str, int]:
    """What was drawn in all drafts, by the names that `Chosen` has for it.

    A token that ARGS or Transfer Q* chose counts as steered, and as decided without a value.
    """
    own = (*(chunk for chunk, _ in found.ledger.chunks), *found.draft.chunks)
    records = [chunk.record for chunk in {id(chunk): chunk for chunk in own}.values()]
    junctions = sum(int(np.sum(record.junction)) for record in records)
    return {
        "sampled_tokens": found.ledger.drawn,
        "sampled_junctions": junctions,
        "sampled_decided": junctions - sum(int(np.sum(record.values_read > 0)) for record in records),
        "values_read": sum(int(np.sum(record.values_read)) for record in records),
    }
