"""A short run of the fuzzing program over the readers of checkpoints."""

import pytest

from tests.fuzz.checkpoint_readers import READERS
from tests.fuzz.harness import run


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_changed_checkpoint_is_refused_by_name_or_read_right(reader):
    outcome = run(reader, seed=11, numbers=range(30))
    assert outcome.failures == {}
    assert outcome.counts["ValueError"] > 5
