"""What is noted of every request."""

from collections.abc import MutableMapping
from typing import Any


def note(scope: MutableMapping[str, Any], **facts: Any) -> None:
    """Tell the log of a request: its model, tokens, steered, prompt."""
    scope.setdefault("facts", {}).update(facts)
