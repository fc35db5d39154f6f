"""The server's page in a real browser, against scripted replies: how it looks, and what only a browser shows.

`make pages` runs this, where there is a Chromium; its pictures are for looking at. What the page does is
held by tests/serve without one.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chromium import Browser, Tab
from tests.support.contrasts import contrasts
from tests.support.page_server import BASE, HOSTILE, SCRIPTS, STEERED, Heard, page_server, text_of

PICTURES = Path("out/pages")
SIZES = {"wide": (1200, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def server() -> Iterator[Heard]:
    with page_server() as heard:
        yield heard


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def look(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A size and a scheme."""
    look: tuple[str, str] = request.param
    return look


def until(tab: Tab, expression: str) -> None:
    """Wait until an expression is true; 10 seconds at most."""
    end = time.monotonic() + 10
    while not tab.evaluate(expression):
        assert time.monotonic() < end, expression
        time.sleep(0.02)


def opened(browser: Browser, server: Heard, look: tuple[str, str] = ("wide", "light")) -> Tab:
    size, scheme = look
    tab = browser.open(server.address, *SIZES[size], scheme)
    until(tab, "document.querySelectorAll('#model option').length === 2")
    return tab


OVER = (
    "document.querySelector('#stop').disabled"
    " && document.querySelector('#state').textContent.includes('Base:')"
)


def generate(tab: Tab, prompt: str) -> None:
    """By the keyboard alone."""
    tab.evaluate("document.querySelector('#prompt').focus(); document.querySelector('#prompt').select()")
    tab.write(prompt)
    tab.press("Enter", control=True)
    until(tab, OVER)


def said(tab: Tab, name: str) -> str:
    text: str = tab.evaluate(f"document.querySelector('#{name} .text').textContent")
    return text


def narrow_enough(tab: Tab) -> bool:
    """Whether nothing scrolls sideways: not the page, and neither of its two parts."""
    parts = "[document.documentElement, document.querySelector('#text'), document.querySelector('aside')]"
    fits: bool = tab.evaluate(f"{parts}.every(node => node.scrollWidth <= node.clientWidth)")
    return fits


def test_replies_are_shown_without_complaint_outside_request_or_sideways_scrolling(
    browser: Browser, server: Heard, look: tuple[str, str]
) -> None:
    tab = opened(browser, server, look)
    assert narrow_enough(tab)
    tab.screenshot(PICTURES / f"serve-{'-'.join(look)}-empty.png")
    generate(tab, "plain")
    assert said(tab, "base") == text_of(BASE)
    assert said(tab, "steered") == text_of(STEERED)
    assert narrow_enough(tab)
    tab.screenshot(PICTURES / f"serve-{'-'.join(look)}-form.png")
    tab.evaluate("document.querySelector('#steered').scrollIntoView()")
    tab.screenshot(PICTURES / f"serve-{'-'.join(look)}-replies.png")
    assert all(address.startswith((server.address, "data:")) for address in tab.requests)
    assert tab.complaints == []


def test_every_text_can_be_read_tokens_at_the_deepest_shade_too(
    browser: Browser, server: Heard, look: tuple[str, str]
) -> None:
    tab = opened(browser, server, look)
    generate(tab, "hostile")
    tokens = contrasts(tab, "article .t, article .escape", {"--h": "1000"})
    assert len(tokens) > 2 * len(HOSTILE) - 10
    tab.evaluate("document.querySelector('details').open = true")
    others = contrasts(
        tab,
        "h1, h2, h2 span, p, label, label span, dt, dd, button:enabled, input, textarea, th, td, .key span",
    )
    assert len(others) > 60
    assert min(tokens) >= 4.5
    assert min(others) >= 4.5


def test_hostile_texts_stay_text_and_widen_nothing(
    browser: Browser, server: Heard, look: tuple[str, str]
) -> None:
    tab = opened(browser, server, look)
    title = tab.evaluate("document.title")
    generate(tab, "hostile")
    tab.evaluate("document.querySelector('#base').scrollIntoView()")
    tab.screenshot(PICTURES / f"serve-{'-'.join(look)}-hostile.png")
    names = tab.evaluate("[...new Set([...document.querySelectorAll('.text *')].map(x => x.tagName))]")
    assert names == ["SPAN"]
    assert tab.evaluate("document.querySelectorAll('#details :is(img, script, b b)').length") == 0
    assert tab.evaluate("document.title") == title
    assert narrow_enough(tab)
    assert tab.complaints == []


def test_a_script_that_got_into_the_page_would_not_run(browser: Browser, server: Heard) -> None:
    tab = opened(browser, server)
    tab.evaluate(
        "(() => { const made = document.createElement('div');"
        "try { made.innerHTML = '<img src=x onerror=\"document.title=1\">'; } catch {}"
        "document.body.append(made); })()"
    )
    time.sleep(0.2)
    assert tab.evaluate("document.title") == "Steering, token by token"
    assert tab.complaints  # the browser says that it kept the policy


def test_streams_cut_inside_frames_and_characters_are_shown_whole(browser: Browser, server: Heard) -> None:
    tab = opened(browser, server)
    generate(tab, "split")
    assert said(tab, "steered") == text_of(SCRIPTS["split"].steered)
    assert "\N{GRINNING FACE}" in said(tab, "base")


def test_pointing_and_arrow_keys_show_a_token_s_candidates(browser: Browser, server: Heard) -> None:
    tab = opened(browser, server)
    generate(tab, "plain")
    heading = "document.querySelector('#heading').innerText"
    tab.point("#steered .t.j:not(.s)")
    assert "cool" in tab.evaluate(heading)
    assert tab.evaluate("document.querySelectorAll('#details tbody tr').length") == 3
    tab.evaluate("document.querySelector('#steered .t').focus()")
    tab.press("ArrowDown")
    assert tab.evaluate("document.activeElement.textContent") == " eight"
    assert "eight" in tab.evaluate(heading)
    tab.press("ArrowRight")
    assert tab.evaluate("document.activeElement.dataset.t") == "5"
    assert tab.evaluate("[...document.querySelectorAll('#steered [tabindex=\"0\"]')].length") == 1


def test_tab_goes_through_the_page_in_the_order_it_is_read(browser: Browser, server: Heard) -> None:
    tab = opened(browser, server)
    generate(tab, "plain")
    tab.evaluate("document.querySelector('#prompt').focus()")
    seen = ["prompt"]
    for _ in range(20):
        tab.press("Tab")
        seen.append(
            tab.evaluate("document.activeElement.id || document.activeElement.closest('[id]')?.id || ''")
        )
    numbers = ("threshold", "beta", "temperature", "tokens", "seed")
    form = ["prompt", "system", "model", *(f"{name}{end}" for name in numbers for end in ("", "-slider"))]
    expected = [*form, "generate", "base", "steered", "fold"]
    assert [one for one in seen if one in expected][: len(expected)] == expected


def test_an_arrow_key_on_a_slider_changes_what_is_sent(browser: Browser, server: Heard) -> None:
    tab = opened(browser, server)
    tab.evaluate("document.querySelector('#threshold-slider').focus()")
    tab.press("ArrowRight")
    generate(tab, "plain")
    (steered,) = (body for body in server.bodies if body["sia"].get("threshold") != "inf")
    shown = tab.evaluate("document.querySelector('#threshold').value")
    assert steered["sia"]["threshold"] == float(shown) > 0.4  # one place over the model's own
    assert f"threshold={shown}" in tab.evaluate("location.hash")


def test_stop_ends_both_replies(browser: Browser, server: Heard) -> None:
    tab = opened(browser, server)
    tab.evaluate("document.querySelector('#prompt').focus()")
    tab.write("slow")
    tab.press("Enter", control=True)
    until(tab, "[...document.querySelectorAll('.text')].every(node => node.textContent.length > 20)")
    tab.screenshot(PICTURES / "serve-wide-light-streaming.png")
    tab.evaluate("document.querySelector('#stop').click()")
    until(tab, OVER)
    end = time.monotonic() + 10
    while server.cancelled < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert tab.complaints == []


@pytest.mark.parametrize("prompt", ["busy", "bad", "breaks"])
def test_troubles_are_said_and_seen(browser: Browser, server: Heard, prompt: str) -> None:
    tab = opened(browser, server, ("phone", "dark"))
    generate(tab, prompt)
    tab.screenshot(PICTURES / f"serve-phone-dark-{prompt}.png")
    assert tab.evaluate("document.querySelector('#trouble').offsetHeight") > 20
    assert narrow_enough(tab)
    assert min(contrasts(tab, "#trouble p")) >= 4.5


def test_a_key_is_asked_for(browser: Browser) -> None:
    with page_server(key="sk-secret") as server:
        tab = browser.open(server.address, *SIZES["phone"], "light")
        until(tab, "!document.querySelector('#unlock').hidden")
        tab.screenshot(PICTURES / "serve-phone-light-key.png")
        assert tab.evaluate("document.activeElement.id") == "key"
        tab.write("sk-secret")
        tab.evaluate("document.querySelector('#unlock').requestSubmit()")
        until(tab, "document.querySelector('#unlock').hidden")
        generate(tab, "plain")
        assert said(tab, "base") == text_of(BASE)
