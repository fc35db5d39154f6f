"""/v1/completions: a text, or ids, and what follows."""

from collections.abc import Sequence
from typing import Any

from sia_jax.extras import installed_with
from sia_jax.serve.answering import answer
from sia_jax.serve.bodies import body_of, described
from sia_jax.serve.logprobs import Weighed, completion_logprobs
from sia_jax.serve.names import TokenNames
from sia_jax.serve.protocol import CompletionBody
from sia_jax.serve.requests import plan_completion
from sia_jax.serve.service import Service

with installed_with("serve"):
    from fastapi import APIRouter
    from starlette.requests import Request
    from starlette.responses import Response


class CompletionForm:
    """Texts and their continuations."""

    prefix = "cmpl"
    whole = chunk = "text_completion"

    def choice(self, text: str) -> dict[str, Any]:
        """See `sia_jax.serve.exchange.Form`."""
        return {"text": text}

    def opening(self) -> dict[str, Any] | None:
        """There is none."""
        return None

    def part(self, text: str) -> dict[str, Any]:
        """See `sia_jax.serve.exchange.Form`."""
        return {"text": text}

    def logprobs(self, tokens: Sequence[Weighed], names: TokenNames) -> dict[str, Any]:
        """See `sia_jax.serve.logprobs`."""
        return completion_logprobs(tokens, names)


def completion_routes(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.post("/v1/completions", openapi_extra=described(CompletionBody))
    async def completions(http: Request) -> Response:
        body = await body_of(http, CompletionBody)
        plan = plan_completion(body, service)
        return await answer(http, service, CompletionForm(), body, plan, body.logprobs, echo=bool(body.echo))

    return router
