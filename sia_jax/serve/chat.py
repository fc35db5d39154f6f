"""/v1/chat/completions: a conversation, and the assistant's next turn."""

from collections.abc import Sequence
from typing import Any

from sia_jax.extras import installed_with
from sia_jax.serve.answering import answer
from sia_jax.serve.bodies import body_of, described
from sia_jax.serve.logprobs import Weighed, chat_logprobs
from sia_jax.serve.names import TokenNames
from sia_jax.serve.protocol import ChatBody
from sia_jax.serve.requests import plan_chat
from sia_jax.serve.service import Service

with installed_with("serve"):
    from fastapi import APIRouter
    from starlette.requests import Request
    from starlette.responses import Response


class ChatForm:
    """Messages, and deltas of them."""

    prefix = "chatcmpl"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def choice(self, text: str) -> dict[str, Any]:
        """See `sia_jax.serve.exchange.Form`."""
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def opening(self) -> dict[str, Any] | None:
        """Who speaks."""
        return {"delta": {"role": "assistant", "content": ""}}

    def part(self, text: str) -> dict[str, Any]:
        """See `sia_jax.serve.exchange.Form`."""
        return {"delta": {"content": text} if text else {}}

    def logprobs(self, tokens: Sequence[Weighed], names: TokenNames) -> dict[str, Any]:
        """See `sia_jax.serve.logprobs`."""
        return chat_logprobs(tokens, names)


def chat_routes(service: Service) -> APIRouter:
    """The route."""
    router = APIRouter()

    @router.post("/v1/chat/completions", openapi_extra=described(ChatBody))
    async def chat(http: Request) -> Response:
        body = await body_of(http, ChatBody)
        plan = plan_chat(body, service)
        top = (body.top_logprobs or 0) if body.logprobs else None
        return await answer(http, service, ChatForm(), body, plan, top, echo=False)

    return router
