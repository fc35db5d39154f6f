"""The reader of compiled programs, on texts short enough to be read by eye."""

import pytest

from sia_jax.costs.compiled import (
    axes_of,
    collectives,
    moves_of_at_least,
    shape_bytes,
    while_bodies,
)

MESH = {"data": 2, "fsdp": 2, "tensor": 2}

LOOPS = """HloModule step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%inner (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %x = f32[4,8]{1,0} get-tuple-element(%p), index=1
  %moved = f32[8,4]{1,0:T(8,128)S(1)} transpose(%x), dimensions={1,0}
  %small = f32[4]{0} copy(%y)
  ROOT %out = (s32[], f32[4,8]{1,0}) tuple(%i, %x)
}

%outer (p.1: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %again = (s32[], f32[4,8]{1,0}) while(%p.1), condition=%less, body=%inner
  %sum.1 = f32[4,8]{1,0} all-reduce(%x), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  ROOT %out.1 = (s32[], f32[4,8]{1,0}) tuple(%i, %x), metadata={op_name="jit(f)/copy(twice)"}
}

%less (p.2: (s32[], f32[4,8])) -> pred[] {
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %copied = (f32[4,8]{1,0:S(1)}, f32[4,8]{1,0}, u32[]{:S(2)}) copy-start(%x)
  %loop = (s32[], f32[4,8]{1,0}) while(%start), condition=%less, body=%outer
  ROOT %result = f32[4,8]{1,0} get-tuple-element(%loop), index=1
}
"""


def read(instruction: str, computation: str = "ENTRY %main (x: f32[4,8]) -> f32[4,8]") -> list:
    """The collectives of a program of one computation with one instruction."""
    return collectives(f"HloModule step\n\n{computation} {{\n  {instruction}\n}}\n", MESH)


def test_a_body_has_the_text_of_the_loops_inside_it_but_not_of_those_around():
    bodies = while_bodies(LOOPS)
    assert set(bodies) == {"inner", "outer"}
    assert "%moved" in bodies["outer"]
    assert "%moved" in bodies["inner"]
    assert "%sum.1" not in bodies["inner"]
    assert "%copied" not in bodies["outer"]


def test_moves_are_copies_and_transposes_of_that_size_and_not_names_that_look_like_them():
    bodies = while_bodies(LOOPS)
    assert [line.split(" = ")[0] for line in moves_of_at_least(bodies["outer"], 32)] == ["%moved"]
    assert moves_of_at_least(bodies["outer"], 33) == []
    assert len(moves_of_at_least(bodies["outer"], 4)) == 2
    assert len(moves_of_at_least(LOOPS, 32)) == 2  # and what the entry begins to copy


def test_a_collective_knows_how_many_loops_are_around_it():
    (found,) = collectives(LOOPS, MESH)
    assert (found.kind, found.shapes, found.axes, found.loops) == (
        "all-reduce",
        ("f32[4,8]",),
        ("tensor",),
        1,
    )
    assert found.bytes == 128


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", ("tensor",)),
        ("{{0,2},{1,3},{4,6},{5,7}}", ("fsdp",)),
        ("{{0,1,2,3},{4,5,6,7}}", ("fsdp", "tensor")),
        ("[4,2]<=[8]", ("tensor",)),
        ("[4,2]<=[4,2]T(1,0)", ("fsdp",)),
        ("[2,4]<=[4,2]T(1,0)", ("data", "fsdp")),
        ("[1,8]<=[8]", ("data", "fsdp", "tensor")),
        ("mesh['axis_0'=2,'axis_1'=2,'axis_2'=2] {'axis_1'}", ("fsdp",)),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", ("data", "fsdp")),
        ("mesh['axis_0'=1,'axis_1'=2,'axis_2'=4], device_ids=([2,2,2]T(1,0,2)) {'axis_1'}", ("fsdp",)),
        ("mesh['axis_0'=8] {'axis_0'}", ("data", "fsdp", "tensor")),
        ("{}", ("data", "fsdp", "tensor")),
    ],
)
def test_devices_are_grouped_along_the_same_axes_however_the_text_writes_them(groups, axes):
    line = f"%y = bf16[8,128]{{1,0:T(8,128)(2,1)}} all-gather(%x), channel_id=1, replica_groups={groups}, "
    (found,) = read(line + 'dimensions={0}, metadata={op_name="jit(f)/dot"}')
    assert found.axes == axes
    assert found.source == "jit(f)/dot"


@pytest.mark.parametrize("groups", ["{{0,3},{1,2}}", "{{0,1,2},{3,4,5}}", "mesh['a'=8] {'a':(1)2}", "odd"])
def test_groups_that_are_no_axes_of_the_mesh_or_cannot_be_read_are_refused(groups):
    with pytest.raises(ValueError, match="expected groups of devices"):
        read(f"%y = f32[8] all-reduce(%x), replica_groups={groups}, to_apply=%add")


def test_axes_of_size_one_are_none():
    assert axes_of([[0, 1, 2, 3]], {"data": 1, "fsdp": 4, "tensor": 1}) == ("fsdp",)
    assert axes_of([[0], [1]], {"data": 2}) == ()


GROUPS = "replica_groups={{0,2},{1,3},{4,6},{5,7}}"


@pytest.mark.parametrize(
    ("instruction", "kind", "shapes"),
    [
        (f"%y = f32[8,4]{{1,0}} all-gather(%x), {GROUPS}, dimensions={{0}}", "all-gather", ["f32[8,4]"]),
        (
            f"%y = (f32[4,4], f32[2], f32[8,4], f32[4]) all-gather-start(%x, %z), {GROUPS}",
            "all-gather",
            ["f32[8,4]", "f32[4]"],
        ),
        (
            f"%y = (f32[4], /*index=1*/bf16[2]) all-reduce(%x, %z), {GROUPS}",
            "all-reduce",
            ["f32[4]", "bf16[2]"],
        ),
        (f"%y = f32[4] all-reduce-start(%x), {GROUPS}", "all-reduce", ["f32[4]"]),
        (f"%y = f32[4,8] reduce-scatter(%x), {GROUPS}, dimensions={{0}}", "reduce-scatter", ["f32[8,8]"]),
        (f"%y = f32[4] reduce-scatter(%x), {GROUPS}, dimensions={{0}}", "reduce-scatter", ["f32[8]"]),
        (f"%y = bf16[2,4,8] all-to-all(%x), {GROUPS}, dimensions={{0}}", "all-to-all", ["bf16[2,4,8]"]),
        (
            "%y = (s32[4], s32[4], u32[]) collective-permute-start(%x), source_target_pairs={{0,2},{2,0}}",
            "collective-permute",
            ["s32[4]"],
        ),
    ],
)
def test_a_collective_is_read_with_its_whole_arrays(instruction, kind, shapes):
    (found,) = read(instruction)
    assert (found.kind, list(found.shapes), found.axes) == (kind, shapes, ("fsdp",))
    assert found.bytes == sum(shape_bytes(shape) for shape in shapes)


def test_the_end_of_a_collective_is_not_another():
    assert read("%y = f32[8,4] all-gather-done(%x)") == []
    assert read("%y = s32[4] collective-permute-done(%x)") == []
    assert read("%all-gather.1 = f32[8,4] fusion(%all-reduce.2), calls=%all-gather.3") == []


def test_what_a_tpu_calls_an_all_reduce_with_a_slice_is_a_reduce_scatter():
    line = f"%y = (f32[8,4], f32[6]) all-reduce(%x, %z), {GROUPS}, to_apply=%add"
    (found,) = read(line, "%all-reduce-scatter.8.clone.1 (x: f32[8,4], z: f32[6]) -> (f32[4,4], f32[3])")
    assert (found.kind, found.shapes) == ("reduce-scatter", ("f32[8,4]", "f32[6]"))


def test_a_collective_that_overlaps_with_products_is_counted_once():
    gather = "%g = bf16[8,4] all-gather(%x), channel_id=7, replica_groups=[4,2]<=[8], dimensions={0}"
    pieces = {
        "fused_computation.1": 'u32[] custom-call(%g), custom_call_target="AsyncCollectiveStart"',
        "async_collective_fusion.2": "(f32[2,2], bf16[8,4]) tuple(%product, %g)",
        "async_collective_fusion.3": "(f32[2,2], bf16[8,4]) tuple(%other, %g)",
        "fused_computation.4": 'bf16[8,4] custom-call(%g), custom_call_target="AsyncCollectiveDone"',
    }
    text = "\n\n".join(
        f"%{name} (x: bf16[4,4]) -> u32[] {{\n  {gather}\n  ROOT %r = {rest}\n}}"
        for name, rest in pieces.items()
    )
    (found,) = collectives(f"HloModule step\n\n{text}\n", MESH)
    assert (found.kind, found.shapes, found.axes) == ("all-gather", ("bf16[8,4]",), ("tensor",))


def test_sizes_are_bytes_of_the_type_and_an_unknown_type_is_refused():
    assert shape_bytes("bf16[8,128]") == 2048
    assert shape_bytes("f32[]") == 4
    assert shape_bytes("pred[3]") == 3
    with pytest.raises(ValueError, match=r"got 'f8e4m3fn\[4\]'"):
        shape_bytes("f8e4m3fn[4]")
