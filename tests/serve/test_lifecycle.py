"""A server starts when its engine is warm, drains when it is told to end, and leaves nothing behind."""

import gc
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from sia_jax.serve.lifecycle import is_loopback, open_socket, serve, url_of
from sia_jax.serve.settings import State
from tests.support.refusals import refused
from tests.support.tiny_app import Running, TinyService, fetched, running, tiny_app, with_settings
from tests.support.waiting import wait_until


def drained(service: TinyService, server: Running) -> None:
    """Tell it to end, and wait until it knows."""
    server.server.end()
    wait_until(lambda: service.state == State.DRAINING)


def test_it_listens_at_once_and_is_ready_only_when_the_engine_is_warm() -> None:
    service = TinyService()
    service.engine.warm.clear()
    with running(service) as server:
        assert server.get("/health") == (503, {"status": "starting"})
        service.engine.warm.set()
        wait_until(lambda: service.state == State.READY)
        assert server.get("/health") == (200, {"status": "ready"})
        assert server.said[0].startswith("ready after ")


def test_once_it_is_ready_what_it_has_is_not_looked_through_for_garbage() -> None:
    service = TinyService()
    with running(service) as server:
        wait_until(lambda: service.state == State.READY)
        assert gc.get_freeze_count() > 10_000
        service.engine.release.set()
        server.server.end()
        assert server.ended()
    assert gc.get_freeze_count() == 0


def test_what_runs_ends_and_what_is_new_is_answered_while_it_drains() -> None:
    service = TinyService()
    with running(service) as server, ThreadPoolExecutor() as pool:
        wait_until(lambda: service.state == State.READY)
        replies = [pool.submit(server.get, "/v1/whole", "POST") for _ in range(3)]
        wait_until(lambda: service.admission.requests == 3)
        drained(service, server)
        time.sleep(0.3)
        assert server.get("/health") == (503, {"status": "draining"})
        assert server.said[-1].startswith("draining: 3 replies have 30 s")
        service.engine.release.set()
        assert [one.result(20) for one in replies] == [(200, {"finish_reason": "stop"})] * 3
        assert server.ended()
        assert not service.engine.cancelled
        assert server.server.status == 0


def test_what_does_not_end_in_time_is_ended_and_answered() -> None:
    service = TinyService(with_settings(drain_seconds=0.5))
    with running(service) as server, ThreadPoolExecutor() as pool:
        wait_until(lambda: service.state == State.READY)
        reply = pool.submit(server.get, "/v1/whole", "POST")
        wait_until(lambda: service.admission.requests == 1)
        began = time.monotonic()
        drained(service, server)
        assert reply.result(20) == (200, {"finish_reason": "abort"})
        assert time.monotonic() - began > 0.4
        assert server.ended()


@pytest.mark.parametrize(("drain_seconds", "signals"), [(600.0, 2), (0.0, 1)])
def test_a_second_signal_or_no_time_to_drain_ends_all_at_once(drain_seconds: float, signals: int) -> None:
    service = TinyService(with_settings(drain_seconds=drain_seconds))
    with running(service) as server, ThreadPoolExecutor() as pool:
        wait_until(lambda: service.state == State.READY)
        reply = pool.submit(server.get, "/v1/whole", "POST")
        wait_until(lambda: service.admission.requests == 1)
        began = time.monotonic()
        for _ in range(signals):
            server.server.end()
        assert reply.result(20) == (200, {"finish_reason": "abort"})
        assert server.ended()
        assert time.monotonic() - began < 4


def test_without_requests_it_ends_at_once_however_long_it_might_drain() -> None:
    service = TinyService(with_settings(drain_seconds=600.0))
    with running(service) as server:
        wait_until(lambda: service.state == State.READY)
        idle = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        idle.request("GET", "/health")
        idle.getresponse().read()  # and the connection is kept
        began = time.monotonic()
        server.server.end()
        assert server.ended()
        assert time.monotonic() - began < 10
        idle.close()


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    service = TinyService(with_settings(drain_seconds=0.2))
    with running(service) as server, socket.create_connection(("127.0.0.1", server.port)) as slow:
        wait_until(lambda: service.state == State.READY)
        slow.sendall(b"POST /v1/stream HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: service.admission.requests == 1)
        began = time.monotonic()
        server.server.end()
        assert server.ended()
        assert time.monotonic() - began < 10
        assert service.admission.requests == 0


def test_an_engine_that_cannot_be_warmed_up_ends_the_server() -> None:
    service = TinyService()
    service.engine.warm_error = MemoryError("no room")
    with running(service) as server:
        assert server.ended()
        assert (server.server.status, server.server.why) == (1, "the engine has failed: no room")
        assert service.state == State.DEAD


def test_an_engine_that_fails_is_told_of_for_a_while_and_then_the_server_ends() -> None:
    service = TinyService(with_settings(dead_seconds=1.0))
    with running(service) as server:
        wait_until(lambda: service.state == State.READY)
        service.engine.failure = RuntimeError("of the device")
        wait_until(lambda: service.state == State.DEAD)
        assert server.get("/health") == (503, {"status": "dead"})
        assert not server.ended(0.3)
        assert server.ended()
        assert (server.server.status, server.server.why) == (1, "the engine has failed: of the device")
        assert server.said[-1] == "the engine has failed: of the device"


def test_nothing_is_left_of_a_server_that_has_ended() -> None:
    before, service = set(threading.enumerate()), TinyService(with_settings(dead_seconds=0.0))
    listening = open_socket("127.0.0.1", 0)
    port = listening.getsockname()[1]

    def fail(line: str) -> None:
        service.engine.failure = RuntimeError("of the device")

    assert serve(tiny_app(service), service, listening, fail) == (
        *(1, "the engine has failed: of the device", False),
    )
    assert service.engine.closed
    assert set(threading.enumerate()) <= before
    assert listening.fileno() == -1
    open_socket("127.0.0.1", port).close()


@pytest.mark.parametrize("listens", [False, True], ids=["loading", "listening"])
def test_an_address_that_is_taken_is_refused_with_the_remedy(listens: bool) -> None:
    with open_socket("127.0.0.1", 0) as taken:
        if listens:
            taken.listen()
        port = taken.getsockname()[1]
        assert url_of(taken) == f"http://127.0.0.1:{port}"
        with refused(OSError, f"127.0.0.1, port {port}: Address already in use", "give another --port, or 0"):
            open_socket("127.0.0.1", port)
    with refused(OSError, "--host no.such.host.invalid", "give an address of this machine"):
        open_socket("no.such.host.invalid", 0)


def test_a_server_starts_again_where_connections_of_the_last_one_still_wait() -> None:
    port = 0
    for _ in range(3):
        service = TinyService()
        with running(service, port=port) as server:
            port = server.port
            wait_until(lambda service=service: service.state == State.READY)
            kept = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            kept.request("GET", "/health")
            assert kept.getresponse().read()
            server.server.end()  # it closes the connection, whose end then stays with it for a minute
            assert server.ended()
            kept.close()


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "localhost", "::1")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "", "localhost.evil.org")),
    ],
)
def test_a_host_is_a_loopback_only_if_nobody_else_reaches_it(host: str, is_one: bool) -> None:
    assert is_loopback(host) is is_one


PROGRAM = """
import sys
from sia_jax.serve.lifecycle import open_socket, serve
from tests.support.tiny_app import TinyService, tiny_app, with_settings

service = TinyService(with_settings(drain_seconds=float(sys.argv[1])))
if sys.argv[2] == "cold":
    service.engine.warm.clear()
listening = open_socket("127.0.0.1", 0)
print(listening.getsockname()[1], flush=True)
ended = serve(tiny_app(service), service, listening, lambda line: print(line, flush=True))
print(ended, flush=True)
sys.exit(ended.status)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("warmth", ["warm", "cold"])
def test_a_process_that_is_told_to_end_ends_with_status_0(number: int, warmth: str) -> None:
    with _process("30", warmth) as process:
        port = int(_line(process))
        if warmth == "warm":
            assert _line(process).startswith("ready")
        else:
            wait_until(lambda: _answers(port))
        process.send_signal(number)
        assert process.wait(10) == 0
        assert _line(process) == f"Ended(status=0, why=None, compiling={warmth == 'cold'})"


def test_under_load_requests_end_and_the_process_with_status_0() -> None:
    with _process("0.5", "warm") as process, ThreadPoolExecutor(8) as pool:
        port = int(_line(process))
        assert _line(process).startswith("ready")
        replies = [pool.submit(fetched, port, "/v1/whole", "POST") for _ in range(8)]
        wait_until(lambda: fetched(port, "/running") == (200, 8))
        process.send_signal(signal.SIGTERM)
        assert [one.result(20) for one in replies] == [(200, {"finish_reason": "abort"})] * 8
        assert process.wait(10) == 0


@contextmanager
def _process(*words: str) -> Iterator["subprocess.Popen[str]"]:
    """One that is killed if it has not ended."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
