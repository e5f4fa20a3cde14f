"""Elementwise work that a compiled program does more than once, because XLA wrote it into several
fusions.

XLA fuses a chain of elementwise operations into every one of its consumers, and its cost analysis
counts each copy. How often that happens depends on XLA's version, on the device and on what stands
between the operations; in a model a few dozen wide it can be as much as all the matmuls. Copies are
told by value numbering, across the borders of
fusions: two operations with the same opcode, attributes and operands have the same value (Alpern,
Wegman and Zadeck, 1988, "Detecting equality of variables in programs").
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Hashable, Sequence

from kdjax.hlo.text import Instruction, Module, parse

_COUNTED = (
    frozenset(  # one FLOP an element in XLA's cost analysis (xla/service/hlo_cost_analysis.cc)
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
        }
        | {
            "and",
            "or",
            "xor",
            "not",
            "shift-left",
            "shift-right-logical",
            "shift-right-arithmetic",
            "popcnt",
            "clz",
        }
        | {
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
)
_UNCOUNTED = frozenset(  # no FLOPs, and the same result from the same operands
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
    }
    | {
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
    }
    | {
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
_NOT_OF_THE_VALUE = re.compile(
    r", (?:metadata|backend_config|frontend_attributes|sharding|origin)=.*$"
)
_REGION = re.compile(r"to_apply=%[\w.\-]+")
_LAYOUT = re.compile(r"\{[^}]*\}")

Value = Hashable
"""What stands for a value: equal for equal values. A tuple's is the tuple of its elements'
values."""


def repeated_flops(text: str) -> int:
    """Count the FLOPs of elementwise work and reductions in fusions whose result the program had
    computed already.

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
        """Number the values of a computation.

        Args:
            name: the computation.
            arguments: the values of its parameters; None where nothing is known of them.
            fused: whether it lies in a fusion.

        Returns:
            The value of its result.
        """
        values: dict[str, Value] = {}
        result: Value = None
        for one in self.module.computations[name]:
            operands = [values.get(operand, operand) for operand in one.operands]
            if one.opcode == "parameter" and arguments is not None:
                value = arguments[_parameter_number(one)]
            else:
                value = self._value(one, operands, fused=fused)
            values[one.name] = value
            if one.root:
                result = value
        return result

    def _value(self, one: Instruction, operands: list[Value], *, fused: bool) -> Value:
        """Number the value of an instruction, and note it where it is a copy in a fusion."""
        # What only hands values on has no number of its own.
        if one.opcode == "tuple":
            return tuple(operands)
        if one.opcode == "get-tuple-element" and isinstance(operands[0], tuple):
            element: Value = operands[0][int(one.attribute(r"\bindex=(\d+)") or 0)]
            return element
        if one.opcode in ("fusion", "call"):
            inner = one.called.get("calls") or one.called.get("to_apply") or ()
            if len(inner) == 1:
                return self.run(inner[0], operands, fused=fused or one.opcode == "fusion")
        # A loop's body is counted once; nothing is known of what it starts from in its other turns.
        if one.opcode == "while":
            for role in ("condition", "body"):
                self.run(one.called[role][0], None, fused=fused)
        if one.opcode not in _COUNTED | _UNCOUNTED | {"constant", "reduce", "get-tuple-element"}:
            return f"new {next(self._new)}"
        key = (one.opcode, _LAYOUT.sub("", one.type), self._attributes(one), *operands)
        known = key in self._numbers
        if known and fused:
            self.repeated += self._flops(one)
        return self._numbers.setdefault(key, len(self._numbers))

    def _attributes(self, one: Instruction) -> str:
        """What an instruction's result depends on besides its operands."""
        written = _NOT_OF_THE_VALUE.sub("", one.attributes)
        if one.opcode != "constant":
            _, _, written = written.partition(")")
        # XLA copies the function of a reduction under a new name.
        return _REGION.sub(lambda _: self._reducer(one), written)

    def _reducer(self, one: Instruction) -> str:
        """The operations of a reduction's function."""
        (name,) = one.called["to_apply"]
        return " ".join(f"{inner.opcode} {inner.root}" for inner in self.module.computations[name])

    def _flops(self, one: Instruction) -> int:
        """FLOPs of an elementwise operation or a reduction, by XLA's rules."""
        if one.opcode in _COUNTED:
            return math.prod(one.arrays[0].dims)
        if one.opcode == "reduce" and len(one.arrays) == 1:
            taken = self.module.operands(one)[0].arrays[0].dims
            (name,) = one.called["to_apply"]
            steps = sum(inner.opcode in _COUNTED for inner in self.module.computations[name])
            return steps * (math.prod(taken) - math.prod(one.arrays[0].dims))
        return 0


def _parameter_number(one: Instruction) -> int:
    number, _, _ = one.attributes.partition(")")
    return int(number)
