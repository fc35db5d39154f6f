"""Look through a site that was built: no dead link or anchor, and nothing that is fetched from elsewhere.

    python -m tests.support.site_check [FOLDER]          (site)

It reads the HTML that a browser would be given, and knows nothing of what it was made from.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LEAST = 20
"""Pages of which a site has more; an empty folder has no dead link either."""
_FETCHED = {"img": "src", "script": "src", "link": "href", "source": "src", "iframe": "src", "object": "data"}
"""What a browser fetches by itself, by the tag."""
_IN_STYLES = re.compile(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"\s]*")


class _Page(HTMLParser):
    """Where a page leads, what it has the browser fetch, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = {""}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in _FETCHED and _FETCHED[tag] in found:
            self.fetched.append(found[_FETCHED[tag]])


def complaints(site: Path) -> list[str]:
    """What is wrong with a site, a line each.

    Args:
      site: its folder.
    """
    site = site.resolve()
    pages = {path: _read(path) for path in sorted(site.rglob("*.html"))}
    found = [] if len(pages) > LEAST else [f"{site}: {len(pages)} pages; expected more than {LEAST}"]
    for path, page in pages.items():
        for target in page.fetched:
            if _elsewhere(target):
                found.append(f"{path}: the browser would fetch {target}")
        for target in [*page.links, *page.fetched]:
            if not _elsewhere(target):
                found += [f"{path}: {target}: {why}" for why in _dead(target, path, site, pages)]
    for path in sorted(site.rglob("*.css")):
        found += [f"{path}: the browser would fetch {x}" for x in _IN_STYLES.findall(path.read_text())]
    return found


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _elsewhere(target: str) -> bool:
    parts = urlsplit(target)
    return bool(parts.scheme or parts.netloc)


def _dead(target: str, path: Path, site: Path, pages: dict[Path, _Page]) -> list[str]:
    parts = urlsplit(target)
    there = path
    if parts.path:
        base = site if parts.path.startswith("/") else path.parent
        there = (base / unquote(parts.path).lstrip("/")).resolve()
        there = there / "index.html" if there.is_dir() else there
    if not there.is_file():
        return ["no such file"]
    if there in pages and unquote(parts.fragment) not in pages[there].anchors:
        return ["no such place on that page"]
    return []


def main() -> None:
    """Say what is wrong; exits with 1 if anything is."""
    site = Path(sys.argv[1] if len(sys.argv) > 1 else "site")
    wrong = complaints(site)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{site}: {len(list(site.rglob('*.html')))} pages, every link leads somewhere")


if __name__ == "__main__":
    main()
