"""Clients of a server that ends while they ask."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.soak.answers import Shape, check_answer, check_refusal
from tests.soak.load import CLIENTS, KEY
from tests.soak.recipes import Book
from tests.soak.server import ServerProcess
from tests.soak.wire import Connection, GoneError, json_request

WHOLE, NO_ROOM, DRAINING, GONE, CLOSED = "whole", "no room", "draining", "gone", "closed"
"""How a request ended: its answer was right; it was refused, for one of two reasons; the connection ended
first; nobody listened."""
_BEFORE = 100
"""Whole answers before the end comes."""
_AGAIN = 0.01


@dataclass(frozen=True)
class Asked:
    """A request, on the clock of this process."""

    began: float
    ended: float
    outcome: str


async def asked_until_gone(
    server: ServerProcess, book: Book, seed: int, end: Callable[[], None]
) -> tuple[float, list[Asked]]:
    """Clients ask until nobody listens; meanwhile the server is ended.

    Args:
      server: ready.
      book: what is asked, with what is right.
      seed: of all choices.
      end: ends the server; called once, under load.

    Returns:
      When `end` was called, and all requests.

    Raises:
      ExceptionGroup: of AssertionError, an answer that is not right.
    """
    rng, found = random.Random(seed), list[Asked]()
    enough, moment = asyncio.Event(), 0.0

    async def client() -> None:
        connection = Connection(server.port)
        while True:
            began = time.monotonic()
            outcome = await _outcome(connection, book, rng)
            found.append(Asked(began, time.monotonic(), outcome))
            if sum(one.outcome == WHOLE for one in found) >= _BEFORE:
                enough.set()
            if outcome == CLOSED:
                return
            if outcome != WHOLE:
                await asyncio.sleep(_AGAIN)

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())
        await enough.wait()
        moment = time.monotonic()
        end()
    return moment, found


async def _outcome(connection: Connection, book: Book, rng: random.Random) -> str:
    recipe, shape = rng.choice(book.recipes), Shape(stream=rng.random() < 0.5, usage=True)
    body = recipe.body | shape.fields(recipe.route)
    try:
        answer = await connection.ask(
            json_request("POST", recipe.route, body, {"Authorization": f"Bearer {KEY}"})
        )
    except ConnectionRefusedError:
        return CLOSED
    except GoneError:
        return GONE
    if answer.status == 200:
        check_answer(answer, recipe, shape)
        return WHOLE
    draining = b"server_draining" in answer.body
    check_refusal(answer, 503, "server_draining" if draining else "overloaded")
    return DRAINING if draining else NO_ROOM
