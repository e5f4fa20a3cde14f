"""Where the time of a compiled step goes: operations as XLA ran them, by part, kind and source
line.

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
from dataclasses import dataclass
from pathlib import Path

import jax

Span = tuple[float, float, str]
"""Start and end of an event in nanoseconds, and the operation's name."""

_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%(\S+) = (\([^=]*?\)|\S+) ([\w\-]+)\((.*)")
_COMPUTATION = re.compile(r"(?:ENTRY )?%(\S+) \(.*\{$")
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")
_NUMBERED = re.compile(r"(\d+) (.*)")

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
        kind: by the most telling instruction in it.
        part: forward, backward or optimiser and metrics.
        shape: of its result.
        source: file and line that asked for it.
        flops: of the matmuls in it.
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
        milliseconds: by operation name.
        operations: what each is.
        busy: of all operations.
        wall: from the start of the first operation to the end of the last.
    """

    milliseconds: Mapping[str, float]
    operations: Mapping[str, Operation]
    busy: float
    wall: float

    def table(self, top: int = 30) -> str:
        """Sums by part and kind, then the operations that take most, as Markdown."""
        lines = [f"{self.busy:.1f} ms busy of {self.wall:.1f} ms a step", ""]
        sums: Counter[tuple[str, str]] = Counter()
        for name, spent in self.milliseconds.items():
            sums[self.operations[name].part, self.operations[name].kind] += spent
        parts = ["forward", "backward", "optimiser, metrics"]
        kinds = [
            kind
            for kind, _ in Counter(
                {k: sum(sums[p, k] for p in parts) for _, k in sums}
            ).most_common()
        ]
        lines += [
            "| kind | " + " | ".join([*parts, "all", "%"]) + " |",
            "|---" * (len(parts) + 3) + "|",
        ]
        for kind in [*kinds, "all"]:
            cells = [sum(sums[p, k] for k in (kinds if kind == "all" else [kind])) for p in parts]
            lines.append(
                f"| {kind} | "
                + " | ".join(f"{ms:.1f}" for ms in [*cells, sum(cells)])
                + f" | {100 * sum(cells) / self.busy:.0f} |"
            )
        lines += ["", "| ms | % | kind | source line |", "|---" * 4 + "|"]
        for (source, kind), spent in self._by_source().most_common(top // 2):
            lines.append(f"| {spent:.1f} | {100 * spent / self.busy:.1f} | {kind} | {source} |")
        lines += [
            "",
            "| ms | % | GFLOP/s | part | kind | shape | source | operation |",
            "|---" * 8 + "|",
        ]
        for name, spent in Counter(self.milliseconds).most_common(top):
            op = self.operations[name]
            rate = f"{op.flops / spent / 1e6:.0f}" if op.flops else ""
            lines.append(
                f"| {spent:.2f} | {100 * spent / self.busy:.1f} | {rate} | {op.part} | {op.kind} "
                f"| {op.shape} "
                f"| {op.source} | {name} |"
            )
        return "\n".join(lines)

    def _by_source(self) -> Counter[tuple[str, str]]:
        """Milliseconds by source line and kind, forward and backward together."""
        sums: Counter[tuple[str, str]] = Counter()
        for name, spent in self.milliseconds.items():
            sums[self.operations[name].source, self.operations[name].kind] += spent
        return sums


def profile(step: Callable[[], object], text: str, steps: int) -> Profile:
    """Runs steps under JAX's profiler, each in a capture of its own.

    Args:
        step: runs one step and returns what it makes; warmed up.
        text: XLA's text of the compiled program.
        steps: how many to run.
    """
    operations = operations_of(text)
    shares = []
    walls = []
    for _ in range(steps):
        running = [span for span in _capture(step) if span[2] in operations]
        shares.append(share_out(running))
        walls.append(max(end for _, end, _ in running) - min(start for start, _, _ in running))
    names = {name for share in shares for name in share}
    milliseconds = {
        name: statistics.median(share.get(name, 0.0) for share in shares) / 1e6 for name in names
    }
    return Profile(
        milliseconds, operations, sum(milliseconds.values()), statistics.median(walls) / 1e6
    )


def _capture(step: Callable[[], object]) -> list[Span]:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as directory:
        jax.profiler.start_trace(directory, profiler_options=options)
        jax.block_until_ready(step())
        jax.profiler.stop_trace()
        (found,) = Path(directory).rglob("*.xplane.pb")
        return _spans(jax.profiler.ProfileData.from_file(str(found)))


def _spans(data: jax.profiler.ProfileData) -> list[Span]:
    """The events of all threads or streams that name an operation of XLA's."""
    found = []
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name is not None and event.duration_ns > 0:
                    found.append((event.start_ns, event.start_ns + event.duration_ns, str(name)))
    return found


def share_out(spans: Iterable[Span]) -> dict[str, float]:
    """The time in which anything ran, by operation: an instant in which several ran is theirs in
    equal shares."""
    edges = sorted(
        (at, change, name)
        for start, end, name in spans
        for at, change, name in _edges(start, end, name)
    )
    shares: dict[str, float] = defaultdict(float)
    active: Counter[str] = Counter()
    before = 0.0
    for at, change, name in edges:
        running = sum(active.values())
        for other, times in active.items():
            shares[other] += (at - before) * times / running
        active[name] += change
        if not active[name]:
            del active[name]
        before = at
    return dict(shares)


def _edges(
    start: float, end: float, name: str
) -> tuple[tuple[float, int, str], tuple[float, int, str]]:
    return (start, 1, name), (end, -1, name)


@dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    rest: str


def operations_of(text: str) -> dict[str, Operation]:
    """What the operations of a compiled program are, by name; what only holds others is left
    out."""
    computations = _computations(text)
    sources = _sources(text)
    fused = {
        match[1]
        for instructions in computations.values()
        for one in instructions
        if one.opcode == "fusion" and (match := re.search(r"calls=%([\w.\-]+)", one.rest))
    }
    found = {}
    for name, instructions in computations.items():
        if name in fused:
            continue
        for one in instructions:
            if one.opcode not in _CONTAINERS:
                inner = _inside(one, computations)
                found[one.name] = Operation(
                    _kind(inner),
                    _part(one.rest),
                    _short(one.shape),
                    _source(one, sources),
                    sum(map(_flops, inner)),
                )
    return found


def _computations(text: str) -> dict[str, list[_Instruction]]:
    found: dict[str, list[_Instruction]] = {}
    current: list[_Instruction] = []
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = found.setdefault(header[1], [])
        elif instruction := _INSTRUCTION.match(line):
            current.append(_Instruction(*instruction.groups()))
    # The operands of a matmul carry no shapes in the text: put them in front, where they are known.
    for instructions in found.values():
        shapes = {one.name: one.shape for one in instructions}
        for n, one in enumerate(instructions):
            if one.opcode == "dot":
                left = re.findall(r"%([\w.\-]+)", one.rest)[0]
                instructions[n] = _Instruction(
                    one.name, one.shape, one.opcode, f"{shapes[left]} {one.rest}"
                )
    return found


def _inside(
    one: _Instruction, computations: Mapping[str, list[_Instruction]]
) -> list[_Instruction]:
    """The instruction, or, of a fusion, those in it."""
    called = re.search(r"calls=%([\w.\-]+)", one.rest)
    if one.opcode != "fusion" or not called:
        return [one]
    return [deep for inner in computations[called[1]] for deep in _inside(inner, computations)]


def _kind(instructions: Iterable[_Instruction]) -> str:
    opcodes = {one.opcode for one in instructions}
    return next((kind for kind, telling in _KINDS if opcodes & telling), "fill, rest")


def _part(rest: str) -> str:
    named = re.search(r'op_name="([^"]*)"', rest)
    if not named:
        return "optimiser, metrics"
    return (
        "backward"
        if "transpose(" in named[1]
        else "forward"
        if "jvp" in named[1]
        else "optimiser, metrics"
    )


def _flops(one: _Instruction) -> int:
    """Of a matmul: twice the product of its dimensions."""
    if one.opcode != "dot":
        return 0
    left = _dims(one.rest)
    out = _dims(one.shape)
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.rest)
    over = [left[int(axis)] for axis in contracted[1].split(",")] if contracted else []
    return 2 * math.prod(out) * math.prod(over)


def _dims(shape: str) -> list[int]:
    found = _SHAPE.search(shape)
    return [int(n) for n in found[1].split(",") if n] if found else []


def _short(shape: str) -> str:
    return re.sub(r"\{[\d,]*(:[^}]*)?\}", "", shape)


def _sources(text: str) -> dict[int, str]:
    """File and line of each stack frame: the innermost that is kdjax's, or the innermost."""
    tables: dict[str, dict[int, str]] = {}
    current: dict[int, str] | None = None
    for line in text.splitlines():
        if line in {"FileNames", "FunctionNames", "FileLocations", "StackFrames"}:
            current = tables.setdefault(line, {})
        elif not line:
            current = None
        elif current is not None and (entry := _NUMBERED.match(line)):
            current[int(entry[1])] = entry[2]
    places = {}
    for number, entry in tables.get("FileLocations", {}).items():
        file = tables["FileNames"][int(re.search(r"file_name_id=(\d+)", entry)[1])].strip('"')  # type: ignore[index]
        line = re.search(r" line=(\d+)", entry)
        places[number] = (file, line[1] if line else "?")
    frames = {}
    for number, entry in tables.get("StackFrames", {}).items():
        where, parent = (int(n) for n in re.findall(r"=(\d+)", entry)[:2])
        frames[number] = (where, parent)

    def trace(number: int) -> list[tuple[str, str]]:
        seen = []
        while number in frames:
            where, parent = frames[number]
            seen.append(places[where])
            if parent in (number, 0):
                break
            number = parent
        return seen

    found = {}
    for number in frames:
        stack = trace(number)
        file, line = next((place for place in stack if "/kdjax/" in place[0]), stack[0])
        found[number] = f"{file.rpartition('/kdjax/')[2].rpartition('site-packages/')[2]}:{line}"
    return found


def _source(one: _Instruction, sources: Mapping[int, str]) -> str:
    frame = re.search(r"stack_frame_id=(\d+)", one.rest)
    return sources.get(int(frame[1]), "") if frame else ""
