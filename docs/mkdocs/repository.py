"""What MkDocs is told of the repository: its pages outside docs/, and links and lists as GitHub reads them.

The pages are written for GitHub, where a link is a path in the repository. MkDocs knows docs/ alone. So the
pages of `CARRIED` come into the site too, a notebook becomes a page, any other file that a page links to
becomes a page that shows it, and links are rewritten to lead there. What is not there stays as it is, and
MkDocs says so.
"""

import posixpath
import re
from pathlib import Path
from typing import Any, NamedTuple

from notebooks import fenced, render  # beside this file, where MkDocs looks while it reads hooks

ROOT = Path(__file__).parents[2]
DOCS = "docs/"
CARRIED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "configs/README.md": "configs.md",
}
"""Pages of the repository outside docs/, and what they are in the site."""
SHOWN = "source/"
"""Below which the site shows other files of the repository."""

_CODE = r"^(?P<fence>[ ]*`{3,})[^`\n]*\n.*?^(?P=fence)[ ]*$|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)"
_LINK = re.compile(rf"{_CODE}|\]\((?P<target>[^()\s]+)\)", re.DOTALL | re.MULTILINE)
_NESTED = re.compile(rf"{_CODE}|^[ ]{{2,3}}(?=(?:[-*+]|\d+\.) )", re.DOTALL | re.MULTILINE)


class Page(NamedTuple):
    """A page as the site has it."""

    markdown: str
    files: frozenset[str]
    """Of the repository, to which it links; outside docs/."""


def site_path(path: str) -> str:
    """Where a file of the repository stands among the sources of the site.

    Args:
      path: from the root of the repository.
    """
    if path in CARRIED:
        return CARRIED[path]
    if path.startswith(DOCS):
        return re.sub(r"\.ipynb$", ".md", path.removeprefix(DOCS))
    return f"{SHOWN}{path}.md"


def repository_path(path: str) -> str:
    """The file of the repository that a source of the site is made from; the inverse of `site_path`.

    Args:
      path: from the root of the site's sources; of a notebook's page, it is that of a page beside it.
    """
    carried = {theirs: ours for ours, theirs in CARRIED.items()}
    return carried.get(path, DOCS + path)


def adapt(markdown: str, path: str, root: Path = ROOT) -> Page:
    """A page of the repository, with links and lists as MkDocs reads them.

    Args:
      markdown: of the page.
      path: of the page, from the root of the repository.
      root: of the repository.
    """
    files = set[str]()

    def relink(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or re.match(r"#|[a-z]+:", target):
            return match[0]
        there, mark, anchor = target.partition("#")
        found = posixpath.normpath(posixpath.join(posixpath.dirname(path), there))
        if found.startswith("../") or not (root / found).is_file():
            return match[0]
        if not found.startswith(DOCS):
            files.add(found)
        there = posixpath.relpath(site_path(found), posixpath.dirname(site_path(path)) or ".")
        return f"]({there}{mark}{anchor})"

    # GitHub takes two or three spaces for a list in a list, where Python's Markdown asks for four.
    markdown = _NESTED.sub(lambda match: match[0] if match[0].strip() else "    ", markdown)
    return Page(_LINK.sub(relink, markdown), frozenset(files))


def shown(path: str, root: Path = ROOT) -> str:
    """A page that shows a file of the repository.

    Args:
      path: from the root of the repository.
      root: of the repository.
    """
    text = (root / path).read_text(encoding="utf-8")
    kind = {".py": "python", ".cff": "yaml", ".toml": "toml", ".md": "markdown"}.get(
        Path(path).suffix, "text"
    )
    return f"# {path}\n\n{fenced(text, kind)}\n"


def on_files(files: Any, config: Any) -> Any:
    """MkDocs asks which files there are: also those of the repository outside docs/."""
    from mkdocs.structure.files import File, InclusionLevel

    for path, theirs in CARRIED.items():
        files.append(File.generated(config, theirs, abs_src_path=str(ROOT / path)))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(notebook)
        rendered = render(Path(notebook.abs_src_path))
        folder = posixpath.dirname(notebook.src_uri)
        for name, picture in rendered.pictures.items():
            files.append(File.generated(config, posixpath.join(folder, name), content=picture))
        uri = site_path(DOCS + notebook.src_uri)
        files.append(File.generated(config, uri, content=rendered.markdown))
    pages = {one.src_uri: one.content_string for one in files.documentation_pages()}
    linked = [adapt(text, repository_path(uri)).files for uri, text in pages.items()]
    for path in sorted(frozenset().union(*linked) - CARRIED.keys()):
        level = InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, site_path(path), content=shown(path), inclusion=level))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs asks for the text of a page."""
    uri = page.file.src_uri
    return markdown if uri.startswith(SHOWN) else adapt(markdown, repository_path(uri)).markdown
