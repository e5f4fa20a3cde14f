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

Asynchronous copies between HBM and VMEM, which the compiler plans to run beside compute, are given
(`hidden`) and not added. Left out: that collectives run beside compute where they can, latencies of
copies and collectives, waiting for other devices and the host, and that rows gathered or scattered
one by one move at less than HBM's rate. `benchmarks/estimates.py` compares the compiler's cycles
with what matmuls and memory allow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from kdjax.hlo.chips import Chip
from kdjax.hlo.collectives import KINDS, Collective
from kdjax.hlo.execution import (
    called_computations,
    executed_collectives,
    fused_instructions,
    trip_count,
)
from kdjax.hlo.program_text import Instruction, Module, parse
from kdjax.hlo.traffic import moved_bytes

SOURCES = ("compute", "custom_calls", "collectives", "moves")
HIDDEN = "prefetches"
"""The source of asynchronous copies."""
KERNEL = "tpu_custom_call"
"""What the text calls a Pallas kernel."""
KERNEL_RATE = 0.5
"""Share of the peak at which a kernel's FLOPs are taken to be done."""

Kernels = Mapping[tuple[str, tuple[tuple[int, ...], ...]], int]
"""FLOPs of kernels by name and the shapes of their results (`kdjax.hlo.kernels.kernel_flops`)."""

_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "opt-barrier",
    "add-dependency",
    "partition-id",
    "replica-id",
    "domain",
    "get-dimension-size",
}
_FREE_CALLS = {
    "PrepareAsyncCallStart",
    "PrepareAsyncCallDone",
    "ConcatBitcast",
    "AllocateBuffer",
    "LayoutConstraint",
    "AssumeAligned",
    "AssumeGatherIndicesInBound",
    "GatherScatterIndicesBitpacked",
    "AsyncCollectiveStart",
    "AsyncCollectiveDone",
    "Sharding",
    "SPMDFullToShardShape",
    "SPMDShardToFullShape",
    "X64Combine",
    "X64SplitLow",
    "X64SplitHigh",
}
"""The compiler's own custom calls that only give arrays another name."""
_ASYNCHRONOUS = {"copy-start", "slice-start", "dynamic-slice-start", "dynamic-update-slice-start"}
_UNKNOWN = 2**62
"""Cycles from here on are the compiler's way to say that it does not know."""
_RING = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, "all-to-all": 1}
"""How often a ring of n devices sends (n-1)/n of the bytes."""


@dataclass(frozen=True)
class OperationCost:
    """The time of an operation, all its turns together.

    Attributes:
        name: name of the instruction.
        opcode: kind of operation: fusion, copy-start, all-reduce...
        source: origin of the figure: one of `SOURCES`, or `HIDDEN`.
        turns: number of times it is executed.
        seconds: estimate for all turns.
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
class TimeEstimate:
    """The time of one run of a program.

    Attributes:
        costs: all operations that take time, in the order of execution.
        unknown: figures the text lacks, one line each; with any, there is no estimate of the
            whole.
    """

    costs: tuple[OperationCost, ...]
    unknown: tuple[str, ...]

    @cached_property
    def seconds(self) -> float | None:
        """Estimate the seconds of a run; None where something is unknown.

        Nothing but asynchronous copies is taken to overlap.
        """
        if self.unknown:
            return None
        return math.fsum(self.by_source.values())

    @cached_property
    def hidden(self) -> float:
        """Sum the seconds of asynchronous copies between HBM and VMEM, not part of `seconds`."""
        return self._seconds_of(HIDDEN)

    @cached_property
    def by_source(self) -> dict[str, float]:
        """Sum the seconds of each source, without what is unknown."""
        return {source: self._seconds_of(source) for source in SOURCES}

    def _seconds_of(self, source: str) -> float:
        return math.fsum(cost.seconds for cost in self.costs if cost.source == source)

    def top(self, count: int) -> list[OperationCost]:
        """Return the operations that take longest."""
        return sorted(self.costs, key=lambda cost: cost.seconds, reverse=True)[:count]


def estimate(text: str, chip: Chip, kernels: Kernels | None = None) -> TimeEstimate:
    """Estimate the time of one run of a program on one of its devices.

    Args:
        text: text of a program compiled for TPUs: `jax.stages.Compiled.as_text()`.
        chip: the devices it is compiled for (`kdjax.hlo.chips.chip`).
        kernels: FLOPs of Pallas kernels that have no cost estimate of their own in the text.

    Raises:
        ValueError: the text is no compiled program.
    """
    pricing = _Pricing(parse(text), chip, kernels or {})
    costs = tuple(pricing.computation(pricing.module.entry, 1))
    return TimeEstimate(costs, tuple(dict.fromkeys(pricing.unknown)))


class _Pricing:
    """Goes through what a program executes and gives each operation its seconds."""

    def __init__(self, module: Module, chip: Chip, kernels: Kernels):
        self.module = module
        self.chip = chip
        self.kernels = kernels
        self.unknown: list[str] = []
        self._collectives: dict[str, list[Collective]] = {}
        for executed in executed_collectives(module):
            self._collectives.setdefault(executed.name, []).append(executed.collective)

    def computation(self, name: str, turns: int) -> Iterator[OperationCost]:
        """Yield the costs of a computation that is executed so often."""
        for instruction in self.module.computations[name]:
            yield from self._instruction(instruction, turns)

    def _instruction(self, instruction: Instruction, turns: int) -> Iterator[OperationCost]:
        if instruction.opcode == "while" and trip_count(self.module, instruction) is None:
            self._note_unknown(instruction, "a loop of unknown length")

        # What runs other computations takes the time of those: of a branch, the longest.
        computations = list(called_computations(self.module, instruction))
        costs = [list(self.computation(name, turns * times)) for name, times in computations]
        if instruction.opcode == "conditional":
            costs = [max(costs, key=_total_seconds, default=[])]
        elif not computations:
            costs = [list(self._operation(instruction, turns))]
        for inner in costs:
            yield from inner

    def _operation(self, instruction: Instruction, turns: int) -> Iterator[OperationCost]:
        """Yield the cost of an operation, and beside it that of a collective it starts."""
        collectives = self._collectives.get(instruction.name)
        if collectives:
            sent = sum(map(_bytes_over_a_link, collectives))
            yield self._cost(instruction, "collectives", turns, sent / self.chip.link_bandwidth)

        # The compiler's own figure, where it has one.
        cycles = int(instruction.attribute(r'"estimated_cycles":"(\d+)"') or _UNKNOWN)
        if cycles < _UNKNOWN:
            yield self._cost(instruction, "compute", turns, cycles / self.chip.clock)
            return
        inside = (instruction, *fused_instructions(self.module, instruction))
        kernels = [inner for inner in inside if _is_kernel(inner)]
        if kernels:
            seconds = math.fsum(map(self._kernel_seconds, kernels))
            yield self._cost(instruction, "custom_calls", turns, seconds)
        elif not collectives and not self._is_free(instruction):
            source = HIDDEN if instruction.opcode in _ASYNCHRONOUS else "moves"
            seconds = moved_bytes(self.module, instruction) / self.chip.hbm_bandwidth
            yield self._cost(instruction, source, turns, seconds)

    def _cost(
        self, instruction: Instruction, source: str, turns: int, seconds: float
    ) -> OperationCost:
        # metadata={op_name="jit(f)/while/body/dot_general"}; a quote in it is escaped
        op_name = instruction.attribute(r'op_name="((?:[^"\\]|\\.)*)"') or ""
        place = self.module.place(instruction)
        return OperationCost(
            instruction.name, instruction.opcode, source, turns, turns * seconds, op_name, place
        )

    def _is_free(self, instruction: Instruction) -> bool:
        """Return whether an operation takes no time, or its time is counted elsewhere."""
        if instruction.opcode in _FREE or instruction.opcode.endswith(("-done", "-update")):
            return True
        if instruction.does == "custom-call":
            return _target(instruction) in _FREE_CALLS
        # A fusion that goes on with a collective or ends it: its bytes are counted at the start.
        return any(inner.does in KINDS for inner in fused_instructions(self.module, instruction))

    def _kernel_seconds(self, kernel: Instruction) -> float:
        """Compute the seconds of a Pallas kernel: by FLOPs or bytes, whichever are longer."""
        # FLOPs by the author's note in the text, or counted in the traced program:
        # op_name="jit(f)/square/pallas_call"
        # backend_config={... "cost_estimate":{"flops":"134217728", "bytes_accessed":"1048576"}}
        shapes = tuple(array.dims for array in kernel.arrays)
        op_name = (kernel.attribute(r'op_name="([^"]*)"') or "").removesuffix("/pallas_call")
        noted = kernel.attribute(r'"cost_estimate":\{"flops":"(\d+)"')
        counted = self.kernels.get((op_name.rpartition("/")[2], shapes))
        if noted is None and counted is None:
            self._note_unknown(kernel, "a kernel of unknown FLOPs")
        flops = max(int(noted or 0), counted or 0)

        # Bytes by the same note, and no fewer than those of its operands and results.
        bytes_ = int(kernel.attribute(r'"cost_estimate":\{[^}]*"bytes_accessed":"(\d+)"') or 0)
        arrays_bytes = sum(array.bytes for array in kernel.arrays)
        for operand in self.module.operands(kernel):
            arrays_bytes += sum(array.bytes for array in operand.arrays)
        flops_per_second = KERNEL_RATE * self.chip.peak.flops_per_second
        return max(flops / flops_per_second, max(bytes_, arrays_bytes) / self.chip.hbm_bandwidth)

    def _note_unknown(self, instruction: Instruction, reason: str) -> None:
        place = self.module.place(instruction)
        where = f" ({place})" if place else ""
        self.unknown.append(f"{instruction.name}: {reason}{where}")


def _total_seconds(costs: list[OperationCost]) -> float:
    return math.fsum(cost.seconds for cost in costs)


def _target(call: Instruction) -> str | None:
    """Return the name of a custom call's target."""
    # custom-call(%x), custom_call_target="tpu_custom_call", operand_layout_constraints={...}
    return call.attribute(r'custom_call_target="([^"]*)"')


def _is_kernel(instruction: Instruction) -> bool:
    return instruction.does == "custom-call" and _target(instruction) == KERNEL


def _bytes_over_a_link(collective: Collective) -> float:
    """Compute the bytes a device sends to each neighbour, on a ring that goes both ways round."""
    if collective.kind not in _RING:
        return collective.bytes
    rounds = _RING[collective.kind] * (collective.group - 1) / collective.group
    return collective.bytes * rounds / 2
