"""A line for every request, with an id, counted by its route; nothing foreign commands a log."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from fastapi import FastAPI, Request

from sia_jax.serve.access_log import line_of, writer
from sia_jax.serve.asgi import App, Receive, Scope, Send
from sia_jax.serve.guards import guarded
from sia_jax.serve.observing import Observed, note, request_id
from sia_jax.serve.settings import State
from tests.serve.test_metrics import samples
from tests.support.tiny_app import Answer, TinyService, ask, tiny_app, with_settings


class Log(list[Mapping[str, Any]]):
    """What was written."""

    def __call__(self, facts: Mapping[str, Any]) -> None:
        self.append(dict(facts))


def observed(app: App, **changes: Any) -> tuple[App, TinyService, Log]:
    service, log = TinyService(with_settings(**changes)), Log()
    ticks = iter(range(1000))
    return Observed(app, service.metrics, service.settings, log, lambda: next(ticks)), service, log


async def telling(scope: Scope, receive: Receive, send: Send) -> None:
    note(scope, model="tiny-sia", tokens=12, steered=3, prompt="a secret")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": request_id(scope).encode()})


def test_a_line_has_what_the_request_was_and_what_its_route_tells() -> None:
    app, _, log = observed(telling)
    answer = ask(app, headers=[("X-Request-Id", "mine-1")])
    assert answer is not None
    assert (answer.headers, answer.body) == ({"a": "b", "x-request-id": "mine-1"}, b"mine-1")
    assert log == [
        {
            **{"method": "POST", "route": "/v1/whole", "status": 200, "seconds": 1, "whole": None},
            **{"model": "tiny-sia", "tokens": 12, "steered": 3, "prompt": None, "id": "mine-1"},
        }
    ]


@pytest.mark.parametrize("log_prompts", [True, False])
def test_a_prompt_is_written_only_if_it_is_asked_for(log_prompts: bool) -> None:
    app, _, log = observed(telling, log_prompts=log_prompts)
    ask(app)
    assert ("a secret" in str(log)) is log_prompts


@pytest.mark.parametrize("sent", ["", "a b", "a\nb", "é", "a" * 65, "a/b", "../x", None])
def test_an_id_that_is_not_sane_is_replaced(sent: str | None) -> None:
    app, _, log = observed(telling)
    answer = ask(app, headers=[] if sent is None else [("X-Request-Id", sent)])
    assert answer is not None
    own = answer.headers["x-request-id"]
    assert len(own) == 32
    assert int(own, 16) >= 0
    assert log[0]["id"] == own == answer.body.decode()


@pytest.mark.parametrize("sent", ["a", "A-Za-z0-9_-", "a" * 64])
def test_a_sane_id_is_kept(sent: str) -> None:
    app, _, _ = observed(telling)
    assert ask(app, headers=[("X-Request-Id", sent)]).headers["x-request-id"] == sent  # type: ignore[union-attr]


def test_two_ids_are_none() -> None:
    app, _, log = observed(telling)
    ask(app, headers=[("X-Request-Id", "a"), ("X-Request-Id", "b")])
    assert log[0]["id"] not in ("a", "b")


def test_a_route_can_tell_no_other_facts() -> None:
    with pytest.raises(TypeError, match="the log knows"):
        note({}, password="x")


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError


async def leaving(scope: Scope, receive: Receive, send: Send) -> None:
    """Its client has left before an answer began."""


async def cut(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})


@pytest.mark.parametrize(
    ("app", "status", "whole"), [(failing, 500, False), (leaving, 499, False), (cut, 200, False)]
)
def test_requests_that_come_to_no_end_have_a_line_too(app: App, status: int, whole: bool) -> None:
    own, service, log = observed(app)
    try:
        ask(own)
    except ZeroDivisionError:
        assert app is failing
    assert (log[0]["status"], log[0]["whole"]) == (status, whole)
    name = f"http_requests_total{{handler=other,method=POST,status={status}}}"
    assert samples(service.metrics)[name] == 1


def test_requests_of_a_real_app_are_counted_by_the_template_of_their_route() -> None:
    api = FastAPI()

    @api.get("/items/{item}")
    async def item(item: str, request: Request) -> str:
        note(request.scope, model=item)
        return item

    app, service, log = observed(api)
    for path in ("/items/a", "/items/b", "/nothing/c", "/nothing/d"):
        ask(app, path, "GET")
    found = samples(service.metrics)
    assert found["http_requests_total{handler=/items/{item},method=GET,status=200}"] == 2
    assert found["http_requests_total{handler=other,method=GET,status=404}"] == 2
    assert [line["model"] for line in log] == ["a", "b", None, None]
    assert [line["route"] for line in log] == [*["/items/{item}"] * 2, "/nothing/c", "/nothing/d"]


HOSTILE = 'a\x1b]0;owned\x07\u202e"=\n{"status": 200}' + "x" * 1000
FACTS = {"method": "GET", "route": HOSTILE, "status": 404, "seconds": 0.1234567, "model": None, "id": "i"}


def test_a_line_is_one_line_without_anything_that_commands_a_terminal() -> None:
    for form in ("plain", "json"):
        line = line_of(FACTS, form)  # type: ignore[arg-type]
        assert line.isprintable()
        assert not set("\x1b\x07\u202e\n") & set(line)
        assert len(line) < 400
    assert json.loads(line_of(FACTS, "json")).keys() == FACTS.keys() - {"model"}
    assert json.loads(line_of(FACTS, "json"))["seconds"] == 0.123457


def test_a_plain_line_reads_as_words() -> None:
    facts = FACTS | {"route": "/v1/completions", "model": "two words", "status": 200}
    assert line_of(facts, "plain") == 'GET /v1/completions 200 seconds=0.123457 model="two words" id=i'


def test_lines_begin_with_the_time_and_off_writes_none() -> None:
    for form, begin in (
        ("plain", "2026-01-02T03:04:05.250Z GET "),
        ("json", '{"time": "2026-01-02T03:04:05.250Z"'),
    ):
        said: list[str] = []
        writer(form, said.append, lambda: 1767323045.25)(FACTS)  # type: ignore[arg-type]
        assert len(said) == 1
        assert said[0].startswith(begin)
        assert said[0].endswith("\n")
    said = []
    writer("off", said.append)(FACTS)
    assert said == []


def test_whoever_is_refused_is_noted_and_nothing_behind_a_guard_is_asked() -> None:
    service, log = TinyService(with_settings(max_body_bytes=4)), Log()
    digest = hashlib.sha256(b"sesame-open-1").digest()
    app, key = guarded(tiny_app(service), service, (digest,), log), ("Authorization", "Bearer sesame-open-1")
    service.engine.release.set()

    def status(path: str = "/v1/whole", **more: Any) -> int:
        found: Answer | None = ask(app, path, **more)
        assert found is not None
        return found.status

    assert status() == 401  # before anything is told of the server's state, and before a body is read
    assert status(headers=[("content-length", "99")]) == 401
    assert status("/health", method="GET") == 503
    assert status(headers=[key, ("content-length", "99")]) == 503  # nor is a body read while it starts
    service.state = State.READY
    assert status(headers=[key, ("content-length", "99")]) == 413
    assert status(headers=[key], chunks=[b"1234"]) == 200
    assert status("/", method="GET") == 404  # the page, of which this app has none
    assert [line["status"] for line in log] == [401, 401, 503, 503, 413, 200, 404]
    assert service.admission.requests == 0


def test_a_page_that_is_not_open_takes_a_key() -> None:
    service = TinyService(with_settings(page_open=False))
    app = guarded(tiny_app(service), service, (b"x" * 32,), Log())
    assert ask(app, "/", "GET").status == 401  # type: ignore[union-attr]
    assert ask(app, "/health", "GET").status == 503  # type: ignore[union-attr]


def test_a_request_whose_body_comes_while_the_drain_begins_is_refused_after_it() -> None:
    service = TinyService(state=State.READY)
    app = guarded(tiny_app(service), service, (), Log())
    said: list[Any] = []

    async def receive() -> Any:
        service.state = State.DRAINING
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/whole", "headers": [(b"content-length", b"2")]}
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    assert said[0]["status"] == 503
