"""Errors as OpenAI has them, with nothing in them of the machine that they come from."""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from sia_jax.extras import installed_with

with installed_with("serve"):
    from fastapi import FastAPI
    from pydantic import ValidationError
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LONGEST = 600
"""Characters of a message."""
_PATH = re.compile(r"""(?<![\w/:.])(?:file://|~|[A-Za-z]:)?[\\/](?:[^\s\\/:'",;]+[\\/])*[^\s\\/:'",;]*\w""")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_WIRE_NAMES = {
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "n", "seed")},
    **{name: name for name in ("presence_penalty", "frequency_penalty", "logit_bias", "stop", "messages")},
    "min_new_tokens": "min_tokens",
    "stop_ids": "stop_token_ids",
    "threshold": "sia.threshold",
    "beta": "sia.beta",
}
"""Fields of the body by what the engine calls them."""


class ApiError(Exception):
    """What a client is told went wrong.

    Args:
      status: of HTTP.
      message: a sentence; paths and addresses in it are left out.
      type: OpenAI's; None: by the status.
      param: the field of the body that it is about.
      code: a word for programs.
      headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.message = cleaned(message)
        self.type = type or type_of(status)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON of the response."""
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": fields}

    def response(self) -> JSONResponse:
        """The response."""
        return JSONResponse(self.body(), self.status, self.headers)


def type_of(status: int) -> str:
    """OpenAI's word for errors of a status."""
    return "invalid_request_error" if status < 500 else "server_error"


def cleaned(message: str) -> str:
    """A message without paths of files and addresses of memory, and not too long."""
    return _cut(_ADDRESS.sub("(address)", _PATH.sub("(path)", message)), _LONGEST)


def refusal(error: Exception) -> ApiError:
    """A 400 of what the engine says of a request; `param` is the field that its sentence begins with."""
    message = str(error)
    return ApiError(400, message, param=_WIRE_NAMES.get(message.split(" ", 1)[0]))


def invalid(error: ValidationError) -> ApiError:
    """A 400 of the first thing that is wrong with a body."""
    first = error.errors(include_url=False, include_context=False)[0]
    param = _cut(".".join(str(part) for part in first["loc"]), 80)
    said = first["msg"].removeprefix("Value error, ")
    if not param:  # of several fields together: the sentence begins with the one that is wrong
        return ApiError(400, said, param=said.split(" ", 1)[0])
    if first["type"] == "missing":
        message = f"{param} is missing"
    elif first["type"] == "extra_forbidden":
        message = f"{param} is no field that this server knows; leave it out"
    else:
        message = f"{param}: {said[:1].lower()}{said[1:]}, got {_told(first['input'])}"
    return ApiError(400, message, param=param)


def add_handlers(app: FastAPI) -> None:
    """Every error of an app has OpenAI's shape."""

    async def told(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return error.response()

    async def of_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = f"{HTTPStatus(error.status_code).phrase}: no route takes this path and method"
        if error.status_code not in (404, 405):
            message = HTTPStatus(error.status_code).phrase
        return ApiError(error.status_code, message, headers=error.headers).response()

    app.add_exception_handler(ApiError, told)
    app.add_exception_handler(HTTPException, of_http)
    app.add_middleware(_Unforeseen)


class _Unforeseen:
    """ASGI middleware: what nobody foresaw is logged, and answered by a 500 if nothing was answered yet.

    Starlette's own answers too, but lets the error go on, and the connection is closed for it.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            if begun or scope["type"] != "http":
                raise
            logging.getLogger(__name__).exception("a request failed")
            await unexpected().response()(scope, receive, send)


def unexpected() -> ApiError:
    """A 500 that tells nothing."""
    return ApiError(500, "the server failed at this request; its log says why")


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return _cut(repr(value), 60)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 4]} ..."
