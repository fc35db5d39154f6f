"""The notebook: all of it was run, the site shows it, and it runs without Jupyter too."""

import json
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from tests.support.mkdocs_hooks import hook

pytestmark = pytest.mark.optimised

ROOT = Path(__file__).parents[2]
TOUR = ROOT / "docs/tour.ipynb"
CELLS: list[dict[str, Any]] = json.loads(TOUR.read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
MANY = "branches=32"
"""Replies to each prompt under each threshold, which the test below has fewer of."""


render = hook("notebooks").render


def test_every_cell_was_run_once_and_in_order_and_no_machine_shows() -> None:
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert len(outputs) >= len(CODE) - 1
    assert {output.get("name", "") for output in outputs} == {"stdout", ""}
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    absolute = r"(?<![\w.:])/\w[\w.-]*(?:/[\w.-]+)+\.py\b"
    assert not re.search(absolute, TOUR.read_text())
    assert TOUR.stat().st_size < 200_000


def test_the_site_shows_texts_code_prints_and_pictures_of_all_cells() -> None:
    page, pictures = render(TOUR)
    assert page.startswith("# A tour\n")
    assert page.count("```python\n") == len(CODE)
    assert sorted(pictures) == ["tour-1.png", "tour-2.png"]
    for name, content in pictures.items():
        assert f"]({name})" in page
        assert content.startswith(b"\x89PNG")
    printed = re.sub(r"\s+", "", page)
    for cell in CODE:
        for output in cell["outputs"]:
            assert re.sub(r"\s+", "", "".join(output.get("text", ""))) in printed
    outputs = re.findall(r"^```text\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert max(len(line) for text in outputs for line in text.splitlines()) <= 88


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"execution_count": None}, "cell 1 was not run; make notebook runs all of them"),
        (
            {"outputs": [{"output_type": "error", "ename": "ValueError", "evalue": "no"}]},
            "failed with ValueError: no",
        ),
        ({"outputs": [{"output_type": "display_data", "data": {"text/html": "<b>"}}]}, "shows ['text/html']"),
    ],
)
def test_what_was_not_run_or_cannot_be_shown_is_no_page(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    cell = {"cell_type": "code", "execution_count": 1, "source": ["1"], "outputs": []}
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": [cell | change]}))
    with pytest.raises(ValueError, match=re.escape(said)):
        render(path)
    path.write_text(json.dumps({"cells": [cell]}))
    assert render(path).markdown == "```python\n1\n```\n"


@pytest.mark.long
def test_all_cells_run_in_order_and_print_what_cells_with_output_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no SmolLM2 is
    drawn: list[int] = []
    monkeypatch.setattr(plt, "show", lambda: drawn.append(len(plt.get_fignums())))
    assert sum(MANY in "".join(cell["source"]) for cell in CODE) == 1
    names: dict[str, Any] = {}
    with mpl.rc_context({"backend": "Agg"}):
        for cell in CODE:
            said, before = StringIO(), len(drawn)
            with redirect_stdout(said):
                exec("".join(cell["source"]).replace(MANY, "branches=2"), names)
            kinds = {output["output_type"] for output in cell["outputs"]}
            assert bool(said.getvalue().strip()) == ("stream" in kinds)
            assert (len(drawn) > before) == ("display_data" in kinds)
        plt.close("all")
    assert len(drawn) == 2
    assert names["shares"][0] == 0.0
    assert names["shares"][-1] == 1.0
    assert names["shares"] == sorted(names["shares"])
    assert "no out/smollm2" in said.getvalue()
