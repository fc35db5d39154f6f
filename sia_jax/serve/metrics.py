"""What a server counts."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from sia_jax.engine.reply import Reply


class Metrics:
    """Counts of one server, in a registry of their own."""

    def __init__(self, registry: CollectorRegistry, model_name: str):
        self.registry, self.model_name = registry, model_name

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus's text form, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def arrived(self, params_n: int, max_tokens: int | None) -> None:
        """A request came."""

    def piece(self, timing_s: float, tokens: int, first: bool) -> None:
        """Tokens of a reply came together, so many seconds after the last ones."""

    def finished(self, reply: Reply | None, reason: str) -> None:
        """A reply ended."""

    def refused(self, status: int) -> None:
        """A request was refused."""

    def disconnected(self) -> None:
        """A client left before its answer was whole."""
