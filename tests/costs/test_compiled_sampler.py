"""What is said of a compiled sampler that is not as counted. `make tpu` compiles one."""

from dataclasses import replace

import pytest

from sia_jax.costs.compiled import Collective
from sia_jax.costs.compiled_sampler import CompiledSampler, amiss
from sia_jax.costs.sampler import SamplerMemory, cache_moves
from sia_jax.costs.tpu import ChipMemory

FINE = CompiledSampler(
    counted=SamplerMemory(weights=1_000_000, gathered=0, caches=500, ids=20),
    memory=ChipMemory(arguments=1_009_000, temporary=10**9, program=10**9),
    exchanges=[
        Collective("all-reduce", ("s32[4]",), ("data", "fsdp"), 2, "policy"),
        Collective("all-gather", ("f32[16,151936]",), ("tensor",), 3, "policy"),
        Collective("all-gather", ("bf16[2048,1040]",), ("fsdp",), 0, ""),
    ],
    columns=(1040, 1056),
    moved={"policy": 0, "value": 0, "shared": 0, "": 99, "once": 99},
)

WINDOW = replace(
    FINE,
    memory=ChipMemory(arguments=1_000_520, temporary=0, program=0),
    moved=FINE.moved | {"": 0},
    in_place=520,
)
"""It is handed its state, and reads no prompts."""


def with_exchange(shape: str, axis: str) -> CompiledSampler:
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
            replace(FINE, moved=FINE.moved | {"shared": 7}),
            "loops to leave caches as they lie, 7 elements of shared",
        ),
        (WINDOW, None),
        (replace(WINDOW, in_place=519), "520 bytes of the state to stay where they lie, got 519"),
        (replace(WINDOW, moved=FINE.moved), "loops to leave caches as they lie, 99 elements of all"),
        (
            replace(WINDOW, counted=replace(FINE.counted, caches=500_000), in_place=500_020),
            "expected arguments of 1,500,020 bytes, got 1,000,520",
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


PROGRAM = """HloModule m

%body (p: f32[8]) -> f32[8] {
  %copy.1 = bf16[16,2,128,1040]{3,2,1,0:T(8,128)} copy(%x), metadata={op_name="jit(f)/value/layer_0/scatter"}
  %copy.2 = bf16[16,2,128,1040]{3,2,1,0} copy(%x), metadata={op_name="jit(f)/policy/layer_0/scatter"}
  %copy.3 = bf16[16,2,128,1000]{3,2,1,0} copy(%x), metadata={op_name="jit(f)/policy/other"}
  %copy.8 = bf16[16,2,128,1040]{3,2,1,0} copy(%x), backend_config={}
  %copy.9 = bf16[16,2,128,1040]{3,2,1,0} copy(%x), metadata={op_name="jit(f)/while/shared/layer_0/scatter"}
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
    names = ("policy", "value", "shared", "", "once")
    assert cache_moves(PROGRAM, 1040, layer) == dict.fromkeys(names, layer)
    assert cache_moves(PROGRAM, 1056, layer) == dict.fromkeys(names, 0)
