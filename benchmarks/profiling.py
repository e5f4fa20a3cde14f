"""Show where the time of a compiled step goes: XLA's operations, by part, kind and source line.

`profile` captures some steps with JAX's profiler and gives every instant to the operations that ran
in it, in equal shares where several did, so that the times of all operations add up to the time in
which anything ran. What an operation is, XLA's own text of the program says (`compiled.as_text()`).
"""

from __future__ import annotations

import math
import re
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from benchmarks import tables

Span = tuple[float, float, str]
"""Start and end of an event in nanoseconds, and the operation's name."""

_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%(\S+) = (\([^=]*?\)|\S+) ([\w\-]+)\((.*)")
_COMPUTATION = re.compile(r"(?:ENTRY )?%(\S+) \(.*\{$")
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")
_NUMBERED = re.compile(r"(\d+) (.*)")
_CALLED = re.compile(r"calls=%([\w.\-]+)")

PARTS = ("forward", "backward", "optimiser, metrics")

_KINDS = (
    ("matmul", {"dot", "convolution"}),
    ("scatter, gather", {"scatter", "gather", "dynamic-slice", "dynamic-update-slice"}),
    ("random bits", {"rng-bit-generator", "xor", "shift-left", "shift-right-logical"}),
    ("reduction", {"reduce", "reduce-window"}),
    (
        "exp, erf, log",
        {"exponential", "erf", "log", "tanh", "log-plus-one", "exponential-minus-one"},
    ),
    (
        "elementwise",
        {
            "add",
            "subtract",
            "multiply",
            "divide",
            "select",
            "compare",
            "sqrt",
            "rsqrt",
            "maximum",
            "convert",
        },
    ),
    ("copy, transpose", {"copy", "transpose", "concatenate", "slice", "pad", "reverse"}),
)
"""What an operation counts as: the first entry of which it holds an instruction."""

_CONTAINERS = {"while", "conditional", "call"}


@dataclass(frozen=True)
class Operation:
    """An instruction that XLA runs as a whole, a fusion perhaps.

    Attributes:
        kind: what the most telling instruction in it does, a name of `_KINDS`.
        part: the part of a step that it belongs to, one of `PARTS`.
        shape: type and shape of its result.
        source: file and line that asked for it.
        flops: FLOPs of the matmuls in it.
    """

    kind: str
    part: str
    shape: str
    source: str
    flops: int


@dataclass(frozen=True)
class Profile:
    """Milliseconds of a step, medians over the steps.

    Attributes:
        milliseconds: time of each operation, by its name.
        operations: what each operation is, by its name.
        busy: time in which any operation ran.
        wall: time from the start of the first operation to the end of the last.
    """

    milliseconds: Mapping[str, float]
    operations: Mapping[str, Operation]
    busy: float
    wall: float

    def table(self, top: int = 30) -> str:
        """Return Markdown: sums by part and kind, then what takes most of the time.

        Args:
            top: operations listed; of source lines half as many.
        """
        by_part: Counter[tuple[str, str]] = Counter()
        by_kind: Counter[str] = Counter()
        by_source: Counter[tuple[str, str]] = Counter()
        for name, spent in self.milliseconds.items():
            operation = self.operations[name]
            by_part[operation.part, operation.kind] += spent
            by_part[operation.part, "all"] += spent
            by_kind[operation.kind] += spent
            by_source[operation.source, operation.kind] += spent

        # A row for each kind, and one for all of them.
        sums = []
        for kind, spent in [*by_kind.most_common(), ("all", self.busy)]:
            parts = [f"{by_part[part, kind]:.1f}" for part in PARTS]
            sums.append([kind, *parts, f"{spent:.1f}", f"{100 * spent / self.busy:.0f}"])
        lines = []
        # Source lines, then single operations: those that took most of the time.
        for (source, kind), spent in by_source.most_common(top // 2):
            lines.append([f"{spent:.1f}", f"{100 * spent / self.busy:.1f}", kind, source])
        largest = []
        for name, spent in Counter(self.milliseconds).most_common(top):
            op = self.operations[name]
            rate = f"{op.flops / spent / 1e6:.0f}" if op.flops else ""
            times = [f"{spent:.2f}", f"{100 * spent / self.busy:.1f}", rate]
            largest.append([*times, op.part, op.kind, op.shape, op.source, name])

        header = ["ms", "%", "GFLOP/s", "part", "kind", "shape", "source", "operation"]
        sections = [
            f"{self.busy:.1f} ms busy of {self.wall:.1f} ms a step",
            tables.markdown(["kind", *PARTS, "all", "%"], sums),
            tables.markdown(["ms", "%", "kind", "source line"], lines),
            tables.markdown(header, largest),
        ]
        return "\n\n".join(sections)


def profile(step: Callable[[], object], text: str, steps: int) -> Profile:
    """Run steps under JAX's profiler, each in a capture of its own.

    Args:
        step: runs one step and returns what it makes; warmed up.
        text: XLA's text of the compiled program.
        steps: how many to run.
    """
    operations = operations_of(text)
    times: dict[str, list[float]] = {}
    walls = []
    for number in range(steps):
        running = [span for span in _capture(step) if span[2] in operations]
        walls.append(max(end for _, end, _ in running) - min(start for start, _, _ in running))
        for name, spent in share_out(running).items():
            # An operation that one capture has missed took no time in that step.
            times.setdefault(name, [0.0] * steps)[number] = spent
    milliseconds = {name: statistics.median(spent) / 1e6 for name, spent in times.items()}
    busy = sum(milliseconds.values())
    return Profile(milliseconds, operations, busy, statistics.median(walls) / 1e6)


def _capture(step: Callable[[], object]) -> list[Span]:
    """Run one step under the profiler and return its events."""
    options = jax.profiler.ProfileOptions()
    # Python's own events would only slow the step down.
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as directory:
        jax.profiler.start_trace(directory, profiler_options=options)
        jax.block_until_ready(step())
        jax.profiler.stop_trace()
        (capture,) = Path(directory).rglob("*.xplane.pb")
        return _spans(jax.profiler.ProfileData.from_file(str(capture)))


def _spans(data: jax.profiler.ProfileData) -> list[Span]:
    """Return the events of all threads or streams that name an operation of XLA's."""
    spans = []
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name is not None and event.duration_ns > 0:
                    spans.append((event.start_ns, event.start_ns + event.duration_ns, str(name)))
    return spans


def share_out(spans: Iterable[Span]) -> dict[str, float]:
    """Share out the time in which anything ran, by operation.

    An instant in which several operations ran counts for each in equal shares.
    """
    edges = []
    for start, end, name in spans:
        edges += [(start, 1, name), (end, -1, name)]

    # Between two edges the same operations run; each gets its share of that stretch.
    shares: dict[str, float] = defaultdict(float)
    active: Counter[str] = Counter()
    before = 0.0
    for at, change, name in sorted(edges):
        running = active.total()
        for other, times in active.items():
            shares[other] += (at - before) * times / running
        active[name] += change
        if not active[name]:
            del active[name]
        before = at
    return dict(shares)


@dataclass(frozen=True)
class _Instruction:
    """A line of XLA's text."""

    name: str
    shape: str
    opcode: str
    rest: str


def operations_of(text: str) -> dict[str, Operation]:
    """Return what the operations of a compiled program are, by name.

    Args:
        text: XLA's text of the program. What only holds other operations is left out.
    """
    computations = _computations(text)
    sources = _sources(text)
    # What is fused runs as part of its fusion, which stands in another computation.
    fused: set[str] = set()
    for instructions in computations.values():
        fused.update(map(_fusion, instructions))
    operations = {}
    for name, instructions in computations.items():
        if name in fused:
            continue
        for instruction in instructions:
            if instruction.opcode in _CONTAINERS:
                continue
            inner = _inside(instruction, computations)
            operations[instruction.name] = Operation(
                _kind(inner),
                _part(instruction.rest),
                re.sub(r"\{[\d,]*(:[^}]*)?\}", "", instruction.shape),
                _source(instruction, sources),
                sum(map(_flops, inner)),
            )
    return operations


def _computations(text: str) -> dict[str, list[_Instruction]]:
    """Return the instructions of each computation of the program, by its name."""
    computations: dict[str, list[_Instruction]] = {}
    current: list[_Instruction] = []
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations.setdefault(header[1], [])
        elif match := _INSTRUCTION.match(line):
            current.append(_Instruction(*match.groups()))
    # The operands of a matmul carry no shapes in the text: put them in front, where they are known.
    for instructions in computations.values():
        shapes = {instruction.name: instruction.shape for instruction in instructions}
        for n, instruction in enumerate(instructions):
            if instruction.opcode == "dot":
                lhs = re.findall(r"%([\w.\-]+)", instruction.rest)[0]
                instructions[n] = replace(instruction, rest=f"{shapes[lhs]} {instruction.rest}")
    return computations


def _fusion(instruction: _Instruction) -> str | None:
    """Return the name of the computation that a fusion runs; None for any other instruction."""
    called = _CALLED.search(instruction.rest)
    if called is None or instruction.opcode != "fusion":
        return None
    return called[1]


def _inside(
    instruction: _Instruction, computations: Mapping[str, list[_Instruction]]
) -> list[_Instruction]:
    """Return the instruction, or, of a fusion, those in it."""
    fusion = _fusion(instruction)
    if fusion is None:
        return [instruction]
    inner = []
    for part in computations[fusion]:
        inner += _inside(part, computations)
    return inner


def _kind(instructions: Iterable[_Instruction]) -> str:
    """Return what an operation counts as, from the instructions in it."""
    opcodes = {instruction.opcode for instruction in instructions}
    return next((kind for kind, telling in _KINDS if opcodes & telling), "fill, rest")


def _part(rest: str) -> str:
    """Return the part of a step that an instruction belongs to, from JAX's name for it."""
    named = re.search(r'op_name="([^"]*)"', rest)
    if named and "transpose(" in named[1]:
        return "backward"
    if named and "jvp" in named[1]:
        return "forward"
    return "optimiser, metrics"


def _flops(instruction: _Instruction) -> int:
    """Return the FLOPs of a matmul, twice the product of its dimensions; 0 for anything else."""
    if instruction.opcode != "dot":
        return 0
    lhs = _dims(instruction.rest)
    # The result's dimensions, and of the left operand's those that are summed over.
    flops = 2 * math.prod(_dims(instruction.shape))
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
    if contracted:
        flops *= math.prod(lhs[int(axis)] for axis in contracted[1].split(","))
    return flops


def _dims(shape: str) -> list[int]:
    """Return the dimensions of the first shape in a text."""
    # A tuple's first array stands for it.
    match = _SHAPE.search(shape)
    return [int(n) for n in match[1].split(",") if n] if match else []


def _sources(text: str) -> dict[int, str]:
    """Return file and line of each stack frame: the innermost of kdjax's, or the innermost."""
    # The program's text ends with four numbered tables that refer to one another.
    tables_of_text: dict[str, dict[int, str]] = defaultdict(dict)
    current = ""
    for line in text.splitlines():
        if line in {"FileNames", "FunctionNames", "FileLocations", "StackFrames"}:
            current = line
        elif not line:
            current = ""
        elif current and (numbered := _NUMBERED.match(line)):
            tables_of_text[current][int(numbered[1])] = numbered[2]
    places = {}
    for number, entry in tables_of_text["FileLocations"].items():
        file = tables_of_text["FileNames"][_field("file_name_id", entry)].strip('"')
        places[number] = (file, str(_field(" line", entry) or "?"))
    frames = {}
    for number, entry in tables_of_text["StackFrames"].items():
        location, parent = re.findall(r"=(\d+)", entry)[:2]
        frames[number] = (int(location), int(parent))

    # The line of kdjax's that asked for an operation says more than a library's.
    sources = {}
    for number in frames:
        stack = _stack(number, frames, places)
        file, line = next((place for place in stack if "/kdjax/" in place[0]), stack[0])
        file = file.rpartition("/kdjax/")[2].rpartition("site-packages/")[2]
        sources[number] = f"{file}:{line}"
    return sources


def _field(name: str, text: str) -> int:
    """Return the number that `name=` stands before; 0 where it does not."""
    match = re.search(rf"{name}=(\d+)", text) or ("", 0)
    return int(match[1])


def _stack(
    number: int, frames: Mapping[int, tuple[int, int]], places: Mapping[int, tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return the places of a stack frame and those it was called from, the innermost first."""
    stack = []
    while number in frames:
        location, parent = frames[number]
        stack.append(places[location])
        # The outermost frame is its own parent.
        if parent == number:
            break
        number = parent
    return stack


def _source(instruction: _Instruction, sources: Mapping[int, str]) -> str:
    """Return file and line that asked for an instruction; empty where XLA does not say."""
    return sources.get(_field("stack_frame_id", instruction.rest), "")
