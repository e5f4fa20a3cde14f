"""Elementwise work that a compiled program does more than once, because XLA wrote it into several
fusions.

XLA fuses a chain of elementwise operations into every one of its consumers, and its cost analysis
counts each copy. How often that happens depends on XLA's version, on the device and on what stands
between the operations; in a model a few dozen wide it can be as much as all the matmuls. Copies are
told by value numbering, across the borders of fusions: two operations with the same opcode,
attributes and operands have the same value (Alpern, Wegman and Zadeck, 1988, "Detecting equality of
variables in programs").
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Hashable, Sequence

from kdjax.hlo.program_text import Instruction, Module, parse

_COUNTED = frozenset(
    {
        "add",
        "subtract",
        "multiply",
        "divide",
        "remainder",
        "maximum",
        "minimum",
        "negate",
        "abs",
        "sign",
        "and",
        "or",
        "xor",
        "not",
        "shift-left",
        "shift-right-logical",
        "shift-right-arithmetic",
        "popcnt",
        "clz",
        "compare",
        "select",
        "clamp",
        "convert",
        "floor",
        "ceil",
        "round-nearest-even",
        "round-nearest-afz",
    }
)
"""Opcodes of one FLOP an element in XLA's cost analysis (xla/service/hlo_cost_analysis.cc)."""
_UNCOUNTED = frozenset(
    {
        "exponential",
        "exponential-minus-one",
        "log",
        "log-plus-one",
        "tanh",
        "logistic",
        "sqrt",
        "rsqrt",
        "cbrt",
        "power",
        "sine",
        "cosine",
        "tan",
        "atan2",
        "erf",
        "broadcast",
        "bitcast",
        "reshape",
        "transpose",
        "slice",
        "concatenate",
        "pad",
        "reverse",
        "copy",
        "iota",
        "bitcast-convert",
        "gather",
        "dynamic-slice",
    }
)
"""Opcodes without FLOPs whose result follows from their operands."""
_NOT_OF_THE_VALUE = re.compile(
    r", (?:metadata|backend_config|frontend_attributes|sharding|origin)=.*$"
)
_REGION = re.compile(r"to_apply=%[\w.\-]+")
_LAYOUT = re.compile(r"\{[^}]*\}")

Value = Hashable
"""Stands for a value: equal for equal values. A tuple's is the tuple of its elements' values."""


def repeated_flops(text: str) -> int:
    """Count the FLOPs of elementwise work and reductions in fusions that repeat earlier work.

    They are counted as XLA's cost analysis counts them, a loop's body once, so that subtracting
    them from its figure leaves every operation counted once. What has a matmul, a kernel or a loop
    in between is never taken for a copy: rematerialised matmuls, and what follows from them, keep
    their own count.

    Args:
        text: the compiled program on one device: `jax.stages.Compiled.as_text()`.

    Raises:
        ValueError: the text is no compiled program.
    """
    numbering = _Numbering(parse(text))
    numbering.run(numbering.module.entry, None, fused=False)
    return numbering.repeated


class _Numbering:
    """One walk over a program that gives every value a number."""

    def __init__(self, module: Module):
        self.module = module
        self.repeated = 0
        self._numbers: dict[Value, int] = {}
        self._new = itertools.count()

    def run(self, name: str, arguments: Sequence[Value] | None, *, fused: bool) -> Value:
        """Give the values of a computation their numbers; return that of its result.

        Args:
            name: name of the computation whose values are numbered.
            arguments: the values of its parameters; None where nothing is known of them.
            fused: whether it lies in a fusion.
        """
        values: dict[str, Value] = {}
        result: Value = None
        for instruction in self.module.computations[name]:
            if instruction.opcode == "parameter" and arguments is not None:
                # parameter(1), metadata={...}
                number, _, _ = instruction.attributes.partition(")")
                value = arguments[int(number)]
            else:
                operands = [values.get(operand, operand) for operand in instruction.operands]
                value = self._number(instruction, operands, fused=fused)
            values[instruction.name] = value
            if instruction.root:
                result = value
        return result

    def _number(self, instruction: Instruction, operands: list[Value], *, fused: bool) -> Value:
        """Return the number of an instruction's value; if it is a copy, add to `repeated`."""
        opcode = instruction.opcode
        # What only hands values on has no number of its own.
        if opcode == "tuple":
            return tuple(operands)
        if opcode == "get-tuple-element" and isinstance(operands[0], tuple):
            element: Value = operands[0][int(instruction.attribute(r"\bindex=(\d+)") or 0)]
            return element
        if opcode in ("fusion", "call"):
            inner = instruction.called.get("calls") or instruction.called.get("to_apply") or ()
            if len(inner) == 1:
                return self.run(inner[0], operands, fused=fused or opcode == "fusion")

        # A loop's body is counted once; nothing is known of what it starts from in its other turns.
        if opcode == "while":
            for role in ("condition", "body"):
                self.run(instruction.called[role][0], None, fused=fused)
        if opcode not in _COUNTED | _UNCOUNTED | {"constant", "reduce", "get-tuple-element"}:
            return f"new {next(self._new)}"

        # The same operation on the same values has the same value.
        shape = _LAYOUT.sub("", instruction.type)
        key = (opcode, shape, self._attributes(instruction), *operands)
        if key in self._numbers and fused:
            self.repeated += self._flops(instruction)
        return self._numbers.setdefault(key, len(self._numbers))

    def _attributes(self, instruction: Instruction) -> str:
        """Return the attributes that an instruction's result depends on, besides its operands."""
        # reduce(%x, %zero), dimensions={1}, to_apply=%sum.3, metadata={...}: from the parenthesis
        # to the metadata, with the function's operations for its name, for XLA copies it under a
        # new name. A constant's value stands within the parentheses.
        written = _NOT_OF_THE_VALUE.sub("", instruction.attributes)
        if instruction.opcode != "constant":
            _, _, written = written.partition(")")
        return _REGION.sub(lambda _: self._reducer(instruction), written)

    def _reducer(self, reduction: Instruction) -> str:
        """Return the operations of a reduction's function."""
        (name,) = reduction.called["to_apply"]
        return " ".join(f"{inner.opcode} {inner.root}" for inner in self.module.computations[name])

    def _flops(self, instruction: Instruction) -> int:
        """Count the FLOPs of an elementwise operation or a reduction, by XLA's rules."""
        elements = math.prod(instruction.arrays[0].dims)
        if instruction.opcode in _COUNTED:
            return elements
        # n elements become one in n - 1 steps.
        if instruction.opcode == "reduce" and len(instruction.arrays) == 1:
            reduced = self.module.operands(instruction)[0].arrays[0]
            (name,) = instruction.called["to_apply"]
            steps = sum(inner.opcode in _COUNTED for inner in self.module.computations[name])
            return steps * (math.prod(reduced.dims) - elements)
        return 0
