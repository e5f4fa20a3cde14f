"""The FLOP counter: FLOPs of a program by XLA's cost analysis, beside an independent count.

The price of a step is `Lowered.cost_analysis()` of its reference program: the step function itself,
traced with abstract shapes for one CPU device, float32, layers unrolled, no rematerialisation, no
accumulation loop, plain attention. XLA counts a loop's body once and a custom call as nothing, so a
program with either is refused (a scan that is unrolled whole is no loop). The jaxpr count walks the
traced program (the jaxpr) by itself: every `dot_general` at 2 x the product of its dimensions, plus
one FLOP an element of elementwise work. The two counts must agree, or nothing runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import jax
from jax.extend import core

from kdjax.errors import InputError
from kdjax.models.ops.dispatch import trace_reference

PARTS = ("student_forward", "student_backward", "teacher_forward", "objective", "optimizer")

AGREEMENT = 0.01
"""Largest relative difference between XLA's count and the jaxpr count, and between the parts of a
step and the whole."""

Loops = Literal["refused", "once", "whole"]
"""What the jaxpr count does with a loop: refuses it, counts it as XLA does (its body once), or by
its trip count."""


class FlopCountError(InputError):
    """XLA's count of a program cannot be trusted: absent, not positive, or in disagreement with the
    jaxpr count.

    An objective of the user's own can cause it, or a version of JAX that counts otherwise.
    """


@dataclass(frozen=True)
class JaxprCount:
    """The independent count of a traced program, in FLOPs."""

    matmul: int
    elementwise: int

    @property
    def total(self) -> int:
        """Matmuls and elementwise work."""
        return self.matmul + self.elementwise


@dataclass(frozen=True)
class Price:
    """FLOPs of one optimiser step, by part.

    Attributes:
        total: XLA's count of the whole step; the budget is charged this.
        student_forward, student_backward, teacher_forward, objective, optimizer: XLA's counts of
            the parts traced by themselves, scaled by a common factor (within 1% of 1) so that they
            add up to `total` exactly.
        jaxpr_matmul: the independent count of the step's matmuls.
        jaxpr_elementwise: the independent count of the rest.
    """

    total: int
    student_forward: int
    student_backward: int
    teacher_forward: int
    objective: int
    optimizer: int
    jaxpr_matmul: int
    jaxpr_elementwise: int

    def parts(self) -> dict[str, int]:
        """FLOPs by part; they add up to `total`."""
        return {name: getattr(self, name) for name in PARTS}

    def to_json(self) -> dict[str, int]:
        """Plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Count:
    """One program counted twice: by XLA and by the jaxpr count, in FLOPs."""

    flops: int
    jaxpr_count: JaxprCount


def measure(program: Callable[..., Any], *shapes: Any) -> Count:
    """Counts the FLOPs of a program from the shapes of its arguments, on one CPU device; nothing is
    compiled or run.

    Args:
        program: a pure function.
        shapes: its arguments as `jax.ShapeDtypeStruct`.

    Raises:
        FlopCountError: XLA gives no usable count, or the program holds what XLA does not count
            truly.
    """
    with trace_reference(), jax.default_device(jax.local_devices(backend="cpu")[0]):
        traced = jax.jit(program).trace(*shapes)
        analysis = traced.lower(lowering_platforms=("cpu",)).cost_analysis() or {}
    jaxpr_count = count_jaxpr(traced.jaxpr.jaxpr)
    flops = analysis.get("flops")
    if jaxpr_count.total == 0 and flops is None:
        return Count(0, jaxpr_count)
    if flops is None or not math.isfinite(flops) or flops <= 0:
        raise FlopCountError(
            f"XLA's cost analysis gives {flops!r} FLOPs for {_name(program)}, expected about the "
            "jaxpr count's "
            f"{jaxpr_count.total:.6g}"
        )
    return Count(round(flops), jaxpr_count)


def checked(count: Count, what: str) -> int:
    """Return XLA's count of a program, once the independent count agrees with it.

    Args:
        count: of the program.
        what: the program, for messages.

    Raises:
        FlopCountError: the two disagree.
    """
    flops = count.flops
    jaxpr_count = count.jaxpr_count
    if flops < jaxpr_count.matmul or abs(flops - jaxpr_count.total) > AGREEMENT * jaxpr_count.total:
        raise FlopCountError(
            f"XLA counts {flops:.6g} FLOPs in {what}, the jaxpr count {jaxpr_count.matmul:.6g} in "
            "matmuls and "
            f"{jaxpr_count.elementwise:.6g} besides: expected no less than the matmuls, and the "
            f"sum within {AGREEMENT:.0%}"
        )
    return flops


def reconcile(whole: Count, **parts: int) -> Price:
    """The price of a step from the count of the whole and of its parts, each traced by itself.

    Raises:
        FlopCountError: XLA and the jaxpr count disagree on the whole, or the parts do not add up to
            it within 1%.
    """
    flops = checked(whole, "a step")
    total = sum(parts.values())
    if abs(total - flops) > AGREEMENT * flops:
        raise FlopCountError(
            f"the parts of a step add up to {total:.6g} FLOPs, expected the whole's {flops:.6g} "
            f"within {AGREEMENT:.0%}"
        )
    shared = {name: round(parts[name] * whole.flops / total) for name in PARTS}
    # The rounding, a few FLOPs, to the largest part
    shared["student_backward"] += whole.flops - sum(shared.values())
    return Price(
        total=whole.flops,
        jaxpr_matmul=whole.jaxpr_count.matmul,
        jaxpr_elementwise=whole.jaxpr_count.elementwise,
        **shared,
    )


def count_jaxpr(jaxpr: core.Jaxpr, loops: Loops = "refused") -> JaxprCount:
    """Counts a traced program without XLA; what its results do not depend on is left out, as XLA
    leaves it out.

    Args:
        jaxpr: the program.
        loops: what to do with a scan that is not unrolled whole.

    Raises:
        FlopCountError: it holds a loop that is refused, a loop of unknown length, a branch or a
            custom kernel.
    """
    matmul = elementwise = 0
    zeros: set[core.Var] = set()
    for eqn in _live(jaxpr):
        name = eqn.primitive.name
        if name in _UNCOUNTABLE or (name == "scan" and loops == "refused" and _rolled(eqn)):
            raise FlopCountError(
                f"the program holds `{name}`, whose FLOPs XLA does not count truly: expected the "
                "plain program, "
                "without loops, branches and custom kernels"
            )
        inner = (
            [] if name.startswith("scatter") else [count_jaxpr(sub, loops) for sub in _inner(eqn)]
        )
        if inner:
            times = _turns(eqn, loops) if name == "scan" else 1
            matmul += times * sum(count.matmul for count in inner)
            elementwise += times * sum(count.elementwise for count in inner)
        elif name == "dot_general":
            matmul += _dot_flops(eqn)
        elif name in {"broadcast_in_dim", "square"} and _is(0, eqn.invars[0], zeros):
            zeros.update(eqn.outvars)
        elif name not in _MOVES | _TRANSCENDENTAL and not _changes_nothing(eqn, zeros):
            elementwise += _elementwise_flops(eqn)
    return JaxprCount(matmul, elementwise)


def _rolled(scan: core.JaxprEqn) -> bool:
    return bool(scan.params["unroll"] < scan.params["length"])


def _turns(scan: core.JaxprEqn, loops: Loops) -> int:
    """How often a scan's body counts."""
    length = scan.params["length"]
    unroll = scan.params["unroll"]
    if loops == "once" and _rolled(scan):
        # JAX makes a loop whose body is `unroll` turns, and writes out what is left over beside it.
        return int(unroll + length % unroll)
    return int(length)


def _live(jaxpr: core.Jaxpr) -> list[core.JaxprEqn]:
    """The equations that the program's results depend on."""
    needed = {v for v in jaxpr.outvars if isinstance(v, core.Var)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or needed.intersection(eqn.outvars):
            needed |= {v for v in eqn.invars if isinstance(v, core.Var)}
            kept.append(eqn)
    return kept[::-1]


_UNCOUNTABLE = frozenset(
    {"while", "cond", "pallas_call", "custom_call", "ffi_call", "tpu_custom_call"}
)

_MOVES = frozenset(  # data from place to place
    {
        "reshape",
        "broadcast_in_dim",
        "transpose",
        "squeeze",
        "expand_dims",
        "slice",
        "dynamic_slice",
        "concatenate",
    }
    | {"dynamic_update_slice", "pad", "rev", "iota", "copy", "copy_p", "split", "stop_gradient"}
    | {
        "random_bits",
        "random_wrap",
        "random_unwrap",
        "random_seed",
        "random_fold_in",
        "optimization_barrier",
    }
)

_TRANSCENDENTAL = frozenset(  # XLA counts these apart from FLOPs
    {
        "exp",
        "exp2",
        "log",
        "log1p",
        "expm1",
        "tanh",
        "sin",
        "cos",
        "erf",
        "sqrt",
        "rsqrt",
        "cbrt",
        "pow",
    }
)


def _elementwise_flops(eqn: core.JaxprEqn) -> int:
    """One FLOP an element: of the result, of what a reduction takes in, of what a scatter adds."""
    name = eqn.primitive.name
    size = _size(eqn.outvars[0])
    if name.startswith(("reduce_", "arg")):
        return _size(eqn.invars[0]) - size
    if name.startswith("scatter"):
        return _size(eqn.invars[2])
    if name == "gather":
        return _checks(eqn)
    if name == "integer_pow":
        exponent: int = eqn.params["y"]
        # By squaring and multiplying; a negative one divides 1 by the result.
        return size * max(0, exponent.bit_length() + exponent.bit_count() - 2 + (exponent < 0))
    return size


def _checks(gather: core.JaxprEqn) -> int:
    """What JAX makes of a look-up that fills where an index is out of range; any other only moves
    data."""
    if gather.params["mode"] != jax.lax.GatherScatterMode.FILL_OR_DROP:
        return 0
    coordinates: Any = gather.invars[1].aval
    indices: int = math.prod(coordinates.shape[:-1])
    # Each coordinate against two bounds, all of these together, and a choice for each element.
    return 4 * _size(gather.invars[1]) - indices + _size(gather.outvars[0])


def _changes_nothing(eqn: core.JaxprEqn, zeros: set[core.Var]) -> bool:
    """Whether it is x + 0 or 1 x, as Optax writes them: XLA drops these before it counts."""
    neutral = {"add": 0, "mul": 1}.get(eqn.primitive.name)
    return neutral is not None and any(_is(neutral, value, zeros) for value in eqn.invars)


def _is(number: int, value: core.Var | core.Literal, zeros: set[core.Var]) -> bool:
    """Whether a value is this constant, written in the program or among its `zeros`."""
    return (
        value.val == number if isinstance(value, core.Literal) else number == 0 and value in zeros
    )


def _dot_flops(eqn: core.JaxprEqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    taken: Any = eqn.invars[0].aval
    width: int = math.prod(taken.shape[axis] for axis in contracted)
    return 2 * _size(eqn.outvars[0]) * width


def _size(value: Any) -> int:
    """Elements of an array."""
    size: int = math.prod(value.aval.shape)
    return size


def _inner(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """The programs an equation calls."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _name(program: Callable[..., Any]) -> str:
    return getattr(program, "__name__", "the program")
