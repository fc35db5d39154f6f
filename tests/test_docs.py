import doctest
from pathlib import Path

import pytest

from tests.support.marks import long

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", [long("decoding.md"), "training.md"])
def test_the_examples_of_a_page_print_what_it_says(page):
    failed, attempted = doctest.testfile(str(DOCS / page), module_relative=False)
    assert attempted > 10
    assert failed == 0
