"""Whether attention is materialised: which arrays of a score for every pair of positions a program
writes to HBM."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from kdjax.hlo.estimate import executed, results
from kdjax.hlo.text import HBM, Array, Instruction, Module

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
"""What gives arrays another name and writes none of its own."""


@dataclass(frozen=True)
class Materialised:
    """Arrays of scores or probabilities that a device writes to HBM in one run of a program.

    Attributes:
        dtype: theirs.
        arrays: how many are written.
        bytes: of all of them; each is read again at least once.
    """

    dtype: str
    arrays: int
    bytes: int


def materialised(
    module: Module, sequences: int, heads: Iterable[int], length: int
) -> list[Materialised]:
    """The arrays [.., length, length] that are written to HBM: scores, probabilities, and their
    gradients; by type.

    They are told by their shape: two last axes of `length`, and before them as many elements as
    sequences times heads, or a multiple or whole part of that. Where other arrays have the same
    shape (a width that is `length`), they count.

    Args:
        module: a program compiled for TPUs (`kdjax.hlo.text.parse`).
        sequences: that a device works on at once.
        heads: on a device, of each of the models.
        length: of the sequences.
    """
    rows = [sequences * count for count in set(heads)]
    counts: dict[str, tuple[int, int]] = {}
    for one, turns in executed(module):
        for array in _written(module, one):
            if _is_of_pairs(array, rows, sequences, length):
                arrays, size = counts.get(array.dtype, (0, 0))
                counts[array.dtype] = (arrays + turns, size + turns * array.bytes)
    return [Materialised(dtype, *found) for dtype, found in sorted(counts.items())]


def _written(module: Module, one: Instruction) -> tuple[Array, ...]:
    """The arrays that an instruction writes to HBM."""
    if one.does in _NAMES or one.opcode.endswith("-done"):
        return ()
    taken = sum(len(operand.arrays) for operand in module.operands(one))
    return tuple(array for array in results(one, taken) if array.space == HBM)


def _is_of_pairs(array: Array, rows: list[int], sequences: int, length: int) -> bool:
    before = math.prod(array.dims[:-2])
    return (
        array.dtype in _FLOATS
        and array.dims[-2:] == (length, length)
        and before >= sequences
        and any(before % count == 0 or count % before == 0 for count in rows)
    )
