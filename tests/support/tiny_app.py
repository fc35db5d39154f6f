"""A server without a model: an engine that writes nothing until it is told to, an app of three routes, and
what asks an app without a server."""

import asyncio
import http.client
import json
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from sia_jax.serve.asgi import App, Message, Receive, Scope, Send
from sia_jax.serve.lifecycle import Server, open_socket
from sia_jax.serve.limits import Admission
from sia_jax.serve.metrics import Metrics
from sia_jax.serve.settings import Settings, State
from tests.support.waiting import wait_until


class StubEngine:
    """Replies end when they are told to, or cancelled."""

    rows = 4

    def __init__(self) -> None:
        self.warm, self.release = threading.Event(), threading.Event()
        self.warm.set()
        self.failure: BaseException | None = None
        self.cancelled = self.closed = False
        self.warm_error: BaseException | None = None
        self.now = SimpleNamespace(
            **dict.fromkeys(("in_rows", "waiting", "prompt_tokens", "reused_tokens", "windows"), 0),
            **dict.fromkeys(("policy_steps", "value_calls", "admissions"), 0),
            seconds={"device": 0.0, "idle": 0.0},
        )

    def warmup(self, *, scoring: bool) -> None:
        self.warm.wait(30)
        if self.warm_error is not None:
            raise self.warm_error

    def cancel_all(self) -> None:
        self.cancelled = True

    def close(self) -> None:
        self.closed = True

    def statistics(self) -> Any:
        return self.now

    async def reply(self) -> str:
        while not (self.release.is_set() or self.cancelled):
            await asyncio.sleep(0.01)
        return "abort" if self.cancelled else "stop"


@dataclass
class TinyService:
    """What the routes share."""

    settings: Settings = field(default_factory=Settings)
    engine: StubEngine = field(default_factory=StubEngine)
    state: State = State.STARTING

    def __post_init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry(), "tiny")
        self.admission = Admission(self.settings)


def tiny_app(service: TinyService) -> App:
    """/health, /running; /v1/whole, which ends as the engine says; /v1/stream, more than a socket holds."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/health":
            ready = service.state == State.READY
            await _send(send, 200 if ready else 503, {"status": service.state.value})
        elif path == "/running":
            await _send(send, 200, service.admission.requests)
        elif path in ("/v1/whole", "/v1/stream"):
            scope["route"] = SimpleNamespace(path=path)
            with service.admission.enter(1, 1):
                if path == "/v1/whole":
                    await _send(send, 200, {"finish_reason": await service.engine.reply()})
                    return
                await send({"type": "http.response.start", "status": 200, "headers": []})
                for _ in range(2000):  # more than the buffers between two sockets
                    await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await _send(send, 404, {})

    return app


async def _send(send: Send, status: int, body: Any) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


@dataclass(frozen=True)
class Answer:
    """What an app said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """Of a body in OpenAI's shape."""
        (found,) = json.loads(self.body).values()
        assert set(found) == {"message", "type", "param", "code"}
        return dict(found)


def ask(
    app: App,
    path: str = "/v1/whole",
    method: str = "POST",
    headers: Iterable[tuple[str, str]] = (),
    chunks: Sequence[bytes] | None = None,
    pause: float = 0.0,
) -> Answer | None:
    """An app's answer to a request; None: it gave none.

    Args:
      app: any.
      path: of the request.
      method: likewise.
      headers: likewise.
      chunks: of a body whose length is not told; None: no body.
      pause: seconds before each of them.
    """
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    if chunks is not None and b"content-length" not in dict(raw):
        raw.append((b"transfer-encoding", b"chunked"))
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": raw}
    said: list[Message] = []

    async def messages() -> AsyncIterator[Message]:
        for k, chunk in enumerate(chunks or ()):
            await asyncio.sleep(pause)
            more = k + 1 < len(chunks or ())
            yield {"type": "http.request", "body": chunk, "more_body": more}

    coming = messages()

    async def receive() -> Message:
        return await anext(coming, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        said.append(message)

    async def run() -> None:
        await app(scope, receive, send)

    asyncio.run(run())
    if not said:
        return None
    body = b"".join(message.get("body", b"") for message in said[1:])
    found = {name.decode(): value.decode() for name, value in said[0]["headers"]}
    return Answer(said[0]["status"], found, body)


def fetched(port: int, path: str, method: str = "GET") -> tuple[int, Any]:
    """Status and JSON of an answer of a server, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


class Running:
    """A server in a thread of its own."""

    def __init__(self, server: Server, port: int, thread: threading.Thread, said: list[str]):
        self.server, self.port, self.thread, self.said = server, port, thread, said

    def get(self, path: str, method: str = "GET") -> tuple[int, Any]:
        """See `fetched`."""
        return fetched(self.port, path, method)

    def ended(self, seconds: float = 20.0) -> bool:
        """Whether the server has ended within so long."""
        self.thread.join(seconds)
        return not self.thread.is_alive()


@contextmanager
def running(service: TinyService, app: App | None = None, port: int = 0) -> Iterator[Running]:
    """A server of the app on a port, 0: a free one; it is ended whatever happens."""
    listening, said = open_socket("127.0.0.1", port), list[str]()
    port = listening.getsockname()[1]
    server = Server(app or tiny_app(service), service, said.append)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Running(server, port, thread, said)
    finally:
        service.engine.warm.set()
        server.end()
        server.end()
        thread.join(20)
        listening.close()
        assert not thread.is_alive()


def with_settings(**changes: Any) -> Settings:
    """The default ones, changed."""
    return replace(Settings(), **changes)
