"""Server-sent events: the frames of a stream."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from sia_jax.extras import installed_with

with installed_with("serve"):
    from starlette.responses import StreamingResponse
    from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"
"""The last frame of every stream."""


def encoded(data: Mapping[str, Any]) -> bytes:
    """An object in strict JSON."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False).encode()


def frame(data: Mapping[str, Any]) -> bytes:
    """A frame of one JSON object."""
    return b"data: " + encoded(data) + b"\n\n"


class EventStream(StreamingResponse):
    """A response of frames.

    Args:
      frames: the frames, as they come.
      left: called once the response has ended, however it has.
    """

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[bytes, None], left: Callable[[], None]):
        # Proxies are asked neither to keep nor to gather what is to be seen as it comes.
        super().__init__(frames, headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        self._frames, self._left = frames, left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames until there are no more, or nobody is there to take them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left()
            await self._frames.aclose()
