"""Whether attention is materialised: which arrays of a score for every pair of positions a program
writes to HBM."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from kdjax.hlo.execution import executed_instructions
from kdjax.hlo.program_text import HBM, Array, Instruction, Module
from kdjax.hlo.traffic import results

_FLOATS = ("bf16", "f16", "f32")
_NAMES = {
    "parameter",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "while",
    "conditional",
    "call",
    "async",
}
"""Opcodes that give arrays another name and write none of their own."""


@dataclass(frozen=True)
class Materialised:
    """Arrays of scores or probabilities that a device writes to HBM in one run of a program.

    Attributes:
        dtype: type of their elements.
        arrays: number of arrays that are written.
        bytes: bytes of all of them; each is read again at least once.
    """

    dtype: str
    arrays: int
    bytes: int


def find_materialised(
    module: Module, sequences: int, heads: Iterable[int], length: int
) -> list[Materialised]:
    """Find scores, probabilities and their gradients written to HBM, by type.

    An array counts as one of these by its shape: two last axes of `length`, and before them as many
    elements as sequences times heads, or a multiple or whole part of that. Other arrays of the same
    shape (a width that is `length`) are counted with them.

    Args:
        module: a program compiled for TPUs (`kdjax.hlo.program_text.parse`).
        sequences: number of sequences that a device works on at once.
        heads: number of heads on a device, of each of the models.
        length: tokens of a sequence.
    """
    score_matrices = [sequences * count for count in set(heads)]
    arrays: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for instruction, turns in executed_instructions(module):
        for array in _written(module, instruction):
            if _has_pairs(array, score_matrices, sequences, length):
                arrays[array.dtype] += turns
                sizes[array.dtype] += turns * array.bytes
    return [Materialised(dtype, arrays[dtype], sizes[dtype]) for dtype in sorted(arrays)]


def _written(module: Module, instruction: Instruction) -> list[Array]:
    """Return the arrays that an instruction writes to HBM."""
    if instruction.does in _NAMES or instruction.opcode.endswith("-done"):
        return []
    inputs = sum(len(operand.arrays) for operand in module.operands(instruction))
    return [array for array in results(instruction, inputs) if array.space == HBM]


def _has_pairs(array: Array, score_matrices: list[int], sequences: int, length: int) -> bool:
    """Return whether an array has a number for every pair of positions of every sequence.

    Args:
        array: an array that the program writes.
        score_matrices: number of `length` x `length` matrices that each model's scores have:
            sequences times heads.
        sequences: number of sequences that a device works on at once.
        length: tokens of a sequence.
    """
    if array.dtype not in _FLOATS or array.dims[-2:] != (length, length):
        return False
    before = math.prod(array.dims[:-2])
    matches = (before % count == 0 or count % before == 0 for count in score_matrices)
    return before >= sequences and any(matches)
