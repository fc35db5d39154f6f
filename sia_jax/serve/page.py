"""The page at `/`: files that come with the package, and the headers under which a browser runs them.

It asks this server alone: for its own parts, `v1/models` and `v1/chat/completions`. Its addresses are
relative, so that it works behind a proxy that puts the server below a path.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files

from sia_jax.extras import installed_with

with installed_with("serve"):
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""What a text of the model could do if it ever became markup: nothing. No inline script or style is run."""


@dataclass(frozen=True)
class PageFile:
    """A file of the page as it is sent."""

    path: str
    """Of its address: "/" or "/page/page.js"."""
    body: bytes
    etag: str
    """Of the body: a browser that has it need not load it again."""
    headers: Mapping[str, str]
    """All but Content-Length."""


def page_files() -> tuple[PageFile, ...]:
    """The files of the page, read from the package; the first is the page itself, at "/"."""
    folder = files("sia_jax.serve").joinpath("page")
    found = [
        _page_file(part.name, part.read_bytes())
        for part in folder.iterdir()
        if part.name.rpartition(".")[2] in _KINDS
    ]
    return tuple(sorted(found, key=lambda part: part.path))


def page_paths() -> frozenset[str]:
    """The paths of the files, which tell nothing of the server and take no key: the page asks for one."""
    return frozenset(part.path for part in page_files())


def page_routes() -> list[Route]:
    """Routes that answer GET and HEAD with the page's files, 304 to who has them already."""
    return [
        Route(part.path, _endpoint(part), methods=["GET"], include_in_schema=False) for part in page_files()
    ]


def _page_file(name: str, body: bytes) -> PageFile:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "Content-Type": _KINDS[name.rpartition(".")[2]],
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # Kept, but asked for each time: a server of a new release has a new page.
        "Cache-Control": "no-cache",
        "ETag": etag,
    }
    return PageFile("/" if name == "index.html" else f"/page/{name}", body, etag, headers)


def _endpoint(part: PageFile) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        # A weak comparison, as RFC 9110 13.1.2 has it: proxies that compress make a tag weak.
        known = {
            tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")
        }
        if part.etag in known or "*" in known:
            return Response(status_code=304, headers=dict(part.headers))
        return Response(part.body, headers=dict(part.headers))

    return send
