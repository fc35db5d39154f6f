"""The modules of the server's page in Node.js, against a document that is as plain as can be."""

import json
import os
import shutil
import subprocess
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sia_jax.serve.page import page_files

NODE = shutil.which("node")
LACKING = NODE is None and "CI" not in os.environ
"""Whether tests that need Node.js are left out; in CI they fail without it."""

_VOID = ("meta", "link", "input", "br", "img")

_MAIN = """
import {readFileSync} from "node:fs";
import {fire, open} from "./dom.mjs";
const {tree, address, hash} = JSON.parse(readFileSync("given.json", "utf8"));
if (tree) open(tree, address, hash);

const byId = id => document.getElementById(id);
const all = selector => document.querySelectorAll(selector);
const until = async (test, what) => {
  for (let waited = 0; !test(); waited += 5) {
    if (waited > 30_000) throw new Error(`it never came: ${what ?? test}`);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
};
const type = (id, text) => { byId(id).value = text; fire(byId(id), "input"); };
const slide = (id, place) => { byId(`${id}-slider`).value = place; fire(byId(`${id}-slider`), "input"); };
const press = (key, held = {}) => fire(document.activeElement ?? document.body, "keydown", {key, ...held});
const said = name => document.querySelector(`#${name} .text`).textContent;
const over = () => byId("stop").disabled && byId("state").textContent.includes("Base:");
const generate = async text => {
  byId("state").textContent = "";
  type("prompt", text);
  byId("generate").click();
  await until(over, `the replies to ${text}`);
};
if (tree) {
  await import("./page.js");
}
const found = await (async () => { STEPS })();
console.log("\\n" + JSON.stringify(found ?? null));
process.exit(0);
"""


class _Tree(HTMLParser):
    """Markup as ["name", {attributes}, [children]]."""

    def __init__(self) -> None:
        super().__init__()
        self.root: list[Any] = ["root", {}, []]
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = [tag, {name: value or "" for name, value in attrs}, []]
        self.open[-1][2].append(node)
        if tag not in _VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1][2].append(data)


def run_page(folder: Path, steps: str, address: str | None, hash: str = "") -> Any:
    """What some JavaScript returns once the page has loaded; exceptions of page and steps are raised.

    Args:
      folder: an empty one.
      steps: the body of an async function, with byId, all, until, type, slide, press, said, generate.
      address: of the server, ending in "/"; None: the page is not opened, the steps import modules of it.
      hash: of the page's address.
    """
    assert NODE is not None
    tree = None
    for part in page_files():
        if part.path != "/":
            (folder / Path(part.path).name).write_bytes(part.body)
        elif address is not None:
            parser = _Tree()
            parser.feed(part.body.decode())
            tree = next(node for node in parser.root[2] if node[0] == "html")
    shutil.copy(Path(__file__).with_name("page_dom.mjs"), folder / "dom.mjs")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "given.json").write_text(json.dumps({"tree": tree, "address": address, "hash": hash}))
    (folder / "main.mjs").write_text(_MAIN.replace("STEPS", steps))
    done = subprocess.run(
        [NODE, "main.mjs"], cwd=folder, capture_output=True, encoding="utf-8", check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout.splitlines()[-1])


_IGNORABLE = (
    *((0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F)),
    *((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F)),
    *((0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A)),
    (0xE0000, 0xE0FFF),
)
"""Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt."""


def hidden(code: int) -> bool:
    """Whether the page shows a character by an escape."""
    if code in (9, 10):
        return False
    return (
        unicodedata.category(chr(code)) in ("Cc", "Cs", "Zl", "Zp")
        or any(low <= code <= high for low, high in _IGNORABLE)
        or 0xFFF9 <= code <= 0xFFFB
    )


def escaped(text: str) -> str:
    """`shown` of the page, by a table of its own."""

    def one(character: str) -> str:
        code = ord(character)
        if not hidden(code):
            return character
        digits = f"{code:x}"
        if code < 0x100:
            return f"\\x{digits:0>2}"
        return f"\\u{digits:0>4}" if code < 0x10000 else f"\\u{{{digits}}}"

    return "".join(map(one, text))
