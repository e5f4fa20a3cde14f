"""A compiled program's text (HLO) as data: computations, their instructions, the arrays these make
and the memory they lie in.

The text is what `jax.stages.Compiled.as_text()` gives. Its grammar is XLA's (`xla/hlo/parser` in
github.com/openxla/xla); only what this package asks for is read.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from functools import cached_property

HBM = 0
VMEM = 1
"""Memory spaces of a TPU's layouts; what is in others (semaphores, scalars) is a few bytes."""

COMMENT = re.compile(r"/\*.*?\*/")
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
    r"\b(?P<role>calls|to_apply|condition|body|true_computation|false_computation|"
    r"branch_computations|called_computations)=(?P<names>\{[^}]*\}|%[\w.\-]+)"
)
_WIDTHS = {"pred": 1, "token": 0, "opaque": 0}
"""Bytes of an element of types whose names hold no number of bits."""
_NUMBERED = re.compile(r"(\d+) (.*)")


@dataclass(frozen=True)
class Array:
    """An array in memory.

    Attributes:
        dtype: type as XLA writes it: bf16, f32, s32, pred...
        dims: shape of the array.
        space: the memory it lies in: `HBM`, `VMEM` or another.
        bytes: bytes it takes there, its padding to tiles included.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int
    bytes: int

    @property
    def unpadded_bytes(self) -> int:
        """Compute the bytes of its elements alone."""
        return _bytes(self.dtype, self.dims)


@dataclass(frozen=True)
class Instruction:
    """One instruction of a program.

    Attributes:
        name: unique in the program.
        type: type of its result, as written.
        opcode: kind of instruction: fusion, while, copy-start...
        operands: names of the instructions whose results it takes.
        attributes: the rest of its line, after the opening parenthesis.
        root: whether the instruction's result is its computation's.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Return the arrays of its result; a tuple's one after another."""
        return parse_arrays(self.type)

    @cached_property
    def called(self) -> dict[str, tuple[str, ...]]:
        """Return the computations it names, by role: calls, body, condition, to_apply..."""
        # while(%state), condition=%cond.3, body=%body.4
        # conditional(%which, ...), branch_computations={%small.1, %large.2}
        names = {}
        for call in _CALLS.finditer(self.attributes):
            names[call["role"]] = tuple(_OPERAND.findall(call["names"]))
        return names

    @property
    def does(self) -> str:
        """Return its opcode; that of an asynchronous start without `-start`."""
        return self.opcode.removesuffix("-start")

    def attribute(self, pattern: str) -> str | None:
        """Return the first group of a pattern in its attributes; None where they do not match."""
        match = re.search(pattern, self.attributes)
        if not match:
            return None
        return match[1]


@dataclass(frozen=True)
class Module:
    """A program.

    Attributes:
        computations: instructions in order, by the computation's name.
        entry: name of the computation that is run.
        places: places in the source as file:line, by the number of their stack frame.
    """

    computations: dict[str, tuple[Instruction, ...]]
    entry: str
    places: dict[int, str]

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Map every instruction's name to the instruction."""
        return {
            instruction.name: instruction
            for instruction in itertools.chain.from_iterable(self.computations.values())
        }

    def operands(self, instruction: Instruction) -> tuple[Instruction, ...]:
        """Return the instructions whose results an instruction takes."""
        return tuple(self.by_name[name] for name in instruction.operands if name in self.by_name)

    def place(self, instruction: Instruction) -> str:
        """Return an instruction's place in the source as file:line; empty where it is not said."""
        # metadata={op_name="jit(f)/add" stack_frame_id=2}, or in older versions of XLA
        # metadata={op_name="jit(f)/add" source_file="model.py" source_line=30}
        frame = instruction.attribute(r"\bstack_frame_id=(\d+)")
        if frame:
            return self.places.get(int(frame), "")
        file = instruction.attribute(r'source_file="([^"]*)"')
        line = instruction.attribute(r"source_line=(\d+)")
        if not file or not line:
            return ""
        return f"{file}:{line}"


def parse(text: str) -> Module:
    """Read a program.

    Raises:
        ValueError: the text has no entry computation.
    """
    # %add.7 (x: f32[], y: f32[]) -> f32[] {
    #   ...
    # }
    # ENTRY %main.9 (a: f32[8]) -> f32[8] {
    #   ...
    # }
    computations: dict[str, list[Instruction]] = {}
    entry = ""
    body: list[Instruction] = []
    for line in COMMENT.sub("", text).splitlines():
        if header := _COMPUTATION.match(line):
            body = computations.setdefault(header["name"], [])
            if header["entry"]:
                entry = header["name"]
        elif instruction := parse_instruction(line):
            body.append(instruction)
    if not entry:
        raise ValueError("no compiled program: the text has no ENTRY computation")
    bodies = {name: tuple(instructions) for name, instructions in computations.items()}
    return Module(bodies, entry, _parse_places(text))


def parse_instruction(line: str) -> Instruction | None:
    """Read a line of a computation; None where it is no instruction."""
    # ROOT %sum.3 = f32[8,128]{1,0:T(8,128)} add(%x, %y), metadata={op_name="jit(f)/add"}
    match = _INSTRUCTION.match(line.strip())
    if match is None:
        return None
    arguments, _, _ = match["rest"].partition(")")
    return Instruction(
        match["name"],
        match["type"],
        match["opcode"],
        tuple(_OPERAND.findall(arguments)),
        match["rest"],
        bool(match["root"]),
    )


def parse_arrays(type_: str) -> tuple[Array, ...]:
    """Read the arrays of a result's type; those of a tuple one after another."""
    # (bf16[4,12]{1,0:T(8,128)(2,1)S(1)}, u32[]{:S(2)}): an array in VMEM, and a semaphore
    arrays = []
    for match in _ARRAY.finditer(type_):
        # <= marks a bound: the axis has at most so many elements.
        dims = tuple(int(size.lstrip("<=")) for size in match["dims"].split(",") if size)
        layout = match["layout"] or ""
        space = _SPACE.search(layout)
        bytes_ = _bytes(match["dtype"], dims, layout)
        arrays.append(Array(match["dtype"], dims, int(space[1]) if space else HBM, bytes_))
    return tuple(arrays)


def _bytes(dtype: str, dims: tuple[int, ...], layout: str = "") -> int:
    """Compute the bytes of an array, its innermost axes padded to whole tiles."""
    # 3,2,1,0:T(8,128)(2,1): the axes from the innermost outwards, the two innermost in tiles of
    # 8 x 128
    axes, _, tiling = layout.partition(":")
    tile = _TILE.search(tiling)
    elements = math.prod(dims)
    if tile and dims:
        sizes = [dims[int(axis)] for axis in axes.split(",") if axis]
        steps = [int(step) for step in reversed(tile[1].split(","))]
        axis_steps = itertools.zip_longest(sizes, steps, fillvalue=1)
        elements = math.prod(-(-size // step) * step for size, step in axis_steps)
    # Bits of an element: f8e4m3fn has 8. A type without a number is looked up.
    bits = re.match(r"[a-z]+(\d+)", dtype)
    width = int(bits[1]) / 8 if bits else _WIDTHS.get(dtype, 4)
    return math.ceil(elements * width)


def _parse_places(text: str) -> dict[int, str]:
    """Read the stack frames of a program's header: the place of each by its number, as file:line.

    A frame in an installed package has the place of the innermost frame around it that is not.
    """
    # FileNames
    # 1 "model.py"
    #
    # FileLocations
    # 1 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=1 end_column=2}
    #
    # StackFrames
    # 1 {file_location_id=1 parent_frame_id=1}
    # 2 {file_location_id=1 parent_frame_id=2}
    files = _parse_table(text, "FileNames")
    locations = _parse_table(text, "FileLocations")
    frames = _parse_table(text, "StackFrames")
    # The first frame has no parent. Some versions of XLA count parents from 1, and say 1 for none.
    no_parent = _field(frames.get(1, ""), "parent_frame_id")
    places = {}
    parents = {}
    for number, frame in frames.items():
        location = locations.get(_field(frame, "file_location_id"), "")
        file = files.get(_field(location, "file_name_id"), "?").strip('"')
        places[number] = location and f"{file}:{_field(location, 'line')}"
        parents[number] = _field(frame, "parent_frame_id") - no_parent

    users_places = {}
    for number in frames:
        outer = number
        while "site-packages" in places[outer] and parents[outer] in frames:
            outer = parents[outer]
        if "site-packages" in places[outer]:
            outer = number
        users_places[number] = places[outer]
    return users_places


def _parse_table(text: str, heading: str) -> dict[int, str]:
    """Read the numbered lines below a heading: the rest of each line by its number."""
    _, _, below = text.partition(f"\n{heading}\n")
    table = {}
    for line in below.splitlines():
        match = _NUMBERED.fullmatch(line)
        if match is None:
            break
        table[int(match[1])] = match[2]
    return table


def _field(fields: str, name: str) -> int:
    """Return a field's number; 0 where it is missing."""
    # {file_location_id=2 parent_frame_id=1}
    match = re.search(rf"\b{name}=(\d+)", fields)
    if not match:
        return 0
    return int(match[1])
