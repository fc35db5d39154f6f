"""The programs draw blank pictures; tests/reports looks at what they draw."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def drawn(blank_pictures: None) -> None:
    """Before what a file makes once."""
