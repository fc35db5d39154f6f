"""The page of a real server, `python -m decode.serve` on the embedded models, in headless Chromium.

What the page shows is held against what the server's API says to the same request, without a page.
"""

import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.chromium import Browser, Tab
from tests.support.contrasts import all_contrasts
from tests.support.serve_page import (
    LOOKS,
    OVER,
    PICTURES,
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
from tests.support.served_process import served_process

PROMPT = "How do I bake bread?"
SEED = 5
"""With which the base reply tells of a penguin, and the steered one comes back to the bread."""
SECONDS = 60.0
"""That two replies may take on two cores."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of the server, with a slash at its end."""
    with served_process("--rows", "4", "--max-length", "512") as process:
        yield f"{process.url}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def answer(url: str, steering: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What the API says to what the page asks, whole."""
    body = {
        "model": "world-sia",
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 1,
        "max_tokens": 160,
        "seed": SEED,
        "sia": {**steering, "trace": True},
        **fields,
    }
    found = httpx.post(f"{url}v1/chat/completions", json=body, timeout=SECONDS)
    assert found.status_code == 200, found.text
    told: dict[str, Any] = found.json()
    return told


def marked(tab: Tab, name: str) -> list[tuple[str, bool, bool]]:
    """The tokens of a reply: text, whether it is marked as a junction, and as shifted."""
    found: list[list[Any]] = tab.evaluate(
        f"[...document.querySelectorAll('#{name} .t')].map(node => "
        "[node.textContent, node.classList.contains('j'), node.classList.contains('s')])"
    )
    return [(text, junction, shifted) for text, junction, shifted in found]


def row(candidate: dict[str, Any]) -> list[str]:
    """A candidate of a trace as a row of the panel: without its marks."""

    def percent(logprob: float) -> str:
        share = 100 * math.exp(logprob)
        if share < 0.05:
            return "<0.1%"
        return f"{share:.0f}%" if share >= 9.95 else f"{share:.1f}%"

    value = candidate["value"]
    return [
        candidate["text"].replace(" ", "␣").replace("\n", "⏎"),
        percent(candidate["policy_logprob"]),
        "–" if value is None else f"{'+' if value >= 0 else '−'}{abs(value):.2f}",
        percent(candidate["logprob"]),
    ]


def rows(tab: Tab) -> list[list[str]]:
    """The panel's rows without the marks of what was chosen."""
    return [[name.replace(" ●", "").replace(" ○", ""), *rest] for name, *rest in panel(tab)]


def trace(reply: dict[str, Any]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = reply["choices"][0]["sia"]["trace"]
    return told


@pytest.mark.parametrize("look", LOOKS, ids="-".join)
def test_two_replies_stream_into_view_and_are_what_the_api_says(
    browser: Browser, url: str, look: tuple[str, str]
) -> None:
    tab = opened(browser, f"{url}#seed={SEED}", look)
    begin(tab, PROMPT)
    lengths: dict[str, set[int]] = {"base": set(), "steered": set()}
    over = False
    while not over:
        over = tab.evaluate(OVER)
        for name, seen in lengths.items():
            seen.add(len(said(tab, name)))
        if not over and len(lengths["steered"]) == 3:
            tab.screenshot(PICTURES / f"served-{'-'.join(look)}-streaming.png")
    # Nothing, then pieces, then all of it.
    assert len(lengths["steered"]) > 3
    assert len(lengths["base"]) > 2
    tab.screenshot(PICTURES / f"served-{'-'.join(look)}.png")

    replies = {"base": answer(url, {"threshold": "inf"}), "steered": answer(url, {})}
    for name, reply in replies.items():
        assert said(tab, name) == reply["choices"][0]["message"]["content"]
        assert marked(tab, name) == [(one["text"], one["junction"], one["shifted"]) for one in trace(reply)]
        usage = reply["usage"]
        shown = figures(tab, name)
        assert shown["tokens"] == str(usage["completion_tokens"])
        assert shown["steered"] == f"{100 * usage['sia']['steered'] / usage['completion_tokens']:.1f}%"
        assert shown["shifted"] == str(usage["sia"]["shifted"])
        assert shown["entropy"] == f"{usage['sia']['mean_entropy']:.2f} nats"
        assert float(shown["speed"]) > 0
    assert replies["steered"]["usage"]["sia"]["shifted"] > 0
    assert said(tab, "base") != said(tab, "steered")

    assert sticking_out(tab) == []
    assert [one for one in all_contrasts(tab) if one[0] < 4.5] == []
    assert outside(tab, url) == []
    assert tab.complaints == []


def test_hover_focus_and_tap_show_the_candidates_that_the_api_tells(browser: Browser, url: str) -> None:
    told = trace(answer(url, {}))
    junctions = [place for place, one in enumerate(told) if one["junction"]]
    assert len(junctions) > 2
    tab = opened(browser, f"{url}#seed={SEED}")
    generate(tab, PROMPT, SECONDS)
    for place in junctions:
        tab.point(f"#steered [data-t='{place}']")
        assert rows(tab) == [row(one) for one in told[place]["candidates"]], place
        assert f"token {place + 1}" in tab.evaluate("document.querySelector('#heading').textContent")
    tab.screenshot(PICTURES / "served-wide-light-hover.png")
    tab.evaluate("document.querySelector('#steered .t').focus()")
    for place in junctions if junctions[0] else junctions[1:]:
        tab.press("ArrowDown")
        assert tab.evaluate("document.activeElement.dataset.t") == str(place)
        assert rows(tab) == [row(one) for one in told[place]["candidates"]], place
    assert tab.complaints == []

    phone = opened(browser, f"{url}#seed={SEED}", ("phone", "light"))
    generate(phone, PROMPT, SECONDS)
    phone.tap(f"#steered [data-t='{junctions[1]}']")
    until(phone, f"document.querySelector('#heading').textContent.includes('token {junctions[1] + 1} ')")
    assert rows(phone) == [row(one) for one in told[junctions[1]]["candidates"]]
    phone.screenshot(PICTURES / "served-phone-light-tapped.png")


def test_the_slider_of_the_threshold_goes_from_every_token_to_none(browser: Browser, url: str) -> None:
    tab = opened(browser, f"{url}#seed={SEED}")
    tab.drag("#threshold-slider", 1.0)
    assert tab.evaluate("document.querySelector('#threshold').value") == "off"
    generate(tab, PROMPT, SECONDS)
    assert marked(tab, "steered") == marked(tab, "base")
    assert {junction for _, junction, _ in marked(tab, "steered")} == {False}
    tab.evaluate("document.querySelector('#threshold-slider').focus()")
    tab.press("Home")
    assert tab.evaluate("document.querySelector('#threshold').value") == "0"
    generate(tab, PROMPT, SECONDS)
    tab.screenshot(PICTURES / "served-wide-light-dense.png")
    assert {junction for _, junction, _ in marked(tab, "steered")} == {True}
    assert said(tab, "steered") == answer(url, {"threshold": 0})["choices"][0]["message"]["content"]
    assert {junction for _, junction, _ in marked(tab, "base")} == {False}
    assert tab.complaints == []


def test_stop_ends_both_and_the_server_goes_on(browser: Browser, url: str) -> None:
    tab = opened(browser, f"{url}#tokens=400&temperature=2", ("wide", "dark"))
    begin(tab, PROMPT)
    until(tab, "[...document.querySelectorAll('.text')].every(node => node.textContent.length > 10)", SECONDS)
    tab.click("#stop")
    until(tab, OVER)
    assert (
        tab.evaluate("[...document.querySelectorAll('.end')].map(x => x.textContent)")
        == ["stopped by you"] * 2
    )
    generate(tab, PROMPT, SECONDS)
    assert "stopped" not in tab.evaluate("document.querySelector('#state').textContent").lower()
    assert tab.complaints == []


def test_what_the_server_refuses_is_said_in_its_words(browser: Browser, url: str) -> None:
    tab = opened(browser, f"{url}#tokens=100000", ("phone", "dark"))
    generate(tab, PROMPT, SECONDS)
    assert in_view(tab, "#trouble p")
    trouble = tab.evaluate("document.querySelector('#trouble').textContent")
    assert trouble.startswith("The server refuses (400): ")
    assert "max_tokens" in trouble
    assert trouble.endswith("Change the request, and generate again.")
    tab.screenshot(PICTURES / "served-phone-dark-refused.png")
