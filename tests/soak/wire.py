"""HTTP by hand: what a client costs is the server's, on a machine of two cores."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SECONDS = 120.0
"""That an answer may take."""


class GoneError(Exception):
    """The connection ended before an answer was whole."""


@dataclass(frozen=True)
class Answer:
    """An answer of HTTP, whole."""

    status: int
    headers: Mapping[str, str]
    """By their names in small letters."""
    body: bytes

    @property
    def json(self) -> Any:
        """Of the body."""
        return json.loads(self.body)

    @property
    def chunks(self) -> list[Any]:
        """Of a stream, which ends as streams do."""
        frames = self.body.decode().split("\n\n")
        assert frames[-2:] == ["data: [DONE]", ""], frames[-2:]
        assert all(one.startswith("data: ") for one in frames[:-1])
        return [json.loads(one.removeprefix("data: ")) for one in frames[:-2]]


def request(
    method: str, path: str, headers: Mapping[str, str], body: bytes | None, *, chunked: bool = False
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{k}: {v}" for k, v in headers.items())]
    if body is not None:
        lines += ["Transfer-Encoding: chunked"] if chunked else [f"Content-Length: {len(body)}"]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    if body is None or not chunked:
        return head + (body or b"")
    parts = [body[i : i + 4096] for i in range(0, len(body), 4096)]
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def json_request(
    method: str, path: str, body: Any, headers: Mapping[str, str], *, chunked: bool = False
) -> bytes:
    """The bytes of a request whose body is JSON; bytes go as they are, and None is no body."""
    if body is None:
        return request(method, path, headers, None)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request(method, path, {"Content-Type": "application/json", **headers}, content, chunked=chunked)


class Connection:
    """One connection to the server; it is opened when it is needed, and again after it was closed."""

    def __init__(self, port: int):
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, sent: bytes, *, pause: float = 0.0) -> Answer:
        """Send a request and read its answer.

        Args:
          sent: all of it.
          pause: seconds before each part that is read, of which each is small.

        Raises:
          ConnectionRefusedError: nobody listens.
          GoneError: there is no whole answer.
        """
        try:
            async with asyncio.timeout(SECONDS):
                writer = await self.send(sent)
                answer = await self._read(pause)
        except ConnectionRefusedError:
            raise
        except (OSError, asyncio.IncompleteReadError) as error:
            await self.close()
            raise GoneError(f"no whole answer: {error!r}") from None
        if answer.headers.get("connection") == "close":
            await self.close()
        else:
            assert self._streams is not None
            assert writer is self._streams[1]
        return answer

    async def send(self, sent: bytes) -> asyncio.StreamWriter:
        """Send bytes; of one that waits for no answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        writer = self._streams[1]
        writer.write(sent)
        await writer.drain()
        return writer

    async def first_bytes(self) -> bytes:
        """Something of an answer; b"": the server closed."""
        assert self._streams is not None
        async with asyncio.timeout(SECONDS):
            return await self._streams[0].read(256)

    async def close(self) -> None:
        """Leave, whatever is under way."""
        if self._streams is not None:
            writer, self._streams = self._streams[1], None
            writer.close()
            with contextlib.suppress(OSError):  # it may have been cut off already
                await writer.wait_closed()

    async def _read(self, pause: float) -> Answer:
        assert self._streams is not None
        reader = self._streams[0]
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in head[1:-2]:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"two headers {name}"
            headers[name.lower()] = value
        status = int(head[0].split(" ")[1])
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await asyncio.sleep(pause)
                parts.append(await reader.readexactly(size))
                await reader.readexactly(2)
            await reader.readexactly(2)
            return Answer(status, headers, b"".join(parts))
        return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
