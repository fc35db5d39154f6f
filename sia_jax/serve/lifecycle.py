"""The life of a server: it listens, compiles, serves, drains, and ends.

STARTING -> READY -> DRAINING, or DEAD where the engine fails; see docs/serving.md.
"""

import asyncio
import contextlib
import gc
import ipaddress
import math
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple, Protocol

from sia_jax.extras import installed_with
from sia_jax.serve.asgi import App
from sia_jax.serve.limits import Admission, ConnectionLimit
from sia_jax.serve.metrics import Metrics
from sia_jax.serve.settings import Settings, State

with installed_with("serve"):
    import uvicorn

_TICK = 0.05
"""Seconds between two looks at how things stand, while connections are being closed."""
_ABORTING = 2.0
"""Seconds that aborted replies have to be sent; then their connections are cut."""
_CUT = 1.0
"""Seconds until whoever was cut off has noticed."""
_BACKLOG = 1024


class Engine(Protocol):
    """What of an engine its server's life takes."""

    @property
    def failure(self) -> BaseException | None:
        """Why it failed; None: it has not."""

    def warmup(self, *, scoring: bool) -> None:
        """Compile all that requests and echoes need."""

    def cancel_all(self) -> None:
        """End all replies as they are."""

    def close(self) -> None:
        """End."""


class Served(Protocol):
    """What of a service its life takes."""

    @property
    def engine(self) -> Engine:
        """What replies."""

    settings: Settings
    metrics: Metrics
    admission: Admission
    state: State


class Ended(NamedTuple):
    """How a server ended."""

    status: int
    """Of the process: 0 where it was told to end, 1 where the engine failed."""
    why: str | None
    """What failed."""
    compiling: bool
    """The engine still compiles: whoever waits for its threads waits for that."""


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a host: "localhost", 127.0.0.1, ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_socket(host: str, port: int) -> socket.socket:
    """A socket at an address, on which nothing listens yet: so it is known to be free before models load.

    Args:
      host: a name or an address.
      port: 0: any free one.

    Raises:
      OSError: the address is taken, or is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(f"--host {host}: {error.strerror or error}; give an address of this machine") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        # Two that may be reused share an address until one listens, which is after its models are loaded.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        found.close()
        raise OSError(
            f"{host}, port {port}: {error.strerror}; give another --port, or 0 for any free one"
        ) from error
    return found


def url_of(listening: socket.socket) -> str:
    """Where a socket is reached: "http://127.0.0.1:8000"."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: App, served: Served, listening: socket.socket, say: Callable[[str], None]) -> Ended:
    """Serve until a signal ends it, or the engine fails; then close the engine.

    SIGTERM or Ctrl-C once: new requests are refused, those that run end within `drain_seconds`, and the rest
    as they are, with the reason abort. Twice, or with `drain_seconds` 0: all end as they are, at once.

    Args:
      app: guarded.
      served: STARTING; its state is kept.
      listening: from `open_socket`; it is closed.
      say: told what happens, a line each.
    """
    server = Server(app, served, say)
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()
        if not server.compiling:
            served.engine.close()
    return Ended(server.status, server.why, server.compiling)


class Server(uvicorn.Server):
    """uvicorn's server, which drains as told above. In the main thread it takes the signals.

    Args:
      app: guarded.
      served: STARTING; its state is kept.
      say: told what happens, a line each.
      clock: seconds.
    """

    def __init__(
        self,
        app: App,
        served: Served,
        say: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        options: dict[str, Any] = {
            "timeout_keep_alive": served.settings.keep_alive_seconds,
            "limit_concurrency": None,  # uvicorn's own answer would be a line of text
            "backlog": _BACKLOG,
            **{"http": "h11", "ws": "none", "loop": "asyncio", "lifespan": "off"},
            **{"log_config": None, "access_log": False, "server_header": False, "proxy_headers": False},
        }
        most, refused = served.settings.max_connections, served.metrics.refused
        limited = ConnectionLimit(app, lambda: len(self.server_state.connections), most, refused)
        super().__init__(uvicorn.Config(limited, **options))
        self.status = 0
        self.why: str | None = None
        self._served, self._say, self._clock = served, say, clock
        self._signals = 0
        self._warming = threading.Thread(target=self._warm_up, name="sia_jax warm-up", daemon=True)
        self._warm_error: BaseException | None = None
        self._drain_until = self._cut_at = self._dead_until = math.inf
        self._began = clock()

    @property
    def compiling(self) -> bool:
        """Whether the engine is still being warmed up."""
        return self._warming.is_alive()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn's: a signal came. It is only counted, and looked at by the loop."""
        self._signals += 1

    def end(self) -> None:
        """The same as SIGTERM; from any thread."""
        self.handle_exit(signal.SIGTERM, None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's: listen; from then on the engine is warmed up."""
        for one in sockets or ():  # listening looks at the address again, and at old connections to it
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await super().startup(sockets)
        self._warming.start()

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's, ten times a second: whether the time has come to close."""
        closing = await super().on_tick(counter)
        return self._live() if not self._signals else self._drain() or closing

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's: close all connections, once what they are at has ended; the drain goes on until then."""
        left = max(self._drain_until - self._clock(), 0.0) if self._signals else 0.0
        self.config.timeout_graceful_shutdown = math.ceil(left + _ABORTING + _CUT)
        draining = asyncio.create_task(self._go_on_draining())
        try:
            await super().shutdown(sockets)
        finally:
            gc.unfreeze()
            draining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await draining

    def _warm_up(self) -> None:
        try:
            self._served.engine.warmup(scoring=True)
            # What there is now lives as long as the server. Looking through it for garbage stops all replies,
            # for a third of a second each time.
            gc.collect()
            gc.freeze()
        except BaseException as error:
            self._warm_error = error

    def _live(self) -> bool:
        """Keep the state; whether the server is to end."""
        served, now = self._served, self._clock()
        if served.state == State.STARTING and not self._warming.is_alive():
            if self._warm_error is None:
                served.state = State.READY
                self._say(f"ready after {now - self._began:.1f} s")
            else:
                self._die(self._warm_error)
                return True
        failure = served.engine.failure
        if failure is not None and self.status == 0:
            self._die(failure)
            self._dead_until = now + served.settings.dead_seconds
        return now >= self._dead_until

    def _die(self, failure: BaseException) -> None:
        self._served.state = State.DEAD
        self.status, self.why = 1, f"the engine has failed: {failure}"
        self._say(self.why)

    def _drain(self) -> bool:
        """End what runs, in time; whether nothing runs any more."""
        served, now = self._served, self._clock()
        running = served.admission.requests
        if self._drain_until == math.inf:
            served.state = State.DRAINING
            self._drain_until = now + served.settings.drain_seconds
            if running and self._signals == 1 and served.settings.drain_seconds:
                self._say(
                    f"draining: {running} replies have {served.settings.drain_seconds:g} s; a second SIGTERM "
                    "or Ctrl-C ends them"
                )
        if now >= self._drain_until or self._signals > 1:
            if self._cut_at == math.inf:
                self._cut_at = now + _ABORTING
                if running:
                    self._say(f"ending {running} replies as they are")
            served.engine.cancel_all()  # again each time: one may have been on its way
            if now >= self._cut_at:
                for connection in list(self.server_state.connections):
                    transport = getattr(connection, "transport", None)
                    if transport is not None:
                        transport.abort()
                return True
        return running == 0

    async def _go_on_draining(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            if not self._signals:  # the engine is dead: what waits for it is told so by itself
                continue
            self._drain()
