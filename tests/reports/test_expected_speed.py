"""The tables of the speed to expect, and how they come into a page."""

from dataclasses import replace
from pathlib import Path

import pytest

from decode import expected_speed
from sia_jax.costs.shapes import REAL_SHAPES
from sia_jax.reports.expected_speed import expected_speed as tables
from sia_jax.reports.markdown import table, with_section

PAGE = Path(__file__).parents[2] / "docs" / "decoding.md"


def test_the_section_of_the_page_is_what_the_program_says():
    page = PAGE.read_text(encoding="utf-8")
    assert with_section(page, expected_speed.section(expected_speed.Args())) == page


def test_every_system_has_a_cost_and_a_speed_at_every_batch_on_every_device():
    lines = tables(REAL_SHAPES["tiny"], 64, 2.0).splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ") and "---" not in line]
    assert [len(row) for row in rows].count(6) == 1 + 1 + 16
    assert [len(row) for row in rows].count(9) == 1 + 16
    assert all(0 < float(cell.strip(" |")) <= 1 for row in rows[-16:] for cell in row[3:])


def test_the_command_is_told_with_the_options_that_are_not_the_usual_ones():
    args = replace(expected_speed.Args(), columns=64)
    assert "`python -m decode.expected_speed --columns 64`" in expected_speed.section(args).replace("\n", " ")


def test_the_program_makes_the_section_anew_and_leaves_the_rest_of_the_page(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"# A\n\n{expected_speed.HEADING}\n\nreplaced\n\n## B\n\nkept\n")
    expected_speed.main(expected_speed.Args(shape="0.6B", page=page))
    text = page.read_text()
    assert text.startswith(f"# A\n\n{expected_speed.HEADING}\n\nCounted by")
    assert text.endswith("|\n\n## B\n\nkept\n")
    assert "replaced" not in text
    assert "Qwen3-0.6B" in capsys.readouterr().out


def test_options_that_do_not_fit_end_the_program_with_a_reason():
    with pytest.raises(SystemExit, match="--columns must be 1 or more, got 0"):
        expected_speed.main(expected_speed.Args(columns=0))


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("## X\nold\n", "## X\nnew\n"),
        ("## X\n", "## X\nnew\n"),
        ("a\n\n## X\n\nold\n### sub\nold\n## Y\n", "a\n\n## X\nnew\n\n## Y\n"),
    ],
)
def test_a_section_ends_at_the_next_heading_of_its_kind(page, expected):
    assert with_section(page, "## X\nnew\n") == expected


@pytest.mark.parametrize("page", ["", "## X Y\n", "## X\n## X\n", "text ## X\n"])
def test_a_page_without_the_heading_once_is_refused(page):
    with pytest.raises(ValueError, match="with the heading '## X' once, got it"):
        with_section(page, "## X\nnew\n")


def test_a_table_has_a_line_of_dashes_below_its_titles():
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
