"""Types of ASGI, and an error as a whole answer, for what stands before the routes."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def header_of(scope: Scope, name: bytes) -> bytes | None:
    """The value of a header; None: it is not there, or more than once.

    Args:
      scope: of a request.
      name: in small letters.
    """
    found = [value for own, value in scope["headers"] if own.lower() == name]
    return found[0] if len(found) == 1 else None


async def send_error(
    send: Send,
    status: int,
    message: str,
    code: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer with an error in OpenAI's shape.

    Args:
      send: of the request, to which nothing has been answered.
      status: of HTTP.
      message: for people; it has no path, key or address.
      code: for programs: "invalid_api_key".
      headers: beside those of the body.
    """
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    body = json.dumps({"error": error}).encode()
    own = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in own.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
