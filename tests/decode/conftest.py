"""Fixtures of the tests of several programs."""

import pytest

from decode import runner
from decode.runner import SamplingArgs


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads weights fails."""

    def load(args: SamplingArgs) -> None:
        raise AssertionError("the models were loaded")

    monkeypatch.setattr(runner, "load_models", load)
