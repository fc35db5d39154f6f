"""The page of replies in a real browser: no complaint, no request, no sideways scrolling, and it answers.

`make pages` runs this, where there is a Chromium; its pictures are for looking at.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from decode import generate, trace
from tests.support.chromium import Browser, Tab
from tests.support.contrasts import contrasts
from tests.support.pairs import save_tiny_pair

PICTURES = Path("out/pages")
SIZES = {"wide": (1200, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prompts, base and steered, from tiny models of random weights."""
    folder = tmp_path_factory.mktemp("page")
    save_tiny_pair(folder)
    replies = folder / "replies.jsonl"
    generate.main(
        generate.Args(
            policy=str(folder / "policy"),
            value=str(folder / "value"),
            prompt=("How long should I boil an egg?", "Which train is it?"),
            threshold=2.1,
            beta=20.0,
            max_new_tokens=60,
            compare=True,
            record=True,
            output=str(replies),
        )
    )
    trace.main(trace.Args(replies=replies, output=folder / "trace.html"))
    return folder / "trace.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")])
def tab(request: pytest.FixtureRequest, browser: Browser, page: Path) -> Tab:
    size, scheme = request.param
    tab = browser.open(page.as_uri(), *SIZES[size], scheme)
    tab.screenshot(PICTURES / f"trace-{size}-{scheme}.png")
    return tab


def test_the_page_opens_without_complaint_request_or_sideways_scrolling(tab: Tab, page: Path) -> None:
    assert tab.evaluate("document.querySelectorAll('article').length") == 4
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.requests == [page.as_uri()]
    assert tab.complaints == []


def test_every_token_can_be_read_at_the_deepest_shade(tab: Tab) -> None:
    found = contrasts(tab, "article .t", {"--e": "1"})
    assert len(found) > 100
    assert min(found) >= 4.5


def test_a_reply_is_one_stop_of_the_tab_key_wherever_one_was(tab: Tab) -> None:
    tab.evaluate("document.querySelectorAll('article')[1].querySelectorAll('.t')[7].click()")
    stops = (
        "[...document.querySelectorAll('article')].map(a => a.querySelectorAll('.t[tabindex=\"0\"]').length)"
    )
    assert tab.evaluate(stops) == [1, 1, 1, 1]
    assert tab.evaluate("document.activeElement.dataset.t") == "7"
    assert tab.evaluate("document.activeElement.tabIndex") == 0


@pytest.mark.parametrize("held", ["altKey", "ctrlKey", "metaKey", "shiftKey"])
def test_keys_that_are_the_browser_s_own_are_left_to_it(browser: Browser, page: Path, held: str) -> None:
    tab = browser.open(page.as_uri(), *SIZES["wide"], "light")
    tab.evaluate("document.querySelectorAll('article')[1].querySelectorAll('.t')[7].focus()")
    press = (
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', "
        "{key: 'ArrowLeft', bubbles: true, cancelable: true%s}))"
    )
    assert tab.evaluate(press % f", {held}: true") is True  # not prevented
    assert tab.evaluate("document.activeElement.dataset.t") == "7"
    assert tab.evaluate(press % "") is False
    assert tab.evaluate("document.activeElement.dataset.t") == "6"


def test_pointing_and_arrow_keys_show_the_candidates_of_a_token(tab: Tab) -> None:
    heading = "document.querySelector('#details p').innerText"
    assert "junction" in tab.evaluate(heading)  # the page begins at one
    tab.point("article .t.s")
    tab.evaluate("document.querySelector('article .t.s').focus()")
    shown = tab.evaluate(heading)
    assert "the policy alone:" in shown
    rows = tab.evaluate("document.querySelectorAll('#details tbody tr').length")
    assert rows == 10
    assert tab.evaluate("document.querySelectorAll('#details tr.chosen').length") == 1
    place = tab.evaluate("+document.activeElement.dataset.t")
    tab.press("ArrowRight")
    assert tab.evaluate("+document.activeElement.dataset.t") == place + 1
    assert f"token {place + 1} " in tab.evaluate(heading)
    tab.press("ArrowLeft")
    tab.press("ArrowDown")
    assert tab.evaluate("document.activeElement.classList.contains('j')")
    assert tab.evaluate("+document.activeElement.dataset.t") > place
    assert tab.complaints == []


def test_the_panel_hides_no_text_and_folds(tab: Tab) -> None:
    """Text and panel share the window: whatever is scrolled to is seen."""
    seen = """(() => {
      const panel = document.querySelector('aside');
      // An end of the reply has no width, and is nowhere to be seen.
      const nodes = [...document.querySelectorAll('article .t')].filter(node => node.offsetWidth > 0);
      return [nodes[0], nodes.at(-1)].map(node => {
        node.scrollIntoView({block: 'center'});
        const a = node.getClientRects()[0], b = panel.getBoundingClientRect();
        const x = a.x + a.width / 2, y = a.y + a.height / 2;
        const apart = a.right <= b.left || a.bottom <= b.top;
        return apart && y > 0 && y < innerHeight && document.elementFromPoint(x, y) === node;
      });
    })()"""
    assert tab.evaluate(seen) == [True, True]
    height = "document.querySelector('#text').clientHeight * document.querySelector('#text').clientWidth"
    before = tab.evaluate(height)
    tab.evaluate("document.querySelector('#fold').click()")
    assert tab.evaluate(height) > before
    assert tab.evaluate("document.querySelector('#fold').getAttribute('aria-expanded')") == "false"
    assert tab.evaluate(seen) == [True, True]
    tab.evaluate("document.querySelector('#fold').click()")
    assert tab.evaluate(height) == before


def test_the_words_are_explained_and_the_page_can_show_only_what_differs(
    browser: Browser, page: Path
) -> None:
    tab = browser.open(page.as_uri(), *SIZES["wide"], "light")
    tab.evaluate("document.querySelector('summary').click()")
    assert tab.evaluate("document.querySelector('dl').getBoundingClientRect().height") > 50
    tab.evaluate("document.querySelector('section').dataset.same = ''")
    visible = "[...document.querySelectorAll('section')].filter(s => s.offsetHeight).length"
    assert tab.evaluate(visible) == 2
    for expected in (1, 2):
        tab.evaluate("document.querySelector('#only').click()")
        assert tab.evaluate(visible) == expected
    assert tab.complaints == []
