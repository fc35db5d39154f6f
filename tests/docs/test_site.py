"""What MkDocs is told of the repository, and what the pages promise: by the sources alone, without MkDocs."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

import sia_jax
from sia_jax.steering import gates, tilts
from sia_jax.steering.expressions import named
from tests.support.mkdocs_hooks import hook
from tests.support.site_check import LEAST, complaints

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for path in subprocess.run(
        ["git", "ls-files", "--", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if (ROOT / path).exists()
]


repository = hook("repository")


# Links, as GitHub reads them


def prose(page: str) -> str:
    """A page without its code."""
    text = re.sub(r"^ *```.*?^ *```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", text)


def slugs(page: str) -> set[str]:
    """The anchors that GitHub gives to headings: small letters, spaces as hyphens, words alone."""
    text = re.sub(r"^ *```.*?^ *```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert there.is_file(), f"{page}: {target}"
        assert there.is_relative_to(ROOT), f"{page}: {target}"
        if anchor:
            assert anchor in slugs(str(there.relative_to(ROOT))), f"{page}: {target}"


def test_anchors_are_those_of_github() -> None:
    assert "values-from-the-policys-own-states" in slugs("docs/decoding.md")
    assert "the-sampler-shape-smollm2-135m" in slugs("docs/benchmarks.md")


# Links and lists, as MkDocs reads them


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in (
        "README.md",
        "docs/a.md",
        "docs/python/b.md",
        "docs/a.png",
        "docs/t.ipynb",
        "configs/README.md",
        "code/x.py",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("text")
    return tmp_path


@pytest.mark.parametrize(
    ("page", "link", "becomes"),
    [
        ("README.md", "docs/a.md#here", "a.md#here"),
        ("README.md", "docs/a.png", "a.png"),
        ("README.md", "docs/t.ipynb", "t.md"),
        ("docs/python/b.md", "../t.ipynb#x", "../t.md#x"),
        ("README.md", "code/x.py", "source/code/x.py.md"),
        ("configs/README.md", "../docs/a.md", "a.md"),
        ("docs/a.md", "../README.md", "index.md"),
        ("docs/a.md", "../configs/README.md#x", "configs.md#x"),
        ("docs/a.md", "python/b.md", "python/b.md"),
        ("docs/a.md", "#here", "#here"),
        ("docs/a.md", "https://example.org/README.md", "https://example.org/README.md"),
        ("docs/python/b.md", "../../README.md", "../index.md"),
        ("docs/python/b.md", "../../code/x.py", "../source/code/x.py.md"),
        # What is not there is left for MkDocs to complain of.
        ("docs/a.md", "../nowhere.md", "../nowhere.md"),
        ("docs/a.md", "../../README.md", "../../README.md"),
        ("docs/a.md", "../code", "../code"),
    ],
)
def test_a_link_leads_to_where_the_site_has_its_file(root: Path, page: str, link: str, becomes: str) -> None:
    for before, after in (("see [it", "] x"), ("![a picture", "]"), ("[`code` of", "]")):
        text = f"{before}]({{}}){after}"
        assert repository.adapt(text.format(link), page, root).markdown == text.format(becomes)


def test_files_outside_docs_that_pages_link_to_are_told(root: Path) -> None:
    found = repository.adapt("[a](../code/x.py) [b](../README.md) [c](python/b.md)", "docs/a.md", root)
    assert found.files == {"code/x.py", "README.md"}


def test_code_stays_as_it_is(root: Path) -> None:
    code = "`[a](../README.md)` ``[`a`](../README.md)``\n\n```\n[a](../README.md)\n   - x\n```\n"
    assert repository.adapt(code, "docs/a.md", root).markdown == code
    link = repository.adapt(code + "[a](../README.md)", "docs/a.md", root).markdown
    assert link == code + "[a](index.md)"


def test_a_list_in_a_list_is_indented_as_pythons_markdown_asks(root: Path) -> None:
    text = "1. one\n   - a\n     more\n   - b\n2. two\n  1. c\n- d\n"
    assert repository.adapt(text, "docs/a.md", root).markdown == (
        "1. one\n    - a\n     more\n    - b\n2. two\n    1. c\n- d\n"
    )


def test_a_file_is_shown_whole_whatever_is_in_it(root: Path) -> None:
    (root / "code/x.py").write_text("a = '''\n````\n'''\n")
    assert repository.shown("code/x.py", root) == "# code/x.py\n\n`````python\na = '''\n````\n'''\n`````\n"


def test_the_site_has_every_page_of_docs_and_no_other() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    nav = text[text.index("\nnav:") :]
    listed = re.findall(r"^ +- (?:[\w ]+: )?([\w/.-]+\.md)$", nav, flags=re.MULTILINE)
    notebooks = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.ipynb")}
    expected = {page for page in PAGES if page.startswith("docs/")} | repository.CARRIED.keys() | notebooks
    assert sorted(listed) == sorted(map(repository.site_path, expected))


# The reference


def mentioned() -> list[str]:
    pages = sorted((ROOT / "docs/python").glob("*.md"))
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    names = mentioned()
    assert len(set(names)) == len(names)
    public = [name.removeprefix("sia_jax.") for name in names if name.count(".") == 1]
    assert sorted(public) == list(sia_jax.__all__)


@pytest.mark.parametrize("module", [gates, tilts])
def test_every_gate_and_tilt_is_on_a_page_of_the_reference(module: ModuleType) -> None:
    kind: Any = gates.Gate if module is gates else tilts.Tilt
    expected = {kind, *named(kind, module).values()}
    assert {f"{module.__name__}.{one.__name__}" for one in expected} <= set(mentioned())


@pytest.mark.parametrize("name", mentioned())
def test_what_the_reference_mentions_is_there(name: str) -> None:
    module, _, last = name.rpartition(".")
    assert getattr(importlib.import_module(module), last).__doc__


FIELDS = """
class A:
    a: int  # behind
    # above, in
    # two lines
    b: Float[Array, " B"] = 1
    c: str = "é # no comment"  # ein Wort
    d: Any = None
    e: Annotated[Any, Number(default=1.0, low=0, expected="0 or more", help="So " "much.")] = None
    f: Annotated[Any, Other(1)] = None
"""


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What Griffe is told, without Griffe."""
    monkeypatch.setitem(sys.modules, "griffe", MagicMock(Extension=object))
    return hook("reference")


def test_comments_of_fields_are_read_as_docstrings(reference: ModuleType) -> None:
    nodes: list[Any] = ast.parse(FIELDS).body[0].body  # type: ignore[attr-defined]
    said = [reference.comment_of(node, FIELDS.splitlines()) for node in nodes[:4]]
    assert said == ["behind", "above, in two lines", "ein Wort", ""]


def test_rows_of_sampling_numbers_are_read(reference: ModuleType) -> None:
    nodes: list[Any] = ast.parse(FIELDS).body[0].body  # type: ignore[attr-defined]
    rows = [reference.row_of(node) for node in nodes]
    assert rows[4] == {"default": "1.0", "low": "0", "expected": "0 or more", "help": "So much."}
    assert rows[:4] + rows[5:] == [None] * 5


# The check of a built site


PAGE = '<html><body><h1 id="top">T</h1>{}</body></html>'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for i in range(LEAST + 1):
        (tmp_path / f"{i}.html").write_text(PAGE.format(f'<a href="0.html#top">a</a><img src="a.png"> {i}'))
    (tmp_path / "a.png").touch()
    (tmp_path / "a.css").write_text("@font-face { src: url(a.woff2) }")
    return tmp_path


def test_a_whole_site_has_no_complaint_and_an_empty_folder_has(site: Path, tmp_path: Path) -> None:
    assert complaints(site) == []
    (tmp_path / "empty").mkdir()
    assert len(complaints(tmp_path / "empty")) == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('<a href="nowhere.html">x</a>', "no such file"),
        ('<a href="1.html#nowhere">x</a>', "no such place"),
        ('<a href="#nowhere">x</a>', "no such place"),
        ('<a href="/nowhere.html">x</a>', "no such file"),
        ('<img src="nowhere.png">', "no such file"),
        ('<script src="https://example.org/x.js"></script>', "would fetch https://example.org/x.js"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "would fetch //example.org/x.css"),
    ],
)
def test_what_is_wrong_with_a_page_is_told(site: Path, body: str, why: str) -> None:
    (site / "0.html").write_text(PAGE.format(body))
    (said,) = complaints(site)
    assert why in said
    assert str(site / "0.html") in said


def test_a_style_that_fetches_a_font_is_told(site: Path) -> None:
    (site / "a.css").write_text("@import 'https://example.org/font.css';")
    (said,) = complaints(site)
    assert "https://example.org/font.css" in said


def test_a_link_to_elsewhere_is_a_readers_own(site: Path) -> None:
    (site / "0.html").write_text(PAGE.format('<a href="https://example.org">x</a>'))
    assert complaints(site) == []


# What is built with what


def test_a_wheel_does_not_need_what_the_site_is_made_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    others = [
        *project["dependencies"],
        *(need for name, all_ in extras.items() if name != "docs" for need in all_),
    ]
    assert extras["docs"]
    assert [need for need in others if re.match(r"mk|griffe|sia_jax\[.*docs", need)] == []


def test_nothing_of_the_site_is_fetched_from_elsewhere() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in text
    assert re.findall(r"https?://", text) == []
