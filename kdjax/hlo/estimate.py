"""How long a compiled program would take on a TPU: an estimate from its text and what the chip can
do.

`estimate(compiled.as_text(), chip("v5e"))` adds up all that the program executes, as if nothing ran
at the same time as anything else. Each operation's time has one of four sources:

`compute`: the TPU compiler's own cost model writes its cycles into the text (`estimated_cycles`).
`custom_calls`: a kernel's FLOPs at half the rate of the matrix units, or its bytes at HBM's rate
    where that is longer.
`collectives`: the bytes that a ring algorithm sends (Thakur, Rabenseifner, Gropp 2005), half of
them each way round, so that a device sends over one link to each of two neighbours.
`moves`: whatever else the compiler gives no cycles (copies, gathers, relayouts, sorts): its bytes
    at HBM's rate.

Loops count by their turns, a branch by its longest side, an asynchronous pair by its start, also on
another core.

Not added, but told (`hidden`): asynchronous copies between HBM and VMEM, which the compiler plans
    to run beside
compute. Left out: that collectives run beside compute where they can, latencies of copies and
collectives, waiting for other devices and the host, and that rows gathered or scattered one by one
move at less than HBM's rate. `benchmarks/estimates.py` compares the compiler's cycles with what
matmuls and memory allow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from kdjax.hlo.chips import Chip
from kdjax.hlo.collectives import CHAIN, KINDS, Collective, collectives
from kdjax.hlo.text import HBM, VMEM, Array, Instruction, Module, parse

SOURCES = ("compute", "custom_calls", "collectives", "moves")
HIDDEN = "prefetches"
"""The source of asynchronous copies."""
KERNEL = "tpu_custom_call"
"""What the text calls a Pallas kernel."""
KERNEL_RATE = 0.5
"""Share of the peak at which a kernel's FLOPs are taken to be done."""

Kernels = Mapping[tuple[str, tuple[tuple[int, ...], ...]], int]
"""FLOPs of kernels by their name and the shapes of their results (`kdjax.hlo.kernels.kernels`)."""

_FREE = {
    *(
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "opt-barrier",
        "add-dependency",
    ),
    *("partition-id", "replica-id", "domain", "get-dimension-size"),
}
_FREE_CALLS = {
    *(
        "PrepareAsyncCallStart",
        "PrepareAsyncCallDone",
        "ConcatBitcast",
        "AllocateBuffer",
        "LayoutConstraint",
        "AssumeAligned",
        "AssumeGatherIndicesInBound",
    ),
    *("GatherScatterIndicesBitpacked", "AsyncCollectiveStart", "AsyncCollectiveDone"),
    *(
        "Sharding",
        "SPMDFullToShardShape",
        "SPMDShardToFullShape",
        "X64Combine",
        "X64SplitLow",
        "X64SplitHigh",
    ),
}
"""The compiler's own custom calls that only give arrays another name."""
_ASYNCHRONOUS = {"copy-start", "slice-start", "dynamic-slice-start", "dynamic-update-slice-start"}
_READ_IN_PART = {"gather", "dynamic-slice", "slice"}
_WRITE_IN_PART = {"scatter", "dynamic-update-slice"}
_UNKNOWN = 2**62
"""Cycles from here on are the compiler's way to say that it does not know."""
_RING = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, "all-to-all": 1}
"""How often a ring sends (n-1)/n of the bytes."""


@dataclass(frozen=True)
class Cost:
    """What an operation takes, all its turns together.

    Attributes:
        name: the instruction's.
        opcode: what it is: fusion, copy-start, all-reduce...
        source: one of `SOURCES`, where the figure comes from, or `HIDDEN`.
        turns: how often it is executed.
        seconds: estimated, of all turns.
        op_name: the JAX operation it comes from, with the scopes around it.
        place: file:line of the source; empty where the text does not say.
    """

    name: str
    opcode: str
    source: str
    turns: int
    seconds: float
    op_name: str
    place: str


@dataclass(frozen=True)
class Estimate:
    """What a program takes.

    Attributes:
        costs: of every operation that takes time, in the order of execution.
        unknown: what the text does not say, one line each; with any, there is no estimate of the
            whole.
    """

    costs: tuple[Cost, ...]
    unknown: tuple[str, ...]

    @cached_property
    def seconds(self) -> float | None:
        """Of one run, as if nothing but asynchronous copies overlapped; None where something is
        unknown."""
        return None if self.unknown else math.fsum(self.by_source.values())

    @cached_property
    def hidden(self) -> float:
        """Seconds of asynchronous copies between HBM and VMEM, which are not in `seconds`."""
        return math.fsum(cost.seconds for cost in self.costs if cost.source == HIDDEN)

    @cached_property
    def by_source(self) -> dict[str, float]:
        """Seconds of each source, of what is known."""
        return {
            source: math.fsum(c.seconds for c in self.costs if c.source == source)
            for source in SOURCES
        }

    def top(self, count: int) -> list[Cost]:
        """The operations that take longest."""
        return sorted(self.costs, key=lambda cost: cost.seconds, reverse=True)[:count]


def estimate(text: str, chip: Chip, kernels: Kernels | None = None) -> Estimate:
    """The estimate of one run of a program on one of its devices.

    Args:
        text: of a program compiled for TPUs: `jax.stages.Compiled.as_text()`.
        chip: the devices it is compiled for (`kdjax.hlo.chips.chip`).
        kernels: FLOPs of Pallas kernels that have no cost estimate of their own in the text.

    Raises:
        ValueError: the text is no compiled program.
    """
    walk = _Walk(parse(text), chip, kernels or {})
    costs = tuple(walk.computation(walk.module.entry, 1))
    return Estimate(costs, tuple(dict.fromkeys(walk.unknown)))


def executed(
    module: Module, name: str | None = None, turns: int = 1
) -> Iterator[tuple[Instruction, int]]:
    """Every instruction that a program executes, with how often: loops by their turns, all sides of
    a branch.

    Instructions inside a fusion are not executed on their own. A loop of unknown length counts
    once.
    """
    for one in module.computations[name or module.entry]:
        yield one, turns
        for inner, times in _inside(module, one):
            yield from executed(module, inner, turns * times)


def _inside(module: Module, one: Instruction) -> Iterator[tuple[str, int]]:
    """The computations that an instruction runs as they are, and how often each."""
    called = one.called
    if one.opcode == "while":
        (body,) = called["body"]
        yield body, trip_count(module, one) or 1
    elif one.opcode == "conditional":
        for role in ("branch_computations", "true_computation", "false_computation"):
            yield from ((name, 1) for name in called.get(role, ()))
    elif one.does in ("call", "async"):
        for role in ("to_apply", "calls", "called_computations"):
            yield from ((name, 1) for name in called.get(role, ()))


@dataclass(frozen=True)
class Sent:
    """A collective that a program executes.

    Attributes:
        name: the instruction that starts it; the fusion, where it is inside one.
        collective: what it is.
        turns: how often it is executed.
    """

    name: str
    collective: Collective
    turns: int


def sent(module: Module) -> list[Sent]:
    """The collectives that a program executes, each once, in however many fusions the compiler
    writes it."""
    found: list[Sent] = []
    chains: set[str] = set()
    for one, turns in executed(module):
        for inner in (one, *_fused(module, one)):
            chain = inner.attribute(CHAIN)
            if inner.does not in KINDS or chain in chains:
                continue
            if chain is not None:
                chains.add(chain)
            found += (Sent(one.name, collective, turns) for collective in collectives(inner.line))
    return found


def _over_a_link(collective: Collective) -> float:
    """Bytes that a device sends to each neighbour for a collective, by a ring algorithm that goes
    both ways round."""
    share = (collective.group - 1) / collective.group
    return collective.bytes * (
        _RING[collective.kind] * share / 2 if collective.kind in _RING else 1
    )


def trip_count(module: Module, loop: Instruction) -> int | None:
    """The turns of a while loop: what the compiler notes, or the bound that the condition compares
    a counter with (JAX counts loops of known length from 0 up). None where the text does not
    say."""
    if known := loop.attribute(r'"known_trip_count":\{"n":"(\d+)"'):
        return int(known)
    (condition,) = loop.called["condition"]
    root = next(one for one in module.computations[condition] if one.root)
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    bounds = [_constant(one) for one in module.operands(root) if one.opcode == "constant"]
    return bounds[0] if len(bounds) == 1 else None


def _constant(one: Instruction) -> int | None:
    found = re.match(r"(-?\d+)\)", one.attributes)
    return int(found[1]) if found else None


class _Walk:
    """Goes through what a program executes and puts a price on each operation."""

    def __init__(self, module: Module, chip: Chip, kernels: Kernels):
        self.module = module
        self.chip = chip
        self.kernels = kernels
        self.unknown: list[str] = []
        self._sent: dict[str, list[Collective]] = {}
        for found in sent(module):
            self._sent.setdefault(found.name, []).append(found.collective)

    def computation(self, name: str, turns: int) -> Iterator[Cost]:
        for one in self.module.computations[name]:
            yield from self._instruction(one, turns)

    def _instruction(self, one: Instruction, turns: int) -> Iterator[Cost]:
        if one.opcode == "while" and trip_count(self.module, one) is None:
            self.unknown.append(f"{one.name}: a loop of unknown length{self._at(one)}")
        if one.opcode == "conditional":
            sides = [list(self.computation(name, turns)) for name, _ in _inside(self.module, one)]
            yield from max(
                sides, key=lambda side: math.fsum(cost.seconds for cost in side), default=[]
            )
            return
        inside = list(_inside(self.module, one))
        for name, times in inside:
            yield from self.computation(name, turns * times)
        if not inside:
            yield from self._operation(one, turns)

    def _operation(self, one: Instruction, turns: int) -> Iterator[Cost]:
        cycles = int(one.attribute(r'"estimated_cycles":"(\d+)"') or _UNKNOWN)
        sent = self._sent.get(one.name)
        if sent:
            yield self._cost(
                one, "collectives", turns, sum(map(_over_a_link, sent)) / self.chip.link_bandwidth
            )
        if cycles < _UNKNOWN:
            yield self._cost(one, "compute", turns, cycles / self.chip.clock)
        elif kernels := [inner for inner in (one, *_fused(self.module, one)) if _is_kernel(inner)]:
            yield self._cost(one, "custom_calls", turns, math.fsum(map(self._kernel, kernels)))
        elif not sent and not self._is_free(one):
            source = HIDDEN if one.opcode in _ASYNCHRONOUS else "moves"
            yield self._cost(one, source, turns, moved(self.module, one) / self.chip.hbm_bandwidth)

    def _cost(self, one: Instruction, source: str, turns: int, seconds: float) -> Cost:
        op_name = one.attribute(r'op_name="((?:[^"\\]|\\.)*)"') or ""
        return Cost(
            one.name, one.opcode, source, turns, turns * seconds, op_name, self.module.place(one)
        )

    def _is_free(self, one: Instruction) -> bool:
        """Whether it takes no time, or its time is counted elsewhere."""
        if one.opcode in _FREE or one.opcode.endswith(("-done", "-update")):
            return True
        if one.does == "custom-call":
            return one.attribute(r'custom_call_target="([^"]*)"') in _FREE_CALLS
        # A fusion that starts or ends a collective, or goes on with it: its bytes are counted once.
        return any(inner.does in KINDS for inner in _fused(self.module, one))

    def _kernel(self, one: Instruction) -> float:
        """Seconds of a Pallas kernel."""
        shapes = tuple(array.dims for array in one.arrays)
        op_name = (one.attribute(r'op_name="([^"]*)"') or "").removesuffix("/pallas_call")
        noted = one.attribute(r'"cost_estimate":\{"flops":"(\d+)"')
        counted = self.kernels.get((op_name.rpartition("/")[2], shapes))
        if noted is None and counted is None:
            self.unknown.append(f"{one.name}: a kernel of unknown FLOPs{self._at(one)}")
        flops = max(int(noted or 0), counted or 0)
        own = sum(a.bytes for part in (one, *self.module.operands(one)) for a in part.arrays)
        accessed = int(one.attribute(r'"cost_estimate":\{[^}]*"bytes_accessed":"(\d+)"') or 0)
        peak = self.chip.peak.flops_per_second
        return max(flops / (KERNEL_RATE * peak), max(own, accessed) / self.chip.hbm_bandwidth)

    def _at(self, one: Instruction) -> str:
        place = self.module.place(one)
        return f" ({place})" if place else ""


def _is_kernel(one: Instruction) -> bool:
    return one.does == "custom-call" and one.attribute(r'custom_call_target="([^"]*)"') == KERNEL


def moved(module: Module, one: Instruction) -> int:
    """Bytes that an instruction moves to or from HBM; where all it touches lies in VMEM, its bytes
    there.

    Of an array that is read or written in part, only as much as is taken out or put in.
    """
    taken = [array for operand in module.operands(one) for array in operand.arrays]
    made = [array for array in results(one, len(taken)) if array.space in (HBM, VMEM)]
    cap = _cap(module, one, taken, made)
    return _in_hbm([(array, min(array.bytes, cap)) for array in (*taken, *made)])


def results(one: Instruction, taken: int) -> tuple[Array, ...]:
    """The arrays that an instruction makes; an asynchronous start's type also has those it takes.

    Args:
        one: the instruction.
        taken: how many arrays it takes.
    """
    if one.opcode == "copy-start":  # where to, where from, a semaphore
        return one.arrays[:1]
    return one.arrays[taken:] if one.opcode.endswith("-start") else one.arrays


def _cap(module: Module, one: Instruction, taken: list[Array], made: list[Array]) -> float:
    """The most bytes that any one array of an instruction is read or written by."""
    does = {one.does, *(inner.opcode for inner in _fused(module, one))}
    result = sum(array.bytes for array in made)
    if does & _WRITE_IN_PART:
        in_place = any(array.bytes == result for array in taken)
        return (
            max((a.bytes for a in taken if a.bytes < result), default=result)
            if in_place
            else result
        )
    return result if does & _READ_IN_PART else math.inf


def _in_hbm(parts: list[tuple[Array, float]]) -> int:
    through = sum(size for array, size in parts if array.space == HBM)
    return round(through or sum(size for array, size in parts if array.space == VMEM))


def _fused(module: Module, one: Instruction) -> Iterator[Instruction]:
    """What is inside a fusion, to any depth."""
    if one.does == "fusion":
        for name in one.called.get("calls", ()):
            for inner in module.computations[name]:
                yield inner
                yield from _fused(module, inner)
