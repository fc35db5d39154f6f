"""Log-probabilities in OpenAI's two shapes: the policy's, at temperature 1, before steering and penalties."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sia_jax.serve.names import TokenNames
from sia_jax.serve.tokens import Spoken

UNLIKELY = -9999.0
"""What OpenAI writes for a token of next to no probability; JSON has no infinity."""


@dataclass(frozen=True)
class Weighed:
    """A token, what the policy makes of it, and of the likeliest in its place."""

    id: int
    offset: int
    """Characters of the choice's text before it."""
    logprob: float | None
    """Nats; None: the first of a prompt, of which there is none."""
    top: tuple[tuple[int, float], ...]
    """(id, nats), largest first, as many as were asked for."""


def weighed(spoken: Sequence[Spoken], count: int) -> list[Weighed]:
    """What the policy makes of tokens of a reply.

    Args:
      spoken: the tokens.
      count: how many of the likeliest, of those that were recorded.
    """
    found = []
    for one in spoken:
        top: list[tuple[int, float]] = []
        if count:
            recorded = one.record.top
            ids, logprobs = recorded.ids[one.place][:count], recorded.logprobs[one.place][:count]
            top = [(int(i), number(x)) for i, x in zip(ids, logprobs, strict=True) if i >= 0]
        found.append(Weighed(one.id, one.offset, number(one.number("policy_logprob")), tuple(top)))
    return found


def ids_of(tokens: Iterable[Weighed]) -> set[int]:
    """All ids that will be called by their names."""
    return {id_ for one in tokens for id_ in (one.id, *(i for i, _ in one.top))}


def completion_logprobs(tokens: Sequence[Weighed], names: TokenNames) -> dict[str, Any]:
    """The shape of /v1/completions: lists of one entry a token.

    The chosen token is always among the top ones, so that there may be one more than was asked for. Of two
    ids of one name the likelier one counts.
    """
    return {
        "tokens": [names.name(one.id) for one in tokens],
        "token_logprobs": [one.logprob for one in tokens],
        "top_logprobs": [_named(one, names) for one in tokens],
        "text_offset": [one.offset for one in tokens],
    }


def chat_logprobs(tokens: Sequence[Weighed], names: TokenNames) -> dict[str, Any]:
    """The shape of /v1/chat/completions: a list of objects, each with the bytes of its token."""
    content = []
    for one in tokens:
        top = [_entry(id_, logprob, names) for id_, logprob in one.top]
        content.append({**_entry(one.id, one.logprob, names), "top_logprobs": top})
    return {"content": content, "refusal": None}


def number(x: Any) -> float:
    """A log-probability in JSON, float32 in its shortest decimals."""
    value = float(str(x))
    return value if math.isfinite(value) else UNLIKELY


def _named(one: Weighed, names: TokenNames) -> dict[str, float] | None:
    if one.logprob is None:
        return None
    found: dict[str, float] = {}
    for id_, logprob in one.top:
        found.setdefault(names.name(id_), logprob)
    found.setdefault(names.name(one.id), one.logprob)
    return found


def _entry(id_: int, logprob: float | None, names: TokenNames) -> dict[str, Any]:
    return {"token": names.name(id_), "bytes": names.octets(id_), "logprob": logprob}
