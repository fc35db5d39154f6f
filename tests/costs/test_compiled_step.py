"""What is said of a compiled training step that takes more than the arithmetic says."""

import pytest

from sia_jax.costs.compiled_step import too_much, weights_that_stay
from sia_jax.costs.tpu import ChipMemory
from sia_jax.costs.training_step import StepMemory

ARITHMETIC = StepMemory(
    weights=700_000, trained=300_000, gradient=100, layer_inputs=200, layer=300, layer_weights=200
)


@pytest.mark.parametrize(
    ("memory", "complaint"),
    [
        (ChipMemory(1_000_000, 1000, 0), None),
        (ChipMemory(1_009_000, 10, 10**9), None),
        (ChipMemory(1_011_000, 1000, 0), "expected arguments of 1,000,000 bytes, got 1,011,000"),
        (ChipMemory(989_000, 1000, 0), "expected arguments of 1,000,000 bytes, got 989,000"),
        (ChipMemory(1_000_000, 1001, 0), "expected at most 1,000 temporary bytes, got 1,001"),
    ],
)
def test_arguments_must_be_as_counted_and_what_is_temporary_no_more_than_that(memory, complaint):
    assert too_much(memory, ARITHMETIC) == ([] if complaint is None else [complaint])


def test_a_layer_that_adds_half_of_its_weights_or_more_keeps_them():
    assert weights_that_stay(99, 200) == []
    (told,) = weights_that_stay(100, 200)
    assert told == "a further layer adds 100 temporary bytes: its gathered weights, 200, stay"
