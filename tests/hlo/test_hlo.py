"""A compiled program's text as data."""

from __future__ import annotations

import pytest

from kdjax.hlo.program_text import HBM, VMEM, Array, parse
from tests.hlo.tpu_programs import TEXTS, read


def result_arrays(line: str) -> tuple[Array, ...]:
    """Return the arrays of an instruction's result."""
    module = parse(f"ENTRY %main () -> f32[] {{\n  {line}\n}}\n")
    (instruction,) = module.computations["main"]
    return instruction.arrays


@pytest.mark.parametrize("name", sorted(path.stem for path in TEXTS.iterdir()))
def test_every_line_of_a_computation_is_an_instruction(name: str) -> None:
    text = read(name)
    lines = [line for line in text.splitlines() if line.startswith("  ") and " = " in line]
    module = parse(text)
    assert sum(map(len, module.computations.values())) == len(lines) > 0
    assert module.entry.startswith("main")
    for body in module.computations.values():
        assert [instruction.root for instruction in body].count(True) == 1
    # Whatever is named is there.
    for instruction in module.by_name.values():
        assert set(instruction.operands) <= set(module.by_name)
        for names in instruction.called.values():
            assert set(names) <= set(module.computations)


def test_arrays_lie_in_hbm_or_on_the_chip() -> None:
    assert result_arrays("ROOT %a = f32[8,128]{1,0:T(8,128)} add(%x, %y)") == (
        Array("f32", (8, 128), HBM, 4096),
    )
    assert result_arrays("ROOT %a = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} add(%x, %y)") == (
        Array("bf16", (8, 128), VMEM, 2048),
    )
    # Where to, where from, and a semaphore in a memory of its own.
    start = "(f32[256]{0:T(256)S(1)}, f32[256]{0:T(256)}, u32[]{:S(2)})"
    assert [(x.space, x.bytes) for x in result_arrays(f"%a = {start} copy-start(%x)")] == [
        (VMEM, 1024),
        (HBM, 1024),
        (2, 4),
    ]


def test_bytes_include_the_padding_to_tiles() -> None:
    (narrow,) = result_arrays("ROOT %a = bf16[4,12,128,64]{3,2,1,0:T(8,128)(2,1)} add(%x, %y)")
    assert narrow.bytes == 2 * 4 * 12 * 128 * 128
    # With the two inner axes exchanged, 64 takes the place of the 128 that tiles are wide.
    (turned,) = result_arrays("ROOT %a = bf16[4,12,128,64]{2,3,1,0:T(8,128)(2,1)} add(%x, %y)")
    assert turned.bytes == 2 * 4 * 12 * 128 * 64
    assert [
        x.bytes
        for x in result_arrays("ROOT %a = (pred[3,5], s4[10], f8e4m3fn[7], f32[]) tuple(%x)")
    ] == [15, 5, 7, 4]


def test_places_are_in_the_users_files_where_there_is_one() -> None:
    module = parse(
        """HloModule jit_f

FileNames
1 "lib/site-packages/flax/norm.py"
2 "own/model.py"

FunctionNames
1 "norm"

FileLocations
1 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=1 end_column=2}
2 {file_name_id=2 function_name_id=1 line=30 end_line=30 column=1 end_column=2}

StackFrames
1 {file_location_id=2 parent_frame_id=1}
2 {file_location_id=1 parent_frame_id=2}
3 {file_location_id=1 parent_frame_id=1}

ENTRY %main (x: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %a = f32[] negate(%x), metadata={op_name="f/neg" stack_frame_id=2}
  %b = f32[] negate(%a), metadata={op_name="f/neg" stack_frame_id=3}
  ROOT %c = f32[] negate(%b), metadata={op_name="f/neg" source_file="old.py" source_line=3}
}
"""
    )
    _, *rest = module.computations["main"]
    assert [module.place(instruction) for instruction in rest] == [
        "own/model.py:30",
        "lib/site-packages/flax/norm.py:7",
        "old.py:3",
    ]


def test_text_without_a_program_is_refused() -> None:
    with pytest.raises(ValueError, match="no compiled program"):
        parse("nothing")
