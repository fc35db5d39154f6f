"""Clients of all kinds: who asks, who asks wrongly, who has no key, who reads slowly, who leaves."""

import asyncio
import json
import random
import time
from collections import Counter
from typing import Any

import pytest

from tests.soak.answers import Shape, check_answer, check_refusal
from tests.soak.ledger import Ledger
from tests.soak.recipes import BASE, CHAT, COMPLETIONS, Book, Recipe
from tests.soak.server import ServerProcess
from tests.soak.wire import Answer, Connection, GoneError, json_request

KEY = "a-key-of-the-soak"
ROWS, MAX_LENGTH, TOP = 8, 64, 3
MOST_BYTES, MOST_REPLIES, MOST_N, MOST_TOKENS = 16_384, 32, 16, 120
LIMITS = {
    "max-body-bytes": MOST_BYTES,
    "max-queued-requests": MOST_REPLIES,
    "max-queued-tokens": MOST_TOKENS,
    "max-n": MOST_N,
}
MOST = MOST_REPLIES, MOST_TOKENS
CLIENTS = 24
"""Connections at a time."""
_AGAIN = 0.02
"""Seconds that a client waits who was told that there is no room."""
_FREE = 5.0
"""Seconds until who has ended has left its place."""
_WRONG: tuple[tuple[str, Any, int, str | None], ...] = (
    ("temperature", -1, 400, None),
    ("temperature", "hot", 400, None),
    ("max_tokens", 64, 400, None),
    ("n", 0, 400, None),
    ("n", MOST_N + 1, 400, None),
    ("model", "gpt-4", 404, "model_not_found"),
    ("tools", [{"type": "function"}], 400, "unsupported_parameter"),
    ("unheard_of", 1, 400, None),
    ("sia", {"bound": 1.0}, 400, None),
    ("logit_bias", {"9999": 1}, 400, None),
    ("stop", [""], 400, None),
    ("min_tokens", 60, 400, None),
    ("stream_options", {"include_usage": True}, 400, None),
)
"""Fields that make a good body a bad one; the status; the code."""
_BROKEN = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"model": NaN}',
    b'{"model": "a", "model": "b"}',
    b"\xff\xfe\x00",
    b'"\\ud83d"',
    b"[" * 300,
)
_PROBES = ("/health", "/metrics", "/v1/models", "/version", "/load")


class Load:
    """Asks a server, so many times, and holds what comes to what is right.

    Args:
      server: ready.
      book: what can be asked, with what is right.
      seed: of all choices.
    """

    def __init__(self, server: ServerProcess, book: Book, seed: int):
        self._server, self._book = server, book
        self._rng = random.Random(seed)
        self._ids: set[str] = set()
        self.asked = 0
        """Requests that were made."""
        self.ledger = Ledger()
        self.kinds: Counter[str] = Counter()
        """How many of each kind there were, and of refusals for want of room."""

    async def round(self, count: int, *, leaving: bool) -> None:
        """So many requests, by as many clients as there are.

        Args:
          count: of requests.
          leaving: whether some leave before their answer is whole.

        Raises:
          AssertionError: an answer that is not right.
        """
        self.ledger = Ledger()
        places = iter(range(count))
        async with asyncio.TaskGroup() as group:
            for _ in range(min(CLIENTS, count)):
                group.create_task(self._client(places, leaving=leaving))

    async def fill(self) -> None:
        """Ask for all that there is room for, which is given only to who is alone: nobody's place is lost.

        Raises:
          AssertionError: it is not given.
        """
        connection, recipe = Connection(self._server.port), self._book.fullest
        late = time.monotonic() + _FREE
        try:
            while True:
                answer = await self._answer(connection, recipe.route, "POST", recipe.route, recipe.body)
                if answer.status != 503:
                    check_answer(answer, recipe, Shape())
                    self.ledger.accepted(recipe)
                    return
                assert time.monotonic() < late, f"nothing runs, and there is no room: {answer.body!r}"
                self.ledger.refused(503)
                await asyncio.sleep(_AGAIN)
        finally:
            await connection.close()

    async def _client(self, places: Any, *, leaving: bool) -> None:
        connection = Connection(self._server.port)
        acts = [
            *[(60, self._good), (3, self._slow), (8, self._bad), (2, self._broken), (2, self._large)],
            *[(4, self._stranger), (2, self._probe), (1, self._too_many), (1, self._lost), (2, self._after)],
            (3, self._scoring),
            *([(8, self._leaving), (4, self._half)] if leaving else []),
        ]
        weights, choices = [weight for weight, _ in acts], [act for _, act in acts]
        try:
            for _ in places:
                act = self._rng.choices(choices, weights)[0]
                self.kinds[act.__name__.strip("_")] += 1
                await act(connection)
        finally:
            await connection.close()

    def _sent(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = KEY,
        kind: str | None = None,
        chunked: bool = False,
    ) -> tuple[bytes, str]:
        """The bytes of a request, and its id."""
        self.asked += 1
        own = f"soak-{self.asked}"
        headers = {"X-Request-Id": own} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        headers |= {} if kind is None else {"Content-Type": kind}
        return json_request(method, path, body, headers, chunked=chunked), own

    async def _answer(
        self, connection: Connection, handler: str, method: str, path: str, body: Any = None, **how: Any
    ) -> Answer:
        """The answer to a request, which is its own."""
        pause = how.pop("pause", 0.0)
        sent, own = self._sent(method, path, body, **how)
        answer = await connection.ask(sent, pause=pause)
        assert answer.headers["x-request-id"] == own, "the answer of another"
        self.ledger.answered(method, handler, answer.status)
        return answer

    def _shaped(self, *, stream: bool | None = None) -> tuple[Recipe, Shape, dict[str, Any]]:
        rng = self._rng
        recipe = rng.choice(self._book.recipes)
        shape = Shape(
            stream=rng.random() < 0.5 if stream is None else stream,
            usage=rng.random() < 0.5,
            logprobs=rng.choice([None, None, 0, 1, TOP]),
            ids=rng.random() < 0.3,
        )
        return recipe, shape, recipe.body | shape.fields(recipe.route)

    async def _good(self, connection: Connection, *, slow: bool = False) -> None:
        recipe, shape, body = self._shaped(stream=True if slow else None)
        pause = 0.02 if slow else 0.0
        answer = await self._answer(connection, recipe.route, "POST", recipe.route, body, pause=pause)
        if answer.status == 503:
            await self._refused(answer)
            return
        own = check_answer(answer, recipe, shape)
        assert own not in self._ids, "an answer twice"
        self._ids.add(own)
        self.ledger.accepted(recipe)

    async def _scoring(self, connection: Connection) -> None:
        """As lm-eval asks."""
        own = self._rng.choice(self._book.scorings)
        body = {"model": BASE, "prompt": own.ids, "max_tokens": 0, "echo": True, "logprobs": 0}
        answer = await self._answer(connection, COMPLETIONS, "POST", COMPLETIONS, body)
        if answer.status == 503:
            await self._refused(answer)
            return
        assert answer.status == 200, answer.body
        (choice,) = answer.json["choices"]
        first, *rest = choice["logprobs"]["token_logprobs"]
        assert first is None
        assert rest == pytest.approx(own.logprobs, abs=1e-4)
        assert answer.json["usage"]["total_tokens"] == len(own.ids)

    async def _slow(self, connection: Connection) -> None:
        await self._good(connection, slow=True)

    async def _after(self, connection: Connection) -> None:
        """It leaves with its whole answer."""
        await self._good(connection)
        await connection.close()

    async def _refused(self, answer: Answer) -> None:
        check_refusal(answer, 503, "overloaded")
        self.ledger.refused(503)
        self.kinds["no room for replies" if b"replies are" in answer.body else "no room for prompts"] += 1
        await asyncio.sleep(_AGAIN)

    async def _bad(self, connection: Connection) -> None:
        recipe, _, body = self._shaped(stream=False)
        name, value, status, code = self._rng.choice(_WRONG)
        answer = await self._answer(connection, recipe.route, "POST", recipe.route, body | {name: value})
        check_refusal(answer, status, code)
        assert name in json.dumps(answer.json), answer.body

    async def _broken(self, connection: Connection) -> None:
        route = self._rng.choice((COMPLETIONS, CHAT))
        kind = self._rng.choice((None, None, "text/plain"))
        body = self._rng.choice(_BROKEN)
        answer = await self._answer(connection, route, "POST", route, body, kind=kind)
        check_refusal(answer, 400)

    async def _large(self, connection: Connection) -> None:
        """Twice the limit is read and dropped, ten times is not: the connection may break first."""
        rng = self._rng
        often = rng.choice((2, 10))
        body = b" " * (often * MOST_BYTES)
        how = {"chunked": rng.random() < 0.5}
        sent, own = self._sent("POST", COMPLETIONS, body, **how)
        try:
            answer = await connection.ask(sent)
        except GoneError:
            assert often == 10
            self.kinds["large: cut off"] += 1
        else:
            assert answer.headers["x-request-id"] == own
            check_refusal(answer, 413, "body_too_large")
        self.ledger.answered("POST", "other", 413)

    async def _stranger(self, connection: Connection) -> None:
        key = self._rng.choice((None, "another-key", KEY[:-1], KEY + "x", ""))
        path = self._rng.choice((COMPLETIONS, CHAT, "/metrics", "/v1/models"))
        method = "GET" if path in ("/metrics", "/v1/models") else "POST"
        body = None if method == "GET" else {"model": BASE, "prompt": "secret"}
        answer = await self._answer(connection, "other", method, path, body, key=key)
        check_refusal(answer, 401, "invalid_api_key")

    async def _probe(self, connection: Connection) -> None:
        path = self._rng.choice(_PROBES)
        key = None if path == "/health" and self._rng.random() < 0.5 else KEY
        answer = await self._answer(connection, path, "GET", path, key=key)
        assert answer.status == 200

    async def _too_many(self, connection: Connection) -> None:
        """More than there is room for, ever."""
        body = {"model": BASE, "prompt": [[1], [2], [3]], "n": MOST_N}
        answer = await self._answer(connection, COMPLETIONS, "POST", COMPLETIONS, body)
        check_refusal(answer, 400, "overloaded")
        self.ledger.refused(400)

    async def _lost(self, connection: Connection) -> None:
        method, path, status = self._rng.choice(
            (("GET", "/v1/nothing", 404), ("POST", "/v2/completions", 404), ("GET", "/admin", 404))
        )
        answer = await self._answer(connection, "other", method, path)
        check_refusal(answer, status)

    async def _half(self, _: Connection) -> None:
        """It leaves before its request is whole: within the head, which nobody counts, or within the body."""
        recipe, _shape, body = self._shaped()
        sent, _ = self._sent("POST", recipe.route, body)
        head = sent.index(b"\r\n\r\n") + 4
        within = self._rng.random() < 0.5
        cut = self._rng.randrange(head, len(sent)) if within else self._rng.randrange(1, head)
        connection = Connection(self._server.port)
        try:
            await connection.send(sent[:cut])
            await asyncio.sleep(self._rng.choice((0.0, 0.01)))
        finally:
            await connection.close()
        if within:
            self.ledger.answered("POST", "other", 499)

    async def _leaving(self, _: Connection) -> None:
        """It leaves while its answer is being made, or sent."""
        recipe, shape, body = self._shaped()
        sent, _ = self._sent("POST", recipe.route, body)
        connection = Connection(self._server.port)
        try:
            await connection.send(sent)
            if shape.stream and self._rng.random() < 0.5:
                assert await connection.first_bytes()
            else:
                await asyncio.sleep(self._rng.uniform(0, 0.1))
        finally:
            await connection.close()
        self.ledger.left_early(recipe)
