"""What happened, as JSON: usage, what was steered, and the trace of every token."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sia_jax.decoding.state import FinishReason
from sia_jax.engine.reply import Reply
from sia_jax.serve.names import TokenNames
from sia_jax.serve.tokens import Spoken

REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CANCELLED: "abort",
    FinishReason.DEADLINE: "abort",
    FinishReason.NON_FINITE: "error",
}
"""What the wire calls the end of a reply. The last is no choice's: it is an error of its own."""


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> dict[str, Any]:
    """Tokens that a response took, as OpenAI counts them: a prompt once, whatever n.

    Args:
      prompt_tokens: of all prompts.
      completion_tokens: of all choices.
      cached_tokens: of the prompts those that rows held already.
    """
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def steering_usage(replies: Sequence[Reply]) -> dict[str, Any]:
    """What was steered, over all replies together."""
    entropies = np.concatenate([reply.entropy for reply in replies]) if replies else np.zeros(0)
    return {
        "steered": sum(reply.usage.steered for reply in replies),
        "shifted": sum(reply.usage.shifted for reply in replies),
        "contenders": sum(int(np.sum(reply.contenders)) for reply in replies),
        "values_read": sum(reply.usage.values_read for reply in replies),
        "value_tokens": sum(reply.usage.value_tokens for reply in replies),
        "mean_entropy": float(np.mean(entropies, dtype=np.float64)) if entropies.size else None,
    }


def trace(spoken: Iterable[Spoken], names: TokenNames) -> list[dict[str, Any]]:
    """An object for each token, and for each candidate at a junction where they were recorded."""
    return [_traced(one, names) for one in spoken]


def traced_ids(spoken: Iterable[Spoken]) -> set[int]:
    """The ids that a trace calls by their names."""
    found: set[int] = set()
    for one in spoken:
        if one.number("junction") and one.record.candidates is not None:
            found.update(one.record.candidates.ids[one.place].tolist())
    return found


def _traced(one: Spoken, names: TokenNames) -> dict[str, Any]:
    found = {
        "id": one.id,
        "text": one.text,
        "entropy": finite(one.number("entropy")),
        "junction": bool(one.number("junction")),
        "shifted": bool(one.number("shifted")),
        "policy_logprob": finite(one.number("policy_logprob")),
        "logprob": finite(one.number("logprob")),
        "value": finite(one.number("value")),
        "contenders": int(one.number("contenders")),
        "values_read": int(one.number("values_read")),
    }
    candidates = one.record.candidates
    if found["junction"] and candidates is not None:
        found["policy_choice"] = int(candidates.policy_choice[one.place])
        rows = (candidates.ids, candidates.policy_logprobs, candidates.values, candidates.logprobs)
        found["candidates"] = [
            {
                "id": int(id_),
                "text": names.name(int(id_)),
                "policy_logprob": finite(policy_logprob),
                "value": finite(value),
                "logprob": finite(logprob),
            }
            for id_, policy_logprob, value, logprob in zip(*(row[one.place] for row in rows), strict=True)
            if id_ >= 0
        ]
    return found


def finite(x: Any) -> float | None:
    """A number in JSON, float32 in its shortest decimals; null: it is not finite."""
    value = float(str(x))
    return value if math.isfinite(value) else None
