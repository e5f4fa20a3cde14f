"""Which arrays of a score for every pair of positions go through HBM."""

from __future__ import annotations

from kdjax.hlo.materialised import Materialised, find_materialised
from kdjax.hlo.program_text import parse
from tests.hlo.tpu_programs import read

SEQUENCES = 8
HEADS = 4
LENGTH = 512
SCORES = SEQUENCES * HEADS * LENGTH * LENGTH


def of(text: str) -> list[Materialised]:
    return find_materialised(parse(text), SEQUENCES, [HEADS], LENGTH)


def written(type_: str, opcode: str = "add") -> list[Materialised]:
    """Return what is found of one instruction with such a result, of one array."""
    operand = "%x = f32[8,4,512,512]{3,2,1,0:T(8,128)} parameter(0)"
    return of(f"ENTRY %main () -> f32[] {{\n  {operand}\n  ROOT %a = {type_} {opcode}(%x)\n}}\n")


def test_scores_and_probabilities_that_are_results_are_found() -> None:
    """Both are results of the program; what it keeps on the chip on the way is not counted."""
    assert of(read("attention")) == [
        Materialised("bf16", 1, 2 * SCORES),
        Materialised("f32", 1, 4 * SCORES),
    ]


def test_turns_of_a_loop_count() -> None:
    text = read("loop").replace(
        "bf16[128,1024]{1,0:T(8,128)(2,1)S(1)} fusion(", "bf16[32,512,512] fusion("
    )
    assert "bf16[32,512,512]" in text
    assert of(text) == [Materialised("bf16", 6, 6 * 2 * SCORES)]


def test_scores_on_the_chip_masks_and_other_shapes_are_not_counted() -> None:
    assert written("bf16[8,4,512,512]{3,2,1,0:T(8,128)(2,1)}") == [
        Materialised("bf16", 1, 2 * SCORES)
    ]
    assert written("bf16[8,4,512,512]{3,2,1,0:T(8,128)(2,1)S(1)}") == []
    assert written("pred[8,512,512]{2,1,0:T(8,128)(4,1)}") == []
    assert written("bf16[8,512,1024]{2,1,0:T(8,128)(2,1)}") == []
    # Fewer matrices than sequences: no scores.
    assert written("f32[3,512,512]{2,1,0:T(8,128)}") == []  # parameters of three layers, 512 wide
    # Of six layers
    assert written("f32[6,8,4,512,512]") == [Materialised("f32", 1, 6 * 4 * SCORES)]


def test_opcodes_that_only_name_arrays_write_nothing() -> None:
    scores = "bf16[8,4,512,512]{3,2,1,0:T(8,128)(2,1)}"
    for opcode in ("get-tuple-element", "bitcast", "parameter", "copy-done"):
        assert written(scores, opcode) == []


def test_copy_counts_by_its_destination() -> None:
    here = "bf16[8,4,512,512]{3,2,1,0:T(8,128)(2,1)S(1)}"
    there = "bf16[8,4,512,512]{3,2,1,0:T(8,128)(2,1)}"
    assert written(f"({there}, {here}, u32[]{{:S(2)}})", "copy-start") == [
        Materialised("bf16", 1, 2 * SCORES)
    ]
    assert written(f"({here}, {there}, u32[]{{:S(2)}})", "copy-start") == []
    assert written(f"(({there}), {here}, s32[]{{:S(2)}})", "slice-start") == []
