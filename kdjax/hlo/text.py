"""A compiled program's text (HLO) as data: computations, their instructions, the arrays they make
and where these lie.

The text is what `jax.stages.Compiled.as_text()` gives. Its grammar is XLA's (`xla/hlo/parser` in
github.com/openxla/xla); read is only what `kdjax.hlo.estimate` and `kdjax.hlo.materialised` ask
for.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

HBM = 0
VMEM = 1
"""Memory spaces of a TPU's layouts; what is in others (semaphores, scalars) is a few bytes."""

_BYTES = {"pred": 1, "token": 0, "opaque": 0}
_COMMENT = re.compile(r"/\*.*?\*/")
_COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(
    r"(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>\(.*?\)|\S+) "
    r"(?P<opcode>[a-z][\w\-]*)\((?P<rest>.*)$"
)
_ARRAY = re.compile(r"\b(?P<dtype>[a-z]\w*)\[(?P<dims>[\d,<=]*)\](?:\{(?P<layout>[^}]*)\})?")
_TILE = re.compile(r"T\((\d+(?:,\d+)*)\)")
_SPACE = re.compile(r"S\((\d+)\)")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLS = re.compile(
    r"\b(?P<role>calls|to_apply|condition|body|true_computation|false_computation|branch_computations|"
    r"called_computations)=(?P<names>\{[^}]*\}|%[\w.\-]+)"
)
_NUMBERED = re.compile(r"(\d+) (.*)")


@dataclass(frozen=True)
class Array:
    """An array in memory.

    Attributes:
        dtype: as XLA writes it: bf16, f32, s32, pred...
        dims: its shape.
        space: where it lies: `HBM`, `VMEM` or another.
        bytes: what it takes there, its padding to tiles included.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int
    bytes: int


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        name: unique in the program.
        type: of its result, as written.
        opcode: what it does: fusion, while, copy-start...
        operands: names of what it takes.
        attributes: the rest of its line.
        root: whether its result is its computation's.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of its result; a tuple's one after another."""
        return tuple(_array(found) for found in _ARRAY.finditer(self.type))

    @cached_property
    def called(self) -> dict[str, tuple[str, ...]]:
        """Computations it names, by their role: calls, body, condition, to_apply,
        branch_computations..."""
        return {
            found["role"]: tuple(_OPERAND.findall(found["names"]))
            for found in _CALLS.finditer(self.attributes)
        }

    @property
    def does(self) -> str:
        """Its opcode, of an asynchronous start that of what it starts."""
        return self.opcode.removesuffix("-start")

    @property
    def line(self) -> str:
        """Its line, as `kdjax.hlo.collectives` reads it."""
        return f"%{self.name} = {self.type} {self.opcode}({self.attributes}"

    def attribute(self, pattern: str) -> str | None:
        """The group of a pattern in its attributes."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else None


@dataclass(frozen=True)
class Module:
    """A program.

    Attributes:
        computations: instructions in order, by the computation's name.
        entry: name of the computation that is run.
        places: source places as file:line, by the number of their stack frame.
    """

    computations: dict[str, tuple[Instruction, ...]]
    entry: str
    places: dict[int, str]

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Every instruction by its name."""
        return {one.name: one for body in self.computations.values() for one in body}

    def operands(self, instruction: Instruction) -> tuple[Instruction, ...]:
        """The instructions whose results it takes."""
        return tuple(self.by_name[name] for name in instruction.operands if name in self.by_name)

    def place(self, instruction: Instruction) -> str:
        """Where in the source it comes from, as file:line; empty where the text does not say."""
        if frame := instruction.attribute(r"\bstack_frame_id=(\d+)"):
            return self.places.get(int(frame), "")
        file = instruction.attribute(r'source_file="([^"]*)"')
        line = instruction.attribute(r"source_line=(\d+)")
        return f"{file}:{line}" if file and line else ""


def parse(text: str) -> Module:
    """Reads a program.

    Raises:
        ValueError: the text has no entry computation.
    """
    computations: dict[str, list[Instruction]] = {}
    entry = ""
    here = None
    for line in _COMMENT.sub("", text).splitlines():
        if header := _COMPUTATION.match(line):
            here = computations.setdefault(header["name"], [])
            entry = header["name"] if header["entry"] else entry
        elif line.startswith("}"):
            here = None
        elif here is not None and (found := _INSTRUCTION.match(line.strip())):
            here.append(_instruction(found))
    if not entry:
        raise ValueError("no compiled program: the text has no ENTRY computation")
    return Module({name: tuple(body) for name, body in computations.items()}, entry, _places(text))


def _instruction(found: re.Match[str]) -> Instruction:
    taken, _, _ = found["rest"].partition(")")
    operands = tuple(_OPERAND.findall(taken))
    return Instruction(
        found["name"], found["type"], found["opcode"], operands, found["rest"], bool(found["root"])
    )


def _array(found: re.Match[str]) -> Array:
    dims = tuple(int(n.lstrip("<=")) for n in found["dims"].split(",") if n)
    layout = found["layout"] or ""
    space = _SPACE.search(layout)
    return Array(
        found["dtype"], dims, int(space[1]) if space else HBM, _bytes(found["dtype"], dims, layout)
    )


def _bytes(dtype: str, dims: tuple[int, ...], layout: str) -> int:
    """Bytes of an array whose innermost axes are padded to whole tiles."""
    order, _, tiling = layout.partition(":")
    tile = _TILE.search(tiling)
    if tile and dims:
        sizes = [dims[int(axis)] for axis in order.split(",") if axis]  # innermost first
        inner = [int(n) for n in reversed(tile[1].split(","))]
        padded = (-(-n // m) * m for n, m in itertools.zip_longest(sizes, inner, fillvalue=1))
        return math.ceil(math.prod(padded) * _width(dtype))
    return math.ceil(math.prod(dims) * _width(dtype))


def _width(dtype: str) -> float:
    """Bytes of an element."""
    if dtype in _BYTES:
        return _BYTES[dtype]
    bits = re.match(r"[a-z]+(\d+)", dtype)  # f8e4m3fn has 8
    return int(bits[1]) / 8 if bits else 4


def _places(text: str) -> dict[int, str]:
    """The stack frames of a program's header, each as file:line: its innermost one outside of
    installed packages."""
    files = {number: name.strip('"') for number, name in _table(text, "FileNames")}
    locations = {
        number: f"{files.get(_field(fields, 'file_name_id'), '?')}:{_field(fields, 'line')}"
        for number, fields in _table(text, "FileLocations")
    }
    table = dict(_table(text, "StackFrames"))
    # 1 where parents are counted from 1, with 1 for none
    shift = _field(table.get(1, ""), "parent_frame_id")
    frames = {
        number: (
            locations.get(_field(fields, "file_location_id"), ""),
            _field(fields, "parent_frame_id") - shift,
        )
        for number, fields in table.items()
    }
    return {number: _own(frames, number) for number in frames}


def _own(frames: dict[int, tuple[str, int]], number: int) -> str:
    """The place of a frame, or of the first around it that is not in an installed package."""
    here = number
    around = frames[number][1]
    while "site-packages" in frames[here][0] and around in frames:
        here = around
        around = frames[around][1]
    return frames[number if "site-packages" in frames[here][0] else here][0]


def _field(fields: str, name: str) -> int:
    found = re.search(rf"\b{name}=(\d+)", fields)
    return int(found[1]) if found else 0


def _table(text: str, name: str) -> Iterator[tuple[int, str]]:
    """The numbered lines below a heading."""
    _, found, rest = text.partition(f"\n{name}\n")
    for line in rest.splitlines() if found else ():
        entry = _NUMBERED.fullmatch(line)
        if entry is None:
            return
        yield int(entry[1]), entry[2]
