"""What torch and PEFT trained, stored, so that the comparison runs where torch is absent."""

import numpy as np
import pytest

from tests.support.compare import GOLDEN, base_of
from tests.support.compare_training import assert_same_training, train


@pytest.mark.parametrize("name", ["qwen3-value", "llama-value"])
def test_packed_training_moves_the_adapter_and_the_head_as_torch_did(name):
    folder = GOLDEN / name
    with np.load(folder / "training.npz") as arrays:
        stored = dict(arrays)
    assert_same_training(train(folder, base_of(folder), stored), stored)
