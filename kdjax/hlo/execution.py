"""What a compiled program executes: its instructions with how often each runs, and its
collectives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kdjax.hlo.collectives import Collective, chain_number, collective_of
from kdjax.hlo.program_text import Instruction, Module


@dataclass(frozen=True)
class ExecutedCollective:
    """A collective that a program executes.

    Attributes:
        name: the instruction that starts it; the fusion, where it is inside one.
        collective: kind, bytes and group.
        turns: number of times it is executed.
    """

    name: str
    collective: Collective
    turns: int


def executed_instructions(
    module: Module, name: str | None = None, turns: int = 1
) -> Iterator[tuple[Instruction, int]]:
    """Yield every instruction that a program executes, with how often.

    All sides of a branch are executed once; a loop of unknown length counts once. Instructions
    inside a fusion are not executed on their own.

    Args:
        module: compiled program, parsed.
        name: name of the computation to begin with; None: the program's entry.
        turns: number of times that it is executed.
    """
    for instruction in module.computations[name or module.entry]:
        yield instruction, turns
        for inner, times in called_computations(module, instruction):
            yield from executed_instructions(module, inner, turns * times)


def executed_collectives(module: Module) -> list[ExecutedCollective]:
    """List the collectives a program executes, each once, in however many fusions it is written."""
    listed = []
    chains: set[str | None] = set()
    for instruction, turns in executed_instructions(module):
        for inner in (instruction, *fused_instructions(module, instruction)):
            collective = collective_of(inner)
            chain = chain_number(inner)
            if collective is None or (chain is not None and chain in chains):
                continue
            chains.add(chain)
            listed.append(ExecutedCollective(instruction.name, collective, turns))
    return listed


def called_computations(module: Module, instruction: Instruction) -> Iterator[tuple[str, int]]:
    """Yield the computations that an instruction executes instruction by instruction.

    They are the body of a loop, the branches of a conditional and what a call calls; not what a
    fusion holds, which runs as one kernel.

    Args:
        module: compiled program, parsed.
        instruction: an instruction of it.

    Yields:
        Name of a computation, and how often it runs; a loop of unknown length counts once.
    """
    names = instruction.called
    roles: tuple[str, ...] = ()
    if instruction.opcode == "while":
        yield names["body"][0], trip_count(module, instruction) or 1
    elif instruction.opcode == "conditional":
        roles = ("branch_computations", "true_computation", "false_computation")
    elif instruction.does in ("call", "async"):
        roles = ("to_apply", "calls", "called_computations")
    for role in roles:
        for name in names.get(role, ()):
            yield name, 1


def trip_count(module: Module, loop: Instruction) -> int | None:
    """Return how often a while loop runs; None where the program's text does not say.

    Args:
        module: compiled program, parsed.
        loop: its instruction of opcode `while`.
    """
    # What the compiler notes:
    # while(%state), body=%b, backend_config={"known_trip_count":{"n":"6"}}
    known = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"')
    if known:
        return int(known)
    # Or the bound that the condition compares a counter with; JAX counts loops from 0 up:
    # %bound = s32[] constant(6)
    # ROOT %compare = pred[] compare(%counter, %bound), direction=LT
    condition = module.computations[loop.called["condition"][0]]
    root = next(instruction for instruction in condition if instruction.root)
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    constants = [operand for operand in module.operands(root) if operand.opcode == "constant"]
    bounds = [constant.attribute(r"^(-?\d+)\)") for constant in constants]
    if len(bounds) != 1 or bounds[0] is None:
        return None
    return int(bounds[0])


def fused_instructions(module: Module, instruction: Instruction) -> Iterator[Instruction]:
    """Yield the instructions inside a fusion, to any depth; of another instruction none.

    Args:
        module: compiled program, parsed.
        instruction: the fusion.
    """
    if instruction.does == "fusion":
        for name in instruction.called.get("calls", ()):
            for inner in module.computations[name]:
                yield inner
                yield from fused_instructions(module, inner)
