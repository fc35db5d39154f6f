"""/tokenize and /detokenize: what a text or a conversation is in ids, and back."""

import asyncio
from typing import Any

from sia_jax.engine.job import read_prompts
from sia_jax.extras import installed_with
from sia_jax.serve.bodies import body_of, described
from sia_jax.serve.errors import ApiError
from sia_jax.serve.protocol import DetokenizeBody, TokenizeBody
from sia_jax.serve.requests import conversation
from sia_jax.serve.service import Service
from sia_jax.text.tokenizer import Tokenizer, exact_ids, opened_ids

with installed_with("serve"):
    from fastapi import APIRouter
    from starlette.requests import Request
    from starlette.responses import JSONResponse


def text_routes(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter()

    @router.post("/tokenize", openapi_extra=described(TokenizeBody))
    async def tokenize(http: Request) -> JSONResponse:
        body = await body_of(http, TokenizeBody)
        if body.model is not None:
            service.preset(body.model)
        ids = await asyncio.to_thread(_ids, body, service)
        found: dict[str, Any] = {"count": len(ids), "max_model_len": service.max_length, "tokens": ids}
        found["token_strs"] = (
            await asyncio.to_thread(_names, ids, service) if body.return_token_strs else None
        )
        return JSONResponse(found)

    @router.post("/detokenize", openapi_extra=described(DetokenizeBody))
    async def detokenize(http: Request) -> JSONResponse:
        body = await body_of(http, DetokenizeBody)
        if body.model is not None:
            service.preset(body.model)
        return JSONResponse({"prompt": await asyncio.to_thread(_text, body.tokens, service)})

    return router


def _ids(body: TokenizeBody, service: Service) -> list[int]:
    if body.messages is not None:
        request, tokens = conversation(body.messages, body.chat_template_kwargs, {})
        _check_size(tokens, "messages", service)
        try:
            with service.engine.tokenizing:
                return list(map(int, read_prompts(request, service.terms)[0]))
        except (ValueError, TypeError) as error:
            raise ApiError(400, str(error), param="messages") from None
    text = body.prompt or ""
    _check_size(len(text.encode()) // 4, "prompt", service)
    tokenizer = _tokenizer(service)
    with service.engine.tokenizing:
        return (exact_ids if body.add_special_tokens is False else opened_ids)(tokenizer, text)


def _text(ids: list[int], service: Service) -> str:
    tokenizer = _tokenizer(service)
    _check_size(len(ids), "tokens", service)
    size = service.engine.policy.config.vocab_size
    wrong = [id_ for id_ in ids if id_ >= size]
    if wrong:
        raise ApiError(400, f"tokens must be ids of 0 .. {size - 1}, got {wrong[0]}", param="tokens")
    with service.engine.tokenizing:
        return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _names(ids: list[int], service: Service) -> list[str]:
    service.names.learn(ids)
    return [service.names.name(id_) for id_ in ids]


def _tokenizer(service: Service) -> Tokenizer:
    tokenizer = service.engine.policy.tokenizer
    if tokenizer is None:
        raise ApiError(400, "the policy has no tokenizer")
    return tokenizer


def _check_size(tokens: int, param: str, service: Service) -> None:
    """The tokenizer is held meanwhile, and those that generate wait for it."""
    most = service.settings.max_queued_tokens
    if tokens > most:
        raise ApiError(
            400, f"{param} is about {tokens} tokens long, of at most {most}; split it", param=param
        )
