"""The program that compiles for TPUs: its verdicts and options, without libtpu. `make tpu` runs it."""

import re

import jax
import pytest

from sia_jax.costs.tpu import ChipMemory, chip_bytes
from sia_jax.costs.training_step import StepMemory
from train import compile_tpu
from train.compile_tpu import Args, too_much, weights_that_stay

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


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (Args(mesh=(1, 4, 1)), "needs 4 devices, got 8"),
        (Args(layers=2), "--layers must lie in 3 .. 28, got 2"),
        (Args(layers=29), "--layers must lie in 3 .. 28, got 29"),
        (Args(topology="v9:1x1"), "of a generation in"),
    ],
)
def test_options_that_do_not_fit_end_the_program_with_a_reason(args, says, monkeypatch):
    monkeypatch.setattr(compile_tpu, "tpu_devices", lambda topology: chip_bytes(topology) and jax.devices())
    with pytest.raises(SystemExit, match=re.escape(says)):
        compile_tpu.main(args)
