"""Bearer keys: read once, kept as digests, compared in constant time."""

import hashlib
import hmac
import re
import stat
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

from sia_jax.files.reading import read_bytes
from sia_jax.serve.asgi import App, Receive, Scope, Send, header_of, send_error

SHORTEST = 8
"""Characters of a key."""
LONGEST = 256
_LIMIT = 2**20
"""Bytes of a file of keys."""
LIVENESS = ("/health", "/health/")
"""What everybody may ask."""
_KEY = re.compile(r"[!-~]+")
_REMEDY = "a key a line, of printable ASCII without spaces; a line that begins with # is none"


def read_keys(file: Path | None, environment: str | None) -> tuple[bytes, ...]:
    """The SHA-256 digests of all keys of a file and of an environment variable.

    A file that others than its owner may read is warned of.

    Args:
      file: a key a line; empty lines, and those that begin with #, are none. None: no file.
      environment: what stands in the variable, keys parted by commas. None, or nothing: none.

    Returns:
      digests of 32 bytes, each once; none where there is neither file nor variable.

    Raises:
      OSError: the file is not there.
      ValueError: no key in it, or one that no client could send, or of fewer than 8 characters.
    """
    found: dict[bytes, None] = {}
    if file is not None:
        try:
            text = read_bytes(file, "file of keys", _REMEDY, _LIMIT).decode()
        except UnicodeDecodeError:
            raise ValueError(f"{file}: a file of keys must be text ({_REMEDY})") from None
        _warn_if_open(file)
        lines = [(f"{file}, line {n}", line.strip()) for n, line in enumerate(text.splitlines(), 1)]
        keys = [(where, line) for where, line in lines if line and not line.startswith("#")]
        if not keys:
            raise ValueError(f"{file}: no key in it; write {_REMEDY}")
        found |= dict.fromkeys(_digest(where, key) for where, key in keys)
    if environment:
        parts = [part.strip() for part in environment.split(",")]
        named = enumerate((part for part in parts if part), 1)
        found |= dict.fromkeys(_digest(f"key {n} of the environment", part) for n, part in named)
    return tuple(found)


def _digest(where: str, key: str) -> bytes:
    """The key itself is not told: errors go into logs."""
    if not SHORTEST <= len(key) <= LONGEST or not _KEY.fullmatch(key):
        raise ValueError(
            f"{where}: a key has {SHORTEST} to {LONGEST} characters, printable ASCII without spaces, got one "
            f"of {len(key)} characters; python3 -c 'import secrets; print(secrets.token_urlsafe())' makes one"
        )
    return hashlib.sha256(key.encode()).digest()


def _warn_if_open(file: Path) -> None:
    mode = file.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        warnings.warn(
            f"{file}: others than its owner have access to these keys (mode {stat.S_IMODE(mode):o}); "
            "chmod 600 takes it from them",
            stacklevel=3,
        )


class Bearer:
    """ASGI middleware: who has no key is answered 401, but where everybody may go.

    Methods are not looked at: a bare OPTIONS takes a key as any other.

    Args:
      app: what it guards.
      digests: of `read_keys`; without any, everybody may go everywhere.
      open_paths: that take no key, as they stand in a request's path.
    """

    def __init__(self, app: App, digests: Sequence[bytes], open_paths: Collection[str] = LIVENESS):
        self._app, self._digests, self._open = app, tuple(digests), frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] == "lifespan" or not self._digests:
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["path"] in self._open or self._knows(header_of(scope, b"authorization")):
            await self._app(scope, receive, send)
        else:
            message = "no such API key; send a header Authorization: Bearer KEY with one of this server's"
            await send_error(send, 401, message, "invalid_api_key", {"www-authenticate": "Bearer"})

    def _knows(self, header: bytes | None) -> bool:
        """Whether the header has one of the keys; it takes as long whichever, and if none."""
        scheme, _, key = (header or b"").partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        known = [hmac.compare_digest(digest, own) for own in self._digests]
        return any(known) and scheme.lower() == b"bearer"
