"""The way of a body through the server, whichever its route: admitted, tokenised, generated, answered."""

import asyncio
import json
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

from sia_jax.extras import installed_with
from sia_jax.serve.echo import Echo, echoes_of
from sia_jax.serve.errors import ApiError
from sia_jax.serve.events import EventStream
from sia_jax.serve.exchange import Exchange, Form
from sia_jax.serve.generation import Generation
from sia_jax.serve.limits import Refused, Ticket
from sia_jax.serve.observing import note
from sia_jax.serve.protocol import Generating
from sia_jax.serve.requests import Plan, tokenise
from sia_jax.serve.service import Service

with installed_with("serve"):
    from starlette.requests import Request
    from starlette.responses import Response

Result = TypeVar("Result")

CLIENT_LEFT = 499
"""The status of a response that nobody takes."""


async def answer(
    http: Request, service: Service, form: Form, body: Generating, plan: Plan, top: int | None, *, echo: bool
) -> Response:
    """The response to a body.

    Args:
      http: the request that it came with.
      service: of the server.
      form: of the route.
      body: what was asked.
      plan: what it comes to.
      top: of the likeliest ids of each token; None: no log-probabilities.
      echo: whether the prompt comes before the reply.

    Raises:
      ApiError: what is wrong with it, or with the server.
    """
    ticket = enter(service, plan)
    exchange = None
    try:
        requests = await asyncio.to_thread(tokenise, plan, service)
        note(http.scope, model=body.model)
        if service.settings.log_prompts:
            note(http.scope, prompt=_prompt(body))
        echoes: list[Echo] = []
        if echo:
            found_echoes = await unless_left(http, echoes_of(requests, plan.texts, top, service))
            if found_echoes is None:
                service.metrics.disconnected()
                return Response(status_code=CLIENT_LEFT)
            echoes = found_echoes
        generation = None if plan.scores_alone else Generation(service, requests, ticket)
        exchange = Exchange(service, form, body, plan, requests, top, echoes, generation)
        if generation is not None:
            await generation.begin()
        if body.stream:
            return EventStream(exchange.frames(), partial(_leave, exchange, http))
        found = await unless_left(http, exchange.whole())
        _leave(exchange, http)
        if found is None:
            return Response(status_code=CLIENT_LEFT)
        return Response(found, media_type="application/json")
    except BaseException:
        if exchange is not None:
            exchange.fail()
        raise
    finally:
        if exchange is None or exchange.generates_nothing:
            ticket.leave()


def _leave(exchange: Exchange, http: Request) -> None:
    exchange.leave()
    note(http.scope, **exchange.counts())


def _prompt(body: Generating) -> str:
    asked = body.model_dump(include={"prompt", "messages"})
    return json.dumps(asked, ensure_ascii=False)


def enter(service: Service, plan: Plan) -> Ticket:
    """A place for what a body asks.

    Raises:
      ApiError: 503, there is none now; 400, there never will be.
    """
    try:
        return service.admission.enter(plan.choices, plan.tokens)
    except Refused as refused:
        service.metrics.refused(refused.status)
        headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
        raise ApiError(refused.status, str(refused), code="overloaded", headers=headers) from None


async def unless_left(http: Request, work: Coroutine[Any, Any, Result]) -> Result | None:
    """What work comes to; None: the client left first, and the work was cancelled."""
    tasks = asyncio.create_task(work), asyncio.create_task(_disconnected(http))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _disconnected(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
