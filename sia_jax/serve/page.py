"""The page at `/`."""

from starlette.routing import Route


def page_routes() -> list[Route]:
    """Routes of the page's files."""
    return []
