"""How many requests are taken."""

from sia_jax.serve.settings import Settings


class Refused(Exception):
    """A request that is not taken."""

    def __init__(self, message: str, status: int, retry_after: int | None):
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class Ticket:
    """The place of a request that was taken."""

    def __init__(self, admission: "Admission", requests: int, tokens: int):
        self._admission, self._requests, self._tokens = admission, requests, tokens

    def admitted(self) -> None:
        """Its prompts are read."""
        self._admission.tokens -= self._tokens
        self._tokens = 0

    def leave(self) -> None:
        """It has ended."""
        self.admitted()
        self._admission.requests -= self._requests
        self._requests = 0


class Admission:
    """Counts what runs and waits."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self.requests = self.tokens = 0

    def enter(self, requests: int, tokens: int) -> Ticket:
        """Take a request.

        Raises:
          Refused: there is no room.
        """
        if self.requests + requests > self._settings.max_queued_requests:
            raise Refused("too many requests wait; try again later", 503, 1)
        if self.tokens and self.tokens + tokens > self._settings.max_queued_tokens:
            raise Refused("too many tokens wait; try again later", 503, 1)
        self.requests += requests
        self.tokens += tokens
        return Ticket(self, requests, tokens)
