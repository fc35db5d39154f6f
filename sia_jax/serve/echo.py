"""The prompt before the reply: its text, its tokens, and what the policy makes of them."""

import asyncio
import math
from dataclasses import dataclass
from typing import Any

from sia_jax.engine.handle import EngineClosed
from sia_jax.engine.request import Request
from sia_jax.serve.errors import ApiError
from sia_jax.serve.generation import ended
from sia_jax.serve.logprobs import Weighed, number
from sia_jax.serve.service import Service
from sia_jax.text.decoder import token_pieces


@dataclass(frozen=True)
class Echo:
    """What a prompt puts in front of its choices."""

    text: str = ""
    tokens: tuple[Weighed, ...] = ()
    """Empty: no log-probabilities are asked for."""


async def echoes_of(
    requests: list[Request], texts: tuple[str | None, ...], top: int | None, service: Service
) -> list[Echo]:
    """What each prompt puts in front of its choices.

    Args:
      requests: the prompts in ids.
      texts: those that came as texts.
      top: of the likeliest ids; None: no log-probabilities.
      service: of the server.

    Raises:
      ApiError: 400, the policy has no tokenizer; 503, the engine has ended.
    """
    prompts = [list(request.prompt_ids or ()) for request in requests]
    scored: Any = [None] * len(prompts)
    if top is not None:
        try:
            scored = await asyncio.wrap_future(service.engine.submit_score(prompts, top))
        except EngineClosed:
            raise ended(service) from None
        except ValueError as error:
            raise ApiError(400, str(error), param="prompt") from None
    return await asyncio.to_thread(
        lambda: [
            _echo(ids, text, own, service) for ids, text, own in zip(prompts, texts, scored, strict=True)
        ]
    )


def _echo(ids: list[int], given: str | None, scored: Any, service: Service) -> Echo:
    tokenizer = service.engine.policy.tokenizer
    if tokenizer is None:
        raise ApiError(400, "echo needs a tokenizer, and the policy has none", param="echo")
    with service.engine.tokenizing:
        pieces = token_pieces(tokenizer, ids, skip_special_tokens=False)
    text = "".join(pieces)
    # What the tokenizer puts in front of a text is no part of what the client wrote.
    ahead = len(text) - len(given) if given is not None and text.endswith(given) else 0
    if given is not None:
        text = given
    if scored is None:
        return Echo(text)
    found, end = [], -ahead
    for place, (id_, piece) in enumerate(zip(ids, pieces, strict=True)):
        logprob = float(scored.logprobs[place])
        top = () if math.isnan(logprob) else _top(scored, place)
        offset = min(max(end, 0), len(text))
        found.append(
            Weighed(id_, offset, None if math.isnan(logprob) else number(scored.logprobs[place]), top)
        )
        end += len(piece)
    return Echo(text, tuple(found))


def _top(scored: Any, place: int) -> tuple[tuple[int, float], ...]:
    pairs = zip(scored.top_ids[place], scored.top_logprobs[place], strict=True)
    return tuple((int(id_), number(x)) for id_, x in pairs if id_ >= 0)
