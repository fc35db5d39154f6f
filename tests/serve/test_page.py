"""The server's page: its files are whole, fit together, and ask for nothing from elsewhere."""

import asyncio
import re
import subprocess
import sys
from html.parser import HTMLParser

import httpx
import pytest
from starlette.applications import Starlette

from sia_jax.serve.page import PageFile, page_files, page_paths, page_routes

FILES = {part.path: part for part in page_files()}
SCRIPTS = {path: part.body.decode() for path, part in FILES.items() if path.endswith(".js")}
STYLE = FILES["/page/page.css"].body.decode()
HTML = FILES["/"].body.decode()


class Elements(HTMLParser):
    """Of a page: (name, attributes) in order, and what stands in no element that is void."""

    VOID = ("meta", "link", "input", "br", "img")

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


ELEMENTS = Elements(HTML)
IDS = [attributes["id"] for _, attributes in ELEMENTS.found if "id" in attributes]


def ask(path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=Starlette(routes=page_routes()))
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


@pytest.mark.parametrize("part", FILES.values(), ids=FILES)
def test_each_file_comes_whole_under_headers_that_let_it_do_nothing_else(part: PageFile) -> None:
    answer = ask(part.path)
    assert answer.status_code == 200
    assert answer.content == part.body
    assert int(answer.headers["content-length"]) == len(part.body)
    kind = {"": "text/html", "css": "text/css", "js": "text/javascript"}[
        part.path.rpartition(".")[2].strip("/")
    ]
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    policy = dict(
        directive.strip().split(" ", 1) for directive in answer.headers["content-security-policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }


def test_a_file_that_is_known_is_not_sent_again_and_head_has_no_body() -> None:
    etag = ask("/").headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
    assert len({part.etag for part in FILES.values()}) == len(FILES)
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = ask("/", **{"if-none-match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert ask("/", **{"if-none-match": '"other"'}).content == FILES["/"].body
    head = ask("/", method="HEAD")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
    assert int(head.headers["content-length"]) == len(FILES["/"].body)
    assert ask("/", method="POST").status_code == 405
    assert ask("/page/../page.py").status_code == 404


def test_the_page_names_every_file_and_no_other() -> None:
    named = {"/"}
    for tag, attributes in ELEMENTS.found:
        address = attributes.get("href" if tag == "link" else "src")
        if address is not None and not address.startswith("data:"):
            named.add(f"/{address}")
    for text in SCRIPTS.values():
        named |= {f"/page/{name}" for name in re.findall(r'from "\./([\w.]+)"', text)}
        assert not re.search(r"import\(|importScripts|new Worker", text)
    assert named == set(FILES) == page_paths()


def test_no_file_has_an_address_of_another_server() -> None:
    for path, part in FILES.items():
        text = part.body.decode()
        assert not re.search(r"\b[a-z][a-z0-9+.-]*://", text, re.IGNORECASE), path
        assert not re.search(r"""["'(=]\s*//""", text), path
        assert "@import" not in text
        assert "url(" not in text
    asked = {
        match for text in SCRIPTS.values() for match in re.findall(r'(?:ask|fetch)\((?:"([^"]*)"|path)', text)
    }
    assert asked - {""} == {"v1/models", "v1/chat/completions"}


def test_no_text_can_become_markup_or_script() -> None:
    sinks = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
        r"|createContextualFragment|setTimeout\(\s*[\"'`]|setHTML|\.href\s*=|\.src\s*="
    )
    for path, text in SCRIPTS.items():
        assert not re.search(sinks, text), path
    for tag, attributes in ELEMENTS.found:
        assert tag not in ("style", "iframe", "object", "base")
        # The policy runs none of these, so that they would be dead letters.
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    assert len([tag for tag, _ in ELEMENTS.found if tag == "script"]) == 1


def test_the_markup_is_closed_and_every_id_that_is_used_is_there_once() -> None:
    assert ELEMENTS.open == []
    assert len(IDS) == len(set(IDS))
    used = {name for text in SCRIPTS.values() for name in re.findall(r'byId\("([\w-]+)"\)', text)}
    numbers = re.findall(r"^  (\w+): \{$", SCRIPTS["/page/settings.js"], re.MULTILINE)
    assert numbers == ["threshold", "beta", "temperature", "tokens", "seed"]
    used |= {f"{name}{end}" for name in numbers for end in ("", "-slider", "-note")}
    for _, attributes in ELEMENTS.found:
        for name in ("for", "aria-describedby", "aria-labelledby", "aria-controls"):
            used |= set((attributes.get(name) or "").split())
    assert used <= set(IDS)
    figures = set(re.findall(r'data-figure="(\w+)"', HTML))
    assert figures == {"tokens", "steered", "shifted", "speed", "entropy"}


def test_every_control_has_a_name_that_is_read_out() -> None:
    labelled = {attributes["for"] for tag, attributes in ELEMENTS.found if tag == "label"}
    for tag, attributes in ELEMENTS.found:
        if tag in ("input", "select", "textarea"):
            assert attributes["id"] in labelled or attributes.get("aria-label"), attributes
        if tag in ("form", "aside") or "role" in attributes:
            assert attributes.get("aria-label") or attributes["role"] in ("status", "alert"), attributes
    roles = {
        attributes["id"]: attributes["role"]
        for _, attributes in ELEMENTS.found
        if "id" in attributes and "role" in attributes
    }
    assert roles == {"state": "status", "trouble": "alert"}
    # Of what changes with every token nothing is read out.
    live = [attributes["id"] for _, attributes in ELEMENTS.found if "aria-live" in attributes]
    assert live == ["state"]


def colours(block: str) -> dict[str, tuple[float, ...]]:
    found = {
        name: tuple(int(digits[i : i + 2], 16) for i in (0, 2, 4))
        for name, digits in re.findall(r"--(\w+): #([0-9a-f]{6});", block)
    }
    heat = re.search(r"--heat: (\d+), (\d+), (\d+); --most: ([.\d]+);", block)
    assert heat is not None
    # The deepest shade, laid over the card.
    most = float(heat[4])
    found["shade"] = tuple(
        most * int(heat[i + 1]) + (1 - most) * under for i, under in enumerate(found["card"])
    )
    return found


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """By the formula of WCAG 2.2."""

    def luminance(colour: tuple[float, ...]) -> float:
        parts = [x / 255 for x in colour]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(a), luminance(b)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_a_contrast_of_four_and_a_half_on_every_ground_also_the_deepest_shade(scheme: int) -> None:
    found = colours(STYLE.split(":root {")[scheme + 1].split("}")[0])
    for ground in ("ground", "card", "shade"):
        assert contrast(found["ink"], found[ground]) >= 4.5, ground
    for text in ("dim", "mark", "trouble"):
        for ground in ("ground", "card"):
            assert contrast(found[text], found[ground]) >= 4.5, (text, ground)
    # What is no text but has to be seen (WCAG 1.4.11): edges of fields, bars, the line under a junction.
    for mark in ("edge", "policy", "mark"):
        assert contrast(found[mark], found["card"]) >= 3, mark
    assert contrast(found["mark"], found["shade"]) >= 3


def test_the_page_moves_nothing_for_those_who_asked_for_no_motion() -> None:
    calm, _, moving = STYLE.partition("@media (prefers-reduced-motion: no-preference)")
    assert "animation" not in calm
    assert "transition" not in STYLE
    assert len(re.findall(r"animation:", moving)) == 1


def test_the_page_is_there_without_jax() -> None:
    code = "import sys, sia_jax.serve.page as p; p.page_routes(); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
