"""What devices send one another in a compiled program: its collectives, read from the compiler's
text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from kdjax.hlo.program_text import COMMENT, Instruction, parse_instruction

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
        kind: kind of collective, one of `KINDS`.
        arrays: number of arrays that it moves at once.
        bytes: bytes of the whole arrays, on one device: what an all-reduce sums, an all-gather ends
            with, a reduce-scatter starts with, the others move. What crosses the links follows from
            the algorithm and the group.
        group: number of devices that take part together.
    """

    kind: str
    arrays: int
    bytes: int
    group: int


def collectives(text: str) -> list[Collective]:
    """Read the collectives of a compiled program, in the order of its text.

    Args:
        text: `jax.stages.Compiled.as_text()`.
    """
    read = []
    chains: set[str | None] = set()
    for line in COMMENT.sub("", text).splitlines():
        instruction = parse_instruction(line)
        if instruction is None:
            continue
        collective = collective_of(instruction)
        chain = chain_number(instruction)
        # A chain's start, steps and end are one collective.
        if collective is None or (chain is not None and chain in chains):
            continue
        chains.add(chain)
        read.append(collective)
    return read


def collective_of(instruction: Instruction) -> Collective | None:
    """Read an instruction's collective; None where it has none, or only one device takes part."""
    # %g = (bf16[8]{0}, bf16[32]{0}) all-gather-start(%x), replica_groups=[2,4]<=[8]
    kind = instruction.does
    group = _group(instruction.attributes)
    if kind not in KINDS or group == 1:
        return None
    sizes = [array.unpadded_bytes for array in instruction.arrays]
    # The type of these two has what goes in, then what comes out.
    if instruction.opcode in ("all-gather-start", "collective-permute-start"):
        sizes = sizes[(len(sizes) + 1) // 2 :]
    whole = sum(sizes)
    # Its result is one device's part.
    if kind == "reduce-scatter":
        whole *= group
    return Collective(kind, len(sizes), whole, group)


def chain_number(instruction: Instruction) -> str | None:
    """Return the number of the chain that an instruction belongs to; None where there is none.

    The compiler for TPUs may split a collective into a start, steps and an end in several fusions;
    it marks all of them with the same number.
    """
    # all-gather(%x), channel_id=1, frontend_attributes={chain_id="7"}
    return instruction.attribute(r'\bchain_id="(\d+)"')


def total_bytes(listed: Iterable[Collective], kind: str) -> int:
    """Sum the bytes of the collectives of one kind.

    Args:
        listed: collectives of a program.
        kind: kind to count, for instance all-gather.
    """
    return sum(collective.bytes for collective in listed if collective.kind == kind)


def _group(attributes: str) -> int:
    """Read the number of devices in a group, in any of the forms in which XLA writes groups."""
    # replica_groups=[2,4]<=[8]: two groups of four
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(match[1])
    # replica_groups={{0,1,2},{3,4,5}}
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return len(match[1].split(","))
    # replica_groups=mesh['a'=4,'b'=2], device_ids=([4,2]T(1,0)) {'a'}: along the mesh's axis a
    if match := re.search(
        r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(.*?\))? \{(.*?)\}", attributes
    ):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", match[2]))
    # source_target_pairs={{0,1},{1,0}}: a device sends to one other
    if match := re.search(r"source_target_pairs=\{\{(.*?)\}\}", attributes):
        return 1 + match[1].count("},{")
    return 1
