"""Cases of a test that run only with the long ones, in `make test-long`."""

from typing import Any

import pytest


def long(*case: Any) -> Any:
    """One of the cases of `pytest.mark.parametrize`."""
    return pytest.param(*case, marks=pytest.mark.long)
