"""A server of the OpenAI API over a stub engine, in a thread, on a free port of this machine."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import uvicorn
from prometheus_client import CollectorRegistry

from sia_jax.serve.app import create_app
from sia_jax.serve.guards import guarded
from sia_jax.serve.keys import read_keys
from sia_jax.serve.limits import Admission
from sia_jax.serve.metrics import Metrics
from sia_jax.serve.presets import default_presets
from sia_jax.serve.service import Service
from sia_jax.serve.settings import Settings, State
from tests.support.engines import tokenizer
from tests.support.stub_engine import StubEngine
from tests.support.waiting import wait_until

SECONDS = 20.0
"""That anything in a test may take."""


class CountedMetrics(Metrics):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry(), "tiny")
        self.pieces: list[tuple[int, bool]] = []
        self.ended: list[str] = []
        self.arrivals: list[tuple[int, int | None]] = []
        self.left = 0
        self.refusals: list[int] = []

    def arrived(self, params_n: int, max_tokens: int | None) -> None:
        """See `Metrics`."""
        self.arrivals.append((params_n, max_tokens))

    def piece(self, timing_s: float, tokens: int, first: bool) -> None:
        """See `Metrics`."""
        assert timing_s >= 0
        self.pieces.append((tokens, first))

    def finished(self, reply: Any, reason: str) -> None:
        """See `Metrics`."""
        self.ended.append(reason)

    def refused(self, status: int) -> None:
        """See `Metrics`."""
        self.refusals.append(status)

    def disconnected(self) -> None:
        """See `Metrics`."""
        self.left += 1


@dataclass
class Served:
    """A running server."""

    url: str
    engine: StubEngine
    service: Service
    metrics: CountedMetrics
    http: httpx.Client
    """Without a word of its own."""
    clients: list[openai.OpenAI] = field(default_factory=list)

    def client(self, *, strict: bool = True) -> openai.OpenAI:
        """The official client, which refuses answers of another shape."""
        found = openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key="none",
            max_retries=0,
            timeout=SECONDS,
            _strict_response_validation=strict,
        )
        self.clients.append(found)
        return found

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """Whatever is to be posted, as it is."""
        return self.http.post(path, json=body, **options)

    def get(self, path: str) -> httpx.Response:
        """An answer."""
        return self.http.get(path)


@contextmanager
def served(
    engine: StubEngine | None = None, settings: Settings | None = None, *, key: str = "", **options: Any
) -> Iterator[Served]:
    """A server that is ready, and ended afterwards; with a key it has its guards too, who ask for it."""
    engine = engine or StubEngine(value=StubValue())
    settings = settings or Settings()
    metrics = CountedMetrics()
    service = Service(
        engine=engine,
        presets=default_presets("tiny", engine.terms) | options.pop("presets", {}),
        settings=settings,
        metrics=metrics,
        admission=Admission(settings),
        created=1_700_000_000,
        state=State.READY,
    )
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    app: Any = create_app(service, keyed=bool(key))
    if key:
        app = guarded(app, service, read_keys(None, key), lambda facts: None)
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=2, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        port = listening.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=SECONDS, verify=False, trust_env=False) as http:
            found = Served(url, engine, service, metrics, http)
            yield found
            for client in found.clients:
                client.close()
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        engine.close()
        listening.close()
        assert not thread.is_alive()


class StubValue:
    """A value model that has prompts of its own."""

    name = "value"

    def __init__(self) -> None:
        self.tokenizer = tokenizer()

    def prompt_ids(self, messages: Any) -> list[int]:
        """Not the policy's."""
        return [7, 8, 9]
