"""The server's page in a real browser, against scripted replies: how it looks, and what only a browser shows.

`make pages` runs this, where there is a Chromium; its pictures are for looking at. What the page does is
held by tests/serve without one, and test_served_page.py has it before a real server.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.chromium import Browser, Tab
from tests.support.contrasts import all_contrasts, contrasts
from tests.support.page_server import BASE, HOSTILE, SCRIPTS, STEERED, Heard, page_server, text_of
from tests.support.serve_page import (
    LOOKS,
    OVER,
    PICTURES,
    SIZES,
    begin,
    figures,
    generate,
    in_view,
    opened,
    outside,
    panel,
    said,
    sticking_out,
    until,
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def server() -> Iterator[Heard]:
    with page_server() as heard:
        yield heard


@pytest.fixture(params=LOOKS, ids="-".join)
def look(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A size and a scheme."""
    look: tuple[str, str] = request.param
    return look


def test_replies_are_shown_without_complaint_outside_request_or_sideways_scrolling(
    browser: Browser, server: Heard, look: tuple[str, str]
) -> None:
    tab = opened(browser, server.address, look)
    name = f"serve-{'-'.join(look)}"
    assert sticking_out(tab) == []
    tab.screenshot(PICTURES / f"{name}-empty.png")
    generate(tab, "plain")
    assert said(tab, "base") == text_of(BASE)
    assert said(tab, "steered") == text_of(STEERED)
    tab.screenshot(PICTURES / f"{name}-done.png")
    for fold in ("settings", "words"):
        tab.evaluate(f"document.querySelector('#{fold}').open = true")
    assert sticking_out(tab) == []
    tab.evaluate("document.querySelector('#text').scrollTo(0, 0)")
    tab.screenshot(PICTURES / f"{name}-settings.png")
    tab.evaluate("document.querySelector('#steered').scrollIntoView()")
    tab.screenshot(PICTURES / f"{name}-steered.png")
    assert outside(tab, server.address) == []
    assert len(tab.requests) >= 10
    assert tab.complaints == []


STATES = {
    "empty": "0",
    "replies": "document.querySelectorAll('details').forEach(node => node.open = true)",
    "hostile": "0",
    "untraced": "0",
    "bad": "0",
    "number": "(() => { const box = document.querySelector('#temperature'); box.value = 'hot';"
    "box.dispatchEvent(new Event('input', {bubbles: true}));"
    "document.querySelector('#generate').click(); })()",
}


@pytest.mark.parametrize("state", STATES)
def test_every_text_of_every_state_has_a_contrast_of_four_and_a_half(
    browser: Browser, server: Heard, look: tuple[str, str], state: str
) -> None:
    tab = opened(browser, server.address, look)
    if state != "empty":
        generate(tab, {"replies": "plain", "number": "plain"}.get(state, state))
    tab.evaluate(STATES[state])
    found = all_contrasts(tab)
    assert len(found) > 30
    assert [one for one in found if one[0] < 4.5] == []
    if state == "hostile":
        # As deep as a shade can be.
        tokens = contrasts(tab, "article .t, article .escape", {"--h": "1000"})
        assert len(tokens) > 2 * len(HOSTILE)
        assert min(tokens) >= 4.5


@pytest.mark.parametrize("prompt", ["plain", "hostile", "bad"])
def test_nothing_sticks_out_at_any_width(browser: Browser, server: Heard, prompt: str) -> None:
    tab = opened(browser, server.address)
    generate(tab, prompt)
    tab.evaluate("document.querySelectorAll('details').forEach(node => node.open = true)")
    for width in (320, 360, 390, 480, 640, 768, 1023, 1024, 1280, 1920):
        tab.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
        )
        until(tab, f"innerWidth === {width}")
        assert sticking_out(tab) == [], width
    if prompt == "plain":
        tab.evaluate("document.querySelector('#text').scrollTo(0, 0)")
        tab.screenshot(PICTURES / "serve-1920-light-settings.png")


def test_hostile_texts_stay_text(browser: Browser, server: Heard, look: tuple[str, str]) -> None:
    tab = opened(browser, server.address, look)
    title = tab.evaluate("document.title")
    generate(tab, "hostile")
    tab.evaluate("document.querySelector('#base').scrollIntoView()")
    tab.screenshot(PICTURES / f"serve-{'-'.join(look)}-hostile.png")
    names = tab.evaluate("[...new Set([...document.querySelectorAll('.text *')].map(x => x.tagName))]")
    assert names == ["SPAN"]
    made = set()
    for place in range(len(HOSTILE)):
        tab.evaluate(f"document.querySelectorAll('#steered .t')[{place}].focus()")
        made |= set(tab.evaluate("[...document.querySelectorAll('#details *')].map(x => x.tagName)"))
        assert tab.evaluate("document.querySelector('#details b b') === null")
    assert made <= {*("P", "B", "SPAN"), *("TABLE", "THEAD", "TBODY", "TR", "TH", "TD", "I")}
    assert tab.evaluate("document.title") == title
    assert outside(tab, server.address) == []
    assert tab.complaints == []


@pytest.mark.parametrize(
    "attack",
    [
        "made.innerHTML = '<img src=x onerror=\"document.title=1\">'",
        "made.setAttribute('onclick', 'document.title=1'); made.click()",
        "const code = document.createElement('script'); code.text = 'document.title=1'; made.append(code)",
        "eval('document.title=1')",
        "const frame = document.createElement('iframe'); frame.src = 'https://a.test/'; made.append(frame)",
        "const image = new Image(); image.src = 'https://example.org/x.png'; made.append(image)",
        "fetch('https://example.org/').catch(() => {})",
    ],
)
def test_even_a_script_in_the_page_can_run_no_markup_and_ask_nobody_else(
    browser: Browser, server: Heard, attack: str
) -> None:
    tab = opened(browser, server.address)
    # From a timer: what DevTools itself evaluates is not held to the page's policy.
    tab.evaluate(
        "setTimeout(() => { const made = document.createElement('div'); document.body.append(made);"
        f"try {{ {attack}; }} catch {{}} document.body.id = 'tried'; }})"
    )
    until(tab, "document.body.id === 'tried'")
    time.sleep(0.2)
    assert tab.evaluate("document.title") == "Steering, token by token"
    assert tab.complaints  # the browser says that it kept the policy
    assert [address for address in outside(tab, server.address) if address not in tab.blocked] == []


def test_streams_cut_inside_frames_and_characters_are_shown_whole(browser: Browser, server: Heard) -> None:
    tab = opened(browser, server.address)
    generate(tab, "split")
    assert said(tab, "steered") == text_of(SCRIPTS["split"].steered)
    assert "\N{GRINNING FACE}" in said(tab, "base")


HEADING = "document.querySelector('#heading').innerText"


def test_pointing_and_arrow_keys_show_a_token_s_candidates(browser: Browser, server: Heard) -> None:
    tab = opened(browser, server.address)
    generate(tab, "plain")
    tab.point("#steered .t.j:not(.s)")
    assert "cool" in tab.evaluate(HEADING)
    assert len(panel(tab)) == 3
    tab.evaluate("document.querySelector('#steered .t').focus()")
    tab.press("ArrowDown")
    assert tab.evaluate("document.activeElement.textContent") == " eight"
    assert "eight" in tab.evaluate(HEADING)
    tab.press("ArrowRight")
    assert tab.evaluate("document.activeElement.dataset.t") == "5"
    assert tab.evaluate("[...document.querySelectorAll('#steered [tabindex=\"0\"]')].length") == 1


def test_arrow_keys_reach_every_token_and_each_is_said(browser: Browser, server: Heard) -> None:
    tab = opened(browser, server.address)
    generate(tab, "hostile")
    tab.evaluate("document.querySelector('#steered .t').focus()")
    for place in range(len(HOSTILE)):
        assert tab.evaluate("document.activeElement.dataset.t") == str(place)
        assert f"token {place + 1}" in tab.evaluate(HEADING)
        assert in_view(tab, "#steered .t.on")
        tab.press("ArrowRight")


def test_a_tap_shows_a_token_s_candidates(browser: Browser, server: Heard) -> None:
    tab = opened(browser, server.address, ("phone", "dark"))
    generate(tab, "plain")
    tab.tap("#steered .t.j:not(.s)")
    until(tab, f"{HEADING}.includes('cool')")
    assert in_view(tab, "#details")
    tab.screenshot(PICTURES / "serve-phone-dark-tapped.png")


STOPS = """[...document.querySelectorAll('a, button, input, select, textarea, summary, [tabindex="0"]')]
  .filter(node => node.checkVisibility() && !node.disabled)"""
WHERE = f"({STOPS}).indexOf(document.activeElement)"


def test_tab_reaches_every_control_in_the_order_it_is_read_and_each_is_seen(
    browser: Browser, server: Heard, look: tuple[str, str]
) -> None:
    tab = opened(browser, server.address, look)
    generate(tab, "plain")
    tab.evaluate("document.querySelectorAll('details').forEach(node => node.open = true)")
    count = tab.evaluate(f"({STOPS}).length")
    assert count >= 19
    tab.evaluate("document.querySelector('#prompt').focus()")
    for place in range(1, count):
        tab.press("Tab")
        assert tab.evaluate(WHERE) == place
        ring = tab.evaluate(
            "(style => [style.outlineStyle, parseFloat(style.outlineWidth)])"
            "(getComputedStyle(document.activeElement))"
        )
        assert ring == ["solid", 2], tab.evaluate("document.activeElement.outerHTML")
        tab.evaluate("document.activeElement.dataset.here = 1")
        assert in_view(tab, "[data-here]"), tab.evaluate("document.activeElement.outerHTML")
        tab.evaluate("delete document.activeElement.dataset.here")
    assert tab.evaluate("document.querySelectorAll('article [tabindex=\"0\"]').length") == 2


def test_every_control_has_a_name_and_only_status_and_alert_are_read_out_as_they_change(
    browser: Browser, server: Heard
) -> None:
    tab = opened(browser, server.address)
    generate(tab, "plain")
    nodes = [node for node in tab.send("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    properties: list[dict[str, Any]] = [
        {one["name"]: one["value"].get("value") for one in node.get("properties", [])} for node in nodes
    ]
    controls = [
        (node["role"]["value"], node["name"]["value"])
        for node, has in zip(nodes, properties, strict=True)
        if has.get("focusable") and node["role"]["value"] not in ("RootWebArea", "generic")
    ]
    assert {"textbox", "combobox", "slider", "button", "DisclosureTriangle"} <= {role for role, _ in controls}
    assert [role for role, name in controls if not name.strip()] == []
    live = [
        (node["role"]["value"], has["live"])
        for node, has in zip(nodes, properties, strict=True)
        if has.get("live") in ("polite", "assertive") and "root" in has and node["role"]["value"] != "none"
    ]
    assert {role for role, _ in live} <= {"status", "alert", "StaticText", "paragraph"}
    told = tab.evaluate(
        "[...document.querySelectorAll('[aria-live], [role=status], [role=alert]')].map(x => x.id)"
    )
    assert told == ["state", "trouble"]
    texts = tab.evaluate("[...document.querySelectorAll('[type=range]')].map(x => x.ariaValueText)")
    assert texts[:2] == ["0.4, the model’s own: from 0.4 nats on", "2, the model’s own: times the value"]


def test_sliders_move_by_key_and_by_mouse_and_change_what_is_sent(browser: Browser, server: Heard) -> None:
    tab = opened(browser, server.address)
    tab.evaluate("document.querySelector('#threshold-slider').focus()")
    tab.press("ArrowRight")
    tab.drag("#beta-slider", 0.5)
    generate(tab, "plain")
    (steered,) = (body for body in server.bodies if body["sia"].get("threshold") != "inf")
    shown = tab.evaluate("document.querySelector('#threshold').value")
    assert steered["sia"]["threshold"] == float(shown) > 0.4  # one place over the model's own
    assert f"threshold={shown}" in tab.evaluate("location.hash")
    assert 9 <= steered["sia"]["beta"] <= 11
    assert steered["sia"]["beta"] == float(tab.evaluate("document.querySelector('#beta').value"))


def test_replies_grow_in_view_while_they_are_written_and_nothing_moves_at_their_end(
    browser: Browser, server: Heard, look: tuple[str, str]
) -> None:
    tab = opened(browser, server.address, look)
    tab.evaluate("document.querySelector('#settings').open = true")  # which fill a phone
    top = "document.querySelector('#replies').offsetTop"
    at_first = tab.evaluate(top)
    begin(tab, "slow")
    seen: list[tuple[int, int]] = []
    for least in (5, 40, 80):
        until(
            tab, f"[...document.querySelectorAll('.text')].every(node => node.textContent.length > {least})"
        )
        seen.append((len(said(tab, "base")), len(said(tab, "steered"))))
    assert sorted(set(seen)) == seen
    assert figures(tab, "steered")["tokens"] != "–"
    assert in_view(tab, "#base .t")
    if look[0] == "wide":
        assert in_view(tab, "#steered .t")
    assert tab.evaluate("document.querySelectorAll('[aria-busy=\"true\"]').length") == 2
    assert tab.evaluate(top) == at_first
    tab.screenshot(PICTURES / f"serve-{'-'.join(look)}-streaming.png")
    tab.evaluate("document.querySelector('#stop').click()")
    until(tab, OVER)
    assert tab.evaluate(top) == at_first
    end = time.monotonic() + 10
    while server.cancelled < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert tab.complaints == []


@pytest.mark.parametrize(("still", "animation"), [(False, "waiting"), (True, "none")])
def test_the_cursor_blinks_only_where_motion_is_welcome(
    browser: Browser, server: Heard, still: bool, animation: str
) -> None:
    tab = opened(browser, server.address, still=still)
    begin(tab, "slow")
    until(tab, "document.querySelector('[aria-busy=\"true\"]') !== null")
    style = "getComputedStyle(document.querySelector('#base .text'), '::after')"
    assert tab.evaluate(f"{style}.animationName") == animation
    assert tab.evaluate(f"{style}.content") == '"▍"'
    moving = "document.getAnimations().length"
    assert (tab.evaluate(moving) == 0) == still


def test_on_a_phone_a_line_says_the_settings_and_a_wrong_number_unfolds_them(
    browser: Browser, server: Heard
) -> None:
    tab = opened(browser, f"{server.address}#seed=7", ("phone", "light"))
    assert tab.evaluate("document.querySelector('#settings').open") is False
    assert in_view(tab, "#base h2")
    line = tab.evaluate("document.querySelector('#settings-said').innerText")
    assert line == "tiny-sia · threshold 0.4 · strength 2 · temperature 1 · tokens 160 · seed 7"
    tab.evaluate(
        "(() => { const box = document.querySelector('#temperature'); box.value = 'hot';"
        "box.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    assert "temperature unreadable" in tab.evaluate("document.querySelector('#settings-said').innerText")
    tab.evaluate("document.querySelector('#prompt').focus()")
    tab.write("plain")
    tab.press("Enter", control=True)
    assert tab.evaluate("document.querySelector('#settings').open") is True
    assert tab.evaluate("document.activeElement.id") == "temperature"
    assert in_view(tab, "#temperature-note")
    tab.screenshot(PICTURES / "serve-phone-light-wrong.png")
    assert server.bodies == []


@pytest.mark.parametrize("prompt", ["busy", "bad", "breaks", "half"])
def test_troubles_are_in_view_wherever_one_was(
    browser: Browser, server: Heard, look: tuple[str, str], prompt: str
) -> None:
    tab = opened(browser, server.address, look)
    for fold in ("settings", "words"):
        tab.evaluate(f"document.querySelector('#{fold}').open = true")
    generate(tab, prompt)
    assert in_view(tab, "#trouble p")
    assert sticking_out(tab) == []
    tab.screenshot(PICTURES / f"serve-{'-'.join(look)}-{prompt}.png")


def test_a_key_is_asked_for(browser: Browser, look: tuple[str, str]) -> None:
    with page_server(key="sk-secret") as server:
        tab = browser.open(server.address, *SIZES[look[0]], look[1])
        until(tab, "!document.querySelector('#unlock').hidden")
        assert tab.evaluate("document.activeElement.id") == "key"
        assert in_view(tab, "#trouble p")
        assert in_view(tab, "#unlock")
        assert sticking_out(tab) == []
        assert [one for one in all_contrasts(tab) if one[0] < 4.5] == []
        tab.screenshot(PICTURES / f"serve-{'-'.join(look)}-key.png")
        tab.write("sk-secret")
        tab.press("Enter")
        until(tab, "document.querySelector('#unlock').hidden")
        generate(tab, "plain")
        assert said(tab, "base") == text_of(BASE)


def test_the_panel_folds_away_and_comes_back(browser: Browser, server: Heard, look: tuple[str, str]) -> None:
    tab = opened(browser, server.address, look)
    generate(tab, "plain")
    room = "document.querySelector('#text').clientWidth * document.querySelector('#text').clientHeight"
    before = tab.evaluate(room)
    tab.evaluate("document.querySelector('#fold').click()")
    assert tab.evaluate(room) > before
    assert tab.evaluate("document.querySelector('#fold').getAttribute('aria-expanded')") == "false"
    assert sticking_out(tab) == []
    tab.screenshot(PICTURES / f"serve-{'-'.join(look)}-folded.png")
    tab.evaluate("document.querySelector('#fold').click()")
    assert tab.evaluate(room) == before


def opened_twice(tab: Tab) -> None:
    """Load the page again."""
    tab.send("Page.reload")
    until(tab, "document.querySelectorAll('#model option').length === 2")


def test_a_reload_keeps_the_settings_and_not_the_prompt(browser: Browser, server: Heard) -> None:
    tab = opened(browser, server.address)
    tab.evaluate("document.querySelector('#seed-slider').focus()")
    tab.press("ArrowRight")
    generate(tab, "plain")
    opened_twice(tab)
    assert tab.evaluate("document.querySelector('#seed').value") == "1"
    assert tab.evaluate("document.querySelector('#prompt').value") == ""
    assert tab.complaints == []
