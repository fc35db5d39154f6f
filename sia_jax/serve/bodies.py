"""How a body is read, and how the OpenAPI document has it."""

import asyncio
import re
from typing import Any, TypeVar

from sia_jax.extras import installed_with
from sia_jax.files.strict_json import parse_object
from sia_jax.serve.errors import ApiError
from sia_jax.serve.protocol import Body, read_body

with installed_with("serve"):
    from starlette.requests import ClientDisconnect, Request

Kind = TypeVar("Kind", bound=Body)

_JSON = re.compile(r'application/(json|[\w.-]+\+json)\s*(;\s*charset="?utf-8"?\s*)?', re.IGNORECASE)
_SMALL = 65_536
"""Bytes of a body that are read in a moment."""
REFERENCE = "#/components/schemas/{model}"
"""Of a schema in the OpenAPI document."""


async def body_of(http: Request, kind: type[Kind]) -> Kind:
    """The body of a request, checked.

    Raises:
      ApiError: 400, it is no JSON, no object, or no such body.
    """
    given = http.headers.get("content-type", "")
    if not _JSON.fullmatch(given.strip()):
        raise ApiError(
            400, f"the body must be JSON in UTF-8, with Content-Type: application/json, got {given[:80]!r}"
        )
    try:
        content = await http.body()
    except ClientDisconnect:
        raise ApiError(400, "the client left before its body was there") from None
    if len(content) <= _SMALL:
        return _read(content, kind)
    return await asyncio.to_thread(_read, content, kind)  # others are answered meanwhile


def _read(content: bytes, kind: type[Kind]) -> Kind:
    try:
        fields = parse_object(content, "the body", like='{"model": ...}')
    except ValueError as error:
        raise ApiError(400, str(error)) from None
    return read_body(kind, fields)


def described(kind: type[Body]) -> dict[str, Any]:
    """What OpenAPI says of a route with such a body."""
    schema = {"$ref": REFERENCE.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
