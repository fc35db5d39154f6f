"""The server's page in a browser: opening it, asking it, and what must hold of it whatever it shows."""

import time
from pathlib import Path
from typing import Any

from tests.support.chromium import Browser, Tab

PICTURES = Path("out/pages")
SIZES = {"wide": (1200, 900), "phone": (390, 844)}
LOOKS = [(size, scheme) for size in SIZES for scheme in ("light", "dark")]
"""Sizes and colour schemes."""

OVER = (
    "document.querySelector('#stop').disabled"
    " && document.querySelector('#state').textContent.includes('Base:')"
)


def until(tab: Tab, expression: str, seconds: float = 10.0) -> None:
    """Wait until a JavaScript expression is true."""
    end = time.monotonic() + seconds
    while not tab.evaluate(expression):
        assert time.monotonic() < end, expression
        time.sleep(0.02)


def opened(
    browser: Browser, address: str, look: tuple[str, str] = ("wide", "light"), still: bool = False
) -> Tab:
    """The page, once it knows the server's models."""
    size, scheme = look
    tab = browser.open(address, *SIZES[size], scheme, still)
    until(tab, "document.querySelectorAll('#model option').length === 2")
    return tab


def begin(tab: Tab, prompt: str) -> None:
    """Write a prompt in place of what stands there and send it, by the keyboard alone."""
    tab.evaluate("document.querySelector('#prompt').focus(); document.querySelector('#prompt').select()")
    tab.evaluate("document.querySelector('#state').textContent = ''")
    tab.write(prompt)
    tab.press("Enter", control=True)


def generate(tab: Tab, prompt: str, seconds: float = 10.0) -> None:
    """The same, until both replies are over."""
    begin(tab, prompt)
    until(tab, OVER, seconds)


def said(tab: Tab, name: str) -> str:
    """The text of the reply "base" or "steered"."""
    text: str = tab.evaluate(f"document.querySelector('#{name} .text').textContent")
    return text


def figures(tab: Tab, name: str) -> dict[str, str]:
    """The figures of the reply "base" or "steered"."""
    found: dict[str, str] = tab.evaluate(
        f"Object.fromEntries([...document.querySelectorAll('#{name} [data-figure]')]"
        ".map(node => [node.dataset.figure, node.textContent]))"
    )
    return found


def panel(tab: Tab) -> list[list[str]]:
    """The rows of the panel's table: candidate, policy, value, tilted."""
    rows: list[list[str]] = tab.evaluate(
        "[...document.querySelectorAll('#details tbody tr')]"
        ".map(row => [...row.children].slice(0, 4).map(cell => cell.textContent))"
    )
    return rows


def sticking_out(tab: Tab) -> list[Any]:
    """What scrolls sideways, or lies beyond the edge of the window."""
    found: list[Any] = tab.evaluate(
        """[...document.querySelectorAll('*')].filter(node => {
          const box = node.getBoundingClientRect();
          const field = ['INPUT', 'TEXTAREA', 'SELECT'].includes(node.tagName);
          return box.width && (box.right > innerWidth + .5 || box.left < -.5
            || !field && node.clientWidth && node.scrollWidth > node.clientWidth + 1);
        }).map(node => [node.tagName, node.id, node.className, node.clientWidth, node.scrollWidth])"""
    )
    return found


def in_view(tab: Tab, selector: str) -> bool:
    """Whether the whole height of an element is seen, and not below the panel."""
    seen: bool = tab.evaluate(
        f"""(() => {{
          const node = document.querySelector({selector!r}), box = node.getBoundingClientRect();
          const view = (node.closest('#text') ?? node.closest('aside')).getBoundingClientRect();
          return box.height > 0 && box.top >= view.top - 1 && box.bottom <= view.bottom + 1;
        }})()"""
    )
    return seen


def outside(tab: Tab, address: str) -> list[str]:
    """The addresses that were asked for and are not the server's."""
    return [asked for asked in tab.requests if not asked.startswith((address, "data:"))]
