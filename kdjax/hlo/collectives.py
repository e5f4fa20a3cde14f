"""What devices send one another in a compiled program: its collectives, read from the compiler's
text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_BYTES = {"pred": 1, "bf16": 2} | {
    f"{kind}{bits}": bits // 8 for kind in "fsu" for bits in (8, 16, 32, 64)
}
_TYPE = r"(?P<type>\([^=]*?\)|\S+)"
_CALL = re.compile(
    rf"= {_TYPE} (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\((?P<rest>.*)$", re.MULTILINE
)
CHAIN = r'\bchain_id="(\d+)"'
"""What TPU's compiler marks a collective with that it writes into several fusions: its start, steps
and end."""
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
        kind: one of `KINDS`.
        arrays: how many arrays it moves at once.
        bytes: of the whole arrays, on one device: what an all-reduce sums, an all-gather ends with,
            a reduce-scatter starts with, the others move. What crosses the links follows from the
            algorithm and the group.
        group: devices that take part together.
    """

    kind: str
    arrays: int
    bytes: int
    group: int


def collectives(text: str) -> list[Collective]:
    """The collectives of a compiled program in the order of its text, but those of a device with
    itself.

    Args:
        text: `jax.stages.Compiled.as_text()`.
    """
    found = []
    chains = set()
    for call in _CALL.finditer(re.sub(r"/\*.*?\*/", "", text)):
        kind = call["kind"]
        group = _group(call["rest"])
        chain = re.search(CHAIN, call["rest"])
        if group == 1:
            continue
        if chain is not None:
            if chain[1] in chains:
                continue
            chains.add(chain[1])
        arrays = [_bytes(*array) for array in _ARRAY.findall(call["type"])]
        # Its type: what goes in, then what comes out
        if call["start"] and kind in (
            "all-gather",
            "collective-permute",
        ):
            arrays = arrays[(len(arrays) + 1) // 2 :]
        whole = sum(arrays) * (group if kind == "reduce-scatter" else 1)
        found.append(Collective(kind, len(arrays), whole, group))
    return found


def total(found: Iterable[Collective], kind: str) -> int:
    """Bytes of all collectives of a kind."""
    return sum(one.bytes for one in found if one.kind == kind)


def _bytes(dtype: str, shape: str) -> int:
    return _BYTES.get(dtype, 4) * math.prod(int(n) for n in shape.split(",") if n)


def _group(rest: str) -> int:
    """Devices of a group, in any of the forms XLA writes: [groups,size]<=…, {{0,1},…}, mesh[…]
    {axes}."""
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(found[1])
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(.*?\))? \{(.*?)\}", rest):
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", found[1])}
        return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", found[2]))
    if found := re.search(r"source_target_pairs=\{\{(.*?)\}\}", rest):
        return 1 + found[1].count("},{")
    return 1
