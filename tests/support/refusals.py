"""A refusal, and what it must tell."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(kind: type[Exception], *telling: object) -> Iterator[None]:
    """The block raises `kind` with a message that contains all of `telling`."""
    with pytest.raises(kind) as caught:
        yield
    for part in telling:
        assert str(part) in str(caught.value)
