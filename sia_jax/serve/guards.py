"""The order of what stands before the routes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from sia_jax.serve.asgi import App
from sia_jax.serve.keys import LIVENESS, Bearer
from sia_jax.serve.limits import BodyLimit, ReadyOnly
from sia_jax.serve.metrics import Metrics
from sia_jax.serve.observing import Observed
from sia_jax.serve.settings import Settings, State


class Guarded(Protocol):
    """What of a service the guards look at."""

    settings: Settings
    metrics: Metrics
    state: State


def guarded(
    app: App,
    service: Guarded,
    digests: Sequence[bytes],
    write: Callable[[Mapping[str, Any]], None],
    page: Collection[str] = ("/",),
) -> App:
    """An app behind its guards: noted first, then known by its key, then in time, then small enough.

    Args:
      app: the routes.
      service: whose they are.
      digests: of the keys; see `sia_jax.serve.keys.Bearer`.
      write: gets the facts of each request; see `sia_jax.serve.access_log.writer`.
      page: paths of the page, which are open if the settings say so.
    """
    ready = ReadyOnly(app, lambda: service.state)  # again, for the body may have taken a while
    early = ReadyOnly(BodyLimit(ready, service.settings), lambda: service.state)
    open_paths = {*LIVENESS, *(page if service.settings.page_open else ())}
    return Observed(Bearer(early, digests, open_paths), service.metrics, service.settings, write)
