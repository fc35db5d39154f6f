"""The program that compiles the sampler for TPUs: its options, and what is reckoned. `make tpu` runs it."""

import re

import jax
import pytest

from decode import compile_tpu
from decode.compile_tpu import LAYERS, Args, reckon
from sia_jax.costs.tpu import chip_bytes


def test_what_is_compiled_whole_is_not_reckoned():
    assert reckon({LAYERS: 1000}) == 1000


def test_layers_that_are_not_compiled_take_what_the_last_one_added():
    assert reckon({LAYERS - 3: 100, LAYERS - 2: 107}) == 107 + 2 * 7


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (Args(mesh=(1, 4, 1)), "needs 4 devices, got 8"),
        (Args(layers=2), "--layers must lie in 3 .. 28, got 2"),
        (Args(programs=()), "--programs must name some of burst, shared, look-ahead, window"),
        (Args(rows=7), "--rows must be a multiple of 2, data times fsdp, got 7"),
        (Args(topology="v9:1x1"), "of a generation in"),
    ],
)
def test_options_that_do_not_fit_end_the_program_with_a_reason(args, says, monkeypatch):
    monkeypatch.setattr(compile_tpu, "tpu_devices", lambda topology: chip_bytes(topology) and jax.devices())
    with pytest.raises(SystemExit, match=re.escape(says)):
        compile_tpu.main(args)
