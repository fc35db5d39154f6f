"""The program that compiles the sampler for TPUs: its verdicts and options. `make tpu` runs it."""

import re
from dataclasses import replace

import jax
import pytest

from decode import compile_tpu
from decode.compile_tpu import LAYERS, Args, Found, amiss, reckon
from sia_jax.costs.compiled import Collective
from sia_jax.costs.sampler import SamplerMemory, cache_moves
from sia_jax.costs.tpu import ChipMemory, chip_bytes

FINE = Found(
    counted=SamplerMemory(weights=1_000_000, gathered=0, caches=500, ids=20),
    memory=ChipMemory(arguments=1_009_000, temporary=10**9, program=10**9),
    exchanges=[
        Collective("all-reduce", ("s32[4]",), ("data", "fsdp"), 2, "policy"),
        Collective("all-gather", ("f32[16,151936]",), ("tensor",), 3, "policy"),
        Collective("all-gather", ("bf16[2048,1040]",), ("fsdp",), 0, ""),
    ],
    columns=(1040, 1056),
    moved={"policy": 0, "value": 99, "": 99},
)


def with_exchange(shape: str, axis: str) -> Found:
    return replace(FINE, exchanges=[Collective("all-gather", (shape,), (axis,), 3, "value")])


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (FINE, None),
        (
            replace(FINE, memory=ChipMemory(1_011_000, 0, 0)),
            "expected arguments of 1,000,000 bytes, got 1,011,000",
        ),
        (
            replace(FINE, moved={"policy": 7, "value": 0, "": 0}),
            "policy steps to leave caches as they lie, 7 elements",
        ),
        (with_exchange("s32[5]", "data"), "expected counts between groups"),
        (with_exchange("bf16[16,1040,2,128]", "tensor"), "no part of a cache of [1040, 1056] columns"),
        (with_exchange("bf16[16,2,128,1056]", "tensor"), "no part of a cache of [1040, 1056] columns"),
    ],
)
def test_what_is_not_as_expected_is_said_and_nothing_else(found, complaint):
    wrong = amiss(found)
    assert len(wrong) == (complaint is not None)
    assert complaint is None or complaint in wrong[0]


def test_what_is_compiled_whole_is_not_reckoned():
    assert reckon({LAYERS: 1000}) == 1000


def test_layers_that_are_not_compiled_take_what_the_last_one_added():
    assert reckon({LAYERS - 3: 100, LAYERS - 2: 107}) == 107 + 2 * 7


PROGRAM = """HloModule m

%body (p: f32[8]) -> f32[8] {
  %copy.1 = bf16[16,2,128,1040]{3,2,1,0:T(8,128)} copy(%x), metadata={op_name="jit(f)/value/layer_0/scatter"}
  %copy.2 = bf16[16,2,128,1040]{3,2,1,0} copy(%x), metadata={op_name="jit(f)/policy/layer_0/scatter"}
  %copy.3 = bf16[16,2,128,1000]{3,2,1,0} copy(%x), metadata={op_name="jit(f)/policy/other"}
  %copy.8 = bf16[16,2,128,1040]{3,2,1,0} copy(%x), backend_config={}
  %copy.4 = bf16[2,128,1040]{2,1,0} copy(%x), metadata={op_name="jit(f)/policy/small"}
  %copy-start.5 = (bf16[16,2,128,1040]{3,2,1,0}, bf16[16,2,128,1040]{3,2,1,0}, u32[]) copy-start(%x)
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %copy.6 = bf16[16,2,128,1040]{3,2,1,0} copy(%x), metadata={op_name="jit(f)/policy/layer_0/scatter"}
  %while.7 = f32[8] while(%p), condition=%condition, body=%body
}
"""


def test_caches_that_are_laid_out_anew_in_a_loop_are_counted_by_pass():
    layer = 16 * 2 * 128 * 1040
    assert cache_moves(PROGRAM, 1040, layer) == {"policy": layer, "value": layer, "": layer}
    assert cache_moves(PROGRAM, 1056, layer) == {"policy": 0, "value": 0, "": 0}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (Args(mesh=(1, 4, 1)), "needs 4 devices, got 8"),
        (Args(layers=2), "--layers must lie in 3 .. 28, got 2"),
        (Args(rows=7), "--rows must be a multiple of 2, data times fsdp, got 7"),
        (Args(topology="v9:1x1"), "of a generation in"),
    ],
)
def test_options_that_do_not_fit_end_the_program_with_a_reason(args, says, monkeypatch):
    monkeypatch.setattr(compile_tpu, "tpu_devices", lambda topology: chip_bytes(topology) and jax.devices())
    with pytest.raises(SystemExit, match=re.escape(says)):
        compile_tpu.main(args)
