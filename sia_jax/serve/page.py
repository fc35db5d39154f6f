"""The page at `/`."""

from typing import Any


def page_files() -> tuple[Any, ...]:
    """The files of the page."""
    return ()
