from pathlib import Path

import pytest

from sia_jax.reports.benchmarks import section, write_page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_in_the_repository_is_the_one_made_from_its_records(tmp_path):
    write_page(DOCS / "benchmarks", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (DOCS / "benchmarks.md").read_text()


def test_a_record_of_no_known_kind_is_refused():
    with pytest.raises(ValueError, match="records are of kinds"):
        section({"kind": "dreams"})
