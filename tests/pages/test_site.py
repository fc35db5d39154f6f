"""The site of `make docs` in a real browser: no complaint, nothing from elsewhere, no sideways scrolling.

`make pages` builds it first; the pictures are for looking at.
"""

import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support.chromium import SECONDS, Browser, Tab
from tests.support.contrasts import contrasts

SITE = Path(__file__).parents[2] / "site"
PICTURES = Path("out/pages")
SCHEMES = {"light": "default", "dark": "slate"}
"""What the theme calls what a user prefers."""
SIZES = {"wide": (1280, 1600), "phone": (390, 844)}
PAGES = (
    *("index", "guide", "tour", "decoding", "fields", "world"),
    *("python/sampling", "python/steering", "source/CITATION.cff"),
)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing of it."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    assert (SITE / "index.html").is_file(), f"{SITE} has no pages; run make docs first"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(SECONDS)
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_without_complaint_or_sideways_scrolling_and_can_be_read(
    browser: Browser, address: str, page: str, size: str, scheme: str
) -> None:
    tab = browser.open(f"{address}/{page}.html", *SIZES[size], scheme)
    tab.screenshot(PICTURES / f"site-{page.replace('/', '-')}-{size}-{scheme}.png")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.complaints == []
    assert [one for one in tab.requests if not one.startswith((address, "data:"))] == []
    assert tab.evaluate("document.body.dataset.mdColorScheme") == SCHEMES[scheme]
    found = contrasts(tab, ".md-content :is(p, li, td, th, h1, h2, h3)")
    assert len(found) > 0
    assert min(found) >= 4.5


def test_the_search_finds_a_function_without_asking_elsewhere(browser: Browser, address: str) -> None:
    tab = browser.open(f"{address}/index.html", *SIZES["wide"], "light")
    tab.click(".md-search__input")
    tab.write("best_of_n")
    late = time.monotonic() + SECONDS
    while not tab.evaluate("document.querySelectorAll('.md-search-result__link').length"):
        assert time.monotonic() < late, "nothing was found"
        time.sleep(0.1)
    first = tab.evaluate("document.querySelector('.md-search-result__link').href")
    assert "python/sampling.html" in first
    assert [one for one in tab.requests if not one.startswith((address, "data:", "blob:"))] == []
    assert tab.complaints == []


def text_of(tab: Tab, selector: str) -> str:
    """What an element says, with its white space as single spaces."""
    return str(tab.evaluate(f"document.querySelector({selector!r}).textContent.replace(/\\s+/g, ' ')"))


@pytest.mark.parametrize(
    ("page", "name", "said"),
    [
        ("steering", "sia_jax.SteeringConfig", "temperature: float = 1.0"),
        ("steering", "sia_jax.Knobs", "temperature: Any = None"),
        ("steering", "sia_jax.steering.numbers.FilterNumbers.top_p", "Default: 1.0; in (0, 1]."),
        ("sampling", "sia_jax.Samples.entropy", "nats, what the gate saw"),
        ("sampling", "sia_jax.SamplerConfig.auto", ">>> config = SamplerConfig.auto(16"),
    ],
)
def test_the_reference_has_what_the_sources_say(
    browser: Browser, address: str, page: str, name: str, said: str
) -> None:
    tab = browser.open(f"{address}/python/{page}.html", *SIZES["wide"], "light")
    place = f'[id="{name}"]'
    assert said in text_of(tab, f".doc-object:has(> {place})")
    for left_out in ("Handle.keep", "Entropy.decide"):
        assert tab.evaluate(f"document.querySelector('[id$=\"{left_out}\"]')") is None
