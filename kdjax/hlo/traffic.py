"""Bytes that an instruction of a compiled program moves to and from a TPU's HBM."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from kdjax.hlo.execution import fused_instructions
from kdjax.hlo.program_text import HBM, VMEM, Array, Instruction, Module

_READ_IN_PART = {"gather", "dynamic-slice", "slice"}
_WRITE_IN_PART = {"scatter", "dynamic-update-slice"}


def moved_bytes(module: Module, instruction: Instruction) -> int:
    """Estimate the bytes that an instruction reads from and writes to HBM.

    Where all it touches lies in VMEM, they are its bytes there. An array that is read or written in
    part counts by the part.

    Args:
        module: compiled program, parsed.
        instruction: an instruction of it.
    """
    by_operand = (operand.arrays for operand in module.operands(instruction))
    inputs = list(itertools.chain.from_iterable(by_operand))
    written = results(instruction, len(inputs))
    # Semaphores lie elsewhere.
    outputs = [array for array in written if array.space in (HBM, VMEM)]
    cap = _cap(module, instruction, inputs, outputs)
    sums = {HBM: 0.0, VMEM: 0.0}
    for array in (*inputs, *outputs):
        sums[array.space] = sums.get(array.space, 0) + min(array.bytes, cap)
    return round(sums[HBM] or sums[VMEM])


def results(instruction: Instruction, inputs: int) -> Sequence[Array]:
    """Return the arrays an instruction writes; an asynchronous start's type adds those it takes.

    Args:
        instruction: instruction whose results are wanted.
        inputs: number of arrays that the instruction takes.
    """
    # (f32[256]{0:T(256)S(1)}, f32[256]{0:T(256)}, u32[]{:S(2)}) copy-start(%x): where to, where
    # from, a semaphore
    if instruction.opcode == "copy-start":
        return instruction.arrays[:1]
    # ((f32[1024]), f32[256], s32[]{:S(2)}) slice-start(%x): inputs, results, a semaphore
    if instruction.opcode.endswith("-start"):
        return instruction.arrays[inputs:]
    return instruction.arrays


def _cap(
    module: Module, instruction: Instruction, inputs: Sequence[Array], outputs: Sequence[Array]
) -> float:
    """Return the most bytes by which any one array of an instruction is read or written."""
    does = {inner.opcode for inner in fused_instructions(module, instruction)} | {instruction.does}
    result = sum(array.bytes for array in outputs)
    # A table that is written in place: as much as the largest of what is put in.
    if does & _WRITE_IN_PART and any(array.bytes == result for array in inputs):
        return max((array.bytes for array in inputs if array.bytes < result), default=result)
    if does & (_WRITE_IN_PART | _READ_IN_PART):
        return result
    return math.inf
