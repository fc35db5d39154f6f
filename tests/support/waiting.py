"""Waiting for a state, never for a time."""

import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds, many times what any of it takes on a quiet machine."""


def wait_until(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once something holds; fail if it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"it did not come to hold within {seconds:g} s"
        time.sleep(0.01)
