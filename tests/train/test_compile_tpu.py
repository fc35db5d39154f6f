"""The program that compiles for TPUs: its options, without libtpu. `make tpu` runs it."""

import re

import jax
import pytest

from sia_jax.costs.tpu import chip_bytes
from train import compile_tpu
from train.compile_tpu import Args


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
